"""A child process, as its supervisor sees it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from stress.children.assignment import SHOW_STACKS, Assignment

ROOT = Path(__file__).parents[2]


class Child:
    """One child process."""

    def __init__(self, module: str, assignment: Assignment) -> None:
        """Start it in its own session, so that Ctrl-C reaches only the supervisor."""
        self.assignment = assignment
        self._alive, inherited = os.pipe()  # reads as ended when the last of the child's own forked children is dead
        with assignment.output.open("xb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, assignment.to_argument()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(inherited,),
                start_new_session=True,
            )
        os.close(inherited)
        self._counted = 0
        self._acknowledged = 0

    @property
    def name(self) -> str:
        """The name of the child in reports."""
        return self.assignment.name

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session and of its process group."""
        return self._process.pid

    @property
    def working(self) -> bool:
        """Whether it has begun to work."""
        log = self.assignment.log
        return log.exists() and log.stat().st_size > 0

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or `None` while it lives."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill it and its forked children with SIGKILL, and wait until all are gone."""
        if not select.select([self._alive], [], [], 0)[0]:
            os.killpg(self.pid, signal.SIGKILL)
            os.read(self._alive, 1)
        self._process.kill()
        self._process.wait()
        os.close(self._alive)
        self.ask_to_stop()  # closes the pipe

    def ask_to_stop(self) -> None:
        """Ask it to finish its operations and end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def last_words(self) -> str:
        """Return its exit code, and the end of what it printed."""
        printed = self.assignment.output.read_text(encoding="utf-8", errors="replace")
        return f"exit code {self.exit_code}\n{printed[-2000:]}"

    def dump_stacks(self) -> Path:
        """Have it and its forked children dump the stacks of their threads; return the file."""
        os.killpg(self.pid, SHOW_STACKS)
        time.sleep(1)  # the child writes when it gets to it
        return self.assignment.stacks

    def acknowledged(self) -> int:
        """Return the number of operations acknowledged so far, for a display."""
        if self.working:
            with self.assignment.log.open("rb") as log:
                log.seek(self._counted)
                added = log.read()
            self._counted += len(added)
            self._acknowledged += added.count(b'{"kind":"ok"')
        return self._acknowledged
