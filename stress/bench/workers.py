"""A crew of processes that increment one counter together: all start at one instant and stop at one deadline.

Each worker opens its store, reports that it is ready, gets the start and the deadline (`time.monotonic`, one clock for
all processes), and reports when each of its operations began and ended.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from array import array
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

from .peers import COUNTER, LOCK_TIMEOUT, AsyncStore, Store, SyncStore

P = ParamSpec("P")
T = TypeVar("T")

SPAWN = multiprocessing.get_context("spawn")
START_DELAY = 0.05
"""Seconds from the moment all are ready, so that even the last one to be told starts in time."""


@dataclass(frozen=True)
class Window:
    """The moment to begin, and the moment after which no operation begins."""

    start: float
    deadline: float

    def wait(self) -> None:
        """Sleep until the start."""
        time.sleep(max(0.0, self.start - time.monotonic()))


@dataclass(frozen=True)
class Tally:
    """The acknowledged operations of one worker, as `time.monotonic` saw them."""

    begins: array[float] = field(default_factory=lambda: array("d"))
    ends: array[float] = field(default_factory=lambda: array("d"))

    def add(self, begin: float, end: float) -> None:
        """Record one operation."""
        self.begins.append(begin)
        self.ends.append(end)

    def waits(self) -> list[float]:
        """Return how long each operation took, in seconds."""
        return [end - begin for begin, end in zip(self.begins, self.ends, strict=True)]


def _straight(store: SyncStore, window: Window) -> Tally:
    """Increment in a plain loop, as a worker without asyncio does."""
    tally = Tally()
    window.wait()
    while (begin := time.monotonic()) < window.deadline:
        store.incr(COUNTER)
        tally.add(begin, time.monotonic())
    return tally


async def _by_tasks(incr: Callable[[], Awaitable[int]], tasks: int, window: Window) -> Tally:
    """Increment from many tasks of one loop."""
    tally = Tally()

    async def task() -> None:
        while (begin := time.monotonic()) < window.deadline:
            await incr()
            tally.add(begin, time.monotonic())

    window.wait()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(task())
    return tally


def _run(store: Store, tasks: int, window: Window) -> Tally:
    """Increment in the way that suits the store: a blocking one gets threads only if there are several tasks."""
    match store:
        case AsyncStore():
            return asyncio.run(_by_tasks(partial(store.incr, COUNTER), tasks, window))
        case SyncStore() if tasks > 1:
            return asyncio.run(_by_tasks(partial(asyncio.to_thread, store.incr, COUNTER), tasks, window))
        case SyncStore():
            return _straight(store, window)
        case _:
            msg = f"{type(store).__name__} is neither a SyncStore nor an AsyncStore"
            raise TypeError(msg)


def _work(pipe: Connection, open_store: Callable[[], Store], tasks: int) -> None:
    """Do the part of one worker; runs in its process."""
    store = open_store()
    pipe.send(None)
    tally = _run(store, tasks, pipe.recv())
    store.close()
    pipe.send(tally)


def _receive(pipe: Connection, patience: float) -> Tally | None:
    """Return the next message of a worker.

    Raises:
        EOFError: it died; its traceback is on stderr.
        TimeoutError: it was silent for so long that it must hang.
    """
    if not pipe.poll(patience):
        msg = f"a worker was silent for {patience:.0f} seconds"
        raise TimeoutError(msg)
    message = pipe.recv()
    assert message is None or isinstance(message, Tally)
    return message


def run_crew(
    open_store: Callable[[], Store], *, processes: int, tasks: int, seconds: float
) -> tuple[Window, list[Tally]]:
    """Let processes increment, with this number of tasks each; return the time window, and a tally per process."""
    with ExitStack() as cleanup:
        pipes = []
        for _ in range(processes):
            ours, theirs = SPAWN.Pipe()
            worker = SPAWN.Process(target=_work, args=(theirs, open_store, tasks))
            worker.start()
            theirs.close()
            cleanup.callback(worker.join)
            cleanup.callback(worker.kill)  # runs before the join, and does nothing to a process that has ended
            pipes.append(cleanup.enter_context(ours))
        for pipe in pipes:
            _receive(pipe, LOCK_TIMEOUT)
        start = time.monotonic() + START_DELAY
        window = Window(start, start + seconds)
        for pipe in pipes:
            pipe.send(window)
        answers = [_receive(pipe, seconds + LOCK_TIMEOUT) for pipe in pipes]
        return window, [tally for tally in answers if tally is not None]


def in_fresh_process(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a new interpreter and return its result, or raise its error here."""
    with ProcessPoolExecutor(max_workers=1, mp_context=SPAWN) as executor:
        return executor.submit(function, *args, **kwargs).result()
