"""A process whose threads hammer one file, each in its own way. `python -m stress.children.threads ASSIGNMENT`.

Some threads have their own contexts, some share one, and two run event loops with contexts of the other face. The
operations of all of them compete, and the library has to coordinate them within the process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

from persistent_context import PersistentContext, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.children.faces import LOCK_TIMEOUT, Context, ThreadedContext
from stress.children.steps import ON_COUNTERS, ON_LISTS, ON_OWN_KEYS, ON_REGISTERS, Hand
from stress.documents.threaded import COUNTERS, LISTS, REGISTERS, own_key
from stress.logs.history import Log
from stress.logs.scribe import Desk, Scribe

ALONE = 3
"""Threads that have their own context."""
SHARING = 3
"""Threads that share one."""
LOOPS = 2
TASKS = 3
"""Tasks in each loop, which share a context."""


class Crowd:
    """The threads of the process."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._path = assignment.own_location
        self._desk = desk

    def run(self) -> None:
        """Act until asked to stop."""
        shared = self._open_blocking()
        acting = [self._act(f"alone{number}", self._open_blocking(), self._open_threaded) for number in range(ALONE)]
        acting += [self._act(f"sharing{number}", shared, self._open_threaded) for number in range(SHARING)]
        acting += [self._run_loop(f"loop{number}") for number in range(LOOPS)]
        with ThreadPoolExecutor(len(acting)) as pool:
            for _ in pool.map(asyncio.run, acting):
                pass

    async def _run_loop(self, name: str) -> None:
        """Let the tasks of one loop act."""
        context = await self._open()
        await asyncio.gather(*(self._act(f"{name}-{number}", context, self._open) for number in range(TASKS)))

    async def _act(self, name: str, context: Context, fresh: Callable[[], Awaitable[Context]]) -> None:
        """Act until asked to stop."""
        random = Random(f"{self._assignment.seed} {self._assignment.name} {name}")
        hand = Hand(Scribe(self._desk, f"{self._assignment.name}.{name}"), random, context, fresh)
        while not self._desk.stop.is_set():
            match random.randrange(4):
                case 0:
                    await random.choice(ON_COUNTERS)(hand, random.choice(COUNTERS))
                case 1:
                    await random.choice(ON_LISTS)(hand, random.choice(LISTS))
                case 2:
                    await random.choice(ON_OWN_KEYS)(hand, own_key(hand.scribe.name))
                case _:
                    await random.choice(ON_REGISTERS)(hand, random.choice(REGISTERS))
            await asyncio.sleep(0)

    def _open_blocking(self) -> Context:
        return ThreadedContext(SyncPersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT))

    async def _open_threaded(self) -> Context:
        return self._open_blocking()

    async def _open(self) -> Context:
        return await PersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT)


def main() -> int:
    """Work as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "threads", prepare(assignment))
    Crowd(assignment, desk).run()
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
