"""The loop's default executor, with the daemon pool in its place while it is full or cannot start a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from .._engine.worker import run_in_pool

T = TypeVar("T")

SOON_SECONDS: Final = 0.05
"""How soon the default executor must begin a job before a pool thread does it instead."""


class PatientExecutor:
    """Runs functions in the default executor of a loop, or in the pool if the executor does not begin them soon.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._unstarted: asyncio.Future[Any] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in another thread; if cancelled after it has begun, it keeps running."""
        if self._unstarted is not None and not self._unstarted.done():
            return await run_in_pool(function)
        once: deque[Callable[[], T]] = deque([function])
        try:
            job = self._loop.run_in_executor(None, _run_once, once)
        except RuntimeError:
            if _executors_work():  # but this one was shut down
                raise
            return function()
        try:
            await asyncio.wait((job,), timeout=SOON_SECONDS)
        except asyncio.CancelledError:
            job.cancel()
            raise
        if not once:
            return await job  # type: ignore[return-value]  # it took the function
        once.clear()
        self._unstarted = job
        return await run_in_pool(function)


def _run_once(once: deque[Callable[[], T]]) -> T | None:
    """Run a function, unless another thread has taken it."""
    try:
        function = once.pop()
    except IndexError:
        return None
    return function()


def _executors_work() -> bool:
    """Whether a new executor would accept a job: false at interpreter exit, or if no thread can be started."""
    executor = ThreadPoolExecutor(1)
    try:
        executor.submit(int)
    except RuntimeError:
        return False
    finally:
        executor.shutdown(wait=False)
    return True
