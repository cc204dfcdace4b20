"""The two faces of the library under one set of names, so that each operation is written only once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from persistent_context import Lease, PersistentContext, SyncPersistentContext

LOCK_TIMEOUT = 60.0
"""Seconds. Long enough that a wait which times out is suspicious."""


class Context(Protocol):
    """The methods of a context that the operations use."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value in memory."""

    def set(self, key: str, value: Any, /) -> None:
        """Set the value in memory."""

    def setdefault(self, key: str, default: Any, /) -> Any:
        """Return the value in memory, after setting it if there is none."""

    def pop(self, key: str, default: Any, /) -> Any:
        """Delete the value in memory."""

    async def load(self) -> None:
        """Drop the unsaved changes, and read the file."""

    async def save(self) -> None:
        """Write the unsaved changes."""

    async def incr(self, key: str, /) -> Any:
        """Add one to a number in the file."""

    async def add(self, key: str, value: Any, /) -> bool:
        """Set a key that is not in the file."""

    async def compare_and_set(self, key: str, expected: Any, new: Any, /) -> bool:
        """Set a key that has the expected value in the file."""

    async def mutate(self, key: str, fn: Callable[[Any], Any], /, default: Any = None) -> Any:
        """Replace a value in the file by the result of a function."""

    async def checkpoint(self) -> None:
        """Fold the journal into the file."""

    def transaction(self) -> AbstractAsyncContextManager[MutableMapping[str, Any]]:
        """Begin a transaction."""

    def lease(self, name: str, /) -> AbstractAsyncContextManager[Lease]:
        """Wait for a lease, and hold it."""

    async def compute_once(self, key: str, factory: Callable[[], str], /) -> str:
        """Return a value from the file, computed if there is none."""

    def statistics(self) -> Any:
        """Return the library's own figures."""


async def open_context(path: str) -> Context:
    """Open the file for tasks of one event loop."""
    return await PersistentContext.create(path, lock_timeout=LOCK_TIMEOUT)


async def open_threaded_context(path: str) -> Context:
    """Open the file for threads."""
    return ThreadedContext(SyncPersistentContext.create(path, lock_timeout=LOCK_TIMEOUT))


class ThreadedContext:
    """A `SyncPersistentContext` whose calls can be awaited, for a thread that runs its own loop.

    The calls block that loop, on purpose: the thread has nothing else to do.
    """

    def __init__(self, context: SyncPersistentContext) -> None:
        """Wrap a context."""
        self._context = context
        self.get = context.get
        self.set = context.set
        self.setdefault = context.setdefault
        self.pop = context.pop
        self.statistics = context.statistics

    async def load(self) -> None:
        """Block until it is done."""
        self._context.load()

    async def save(self) -> None:
        """Block until it is done."""
        self._context.save()

    async def incr(self, key: str, /) -> Any:
        """Block until it is done."""
        return self._context.incr(key)

    async def add(self, key: str, value: Any, /) -> bool:
        """Block until it is done."""
        return self._context.add(key, value)

    async def compare_and_set(self, key: str, expected: Any, new: Any, /) -> bool:
        """Block until it is done."""
        return self._context.compare_and_set(key, expected, new)

    async def mutate(self, key: str, fn: Callable[[Any], Any], /, default: Any = None) -> Any:
        """Block until it is done."""
        return self._context.mutate(key, fn, default)

    async def checkpoint(self) -> None:
        """Block until it is done."""
        self._context.checkpoint()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MutableMapping[str, Any]]:
        """Block until it has begun, and until it has ended."""
        with self._context.transaction() as tx:
            yield tx

    @asynccontextmanager
    async def lease(self, name: str, /) -> AsyncIterator[Lease]:
        """Block until it is held, and until it is released."""
        with self._context.lease(name) as lease:
            yield lease

    async def compute_once(self, key: str, factory: Callable[[], str], /) -> str:
        """Block until it is done."""
        return self._context.compute_once(key, factory)
