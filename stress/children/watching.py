"""A process whose threads and event loops watch a file of many pages. `python -m stress.children.watching ASSIGNMENT`.

Threads share one context of the synchronous face; two event loops, each in its own thread, have one each. All of them
write, all check that the permanent keys are there, and each of the three contexts has a watcher.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, TypeAlias

from persistent_context import Change, PersistentContext, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.children.faces import LOCK_TIMEOUT, Context, ThreadedContext
from stress.children.steps import ON_COUNTERS, Hand
from stress.documents.watched import COUNTERS, DONE, FILLER, FILLERS, LATEST, filler
from stress.logs.history import Log
from stress.logs.scribe import Desk, Scribe

TASKS = 3
"""On each context."""
LOOPS = ("loop0", "loop1")
THREADS = "threads"
WATCHED = (*COUNTERS, *LATEST, DONE)
PAUSE = 0.01
"""Mean seconds between two operations: rewriting many pages uses processor time that other workloads need too."""

Step: TypeAlias = "Callable[[Hand], Awaitable[None]]"


async def count(hand: Hand) -> None:
    """Increment, atomically or in a transaction."""
    await hand.random.choice(ON_COUNTERS)(hand, hand.random.choice(COUNTERS))


async def put(hand: Hand) -> None:
    """Set a value in memory, and save."""
    with hand.scribe.operation("put", hand.random.choice(LATEST)) as entry:
        hand.context.set(entry.key, entry.token)
        await hand.context.save()
        entry.result = entry.token


async def swap(hand: Hand) -> None:
    """Replace a value, unless it was changed after it was read."""
    with hand.scribe.operation("swap", hand.random.choice(LATEST)) as entry:
        expected = (await hand.fresh()).get(entry.key)
        swapped = await hand.context.compare_and_set(entry.key, expected, entry.token)
        entry.result = entry.token if swapped else None


async def claim(hand: Hand) -> None:
    """Try to create a key that exists: this writes nothing, so it must not count as the context's own write."""
    with hand.scribe.operation("claim", hand.random.choice(LATEST)) as entry:
        entry.result = entry.token if await hand.context.add(entry.key, entry.token) else None


async def edit(hand: Hand) -> None:
    """Make a value longer or shorter, so that pages are cut differently."""
    with hand.scribe.operation("edit", filler(hand.random.randrange(FILLERS))) as entry:
        length = hand.random.randint(1, 2 * FILLER)
        await hand.context.mutate(entry.key, lambda old: (old + old)[:length] or "-", default="")


async def look(hand: Hand) -> None:
    """Look, through another context, for a permanent key."""
    with hand.scribe.operation("look", filler(hand.random.randrange(FILLERS))) as entry:
        entry.result = (await hand.fresh()).get(entry.key) is not None


async def look_exclusively(hand: Hand) -> None:
    """Look for a permanent key in a transaction."""
    with hand.scribe.operation("look_exclusively", filler(hand.random.randrange(FILLERS))) as entry:
        async with hand.context.transaction() as tx:
            entry.result = tx.get(entry.key) is not None


STEPS: tuple[Step, ...] = (count, count, count, put, swap, claim, edit, look, look, look_exclusively)


class Site:
    """The process: its contexts, and the tasks and threads that act on and watch them."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._path = assignment.own_location
        self._desk = desk
        self._parts = len((*LOOPS, THREADS))
        self._acted = threading.Semaphore(0)
        """Released by each part that will not write any more."""

    def run(self) -> None:
        """Act until asked to stop, and watch until all such processes have said that they will not write any more."""
        with ThreadPoolExecutor(self._parts + 1) as pool:
            parts = [pool.submit(asyncio.run, self._run_loop(name)) for name in LOOPS]
            parts += [pool.submit(self._run_threads), pool.submit(self._tell_that_all_have_acted)]
            for part in parts:
                part.result()

    def _tell_that_all_have_acted(self) -> None:
        for _ in range(self._parts):
            self._acted.acquire()
        with self._scribe("end").operation("incr", DONE) as entry:
            entry.result = self._open_blocking().incr(DONE)

    async def _run_loop(self, name: str) -> None:
        """Let tasks act, and one watch."""
        context = await PersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT)
        watcher = asyncio.create_task(self._watch(name, context))
        try:
            await asyncio.gather(*(self._act(f"{name}-{number}", context, self._open) for number in range(TASKS)))
        finally:
            self._acted.release()
        await asyncio.wait([watcher], timeout=self._assignment.patience)
        if not watcher.done():
            watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self, name: str, context: PersistentContext) -> None:
        scribe = self._scribe(f"{name}-watcher")
        scribe.interruptions = (asyncio.CancelledError,)
        with scribe.operation("watch", DONE):
            async for changes in context.watch(*WATCHED):
                if self._is_last(scribe, changes):
                    return

    def _run_threads(self) -> None:
        """Let threads that share a context act, and one watch."""
        context = self._open_blocking()
        watch = context.watch(*WATCHED)
        watcher = threading.Thread(target=self._watch_blocking, args=(watch,))
        watcher.start()
        threaded = ThreadedContext(context)
        try:
            with ThreadPoolExecutor(TASKS) as pool:
                acting = [self._act(f"{THREADS}-{number}", threaded, self._open_threaded) for number in range(TASKS)]
                for _ in pool.map(asyncio.run, acting):
                    pass
        finally:
            self._acted.release()
        watcher.join(self._assignment.patience)
        watch.close()
        watcher.join()

    def _watch_blocking(self, watch: Any) -> None:
        scribe = self._scribe(f"{THREADS}-watcher")
        scribe.interruptions = (TimeoutError,)
        try:
            with scribe.operation("watch", DONE):
                for changes in watch:
                    if self._is_last(scribe, changes):
                        return
                raise TimeoutError  # noqa: TRY301 - the watch was closed
        except TimeoutError:
            pass

    def _is_last(self, scribe: Scribe, changes: Mapping[str, Change]) -> bool:
        """Log what a watcher is told; return whether all work is done."""
        for key, change in changes.items():
            with scribe.operation("told", key) as entry:
                entry.result = change.new
        return DONE in changes and changes[DONE].new == self._assignment.peers

    async def _act(self, name: str, context: Context, fresh: Callable[[], Awaitable[Context]]) -> None:
        """Act until asked to stop."""
        random = Random(f"{self._assignment.seed} {self._assignment.name} {name}")
        hand = Hand(self._scribe(name), random, context, fresh)
        while not self._desk.stop.is_set():
            await random.choice(STEPS)(hand)
            await asyncio.sleep(PAUSE * random.uniform(0.0, 2.0))

    def _scribe(self, name: str) -> Scribe:
        return Scribe(self._desk, f"{self._assignment.name}.{name}")

    def _open_blocking(self) -> SyncPersistentContext:
        return SyncPersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT)

    async def _open_threaded(self) -> Context:
        return ThreadedContext(self._open_blocking())

    async def _open(self) -> Context:
        return await PersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT)


def main() -> int:
    """Work as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "watching", prepare(assignment))
    Site(assignment, desk).run()
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
