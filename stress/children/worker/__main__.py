"""A worker: many tasks or threads, several contexts on the same file. `python -m stress.children.worker ASSIGNMENT`."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from random import Random

from stress.children.assignment import Assignment, prepare
from stress.children.faces import Context, open_context, open_threaded_context
from stress.children.worker.actor import Actor
from stress.children.worker.cancelling import cancel_now_and_then
from stress.children.worker.forking import Forker
from stress.logs.history import Kind, Log
from stress.workloads import WORKLOADS

CONTEXTS = 3
"""Contexts on the file that the tasks of a loop, or all threads, share; each actor uses some of them."""
LOOPS = 4
"""Event loops in a process that has several."""


class Style(Enum):
    """The way in which a process uses the library."""

    TASKS = 0
    """Tasks of one event loop."""
    LOOPS = 1
    """Threads, each with its own event loop, tasks and contexts."""
    MORE_TASKS = 2
    THREADS = 3
    """Threads that share contexts of the synchronous face."""


class Worker:
    """One worker process."""

    def __init__(self, assignment: Assignment, log: Log, stop: threading.Event) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._log = log
        self._stop = stop
        self._style = Style(int(assignment.place) % len(Style))
        opener = open_threaded_context if self._style is Style.THREADS else open_context
        self._open = partial(opener, assignment.location())
        self._contexts: list[Context] = []
        """All contexts that are open in this process, for forked children to inherit."""
        self._actors: list[Actor] = []

    def run(self) -> bool:
        """Work until asked to stop; return whether the library kept its contract."""
        threaded = self._style is Style.THREADS
        forker = Forker(self._assignment, self._contexts, self._open, self._log, self._stop, threaded=threaded)
        helpers = [threading.Thread(target=self._meter, daemon=True), threading.Thread(target=forker.run, daemon=True)]
        for helper in helpers:
            helper.start()
        seats = range(self._assignment.tasks)
        if self._style is Style.LOOPS:
            parts = [seats[number::LOOPS] for number in range(min(LOOPS, len(seats)))]
            with ThreadPoolExecutor(len(parts)) as pool:
                for _ in pool.map(lambda part: asyncio.run(self._run_tasks(part)), parts):
                    pass
        else:
            asyncio.run(self._run_threads(seats) if threaded else self._run_tasks(seats))
        for helper in helpers:
            helper.join()
        self._log_commits()
        return not forker.crashed and not any(actor.crashed for actor in self._actors)

    async def _run_tasks(self, seats: Sequence[int]) -> None:
        """Let the tasks of this loop act, with contexts of this loop."""
        actors = await self._make_actors(seats)
        canceller = asyncio.create_task(cancel_now_and_then(actors, self._assignment, self._log))
        await asyncio.gather(*(actor.act(WORKLOADS) for actor in actors))
        canceller.cancel()

    async def _run_threads(self, seats: Sequence[int]) -> None:
        """Let threads act, with contexts that they share; each has its own loop, which its calls block."""
        actors = await self._make_actors(seats)
        with ThreadPoolExecutor(len(actors)) as pool:
            for _ in pool.map(lambda actor: asyncio.run(actor.act(WORKLOADS)), actors):
                pass

    async def _make_actors(self, seats: Sequence[int]) -> list[Actor]:
        contexts = [await self._open() for _ in range(min(CONTEXTS, len(seats)))]
        actors = [self._make_actor(seat, contexts[place % len(contexts)]) for place, seat in enumerate(seats)]
        self._contexts += contexts
        self._actors += actors
        return actors

    def _make_actor(self, seat: int, context: Context) -> Actor:
        name = f"{self._assignment.name}.{seat}"
        return Actor(
            name=name,
            random=Random(f"{self._assignment.seed} {name}"),
            context=context,
            fresh=self._open,
            progress=self._assignment.progress,
            log=self._log,
            assignment=self._assignment,
            stop=self._stop,
        )

    def _meter(self) -> None:
        """Log the number of commits a few times a second, since the worker may be killed at any moment."""
        while not self._stop.wait(0.2):
            self._log_commits()

    def _log_commits(self) -> None:
        if self._contexts:
            self._log.write(Kind.STATISTICS, commits=self._contexts[0].statistics().commits)


def main() -> int:
    """Work as the command line says; return the exit code."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    try:
        return 0 if Worker(assignment, log, stop).run() else 1
    except Exception:
        log.write(Kind.CRASH, id=assignment.name, error=traceback.format_exc())
        raise


if __name__ == "__main__":
    sys.exit(main())
