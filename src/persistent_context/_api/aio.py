"""The asyncio interface: PersistentContext."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar, Unpack

from .._engine.cycle import own_copy
from .._engine.owner import Owner
from .._engine.queue import CommitQueue
from .._engine.request import Begin, Request
from .._engine.turn import Turn
from .._engine.worker import run_in_pool
from .._model.operations import Operation
from ..errors import ContextUsageError, LockTimeoutError, ReentrantTransactionError
from ..types import Change, Holder
from .base import TRY_ONLY_SECONDS, BaseContext, Options, Reading, check_timeout, describe
from .cancelling import shielded
from .transaction import Transaction
from .watch import Watch

T = TypeVar("T")

_SOON_SECONDS: Final = 0.05
"""How soon the default executor must begin a job before a pool thread does it instead."""

_TICK_SECONDS: Final = 0.5
"""How often to check, while calls wait, that a thread runs the queue."""

_SHORTEST_TICK_SECONDS: Final = 0.005
_FIND_HOLDER_SECONDS: Final = 0.5
"""How long a timeout error may be delayed to find out who holds the lock."""

_TURNS: Final = 3
"""Loop iterations that it takes to close an asynchronous generator abandoned with a transaction open."""


class _Flight(NamedTuple):
    """State of a call while its task waits."""

    queue: CommitQueue
    deadline: float
    """By the loop's clock."""


