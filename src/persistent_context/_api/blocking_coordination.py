"""Coordination of the processes on a file, in threads: values computed once, and leases."""

from __future__ import annotations

import abc
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from .base import BaseContext
from .blocking_lease import SyncLease
from .blocking_once import SyncOnce
from .blocking_transaction import SyncTransaction
from .lease import LeaseName, patience_of
from .once import Wanted

T = TypeVar("T")


class SyncCoordination(BaseContext):
    """A context that computes values once for all processes, and gives out leases."""

    @overload
    def compute_once(
        self, key: str, factory: Callable[[], Awaitable[T]], *, expires: float | None = None, version: Any = None
    ) -> T: ...

    @overload
    def compute_once(
        self, key: str, factory: Callable[[], T], *, expires: float | None = None, version: Any = None
    ) -> T: ...

    def compute_once(
        self, key: str, factory: Callable[[], Any], *, expires: float | None = None, version: Any = None
    ) -> Any:
        """Return the value of a key, computed once for all; see :meth:`PersistentContext.compute_once`. Blocks.

        The factory runs in this thread; if it is ``async``, in a new event loop in another thread.
        """
        return self._once().value(Wanted.of(self._path, key, factory, expires, version), factory)

    def lease(self, name: str, *, wait: bool = True, timeout: float | None = None) -> SyncLease:
        """Return a context manager for a lease; see :meth:`PersistentContext.lease`. Entering and leaving block."""
        return SyncLease(LeaseName(self._path, name, lasting=True), patience_of(timeout, wait=wait), self._memory)

    @abc.abstractmethod
    def transaction(self, timeout: float | None = None) -> SyncTransaction:
        """Return a context manager for exclusive access to the file."""

    def _once(self) -> SyncOnce:
        return SyncOnce(self._link, self._memory, self.transaction, self._computation)

    def _computation(self, key: str) -> SyncLease:
        return SyncLease(LeaseName(self._path, key, lasting=False), math.inf, self._memory)
