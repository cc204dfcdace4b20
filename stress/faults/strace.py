"""System calls of a running process: observed, failed or made deadly by strace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CHANGING = (
    *("openat", "write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2"),
    *("link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "fchmod", "fchown", "fsetxattr", "fremovexattr"),
    *("flock", "close"),
)
"""Calls that may change something in a file system, or who may use it."""
LOOKING = ("read", "pread64", "lseek", "fstat", "newfstatat", "statx", "getxattr", "fgetxattr", "getdents64")
"""Calls that change nothing, but may fail."""
CALLS = CHANGING + LOOKING
END_LIMIT = 10.0
"""Seconds after which strace, asked to detach from a process, is killed."""


class CannotTraceError(Exception):
    """strace may not, or cannot, attach."""


@dataclass(frozen=True, slots=True)
class Call:
    """One observed system call."""

    name: str
    text: str
    """The call, its arguments with the paths of descriptors, and its result."""
    thread: str

    @property
    def injected(self) -> bool:
        """Whether its result is an injected fault."""
        return "(INJECTED)" in self.text

    @property
    def on(self) -> str:
        """The first descriptor with its path, or the first path."""
        found = re.search(r'<([^>]*)>|"([^"]*)"', re.sub(r"AT_FDCWD<[^>]*>", "", self.text))
        return (found[1] or found[2] or "") if found else ""


class Trace:
    """strace, attached to a process for the length of a block.

    Args:
        pid: the process; all its threads are traced.
        log: the file that strace writes.
        inject: the fault, in strace's syntax.
        path: the file or directory whose calls are observed, counted and faulted; if there is none, all calls are.
    """

    def __init__(self, pid: int, log: Path, inject: str | None = None, path: Path | None = None) -> None:
        """Prepare the command; nothing is attached yet."""
        self._log = log
        self._command = ["strace", "-f", "-y", "-s", "0", "-p", str(pid), "-o", str(log)]
        self._command += ["-e", "trace=" + ",".join(f"?{call}" for call in CALLS), "-e", "signal=STOP"]
        self._command += ["-e", f"inject={inject}"] if inject else []
        self._command += ["-P", str(path)] if path else []

    def __enter__(self) -> Self:
        """Attach.

        Raises:
            CannotTraceError: strace says why.
        """
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline().decode(errors="replace")
        if "attached" not in line:
            self._process.kill()
            self._process.communicate()
            raise CannotTraceError(line.strip() or "strace said nothing")
        return self

    def __exit__(self, *_: object) -> None:
        """Detach from the process, if it lives."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=END_LIMIT)
        self._process.kill()
        self._process.communicate()

    @property
    def has_stopped(self) -> bool:
        """Whether the process has been stopped by SIGSTOP."""
        return "--- stopped by SIGSTOP ---" in self._log.read_text(encoding="utf-8", errors="replace")

    def calls(self) -> Sequence[Call]:
        """Return the observed calls, after the block; a call that another thread cut in two is joined."""
        calls, begun = [], {}
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            thread, _, text = line.partition(" ")
            text = text.strip()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
                continue
            if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
                text = begun.pop(thread, "") + text[resumed.end() :]
            if name := re.match(r"(\w+)\(", text):
                calls.append(Call(name[1], text, thread))
        return calls


def most_in_a_thread(calls: Sequence[Call]) -> Counter[str]:
    """Return how often each call was made by the thread that made most of them: strace counts by thread."""
    most: Counter[str] = Counter()
    for (name, _), times in Counter((call.name, call.thread) for call in calls).items():
        most[name] = max(most[name], times)
    return most


def missing() -> tuple[str, str] | None:
    """Return what this machine lacks for tracing, and how to get it."""
    if shutil.which("strace") is None:
        return "strace is not installed", "apt-get install strace"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            with Trace(process.pid, Path(os.devnull)):
                return None
        except CannotTraceError as error:
            return f"strace cannot trace: {error}", "run as root with CAP_SYS_PTRACE (docker: --cap-add SYS_PTRACE)"
        finally:
            process.kill()
