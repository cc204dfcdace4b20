"""A process that starts such programs, one after the other. `python -m stress.children.ending ASSIGNMENT`.

Each is a forked child of this process, which has no threads and has used no context: the child stands in for an
interpreter that was just started, at a small part of the cost, and exits as one does.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from stress.children.assignment import SHOW_STACKS, Assignment, prepare_stacks
from stress.children.ending.blocking import BLOCKING
from stress.children.ending.program import Program
from stress.children.ending.tasks import TASKS
from stress.children.patience import PATIENCE_PER_WORKER
from stress.logs.history import Kind, Log

AT_A_TIME = 3
LOOK_EVERY = 0.02
"""Seconds."""
WAYS: tuple[Callable[[Program], None], ...] = (*TASKS, *BLOCKING)


@dataclass(frozen=True, slots=True)
class Running:
    """A program that has not ended yet."""

    pid: int
    name: str
    deadline: float


class Starter:
    """Starts programs, each in its own place, and waits for them to end."""

    def __init__(self, assignment: Assignment) -> None:
        """Prepare; no program is started yet."""
        self._assignment = assignment
        self._patience = assignment.patience + PATIENCE_PER_WORKER * assignment.workers
        self._log = Log(assignment.log)
        self._random = Random(f"{assignment.seed} {assignment.name}")
        self._running: list[Running | None] = [None] * AT_A_TIME
        self._started = 0

    def run(self) -> Callable[[], None] | None:
        """Work until asked to stop. Return what is left to do: in a forked child its program, else nothing."""
        while not select.select([0], [], [], LOOK_EVERY)[0]:
            for place, running in enumerate(self._running):
                if (running is None or self._has_ended(running)) and (begun := self._start(place)):
                    return begun
        while any(running and not self._has_ended(running) for running in self._running):
            time.sleep(LOOK_EVERY)
        return None

    def _start(self, place: int) -> Callable[[], None] | None:
        """Fork a program; in the child, return its function."""
        name = f"{self._assignment.place}.{self._started}"
        way = WAYS[self._started % len(WAYS)]
        self._started += 1
        self._log.write(
            Kind.INVOKE, id=f"{name}.end.0", workload="ending", name=way.__name__, key=self._assignment.place
        )
        pid = os.fork()
        if not pid:
            keys = f"ending/{self._assignment.place}/{place}"
            random = Random(f"{self._assignment.seed} {name}")
            program = Program(self._assignment.location(), name, keys, random, self._log)
            return lambda: way(program)
        self._running[place] = Running(pid, name, time.monotonic() + self._patience)
        return None

    def _has_ended(self, running: Running) -> bool:
        """Return whether a program has ended; one that takes too long dumps its stacks, and is killed."""
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self._tell(running, f"it ended with {code}" if code else "")
        elif time.monotonic() > running.deadline:
            self._kill(running.pid)
            self._tell(running, f"it did not end in {self._patience:g} s: {self._assignment.stacks} shows where it was")
        else:
            return False
        self._running[self._running.index(running)] = None
        return True

    def _kill(self, pid: int) -> None:
        os.kill(pid, SHOW_STACKS)
        time.sleep(1)  # the program writes when it gets to it
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _tell(self, running: Running, error: str) -> None:
        """Log that a program is gone, which also ends the operations that it had begun."""
        self._log.write(Kind.KILLED, id=running.name)
        told = {"error": error} if error else {"result": 0}
        self._log.write(Kind.FAIL if error else Kind.OK, id=f"{running.name}.end.0", **told)


def main() -> None:
    """Start programs as the command line says, until asked to stop; or be one of them, and exit as it does."""
    assignment = Assignment.from_command_line()
    prepare_stacks(assignment)
    if program := Starter(assignment).run():
        program()


if __name__ == "__main__":
    main()
