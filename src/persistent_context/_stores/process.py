"""Processes as they describe themselves where others can read it: the holder of a lock, dead or alive.

Such a description is untrusted: it is checked and shown, but never relied on for locking.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from ..types import Holder

_LONGEST_NAME: Final = 64
_STOPPED: Final = "T"  # not "t", stopped by a tracer: under strace that is temporary, and SIGCONT does not end it
_DEAD: Final = ("Z", "X")  # a zombie holds no locks


def holder_from(content: Any) -> Holder | None:
    """Return the holder that a process has described; None if it is dead, an empty one if the format is foreign.

    Args:
        content: what :func:`describe_this_process` returned there, with the keys ``since`` (in seconds since the Unix
            epoch) and ``for`` (the purpose).
    """
    try:
        pid, host, since, purpose = content["pid"], content["host"], content["since"], content["for"]
        start, space = content["start"], content["space"]
    except (LookupError, TypeError):
        return Holder()
    if not (
        type(pid) is int
        and 0 < pid < 2**31
        and isinstance(host, str)
        and isinstance(since, int | float)
        and isinstance(purpose, str)
    ):
        return Holder()
    if not 0 <= since < 2**33:
        return Holder()
    here = describe_this_process(os.getpid())
    verified = (host, space) == (here["host"], here["space"])
    if verified and not _is_alive(pid, start):
        return None
    stopped = verified and _is_stopped(pid)
    return Holder(pid, host[:_LONGEST_NAME], float(since), purpose[:_LONGEST_NAME], verified, stopped)


@functools.lru_cache(maxsize=1)
def describe_this_process(pid: int) -> Mapping[str, Any]:
    """Return the description of this process, which has this ID: an ID alone is ambiguous across hosts and reboots."""
    process = _process(pid)
    return {
        "pid": pid,
        "start": process and process[1],
        "host": socket.gethostname()[:_LONGEST_NAME],
        "space": _pid_space(),
    }


def _pid_space() -> str | None:
    """Return the identity of the process ID space: the boot, and the namespace within it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and its start time in ticks since boot, or None if unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int, start: object) -> bool:
    if process := _process(pid):
        return process[0] not in _DEAD and process[1] == start
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not os.path.exists("/proc/self/stat")


def _is_stopped(pid: int) -> bool:
    process = _process(pid)
    return process is not None and process[0] == _STOPPED
