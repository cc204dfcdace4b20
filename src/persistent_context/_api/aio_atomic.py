"""The atomic operations on one key, on an event loop."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from .._model.operations import Operation
from .base import BaseContext

T = TypeVar("T")


class AsyncAtomic(BaseContext):
    """A context whose keys all processes can change, one call after the other.

    The calls of one process that wait for the same file share one cycle of the lock.
    """

    @overload
    async def incr(self, key: str, delta: int = 1, default: int = 0) -> int: ...

    @overload
    async def incr(self, key: str, delta: float = 1, default: float = 0) -> float: ...

    async def incr(self, key: str, delta: float = 1, default: float = 0) -> float:
        """Add to a number, atomically across all processes. Suspends.

        An unsaved change of the key is saved along with it; other keys are not.

        Args:
            key: the key.
            delta: what to add, an ``int`` or ``float``.
            default: the number to start from if the key is missing.

        Returns:
            The new number: a ``float`` if the old value or ``delta`` is one.

        Raises:
            TypeError: the value is not a number (``bool`` does not count as one); the file is unchanged.
            OSError: or any other exception that :meth:`save` raises.
        """
        number: float = await self._perform(self._incr(key, delta, default))
        return number

    async def add(self, key: str, value: Any) -> bool:
        """Set a key only if it is missing, atomically across all processes. Suspends.

        Returns:
            Whether this call set it. If not, memory now has the value in the file.

        Raises:
            OSError: or any other exception that :meth:`save` raises.
        """
        return bool(await self._perform(self._add(key, value)))

    async def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set a key only if it has the expected value, atomically across all processes. Suspends.

        Values are compared as JSON: ``1``, ``1.0`` and ``True`` differ.

        Args:
            key: the key.
            expected: the value, or ``MISSING`` if the key is expected to be absent.
            new: the new value, or ``MISSING`` to delete the key.

        Returns:
            Whether the value was as expected and was replaced. If not, memory now has the value in the file.

        Raises:
            OSError: or any other exception that :meth:`save` raises.
        """
        return bool(await self._perform(self._compare_and_set(key, expected, new)))

    async def mutate(self, key: str, fn: Callable[[Any], T], default: Any = None) -> T:
        """Replace a value with a function of it, atomically across all processes. Suspends.

        Args:
            key: the key.
            fn: ``fn(value) -> value``; it runs under the lock, in another thread: keep it pure and quick. It gets its
                own copy of the value, which it may change and return. It is called again if the lock file is deleted
                while it runs.
            default: the argument of the function if the key is missing.

        Returns:
            What the function returned.

        Raises:
            TypeError: the function is not callable, or is a coroutine function; or it returned ``None`` after it had
                changed its argument in place, or an awaitable. Nothing is changed.
            Exception: what the function raised; only this call fails, and it changes nothing.
            OSError: or any other exception that :meth:`save` raises.
        """
        value: T = await self._perform(self._mutate(key, fn, default))
        return value

    async def delete(self, key: str) -> bool:
        """Delete a key, atomically across all processes. Suspends.

        An unsaved change of the key is dropped.

        Returns:
            Whether the key was present.

        Raises:
            OSError: or any other exception that :meth:`save` raises.
        """
        return bool(await self._perform(self._delete(key)))

    async def take(self, key: str, default: Any = None) -> Any:
        """Delete a key and return its value, atomically across all processes: only one of them gets it. Suspends.

        Args:
            key: the key.
            default: what to return if the key is missing.

        Raises:
            OSError: or any other exception that :meth:`save` raises.
        """
        return await self._perform(self._take(key, default))

    async def append(self, key: str, item: Any) -> int:
        """Append an item to a list, atomically across all processes. Suspends.

        A missing key starts as an empty list.

        Returns:
            The new length of the list.

        Raises:
            TypeError: the value is not a list; the file is unchanged.
            OSError: or any other exception that :meth:`save` raises.
        """
        return int(await self._perform(self._extend("append", key, [item])))

    async def extend(self, key: str, items: Iterable[Any]) -> int:
        """Append items to a list, atomically across all processes; otherwise like :meth:`append`. Suspends.

        Args:
            key: the key.
            items: the items; if there are none, nothing is written.

        Returns:
            The new length of the list.

        Raises:
            TypeError: the value is not a list, or the items are a ``str``, ``bytes`` or mapping.
            OSError: or any other exception that :meth:`save` raises.
        """
        return int(await self._perform(self._extend("extend", key, items)))

    @abc.abstractmethod
    async def _perform(self, operation: Operation) -> Any:
        """Carry out an operation in a cycle, and return its result."""
