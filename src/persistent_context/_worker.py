"""Daemon threads that run jobs, one pool for the whole process: they never keep the interpreter from exiting."""

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
"""How often a thread goes on waiting for a job that somebody was about to hand over."""


class DaemonPool:
    """Threads that are started when there is a job and none of them is idle, and end when they were idle for a second.

    ``submit`` may be called from a signal handler or a finalizer, even in the midst of another ``submit`` in the same
    thread: every step is one operation that the interpreter does not interrupt, and none waits for a lock.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child, which has none of its parent's threads."""
        self._jobs: SimpleQueue[tuple[str, Job]] = SimpleQueue()
        self._idle: deque[None] = deque()  # one entry for each thread that nobody counts on

    def submit(self, job: Job, name: str) -> bool:
        """Have a job run; it must not raise.

        Args:
            job: the job.
            name: what its thread is called while it runs.

        Returns:
            Whether there is a thread to run it: none can be started at the interpreter's exit, for one.
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
        """Start a thread in the sight of ``threading``.

        ``Thread.start`` waits for the new thread, which may need a lock that the caller of ``submit`` holds. So it is
        this thread that waits, and the caller does not.
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
            del task, job  # and with it what the job refers to, while waiting for the next one
            self._idle.append(None)

    def _next(self) -> tuple[str, Job] | None:
        for _ in range(_IDLE_AT_MOST):
            try:
                return self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                with contextlib.suppress(IndexError):  # nothing to take back: somebody counts on a thread
                    self._idle.pop()
                    break
        return None


pool: Final = DaemonPool()

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=pool.forget)


async def run_in_pool(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread of the pool, whatever the default executor is busy with. Cancelling leaves it behind.

    Where no thread can be started, it is run here.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    if not pool.submit(partial(_run_for, loop, future, function, args), "persistent_context"):
        return function(*args)
    return await future


def _run_for(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], function: Callable[..., T], args: tuple[Any, ...]
) -> None:
    error: BaseException | None = None
    result: T | None = None
    try:
        result = function(*args)
    except BaseException as raised:  # noqa: BLE001 - it is the caller's
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits any more
        loop.call_soon_threadsafe(_set, future, result, error)


def _set(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # it was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
