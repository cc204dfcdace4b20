"""The iterator over changes on an event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Self

from .._engine.worker import start_in_pool
from ..errors import ContextUsageError
from ..types import Change
from .watch import Observer, Watch


class AsyncWatch(Watch):
    """The iterator that :meth:`PersistentContext.watch` returns."""

    def __init__(self, path: str, observer: Observer) -> None:
        super().__init__(path, observer)
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Future[None] | None = None  # continues if the call that waits for it is cancelled

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Change]:
        """Wait for the next changes."""
        self._check()
        loop = asyncio.get_running_loop()
        self._enter_loop(loop)
        find = partial(self._follow, partial(_ring, loop, self._rung))
        while not self._closed:
            if self._looking is None:
                self._rung.clear()
                self._looking = start_in_pool(self._observer.look, find)
            looking = self._looking
            try:
                await asyncio.shield(looking)
            finally:
                self._looking = None if looking.done() else looking  # not if this wait is cancelled
            if changes := self._observer.take_changes():
                return changes
            await self._rung.wait()
        raise StopAsyncIteration

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                msg = "this watch belongs to another event loop, which is still open; create one watch per loop"
                raise ContextUsageError(msg).about(self._path)
            self._loop, self._rung, self._looking = loop, asyncio.Event(), None
            self._unsubscribe()

    async def aclose(self) -> None:
        """End the iteration, even for a task waiting for changes. Does not suspend."""
        self._close()
        self._rung.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the watch."""
        await self.aclose()


def _ring(loop: asyncio.AbstractEventLoop, rung: asyncio.Event) -> bool:
    try:
        loop.call_soon_threadsafe(rung.set)
    except RuntimeError:  # the loop was closed
        return False
    return True
