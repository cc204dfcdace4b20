"""Coordination of the processes on a file, on an event loop: values computed once, and leases."""

from __future__ import annotations

import abc
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from .aio_executor import PatientExecutor
from .aio_lease import AsyncLease
from .aio_once import AsyncOnce
from .aio_transaction import AsyncTransaction
from .base import BaseContext
from .lease import LeaseName, patience_of
from .link import LeaseLink
from .once import Wanted

T = TypeVar("T")


class AsyncCoordination(BaseContext):
    """A context that computes values once for all processes, and gives out leases."""

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
        """Return the value of a key; if missing, only one of all processes, threads and tasks computes it. Suspends.

        Other calls for the same key wait for the result without a time limit: ``lock_timeout`` applies only to the lock
        of the file, which is free while the factory runs. If the factory raises an exception, or its call is
        cancelled, or its process dies, the next waiting call computes the value. It is stored under the key like any
        other value; delete the key to have it computed again. An unsaved value of the key counts, and is saved.

        Args:
            key: the key.
            factory: returns a value that JSON can hold. If it is ``async``, it runs in this task. Otherwise it runs in
                a worker thread, which cannot be cancelled: if the call is, the thread continues, its result is dropped,
                and other calls wait until it has ended.
            expires: the age in seconds from which a value is computed again; by default, values do not expire.
            version: any JSON value; a value that was computed for another version is computed again. ``None`` accepts
                every version. With ``expires`` or ``version``, the time and the version are recorded under
                ``"<key>:computed"``, and a value without this record is computed again.

        Returns:
            A copy of the value.

        Raises:
            Exception: what the factory raised.
            UnserializableValueError: JSON cannot hold what the factory returned; nothing was written.
            ReentrantTransactionError: the factory asks for its own key, or this task is inside a transaction on the
                same file.
            OSError: or any other exception that :meth:`save` raises.
        """
        executor: PatientExecutor = self._enter_loop().executor
        once = AsyncOnce(self._link, self._memory, executor, self.transaction, self._computation)
        return await once.value(Wanted.of(self._path, key, factory, expires, version), factory)

    def lease(self, name: str, *, wait: bool = True, timeout: float | None = None) -> AsyncLease:
        """Return a context manager for a lease: exclusive among all processes, threads and tasks on the file.

        ``async with ctx.lease("job-7") as lease:`` waits for the lease, and holds it until the block ends or the
        process dies, for whatever reason; it does not expire. It excludes only leases of the same name: the file can
        still be read and written, by this block too. ``lease.token`` is greater than the tokens of all earlier holders.
        Entering and leaving suspend; waiting calls are served in order. A forked child does not inherit the lease.

        Args:
            name: any string.
            wait: whether to wait while it is held elsewhere.
            timeout: how long to wait, in seconds; by default without a limit, regardless of ``lock_timeout``.

        Raises:
            LeaseHeldError: it is held elsewhere, and ``wait`` is false or the timeout has expired.
            ReentrantTransactionError: this task holds it, and would wait for itself.
            LockLostError: on leaving, if the file of the lease was deleted or replaced, or if the lease has ended in
                etcd: another may have held it too.
            OSError: the file of the lease, beside the JSON file, cannot be opened or written.
        """
        name_of_lease = LeaseName(self._path, name, lasting=True)
        return AsyncLease(name_of_lease, patience_of(timeout, wait=wait), self._memory, self._attach)

    @abc.abstractmethod
    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a context manager for exclusive access to the file."""

    @abc.abstractmethod
    def _enter_loop(self) -> Any:
        """Return the state that belongs to the running loop; raise an error if the context belongs to another one."""

    async def _attach(self, link: LeaseLink) -> None:
        await self._enter_loop().calls.attach(link)

    def _computation(self, key: str) -> AsyncLease:
        return AsyncLease(LeaseName(self._path, key, lasting=False), math.inf, self._memory, self._attach)
