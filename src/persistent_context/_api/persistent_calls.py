"""The calls of a persistent context, on an object that has one."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar, overload

from ..types import Holder, Statistics
from .aio import PersistentContext
from .aio_lease import AsyncLease
from .aio_transaction import AsyncTransaction
from .aio_watch import AsyncWatch

T = TypeVar("T")


class PersistentCalls(abc.ABC):
    """Passes calls on to a persistent context.

    Args:
        persistent: the persistent context.
    """

    def __init__(self, persistent: PersistentContext) -> None:
        self._persistent: Final = persistent

    def unsaved_keys(self) -> set[str]:
        """Return the unsaved keys of the persistent data; see :meth:`PersistentContext.unsaved_keys`."""
        return self._persistent.unsaved_keys()

    async def load(self) -> None:
        """Load the persistent data again; see :meth:`PersistentContext.load`. Suspends."""
        await self._persistent.load()

    async def refresh(self) -> None:
        """Take over what others changed; see :meth:`PersistentContext.refresh`. Suspends."""
        await self._persistent.refresh()

    async def save(self) -> None:
        """Save the persistent data; see :meth:`PersistentContext.save`. Suspends."""
        await self._persistent.save()

    @overload
    async def incr(self, key: str, delta: int = 1, default: int = 0) -> int: ...

    @overload
    async def incr(self, key: str, delta: float = 1, default: float = 0) -> float: ...

    async def incr(self, key: str, delta: float = 1, default: float = 0) -> float:
        """Add to a number of the persistent data; see :meth:`PersistentContext.incr`. Suspends."""
        return await self._persistent.incr(self._visible(key), delta, default)

    async def add(self, key: str, value: Any) -> bool:
        """Set a key of the persistent data if it is missing; see :meth:`PersistentContext.add`. Suspends."""
        return await self._persistent.add(self._visible(key), value)

    async def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Replace a value of the persistent data; see :meth:`PersistentContext.compare_and_set`. Suspends."""
        return await self._persistent.compare_and_set(self._visible(key), expected, new)

    async def mutate(self, key: str, fn: Callable[[Any], T], default: Any = None) -> T:
        """Replace a value of the persistent data; see :meth:`PersistentContext.mutate`. Suspends."""
        return await self._persistent.mutate(self._visible(key), fn, default)

    async def delete(self, key: str) -> bool:
        """Delete a key of the persistent data; see :meth:`PersistentContext.delete`. Suspends."""
        return await self._persistent.delete(self._visible(key))

    async def take(self, key: str, default: Any = None) -> Any:
        """Delete a key of the persistent data, and return its value; see :meth:`PersistentContext.take`. Suspends."""
        return await self._persistent.take(self._visible(key), default)

    async def append(self, key: str, item: Any) -> int:
        """Append to a list of the persistent data; see :meth:`PersistentContext.append`. Suspends."""
        return await self._persistent.append(self._visible(key), item)

    async def extend(self, key: str, items: Iterable[Any]) -> int:
        """Append to a list of the persistent data; see :meth:`PersistentContext.extend`. Suspends."""
        return await self._persistent.extend(self._visible(key), items)

    @overload
    async def compute_once(
        self, key: str, factory: Callable[[], Awaitable[T]], *, expires: float | None = None, version: Any = None
    ) -> T: ...

    @overload
    async def compute_once(
        self, key: str, factory: Callable[[], T], *, expires: float | None = None, version: Any = None
    ) -> T: ...

    async def compute_once(
        self, key: str, factory: Callable[[], Any], *, expires: float | None = None, version: Any = None
    ) -> Any:
        """Return a value, computed by only one process; see :meth:`PersistentContext.compute_once`. Suspends."""
        return await self._persistent.compute_once(self._visible(key), factory, expires=expires, version=version)

    def lease(self, name: str, *, wait: bool = True, timeout: float | None = None) -> AsyncLease:
        """Return a lease; see :meth:`PersistentContext.lease`."""
        return self._persistent.lease(name, wait=wait, timeout=timeout)

    async def checkpoint(self) -> None:
        """Fold the journal into the JSON file; see :meth:`PersistentContext.checkpoint`. Suspends."""
        await self._persistent.checkpoint()

    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a transaction on the persistent data; see :meth:`PersistentContext.transaction`."""
        return self._persistent.transaction(timeout)

    async def lock_holder(self) -> Holder | None:
        """Return which process holds the lock; see :meth:`PersistentContext.lock_holder`. Suspends."""
        return await self._persistent.lock_holder()

    def statistics(self) -> Statistics:
        """Return what this process has done so far; see :meth:`PersistentContext.statistics`."""
        return self._persistent.statistics()

    def watch(self, *keys: str) -> AsyncWatch:
        """Return an iterator over changes of the persistent data; see :meth:`PersistentContext.watch`."""
        return self._persistent.watch(*keys)

    @abc.abstractmethod
    def _visible(self, key: str) -> str:
        """Return a key of the persistent data; refuse one that is not visible here."""
