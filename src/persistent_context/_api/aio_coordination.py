"""What the processes on a file coordinate through it, on an event loop: values computed once, and leases."""

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
    """A context whose processes compute values once, and take leases."""

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
        """Return the value of a key; if there is none, compute it in one of all processes, threads and tasks. Suspends.

        Others that ask for the same key wait meanwhile, for as long as it takes: ``lock_timeout`` limits the waits for
        the lock of the file, which is free while the factory runs. If the factory raises an exception, or its call is
        cancelled or its process dies, the next one that waits computes. The value is then stored under the key like any
        other; delete the key to have it computed again. An unsaved value of the key counts, and is saved.

        Args:
            key: the key.
            factory: returns a value that JSON can hold. If it is ``async``, it runs in this task. Otherwise it runs in
                a worker thread, which cannot be cancelled: if the call is, the thread goes on, its result is dropped,
                and others wait until it has ended.
            expires: compute again what was computed so many seconds ago, or more; by default, nothing expires.
            version: compute again what was computed for another version, any JSON value; ``None`` accepts every one.
                With ``expires`` or ``version``, the time and the version are recorded under ``"<key>:computed"``, and
                a value without this record is computed again.

        Returns:
            A copy of the value.

        Raises:
            Exception: what the factory raised.
            UnserializableValueError: JSON cannot hold what the factory returned; nothing was written.
            ReentrantTransactionError: the factory asks for its own key, or this task is inside a transaction on the
                same file.
            OSError: as well as everything else that :meth:`save` raises.
        """
        executor: PatientExecutor = self._enter_loop().executor
        once = AsyncOnce(self._link, self._memory, executor, self.transaction, self._computation)
        return await once.value(Wanted.of(self._path, key, expires, version), factory)

    def lease(self, name: str, *, wait: bool = True, timeout: float | None = None) -> AsyncLease:
        """Return a context manager for a lease: exclusive among all processes, threads and tasks on the file.

        ``async with ctx.lease("job-7") as lease:`` waits for the lease, and holds it until the block ends or the
        process dies, in whatever way: it does not expire. It excludes leases of the same name, and nothing else: the
        file can be read and written meanwhile, by this block too. ``lease.token`` is greater than the tokens of all
        earlier holders. Entering and leaving suspend; waiting calls are served in order. A forked child does not have
        the lease.

        Args:
            name: any string.
            wait: whether to wait if another has it.
            timeout: how long to wait, in seconds; by default without a limit, regardless of ``lock_timeout``.

        Raises:
            LeaseHeldError: another has it, and ``wait`` is false, or the timeout has passed.
            ReentrantTransactionError: this task has it, and would wait for itself.
            LockLostError: on leaving: the lease's own file was deleted or replaced, so another may have had it as well.
            OSError: the lease's own file, beside the JSON file, cannot be opened or written.
        """
        name_of_lease = LeaseName(self._path, name, lasting=True)
        return AsyncLease(name_of_lease, patience_of(timeout, wait=wait), self._memory, self._attach)

    @abc.abstractmethod
    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a context manager for exclusive access to the file."""

    @abc.abstractmethod
    def _enter_loop(self) -> Any:
        """Return what belongs to the running loop; raise an error if the context belongs to another one."""

    async def _attach(self, link: LeaseLink) -> None:
        await self._enter_loop().calls.attach(link)

    def _computation(self, key: str) -> AsyncLease:
        return AsyncLease(LeaseName(self._path, key, lasting=False), math.inf, self._memory, self._attach)
