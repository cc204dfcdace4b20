"""A worker process: many tasks or threads, several contexts on the one file. `python -m stress.worker ASSIGNMENT`."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from random import Random

from stress.actor import Actor
from stress.assignment import Assignment, prepare
from stress.faces import Context, open_context, open_threaded_context
from stress.history import Kind, Log
from stress.workloads import WORKLOADS

CONTEXTS = 3
"""Contexts that a worker has on the file, each shared by some of its tasks."""
THREADED = 4
"""Every so many workers, one uses threads and the synchronous face."""


class Worker:
    """One worker process."""

    def __init__(self, assignment: Assignment, log: Log, stop: threading.Event) -> None:
        """Get ready; nothing is opened yet."""
        self._assignment = assignment
        self._log = log
        self._stop = stop

    @property
    def threaded(self) -> bool:
        """Whether it works with threads, not with tasks."""
        return int(self._assignment.place) % THREADED == THREADED - 1

    async def run(self) -> bool:
        """Work until told to stop; return whether the library kept to its contract."""
        opener = partial(open_threaded_context if self.threaded else open_context, str(self._assignment.state))
        contexts = [await opener() for _ in range(CONTEXTS)]
        actors = self._actors(contexts, opener)
        meter = threading.Thread(target=self._meter, args=(contexts[0],), daemon=True)
        meter.start()
        if self.threaded:
            with ThreadPoolExecutor(len(actors)) as pool:
                for _ in pool.map(lambda actor: asyncio.run(actor.act(WORKLOADS)), actors):
                    pass
        else:
            await asyncio.gather(*(actor.act(WORKLOADS) for actor in actors))
        meter.join()
        self._log_commits(contexts[0])
        return not any(actor.crashed for actor in actors)

    def _actors(self, contexts: Sequence[Context], fresh: Callable[[], Awaitable[Context]]) -> list[Actor]:
        return [
            Actor(
                name=(name := f"{self._assignment.name}.{number}"),
                random=Random(f"{self._assignment.seed} {name}"),
                context=context,
                fresh=fresh,
                progress=self._assignment.progress,
                log=self._log,
                stop=self._stop,
            )
            for number, context in enumerate(islice(cycle(contexts), self._assignment.tasks))
        ]

    def _meter(self, context: Context) -> None:
        """Log the number of commits a few times a second: the worker may be killed at any moment."""
        while not self._stop.wait(0.2):
            self._log_commits(context)

    def _log_commits(self, context: Context) -> None:
        self._log.write(Kind.STATISTICS, commits=context.statistics().commits)


def main() -> int:
    """Work as the command line says; return the exit code."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    try:
        return 0 if asyncio.run(Worker(assignment, log, stop).run()) else 1
    except Exception:
        log.write(Kind.CRASH, id=assignment.name, error=traceback.format_exc())
        raise


if __name__ == "__main__":
    sys.exit(main())
