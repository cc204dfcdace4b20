"""Daemon threads that run jobs, one pool per process: they never keep the interpreter from exiting."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Job: TypeAlias = Callable[[], object]

_IDLE_SECONDS: Final = 1.0
_IDLE_AT_MOST: Final = 60
"""How often a thread keeps waiting for a job that is about to be handed over."""


class DaemonPool:
    """Threads that are started when there is a job and none is idle, and end after being idle for a second.

    ``submit`` may be called from a signal handler or finalizer, even in the middle of another ``submit`` in the same
    thread: every step is one operation that the interpreter does not interrupt, and none waits for a lock.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset in a forked child, which has none of its parent's threads."""
        self._jobs: SimpleQueue[tuple[str, Job]] = SimpleQueue()
        self._idle: deque[None] = deque()  # one entry per thread that no job is assigned to

    def submit(self, job: Job, name: str) -> bool:
        """Run a job, which must not raise.

        Args:
            job: the job.
            name: the name of its thread while it runs.

        Returns:
            Whether a thread will run it. At interpreter exit, for example, none can be started.
        """
        try:
            self._idle.pop()
        except IndexError:
            try:
                _thread.start_new_thread(self._start, ())
            except (RuntimeError, MemoryError):
                return False
        self._jobs.put((name, job))
        return True

    def _start(self) -> None:  # pragma: no cover - it runs in a thread that is not traced
        """Start a thread that ``threading`` knows.

        ``Thread.start`` waits for the new thread, which may need a lock that the caller of ``submit`` holds. So this
        thread waits, and the caller does not.
        """
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except (RuntimeError, MemoryError):
            self._run()

    def _run(self) -> None:
        thread = threading.current_thread()
        while (task := self._next()) is not None:
            thread.name, job = task
            job()
            del task, job  # and everything that the job refers to, while waiting for the next one
            self._idle.append(None)

    def _next(self) -> tuple[str, Job] | None:
        for _ in range(_IDLE_AT_MOST):
            try:
                return self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                with contextlib.suppress(IndexError):  # no entry to take back: a job is about to come
                    self._idle.pop()
                    break
        return None


pool: Final = DaemonPool()

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=pool.forget)


async def run_in_pool(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a pool thread, however busy the default executor is. If cancelled, the function keeps running.

    If no thread can be started, it runs here.
    """
    return await start_in_pool(function, *args)


def start_in_pool(function: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
    """Start what :func:`run_in_pool` runs; the future can be awaited more than once."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    if not pool.submit(partial(_run_for, loop, future, function, args), "persistent_context"):
        _run_for(loop, future, function, args)
    return future


def _run_for(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], function: Callable[..., T], args: tuple[Any, ...]
) -> None:
    error: BaseException | None = None
    result: T | None = None
    try:
        result = function(*args)
    except BaseException as raised:  # noqa: BLE001 - raised in the caller
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop was closed, so there is no waiting task
        loop.call_soon_threadsafe(_set, future, result, error)


def _set(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # it was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
