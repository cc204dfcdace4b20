"""The asyncio face: PersistentContext."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Self, Unpack

from ._base import TRY_ONLY_SECONDS, BaseContext, Options, Reading, check_timeout, describe
from ._cancelling import run_in_other_thread, shielded
from ._errors import ContextUsageError
from ._group import Begin, CommitQueue, Owner, Request, Turn
from ._operations import Operation
from ._transaction import Transaction
from ._types import Change, Holder
from ._watch import Watch

_OVERDUE_SECONDS: Final = 1.0


class PersistentContext(BaseContext):
    __doc__ = describe(
        """A dictionary bound to one plain JSON file, for programs with an event loop.

        One context belongs to one event loop at a time: the first that awaits one of its methods, until it is closed.
        Other loops, threads and processes have their own contexts on the same file. Constructing does no I/O and needs
        no loop.
        """
    )

    @classmethod
    async def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Construct a context and load it: the recommended way. Suspends.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout`` and ``on_conflict``, see the class.

        Raises:
            OSError: see :meth:`load`.
        """
        context = cls(filepath, **options)
        await context.load()
        return context

    async def __aenter__(self) -> Self:
        """Load. Suspends."""
        await self.load()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Save, unless the block was left with an exception. Suspends."""
        if error is None:
            await self.save()

    async def load(self) -> None:
        """Make memory what the file holds; unsaved changes are dropped. Suspends; takes no lock.

        A missing file gives an empty dictionary. A corrupt one is moved aside, to ``<name>.corrupt-<time>-<random>``,
        under the lock and after a second look; a warning is logged.

        Raises:
            NotARegularFileError: a directory, FIFO or device stands in its place.
            LockTimeoutError: the file is corrupt, and its lock was not had in time to move it aside.
            OSError: the file cannot be read, or not be moved aside.
        """
        loop = self._enter_loop()
        async with self._lock:
            reading = await loop.run_in_executor(None, self._sync_load_internal)
        if not self._take_over(reading):
            await self._perform(self._reload())

    async def save(self) -> None:
        """Merge what is unsaved, as it is at this call, into the file, and take over what others changed. Suspends.

        With nothing to write it writes nothing, but for creating a missing file.

        Raises:
            LockTimeoutError: no turn within the timeout; nothing was written.
            ConflictError: another writer changed the same keys; nothing was written.
            UnserializableValueError: a value that JSON cannot hold; nothing was written.
            DurabilityUnknownError: the file was replaced, but may not survive a power loss.
            ReentrantTransactionError: this task is inside a transaction on the same file.
            OSError: nothing was written, and the changes are still unsaved.
        """
        await self._perform(self._save())

    async def incr(self, key: str, delta: float = 1, default: float = 0) -> Any:
        """Add to a number, atomically across all processes. Suspends.

        An unsaved change of the key is taken along; other keys are left alone.

        Args:
            key: the key.
            delta: what to add, an ``int`` or ``float``.
            default: where to begin if there is no such key.

        Returns:
            The new number.

        Raises:
            TypeError: the value is no number (``bool`` is none); the file is unchanged.
            OSError: and all others that :meth:`save` raises.
        """
        return await self._perform(self._incr(key, delta, default))

    async def add(self, key: str, value: Any) -> bool:
        """Set a key only if there is none, atomically across all processes. Suspends.

        Returns:
            Whether this call set it. If not, memory has taken over the value that is there.

        Raises:
            OSError: and all others that :meth:`save` raises.
        """
        return bool(await self._perform(self._add(key, value)))

    async def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set a key only if it has the expected value, atomically across all processes. Suspends.

        Values are compared as JSON: ``1``, ``1.0`` and ``True`` differ.

        Args:
            key: the key.
            expected: the value, or ``MISSING`` for "there is none".
            new: the new value, or ``MISSING`` to delete the key.

        Returns:
            Whether the value was the expected one, and was replaced. If not, memory has taken over what is there.

        Raises:
            OSError: and all others that :meth:`save` raises.
        """
        return bool(await self._perform(self._compare_and_set(key, expected, new)))

    async def mutate(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value by what a function makes of it, atomically across all processes. Suspends.

        Args:
            key: the key.
            fn: ``fn(value) -> value``; it runs under the lock, in another thread: keep it pure and quick. It gets a
                copy of its own, and may run again if the lock file was deleted meanwhile.
            default: what it gets if there is no such key.

        Returns:
            What the function returned.

        Raises:
            Exception: what the function raised; only this call fails, and changes nothing.
            OSError: and all others that :meth:`save` raises.
        """
        return await self._perform(self._mutate(key, fn, default))

    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a context manager that has the file exclusively, across tasks, threads and processes.

        ``async with ctx.transaction() as tx:`` gives a mapping over the file's committed state. What is changed in it
        is committed as one when the block ends, and discarded if it ends with an exception. A block that changed
        nothing writes nothing. Entering and leaving suspend; the body may await whatever it likes, but no call on the
        same file.

        Args:
            timeout: how long to wait for the turn, in seconds; by default the context's ``lock_timeout``.

        Raises:
            LockTimeoutError: on entering.
            ReentrantTransactionError: on entering, if this task has one open on the same file.
            LockLostError: on leaving, if the lock file was deleted under it; nothing was written.
            OSError: and all others that :meth:`save` raises, on leaving.
        """
        return AsyncTransaction(self, self._lock_timeout if timeout is None else check_timeout(timeout, "timeout"))

    def watch(self, *keys: str) -> AsyncWatch:
        """Return an iterator over what other writers change: other processes, and other contexts of this one.

        ``async for changes in ctx.watch("a"):`` gives a dictionary of each changed key's :class:`Change`. The first one
        holds what differs from what this context knew of the file at this call. Values in between may be skipped, the
        last one never is. Memory is left alone; ``load()`` or ``save()`` takes the changes over. Getting the next
        changes suspends until there are some.

        With the package ``watchfiles`` (the extra ``watch``) a change is seen in less than a tenth of a second, else,
        and where the file system tells no events, the file is looked at twenty times a second.

        Args:
            keys: the keys to watch; none stands for all of them.

        Returns:
            An asynchronous iterator, and context manager, with ``aclose()``. Left alone, it closes itself.

        Raises:
            OSError: on getting the next changes; the file cannot be read. One that is missing has no keys.
        """
        return AsyncWatch(self, keys)

    async def lock_holder(self) -> Holder | None:
        """Return who holds the lock of the file now, or None. Suspends.

        Raises:
            OSError: the lock file cannot be read.
        """
        self._enter_loop()
        return await run_in_other_thread(self._sync_lock_holder)

    def _sync_load_internal(self) -> Reading | None:
        """Read and split the file; runs in the default executor."""
        return self._read()

    def _sync_save_internal(self) -> None:
        """Run a cycle of the lock for all calls that wait, if the lock is free; runs in the default executor."""
        (self._queue_here() or self._attach()).run()

    def _sync_lock_holder(self) -> Holder | None:
        return (self._queue_here() or self._attach()).store.holder()

    def _prepare(self) -> None:
        self._bind(None)

    def _bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._lock = asyncio.Lock()
        self._loop = loop
        self._pid = os.getpid()
        self._driver: asyncio.Task[None] | None = None
        self._in_flight: dict[Request, float] = {}
        self._watchdog: asyncio.TimerHandle | None = None

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._pid != os.getpid():
            if self._loop is not None and self._pid == os.getpid() and not self._loop.is_closed():
                message = (
                    "this context belongs to another event loop, which is still open; make one context for each loop"
                )
                raise ContextUsageError(message).about(self._path)
            self._bind(loop)
        return loop

    async def _perform(
        self, operation: Operation, *, patience: float | None = None, kind: type[Request] = Request
    ) -> Any:
        """Have an operation carried by a cycle, and return its result.

        Cancelled before its cycle has begun, it is withdrawn; afterwards it is waited for, and then the cancelling
        goes on.
        """
        loop = self._enter_loop()
        queue = self._queue_here()
        if queue is None:
            queue = await loop.run_in_executor(None, self._attach)
        patience = self._lock_timeout if patience is None else patience
        request = self._request(operation, kind, patient=patience >= TRY_ONLY_SECONDS)
        queue.submit(request)
        began = loop.time()
        self._watch(request, began + patience)
        if self._driver is None:
            self._driver = loop.create_task(self._drive(queue))
        try:
            await request.waiter
        except asyncio.CancelledError:
            if request.withdraw():
                self._in_flight.pop(request, None)
            else:
                await self._wait_out(request)
                if isinstance(request, Begin) and request.error is None:
                    await self._end(request.result, Operation("transaction"))
            raise
        finally:
            self._over(operation)
        if request.error is not None:
            raise request.error
        if not request.has_begun:
            raise await run_in_other_thread(queue.timed_out, loop.time() - began)
        return request.result

    async def _end(self, turn: Turn, operation: Operation) -> None:
        """End a transaction with an operation, to its end whoever cancels."""
        request = self._request(operation, Request, patient=True)
        turn.end(request)  # before the first await: not even a task that is thrown away leaves the lock held
        try:
            await request.waiter
        except asyncio.CancelledError:
            await self._wait_out(request)
            raise
        if request.error is not None:
            raise request.error

    def _request(self, operation: Operation, kind: type[Request], *, patient: bool) -> Request:
        owner = Owner(threading.get_ident(), asyncio.current_task(), blocks=False)
        request = kind(self._path, operation, owner, self._deliver, durable=self._durable, patient=patient)
        request.waiter = asyncio.get_running_loop().create_future()
        return request

    async def _wait_out(self, request: Request) -> None:
        """Wait for a call that has begun, whoever cancels: a task, a timeout, or a cancel scope again and again."""
        with shielded():
            while not request.arrived and not request.withdraw():
                request.waiter = asyncio.get_running_loop().create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await request.waiter

    async def _drive(self, queue: CommitQueue) -> None:
        """Run the queue in the default executor, for as long as calls wait and no thread runs it."""
        try:
            while queue.needs_running():
                tried = set(self._in_flight)
                async with self._lock:
                    await asyncio.get_running_loop().run_in_executor(None, self._sync_save_internal)
                self._give_up(lambda request: not request.patient and request in tried and request.withdraw())  # noqa: B023
            self._give_up(lambda request: not request.patient and request.withdraw())
        except Exception as error:  # noqa: BLE001 - of an executor that is shut down, or of an override
            failure = error
            self._give_up(lambda request: request.fail(failure))
        finally:
            self._driver = None
            queue.run_elsewhere()  # if this loop is being shut down, the calls of others still wait

    def _watch(self, request: Request, deadline: float) -> None:
        """Note when a request times out; there is one timer for all, as most of them never do."""
        self._in_flight[request] = deadline
        if request.patient and (self._watchdog is None or deadline < self._watchdog.when()):
            self._set_watchdog(deadline)

    def _set_watchdog(self, deadline: float) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = (
            None if math.isinf(deadline) else asyncio.get_running_loop().call_at(deadline, self._look_at_the_time)
        )

    def _look_at_the_time(self) -> None:
        now = asyncio.get_running_loop().time()
        self._watchdog = None
        self._give_up(lambda request: request.patient and self._in_flight[request] <= now and request.withdraw())
        # One that has begun is over soon, unless the lock was lost and it has to wait anew.
        self._set_watchdog(
            min((max(deadline, now + _OVERDUE_SECONDS) for deadline in self._in_flight.values()), default=math.inf)
        )

    def _give_up(self, withdrawn: Callable[[Request], bool]) -> None:
        for request in [request for request in self._in_flight if withdrawn(request)]:
            self._tell(request)

    def _tell(self, request: Request) -> None:
        self._in_flight.pop(request, None)
        request.arrived = True
        if not request.waiter.done():  # it is, if the caller is being cancelled
            request.waiter.set_result(None)

    def _deliver(self, requests: Sequence[Request]) -> None:
        """Bring calls that are over to their event loop; runs in the thread of the cycle."""
        self._receive(requests)
        loop: asyncio.AbstractEventLoop = requests[0].waiter.get_loop()
        try:
            loop.call_soon_threadsafe(self._arrive, requests)
        except RuntimeError:  # the loop was closed, and nobody waits any more
            for request in requests:
                if isinstance(request, Begin) and request.error is None:
                    request.result.end(Request(request.path, Operation("transaction"), request.owner, _to_nobody))

    def _arrive(self, requests: Sequence[Request]) -> None:
        self._drain()
        for request in requests:
            self._tell(request)


class AsyncTransaction:
    """The context manager that :meth:`PersistentContext.transaction` returns."""

    def __init__(self, context: PersistentContext, timeout: float) -> None:
        self._context = context
        self._timeout = timeout
        self._open: tuple[Turn, Transaction] | None = None

    async def __aenter__(self) -> Transaction:
        """Wait for the turn."""
        turn: Turn = await self._context._perform(Operation("transaction"), patience=self._timeout, kind=Begin)  # noqa: SLF001
        transaction = self._context._transaction(turn.document)  # noqa: SLF001
        self._open = turn, transaction
        return transaction

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Commit, or after an exception discard."""
        assert self._open is not None, "entered"
        turn, transaction = self._open
        operation = Operation("transaction")
        try:
            if error is None:
                operation = transaction._commit()  # noqa: SLF001
        finally:
            try:
                await self._context._end(turn, operation)  # noqa: SLF001
            finally:
                self._context._over(transaction._finish())  # noqa: SLF001


class AsyncWatch(Watch):
    """The iterator that :meth:`PersistentContext.watch` returns."""

    def __init__(self, context: PersistentContext, keys: Iterable[str]) -> None:
        super().__init__(context._path, context._observer(keys))  # noqa: SLF001
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Change]:
        """Wait for the next changes."""
        self._enter_loop(asyncio.get_running_loop())
        while not self._closed:
            self._rung.clear()
            await run_in_other_thread(self._observer.look)
            if changes := self._observer.take_changes():
                return changes
            await self._rung.wait()
        raise StopAsyncIteration

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                msg = "this watch belongs to another event loop, which is still open; make one watch for each loop"
                raise ContextUsageError(msg).about(self._path)
            self._loop, self._rung = loop, asyncio.Event()
            self._silence()
        self._set_alarm(partial(_ring, loop, self._rung))

    async def aclose(self) -> None:
        """End the iteration, also for a task that waits for changes. Does not suspend."""
        self._close()
        self._rung.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close it."""
        await self.aclose()


def _ring(loop: asyncio.AbstractEventLoop, rung: asyncio.Event) -> bool:
    try:
        loop.call_soon_threadsafe(rung.set)
    except RuntimeError:  # the loop was closed
        return False
    return True


def _to_nobody(requests: Sequence[Request]) -> None:
    """Deliver to a caller that is gone."""
