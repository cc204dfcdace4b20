"""A process that runs for long while its keys come and go. `python -m stress.children.jobs ASSIGNMENT`.

A queue of jobs, tens of thousands of them, each under a random key that is put into the file and taken out again.
Nothing of them may be left, in the file or in memory, which is measured whenever no job is in flight.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from random import Random
from typing import TypeAlias

from persistent_context import MISSING, PersistentContext, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.children.faces import LOCK_TIMEOUT
from stress.children.memory import measure
from stress.logs.history import Log
from stress.logs.scribe import Desk, Scribe

LANES = 100
"""Jobs in flight at the same time, which share their cycles."""
JOBS = 10
"""Jobs of each lane, between one measurement of the memory and the next."""
KEPT = 20
"""Jobs that are never taken out again: the first one of each of so many lanes."""
PAYLOAD = 400
"""Characters."""
COUNT = "jobs/count"

Stage: TypeAlias = "Callable[[PersistentContext, str, str], Awaitable[object]]"


async def add(context: PersistentContext, key: str, payload: str) -> object:
    """Put a job by `add`, which must find no such key."""
    return await context.add(key, payload)


async def expect_missing(context: PersistentContext, key: str, payload: str) -> object:
    """Put a job by comparing it with absence."""
    return await context.compare_and_set(key, MISSING, payload)


async def put(context: PersistentContext, key: str, payload: str) -> object:
    """Set a job in memory, and save."""
    context[key] = payload
    await context.save()
    return True


async def expect(context: PersistentContext, key: str, payload: str) -> object:
    """Take a job by comparing it with what was put."""
    return await context.compare_and_set(key, payload, MISSING)


async def change_and_expect(context: PersistentContext, key: str, payload: str) -> object:
    """Note that a job is running, and then take it."""
    running = await context.mutate(key, lambda old: f"{old} is running")
    return running == f"{payload} is running" and await context.compare_and_set(key, running, MISSING)


async def pop(context: PersistentContext, key: str, payload: str) -> object:
    """Take a job in a transaction."""
    async with context.transaction() as tx:
        taken = _pop(tx, key)
    return taken == payload


async def delete(context: PersistentContext, key: str, payload: str) -> object:
    """Delete a job from memory, where it is either since it was put or from a save, and save."""
    await context.save()
    taken = _pop(context, key)
    await context.save()
    return taken == payload


PUTS: tuple[Stage, ...] = (add, expect_missing, put)
TAKES: tuple[Stage, ...] = (expect, expect, expect, change_and_expect, delete)
SELDOM: Stage = pop
"""A transaction has a whole cycle, so there are few of them."""


def _pop(mapping: MutableMapping[str, object], key: str) -> object:
    return mapping.pop(key, None)


class Queue:
    """The queue, and its workers."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._desk = desk
        self._path = assignment.own_location
        self._random = Random(f"{assignment.seed} {assignment.name}")
        self._scribes = [Scribe(desk, f"{assignment.name}.lane{number}") for number in range(LANES)]
        self._done = 0

    async def run(self) -> None:
        """Put and take jobs until asked to stop."""
        # Durability is not what this workload tests, and without it there are more jobs.
        mine, others, idle = [
            await PersistentContext.create(self._path, durable=False, lock_timeout=LOCK_TIMEOUT) for _ in range(3)
        ]
        blocking = SyncPersistentContext.create(self._path, durable=False, lock_timeout=LOCK_TIMEOUT)
        watcher = asyncio.create_task(_watch(idle))
        for scribe in self._scribes[:KEPT]:
            await self._keep(scribe, mine)
        while not self._desk.stop.is_set():
            lanes = [self._lane(scribe, self._random.choice([mine, others])) for scribe in self._scribes]
            await asyncio.gather(*lanes, asyncio.to_thread(self._blocking_lane, blocking))
            with self._scribes[0].operation("count", COUNT) as entry:
                entry.result = await idle.incr(COUNT)
            for context in (mine, others, idle):
                await context.save()
            with self._scribes[0].operation("measure", "memory") as entry:
                entry.result = {"jobs": self._done, **measure().told()}
        watcher.cancel()

    async def _keep(self, scribe: Scribe, context: PersistentContext) -> None:
        """Put a job that stays."""
        with scribe.operation("keep", self._name()) as entry:
            await put(context, entry.key, entry.token)

    async def _lane(self, scribe: Scribe, context: PersistentContext) -> None:
        """Put and take some jobs, one after the other."""
        for number in range(JOBS):
            if self._desk.stop.is_set():
                return
            puts, takes = self._random.choice(PUTS), self._random.choice(TAKES)
            take = SELDOM if scribe is self._scribes[number] else takes
            with scribe.operation("job", self._name()) as entry:
                payload = entry.token.ljust(PAYLOAD, ".")
                entry.result = [await puts(context, entry.key, payload), await take(context, entry.key, payload)]
            self._done += 1

    def _blocking_lane(self, context: SyncPersistentContext) -> None:
        """Do the same without a loop."""
        scribe = Scribe(self._desk, f"{self._assignment.name}.blocking{self._done}")
        for _ in range(JOBS):
            with scribe.operation("job", self._name()) as entry:
                added = context.add(entry.key, entry.token)
                entry.result = [added, context.compare_and_set(entry.key, entry.token, MISSING)]
            self._done += 1

    def _name(self) -> str:
        return f"jobs/{self._random.getrandbits(64):016x}"


async def _watch(context: PersistentContext) -> None:
    """Watch keys come and go, and remember nothing."""
    async for _ in context.watch():
        pass


def main() -> int:
    """Work as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "jobs", prepare(assignment))
    asyncio.run(Queue(assignment, desk).run())
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
