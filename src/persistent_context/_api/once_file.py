"""A file of values that are computed once and torn down once: the engine of the pytest plugin."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from .blocking import SyncPersistentContext
from .once import Wanted

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks


class OnceFile(SyncPersistentContext):
    """A file of values that have teardowns.

    Args:
        path: the file, or the URL of a state in etcd.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, durable=False, lock_timeout=math.inf)

    def value(self, key: str, factory: Callable[[], Any], teardown: Callable[[Any], Any] | None = None) -> Any:
        """Return a copy of the value of a key, computed now unless it is stored. Blocks while another computes it.

        Args:
            key: the value's name.
            factory: computes it; if it is ``async``, the result is awaited in its own event loop.
            teardown: called with a value that was computed but could not be stored, before the error is raised.

        Raises:
            Exception: what the factory raised; the next caller tries again.
            UnserializableValueError: JSON cannot hold the value.
        """
        return self._once().value(Wanted.of(self._path, key, factory, None, None), factory, teardown)

    def check(self, key: str, factory: Callable[[], Any]) -> None:
        """Check the arguments of :meth:`value`.

        Raises:
            UnserializableValueError: the key is not a string.
            TypeError: the factory is not a function.
        """
        Wanted.of(self._path, key, factory, None, None)

    def discard(self, key: str, teardown: Callable[[Any], Any]) -> None:
        """Tear down a value and forget it, unless another process has. Blocks while another process does so.

        Raises:
            BaseException: what the teardown raised; the value is forgotten nevertheless.
        """
        self._once().discard(Wanted.of(self._path, key, teardown, None, None), teardown)