class PersistentContext(BaseContext):
    __doc__ = describe(
        """A dictionary bound to one plain JSON file, for programs with an event loop.

        A context belongs to one event loop at a time: the first one that awaits a method, until that loop is closed.
        Other loops, threads and processes use their own contexts on the same file. The constructor does no I/O and
        needs no loop.
        """
    )

    @classmethod
    async def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Create a context and load it; this is the recommended constructor. Suspends.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout`` and ``on_conflict``; see the class.

        Raises:
            OSError: as well as everything else that :meth:`load` raises.
        """
        context = cls(filepath, **options)
        await context.load()
        return context

    async def __aenter__(self) -> Self:
        """Load. Suspends."""
        await self.load()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Save, unless the block raised an exception. Suspends."""
        if error is None:
            await self.save()

    async def load(self) -> None:
        """Replace memory with the content of the file, dropping unsaved changes. Suspends; takes no lock.

        A missing file reads as an empty dictionary. A corrupt file is moved aside to
        ``<name>.corrupt-<time>-<random>``, under the lock and after reading it again; a warning is logged.

        Raises:
            NotARegularFileError: the path is a directory, FIFO or device.
            LockTimeoutError: the file is corrupt, and the lock to move it aside could not be acquired in time.
            OSError: the file could not be read or moved aside.
        """
        loop = self._enter_loop()
        async with self._lock:
            reading = await self._in_executor(loop, self._sync_load_internal)
        if not self._take_over(reading):
            await self._perform(self._reload())

    async def save(self) -> None:
        """Merge the changes unsaved at this call into the file, and take over what others changed. Suspends.

        If there is nothing to save, nothing is written, except that a missing file is created.

        Raises:
            LockTimeoutError: the lock could not be acquired within the timeout; nothing was written.
            ConflictError: another writer changed the same keys; nothing was written.
            UnserializableValueError: JSON cannot hold a value; nothing was written.
            DurabilityUnknownError: the file was replaced, but may not survive a power loss.
            ReentrantTransactionError: this task is inside a transaction on the same file.
            OSError: nothing was written, and the changes are still unsaved.
        """
        await self._perform(self._save())

    async def incr(self, key: str, delta: float = 1, default: float = 0) -> Any:
        """Add to a number, atomically across all processes. Suspends.

        An unsaved change of the key is saved along with it; other keys are not.

        Args:
            key: the key.
            delta: what to add, an ``int`` or ``float``.
            default: the number to start from if the key is missing.

        Returns:
            The new number.

        Raises:
            TypeError: the value is not a number (``bool`` does not count as one); the file is unchanged.
            OSError: as well as everything else that :meth:`save` raises.
        """
        return await self._perform(self._incr(key, delta, default))

    async def add(self, key: str, value: Any) -> bool:
        """Set a key only if it is missing, atomically across all processes. Suspends.

        Returns:
            Whether this call set it. If not, memory now has the value in the file.

        Raises:
            OSError: as well as everything else that :meth:`save` raises.
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
            OSError: as well as everything else that :meth:`save` raises.
        """
        return bool(await self._perform(self._compare_and_set(key, expected, new)))

    async def mutate(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value with a function of it, atomically across all processes. Suspends.

        Args:
            key: the key.
            fn: ``fn(value) -> value``; it runs under the lock, in another thread: keep it pure and quick. It gets its
                own copy, and may run again if the lock file is deleted meanwhile.
            default: what it gets if the key is missing.

        Returns:
            What the function returned.

        Raises:
            Exception: what the function raised; only this call fails, and it changes nothing.
            OSError: as well as everything else that :meth:`save` raises.
        """
        return await self._perform(self._mutate(key, fn, default))

    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a context manager for exclusive access to the file, across tasks, threads and processes.

        ``async with ctx.transaction() as tx:`` gives a mapping over the file's committed state. Changes made in it are
        committed together when the block ends, and discarded if it raises an exception. A block that changes nothing
        writes nothing. Entering and leaving suspend; the body may await anything except another call on the same
        file.

        Args:
            timeout: how long to wait for the lock, in seconds; by default the context's ``lock_timeout``.

        Raises:
            LockTimeoutError: on entering.
            ReentrantTransactionError: on entering, if this task already has one open on the same file.
            LockLostError: on leaving, if the lock file was deleted meanwhile; nothing was written.
            OSError: on leaving, as well as everything else that :meth:`save` raises.
        """
        return AsyncTransaction(self, self._lock_timeout if timeout is None else check_timeout(timeout, "timeout"))

    def watch(self, *keys: str) -> AsyncWatch:
        """Return an iterator over changes by other writers: other processes, and other contexts in this process.

        ``async for changes in ctx.watch("a"):`` yields dictionaries from each changed key to its :class:`Change`. The
        first has everything that differs from what this context knew of the file at this call. Intermediate values
        may be skipped, the last one never is. Memory is not changed; ``load()`` or ``save()`` takes the changes over.
        Each step suspends until there are changes.

        With the package ``watchfiles`` (the extra ``watch``) a change is seen in less than a tenth of a second.
        Without it, or where the file system reports no events, the file is checked twenty times a second.

        Args:
            keys: the keys to watch; all of them if none is given.

        Returns:
            An asynchronous iterator and context manager with ``aclose()``. It closes itself when garbage collected.

        Raises:
            OSError: on getting the next changes, if the file cannot be read. A missing file has no keys.
        """
        return AsyncWatch(self, keys)

    async def lock_holder(self) -> Holder | None:
        """Return the current holder of the file's lock, or None. Suspends.

        Raises:
            OSError: the lock file cannot be read.
        """
        self._enter_loop()
        return await run_in_pool(self._sync_lock_holder)

    def _sync_load_internal(self) -> Reading | None:
        """Read and split the file; runs in the default executor."""
        return self._read()

    def _sync_save_internal(self) -> None:
        """Run a lock cycle for all waiting calls, if the lock is free; runs in the default executor."""
        (self._queue_here() or self._attach()).run()

    def _sync_lock_holder(self) -> Holder | None:
        return (self._queue_here() or self._attach()).store.holder()

    def _prepare(self) -> None:
        self._bind(None)

    def _bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._lock = asyncio.Lock()
        self._loop = loop
        self._pid = os.getpid()
        self._attaching = asyncio.Lock()
        self._unattached: deque[None] = deque()  # one entry per call that waits for the queue to be found
        self._driver: asyncio.Task[None] | None = None
        self._unstarted: asyncio.Future[Any] | None = None
        self._in_flight: dict[Request, _Flight] = {}
        self._clock: asyncio.TimerHandle | None = None

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._pid == os.getpid() and not self._loop.is_closed():
                message = "this context belongs to another event loop, which is still open; create one context per loop"
                raise ContextUsageError(message).about(self._path)
            self._bind(loop)
        return loop

    async def _perform(
        self, operation: Operation, *, patience: float | None = None, kind: type[Request] = Request
    ) -> Any:
        """Carry out an operation in a cycle, and return its result.

        If cancelled before the cycle has begun, the call is withdrawn. Afterwards, it is completed first, and then the
        cancellation propagates.
        """
        try:
            loop = self._enter_loop()
            queue = None if self._unattached else self._queue_here()
            if queue is None:
                queue = await self._attached()
            patience = self._lock_timeout if patience is None else patience
            request = self._request(operation, kind, patient=patience >= TRY_ONLY_SECONDS)
            await self._submit(queue, request)
            return await self._outcome(loop, queue, request, patience)
        finally:
            self._over(operation)

    async def _outcome(
        self, loop: asyncio.AbstractEventLoop, queue: CommitQueue, request: Request, patience: float
    ) -> Any:
        """Wait for a queued call, and return its result."""
        began = loop.time()
        self._watch(loop, request, _Flight(queue, began + patience if request.patient else math.inf))
        if queue.needs_running() or not request.patient:
            self._drive(loop, queue)
        try:
            await request.waiter
        except BaseException as error:
            withdrawn = queue.withdraw(request)
            self._in_flight.pop(request, None)
            if isinstance(error, asyncio.CancelledError) and not withdrawn:
                await self._wait_out(request)
                if isinstance(request.result, Turn):
                    await self._end(request.result, Operation("transaction"))
            raise
        if request.error is not None:
            raise request.error
        if request.is_withdrawn:
            raise await self._timed_out(queue, loop.time() - began)
        return request.result

    async def _end(self, turn: Turn, operation: Operation) -> None:
        """End a transaction with an operation; completes despite cancellation."""
        request = self._request(operation, Request, patient=True)
        turn.end(request)  # before the first await: even a discarded task does not leave the lock held
        try:
            await request.waiter
        except asyncio.CancelledError:
            await self._wait_out(request)
            raise
        if request.error is not None:
            raise request.error

    def _request(self, operation: Operation, kind: type[Request], *, patient: bool) -> Request:
        owner = Owner.current(blocks=False)
        request = kind(self._path, operation, owner, self._deliver, durable=self._durable, patient=patient)
        request.waiter = asyncio.get_running_loop().create_future()
        return request

    async def _attached(self) -> CommitQueue:
        """Find the queue of the file; calls waiting for this continue in order, and none overtakes them."""
        unattached = self._unattached
        unattached.append(None)
        try:
            async with self._attaching:
                queue = self._queue_here()
                return queue if queue is not None else await run_in_pool(self._attach)
        finally:
            unattached.pop()

    async def _submit(self, queue: CommitQueue, request: Request) -> None:
        """Queue a call; refuse one inside its own transaction, unless the loop is about to end the transaction."""
        for _ in range(_TURNS):
            try:
                return queue.submit(request)
            except ReentrantTransactionError:
                await asyncio.sleep(0)
        return queue.submit(request)

    async def _timed_out(self, queue: CommitQueue, waited: float) -> LockTimeoutError:
        """Return the error of a call that timed out, without taking too long to build it."""
        finding = asyncio.ensure_future(run_in_pool(queue.timed_out, waited))
        await asyncio.wait((finding,), timeout=_FIND_HOLDER_SECONDS)
        if finding.done():
            return finding.result()
        finding.cancel()
        return LockTimeoutError(waited, Holder()).about(self._path)

    async def _wait_out(self, request: Request) -> None:
        """Wait for a call that has begun, despite cancellation by a task, a timeout, or a repeating cancel scope."""
        with shielded():
            while not request.arrived:
                request.waiter = asyncio.get_running_loop().create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await request.waiter

    def _drive(self, loop: asyncio.AbstractEventLoop, queue: CommitQueue) -> None:
        """Make sure that a task of this context runs the queue."""
        if self._driver is None or self._driver.done():
            self._driver = loop.create_task(self._run(loop, queue))
            self._driver.add_done_callback(self._driven)

    async def _run(self, loop: asyncio.AbstractEventLoop, queue: CommitQueue) -> None:
        """Run the queue in the default executor, while calls are waiting and no thread runs it."""
        while True:
            async with self._lock:
                await self._in_executor(loop, self._sync_save_internal)
            is_turned = queue is not self._queue_here()  # load() found that the path points to another file
            if is_turned or not queue.needs_running():
                return

    def _driven(self, driver: asyncio.Task[None]) -> None:
        """Leave the rest to the pool, however the driver ended; it may have been cancelled before its first step."""
        failure = None if driver.cancelled() else driver.exception()
        if failure is not None:  # from an executor that was shut down, or an override
            self._give_up(lambda request: request.fail(own_copy(failure)))
        for queue in self._queues_in_flight():
            queue.run_elsewhere(even_if_busy=self._has_impatient())

    async def _in_executor(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
        """Run a function in the default executor, or in the pool if the executor does not begin it soon."""
        if self._unstarted is not None and not self._unstarted.done():
            return await run_in_pool(function)
        once: deque[Callable[[], T]] = deque([function])
        try:
            job = loop.run_in_executor(None, _run_once, once)
        except RuntimeError:
            if _executors_work():  # but this one was shut down
                raise
            return function()
        try:
            await asyncio.wait((job,), timeout=_SOON_SECONDS)
        except asyncio.CancelledError:
            job.cancel()
            raise
        if not once:
            return await job  # type: ignore[return-value]  # it took the function
        once.clear()
        self._unstarted = job
        return await run_in_pool(function)

    def _watch(self, loop: asyncio.AbstractEventLoop, request: Request, flight: _Flight) -> None:
        """Record when a request times out; one timer serves all requests, as most never time out."""
        self._in_flight[request] = flight
        self._set_clock(loop, min(flight.deadline, loop.time() + (_TICK_SECONDS if request.patient else _SOON_SECONDS)))

    def _set_clock(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._clock is not None:
            if self._clock.when() <= when:
                return
            self._clock.cancel()
        self._clock = loop.call_at(when, self._look_at_the_time, loop)

    def _look_at_the_time(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._clock = None
        self._give_up(partial(self._is_late, now))
        if not self._in_flight:
            return
        for queue in self._queues_in_flight():
            queue.look_after(even_if_busy=self._has_impatient())
        # A call that has begun is over soon, or is withdrawn if its cycle has to be repeated.
        deadlines = (flight.deadline for flight in self._in_flight.values())
        coming = min((deadline for deadline in deadlines if deadline > now), default=math.inf)
        tick = _SOON_SECONDS if self._has_impatient() else _TICK_SECONDS
        self._set_clock(loop, min(max(coming, now + _SHORTEST_TICK_SECONDS), now + tick))

    def _is_late(self, now: float, request: Request) -> bool:
        flight = self._in_flight[request]
        return flight.deadline <= now and flight.queue.withdraw(request)

    def _queues_in_flight(self) -> Iterable[CommitQueue]:
        return dict.fromkeys(flight.queue for flight in self._in_flight.values())

    def _has_impatient(self) -> bool:
        return not all(request.patient for request in self._in_flight)

    def _give_up(self, withdrawn: Callable[[Request], bool]) -> None:
        for request in [request for request in self._in_flight if withdrawn(request)]:
            self._tell(request)

    def _tell(self, request: Request) -> None:
        self._in_flight.pop(request, None)
        self._over(request.operation)
        request.arrived = True
        if not request.waiter.done():  # it is done if the caller is being cancelled
            request.waiter.set_result(None)

    def _deliver(self, requests: Sequence[Request]) -> None:
        """Deliver completed calls to their event loops; runs in the thread of the cycle."""
        loops = dict.fromkeys(request.waiter.get_loop() for request in requests)
        for loop in loops:
            calls = [request for request in requests if request.waiter.get_loop() is loop]
            self._receive(calls)
            try:
                loop.call_soon_threadsafe(self._arrive, calls)
            except RuntimeError:  # the loop was closed, so there is no waiting task
                for request in calls:
                    if isinstance(request.result, Turn):
                        request.result.abandon()

    def _arrive(self, requests: Sequence[Request]) -> None:
        try:
            self._drain()
        finally:
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
        transaction = self._context._transaction(turn.snapshot)  # noqa: SLF001
        self._open = turn, transaction
        return transaction

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Commit, or discard after an exception."""
        assert self._open is not None, "entered"
        turn, transaction = self._open
        if error is not None and turn.is_inherited:
            return  # only the parent can end the transaction; the exception propagates
        operation = Operation("transaction")
        try:
            if error is None:
                operation = transaction._commit()  # noqa: SLF001
        finally:
            try:
                if isinstance(error, GeneratorExit):  # the task was discarded: nothing can be awaited
                    turn.abandon()
                else:
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
        self._check()
        loop = asyncio.get_running_loop()
        self._enter_loop(loop)
        find = partial(self._follow, partial(_ring, loop, self._rung))
        while not self._closed:
            self._rung.clear()
            await run_in_pool(self._observer.look, find)
            if changes := self._observer.take_changes():
                return changes
            await self._rung.wait()
        raise StopAsyncIteration

    def _enter_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                msg = "this watch belongs to another event loop, which is still open; create one watch per loop"
                raise ContextUsageError(msg).about(self._path)
            self._loop, self._rung = loop, asyncio.Event()
            self._unsubscribe()

    async def aclose(self) -> None:
        """End the iteration, even for a task waiting for changes. Does not suspend."""
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


def _run_once(once: deque[Callable[[], T]]) -> T | None:
    """Run a function, unless another thread has taken it."""
    try:
        function = once.pop()
    except IndexError:
        return None
    return function()


def _executors_work() -> bool:
    """Whether a new executor would accept a job: false at interpreter exit, or if no thread can be started."""
    try:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(int)
    except RuntimeError:
        return False
    return True
