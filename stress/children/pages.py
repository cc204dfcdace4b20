"""A process that makes changes all over a file of many pages. `python -m stress.children.pages ASSIGNMENT`.

Values grow, shrink, come and go on every page, some of them in bundles whose keys are on pages far from each other. A
loop and threads of the process share what the library knows of the file, and now and then a thread that uses only
`filelock` and `json` rewrites it in another layout. The process may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

from filelock import FileLock, Timeout

from persistent_context import PersistentContext, SyncPersistentContext
from stress.children import foreign
from stress.children.assignment import Assignment, prepare
from stress.children.faces import LOCK_TIMEOUT, Context, ThreadedContext
from stress.children.steps import ON_REGISTERS, Hand, exchange, read, read_exclusively, survey, write
from stress.documents.paged import ALL, BOUND, REGISTERS
from stress.logs.history import Log
from stress.logs.scribe import REFUSALS, Desk, Scribe

TASKS = 4
CONTEXTS = 2
"""Contexts that the tasks share. Each thread has its own."""
THREADS = 2
ALL_SHARE = 0.05
"""The part of the operations that read all registers."""
BOUND_SHARE = 0.25
"""The part of the others that are on bundles."""
ON_BUNDLES = (read, read_exclusively, exchange, write)
HOT = 20
"""Registers of one key, all over the file, that half of the operations on such registers use."""
PAUSE = 0.05
"""Mean seconds between two operations: writing a long file uses processor time that other workloads need too."""
REWRITE_EVERY = 2.0
"""Mean seconds between two changes of the layout by each process."""


class Site:
    """The process: its contexts, and the tasks and threads that act on them."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._path = str(assignment.own_state)
        self._desk = desk

    def run(self) -> None:
        """Act until asked to stop."""
        with ThreadPoolExecutor(THREADS + 2) as pool:
            parts = [pool.submit(asyncio.run, self._run_tasks()), pool.submit(self._rewrite)]
            parts += [pool.submit(asyncio.run, self._run_thread(number)) for number in range(THREADS)]
            for part in parts:
                part.result()

    async def _run_tasks(self) -> None:
        contexts = [await self._open() for _ in range(CONTEXTS)]
        acting = [self._act(f"task{number}", contexts[number % CONTEXTS], self._open) for number in range(TASKS)]
        await asyncio.gather(*acting)

    async def _run_thread(self, number: int) -> None:
        await self._act(f"thread{number}", await self._open_threaded(), self._open_threaded)

    async def _act(self, name: str, context: Context, fresh: Callable[[], Awaitable[Context]]) -> None:
        """Act until asked to stop."""
        random = self._random(name)
        hand = Hand(Scribe(self._desk, f"{self._assignment.name}.{name}"), random, context, fresh)
        while not self._desk.stop.is_set():
            if random.random() < ALL_SHARE:
                await survey(hand, ALL, "pages")
            elif random.random() < BOUND_SHARE:
                await random.choice(ON_BUNDLES)(hand, random.choice(BOUND))
            else:
                await random.choice(ON_REGISTERS)(hand, random.choice(random.choice([REGISTERS, REGISTERS[:HOT]])))
            await asyncio.sleep(PAUSE * random.uniform(0.0, 2.0))

    def _rewrite(self) -> None:
        """Write the same content in another layout, without the library, again and again."""
        random = self._random("foreign")
        scribe = Scribe(self._desk, f"{self._assignment.name}.foreign", (*REFUSALS, Timeout))
        lock = FileLock(f"{self._path}.lock")
        while not self._desk.stop.wait(REWRITE_EVERY * random.uniform(0.5, 1.5)):
            with scribe.operation("rewrite", "pages"), lock.acquire(foreign.PATIENCE, foreign.POLL):
                foreign.rewrite(self._assignment.own_state, random.choice(foreign.LAYOUTS), lambda _: None)

    def _random(self, name: str) -> Random:
        return Random(f"{self._assignment.seed} {self._assignment.name} {name}")

    async def _open(self) -> Context:
        return await PersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT)

    async def _open_threaded(self) -> Context:
        return ThreadedContext(SyncPersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT))


def main() -> int:
    """Work as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "pages", prepare(assignment))
    Site(assignment, desk).run()
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
