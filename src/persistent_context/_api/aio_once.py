"""Computing a value once, on an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .._engine.worker import run_in_pool
from .._model.values import MISSING
from .aio_executor import PatientExecutor
from .aio_lease import AsyncLease
from .aio_transaction import AsyncTransaction
from .guarded import GuardedMemory
from .link import Link
from .once import Computation, Wanted


class AsyncOnce:
    """Computes values once for all processes, threads and tasks.

    Args:
        link: finds the store.
        memory: the memory of the context.
        executor: reads the file.
        transaction: returns a new transaction of the context.
        lease: returns a new lease that is held while the value of a key is computed.
    """

    def __init__(
        self,
        link: Link,
        memory: GuardedMemory,
        executor: PatientExecutor,
        transaction: Callable[[], AsyncTransaction],
        lease: Callable[[str], AsyncLease],
    ) -> None:
        self._link: Final = link
        self._memory: Final = memory
        self._executor: Final = executor
        self._transaction: Final = transaction
        self._lease: Final = lease

    async def value(self, wanted: Wanted, factory: Callable[[], Any]) -> Any:
        """Return a copy of the value; see :meth:`PersistentContext.compute_once`."""
        wanted.check_not_running()
        value = await self._executor.run(partial(wanted.find_known, self._link, self._memory))
        if value is MISSING:
            value = await self._find(wanted)
        if value is not MISSING:
            return value
        lease = self._lease(wanted.key)
        async with lease:
            value = await self._find(wanted)
            if value is not MISSING:
                return value
            with wanted.running() as computation:
                value = wanted.checked(await _call(factory, lease, computation))
            async with self._transaction() as tx:
                return wanted.keep(tx, value)

    async def _find(self, wanted: Wanted) -> Any:
        """Return the value if it is stored, and let memory take it over; otherwise MISSING."""
        async with self._transaction() as tx:
            return wanted.find(tx)


async def _call(factory: Callable[[], Any], lease: AsyncLease, computation: Computation) -> Any:
    """Return the result of a factory, which runs here if it is ``async``, and otherwise in a pool thread.

    A thread cannot be cancelled: if this call is, the thread continues, and keeps the lease until it has ended.
    """
    if inspect.iscoroutinefunction(factory):
        return await factory()
    call = _Call(factory)
    try:
        result = await run_in_pool(call.run)
    except asyncio.CancelledError:
        call.take_over(lease, computation)
        raise
    return await result if inspect.isawaitable(result) else result


class _Call:
    """A call of a factory in another thread, which may outlive the task that waits for it."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory: Final = factory
        self._context: Final = contextvars.copy_context()
        self._settled: Final = threading.Lock()  # an atomic flag: the second thread to set it ends the computation
        self._end: Callable[[], None] | None = None
        self._result: Any = None

    def run(self) -> Any:
        """Call the factory, and end the computation if that was left to this thread."""
        try:
            self._result = self._context.run(self._factory)
        except StopIteration as error:  # a future cannot hold it
            msg = "the factory raised StopIteration"
            raise RuntimeError(msg) from error
        finally:
            if not self._settled.acquire(blocking=False):
                assert self._end is not None, "set before"
                self._end()
        return self._result

    def take_over(self, lease: AsyncLease, computation: Computation) -> None:
        """End the computation, and release its lease, as soon as the factory has ended."""
        computation.is_left_behind = True
        release = lease.hand_over()

        def end() -> None:
            computation.is_over = True
            release()
            if inspect.iscoroutine(self._result):
                self._result.close()  # instead of a warning that it was never awaited

        self._end = end
        if not self._settled.acquire(blocking=False):  # it has ended
            end()
