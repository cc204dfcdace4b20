"""The atomic operations on one key, which block the calling thread."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from .._model.operations import Operation
from .base import BaseContext

T = TypeVar("T")


class SyncAtomic(BaseContext):
    """A context whose keys all processes can change, one call after the other.

    The calls of one process that wait for the same file share one cycle of the lock.
    """

    @overload
    def incr(self, key: str, delta: int = 1, default: int = 0) -> int: ...

    @overload
    def incr(self, key: str, delta: float = 1, default: float = 0) -> float: ...

    def incr(self, key: str, delta: float = 1, default: float = 0) -> float:
        """Add to a number and return the result; see :meth:`PersistentContext.incr`. Blocks."""
        number: float = self._perform(self._incr(key, delta, default))
        return number

    def add(self, key: str, value: Any) -> bool:
        """Set a key only if it is missing; see :meth:`PersistentContext.add`. Blocks."""
        return bool(self._perform(self._add(key, value)))

    def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set a key only if it has the expected value; see :meth:`PersistentContext.compare_and_set`. Blocks."""
        return bool(self._perform(self._compare_and_set(key, expected, new)))

    def mutate(self, key: str, fn: Callable[[Any], T], default: Any = None) -> T:
        """Replace a value with a function of it; see :meth:`PersistentContext.mutate`. Blocks."""
        value: T = self._perform(self._mutate(key, fn, default))
        return value

    def delete(self, key: str) -> bool:
        """Delete a key and return whether it was present; see :meth:`PersistentContext.delete`. Blocks."""
        return bool(self._perform(self._delete(key)))

    def take(self, key: str, default: Any = None) -> Any:
        """Delete a key and return its value; see :meth:`PersistentContext.take`. Blocks."""
        return self._perform(self._take(key, default))

    def append(self, key: str, item: Any) -> int:
        """Append an item to a list and return its length; see :meth:`PersistentContext.append`. Blocks."""
        return int(self._perform(self._extend("append", key, [item])))

    def extend(self, key: str, items: Iterable[Any]) -> int:
        """Append items to a list and return its length; see :meth:`PersistentContext.extend`. Blocks."""
        return int(self._perform(self._extend("extend", key, items)))

    @abc.abstractmethod
    def _perform(self, operation: Operation) -> Any:
        """Carry out an operation in a cycle, and return its result."""
