"""The blocking interface: SyncPersistentContext."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, Self, Unpack

from .._engine.guard import Released
from .._engine.owner import Owner, Stay
from .._engine.queue import CommitQueue
from .._engine.request import Begin, Request
from .._engine.turn import Turn
from .._flag import Flag
from .._model.operations import Operation
from ..types import Change, Holder
from .base import TRY_ONLY_SECONDS, BaseContext, Options, check_timeout, describe
from .transaction import Transaction
from .watch import Watch

_NAP_SECONDS: Final = 1.0
"""The longest uninterrupted wait: a Ctrl-C just before it, and any on Windows, is noticed when it ends."""

_POLL_SECONDS: Final = 0.02
"""The same if no thread can be started, so that the caller's thread has to check whether the lock is free."""


class SyncPersistentContext(BaseContext):
    __doc__ = describe(
        """A dictionary bound to one plain JSON file, for programs without an event loop.

        The same as :class:`PersistentContext`, except that calls block the thread instead of suspending a task. A
        context may be shared by several threads.
        """
    )

    @classmethod
    def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Create a context and load it; this is the recommended constructor. Blocks.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout`` and ``on_conflict``; see the class.
        """
        context = cls(filepath, **options)
        context.load()
        return context

    def __enter__(self) -> Self:
        """Load. Blocks."""
        self.load()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Save, unless the block raised an exception. Blocks."""
        if error is None:
            self.save()

    def load(self) -> None:
        """Replace memory with the content of the file; see :meth:`PersistentContext.load`. Blocks."""
        if not self._take_over(self._read()):
            self._perform(self._reload())

    def save(self) -> None:
        """Merge unsaved changes into the file; see :meth:`PersistentContext.save`. Blocks."""
        self._perform(self._save())

    def incr(self, key: str, delta: float = 1, default: float = 0) -> Any:
        """Add to a number and return the result; see :meth:`PersistentContext.incr`. Blocks."""
        return self._perform(self._incr(key, delta, default))

    def add(self, key: str, value: Any) -> bool:
        """Set a key only if it is missing; see :meth:`PersistentContext.add`. Blocks."""
        return bool(self._perform(self._add(key, value)))

    def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set a key only if it has the expected value; see :meth:`PersistentContext.compare_and_set`. Blocks."""
        return bool(self._perform(self._compare_and_set(key, expected, new)))

    def mutate(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value with a function of it; see :meth:`PersistentContext.mutate`. Blocks."""
        return self._perform(self._mutate(key, fn, default))

    def transaction(self, timeout: float | None = None) -> SyncTransaction:
        """Return a context manager for exclusive access to the file; see :meth:`PersistentContext.transaction`."""
        return SyncTransaction(self, self._lock_timeout if timeout is None else check_timeout(timeout, "timeout"))

    def watch(self, *keys: str) -> SyncWatch:
        """Return an iterator over changes by other writers; see :meth:`PersistentContext.watch`. Each step blocks."""
        return SyncWatch(self, keys)

    def lock_holder(self) -> Holder | None:
        """Return the current holder of the file's lock, or None. Blocks."""
        return (self._queue_here() or self._attach()).store.holder()

    def _guarded(self) -> AbstractContextManager[object]:
        """Return the lock of memory, after taking over queued outcomes."""
        self._drain()
        return super()._guarded()

    def _perform(self, operation: Operation, *, patience: float | None = None, kind: type[Request] = Request) -> Any:
        """Carry out an operation in a cycle in another thread, which signals do not interrupt, and return its result.

        If interrupted before the cycle has begun, the call is withdrawn. Afterwards, it is completed first, and then
        the exception propagates.
        """
        queue: CommitQueue | None = None
        request: Request | None = None
        try:
            queue = self._queue_here() or self._attach()
            patience = self._lock_timeout if patience is None else patience
            request = self._request(operation, kind, patient=patience >= TRY_ONLY_SECONDS)
            began = time.monotonic()
            queue.submit(request)
            with Released():
                self._wait(queue, request, began + patience)
            self._over(operation)
            return _result(queue, request, began)
        except BaseException:
            if queue is not None and request is not None and not queue.withdraw(request):
                with Released():
                    self._wait_out(request)
                if isinstance(request.result, Turn):
                    request.result.abandon()
            self._over(operation)
            raise

    def _end(self, turn: Turn, operation: Operation) -> None:
        """End a transaction with an operation; completes despite interruptions."""
        request = self._request(operation, Request, patient=True)
        try:
            turn.end(request)
            while not request.arrived:
                request.waiter.acquire(timeout=_NAP_SECONDS)
        except BaseException:
            turn.end(request)
            self._wait_out(request)
            raise
        if request.error is not None:
            raise request.error

    def _request(self, operation: Operation, kind: type[Request], *, patient: bool) -> Request:
        owner = Owner.current(blocks=True)
        request = kind(self._path, operation, owner, self._deliver, durable=self._durable, patient=patient)
        request.waiter = threading.Lock()  # not an Event, as a signal handler may find its internal lock taken
        request.waiter.acquire()
        return request

    def _wait(self, queue: CommitQueue, request: Request, deadline: float) -> None:
        """Run the queue until the call is over, or is withdrawn because it timed out."""
        has_thread = queue.run_elsewhere(even_if_busy=not request.patient)
        while not request.arrived:
            left = deadline - time.monotonic()
            if left <= 0 and request.patient and queue.withdraw(request):
                return
            # A call that has begun is over soon, or is withdrawn if its cycle has to be repeated.
            nap = _NAP_SECONDS if has_thread and request.patient else _POLL_SECONDS
            if not request.waiter.acquire(timeout=min(left, nap) if left > 0 else nap):
                has_thread = queue.look_after(even_if_busy=not request.patient)

    def _wait_out(self, request: Request) -> None:
        """Wait for a call that has begun; raise an interrupting exception afterwards."""
        interrupt: BaseException | None = None
        while not request.arrived:
            try:
                request.waiter.acquire(timeout=_NAP_SECONDS)
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _deliver(self, requests: Sequence[Request]) -> None:
        """Queue the outcomes of calls for memory, and wake their callers; runs in the thread of the cycle."""
        self._receive(requests)
        for request in requests:
            if not request.arrived:
                request.arrived = True
                request.waiter.release()


class SyncTransaction:
    """The context manager that :meth:`SyncPersistentContext.transaction` returns."""

    def __init__(self, context: SyncPersistentContext, timeout: float) -> None:
        self._context = context
        self._timeout = timeout
        self._open: tuple[Turn, Transaction, Stay] | None = None

    def __enter__(self) -> Transaction:
        """Wait for the turn."""
        stay = Stay()
        turn: Turn | None = None
        try:
            turn = self._context._perform(Operation("transaction"), patience=self._timeout, kind=Begin)  # noqa: SLF001
            transaction = self._context._transaction(turn.snapshot)  # noqa: SLF001
            self._open = turn, transaction, stay
        except BaseException:
            stay.leave()
            if turn is not None:
                turn.abandon()
            raise
        return transaction

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Commit, or discard after an exception."""
        try:
            self._end(error)
        finally:
            self._clear()  # even if an interrupt came before ending began

    def _end(self, error: BaseException | None) -> None:
        assert self._open is not None, "entered"
        turn, transaction, _ = self._open
        if error is not None and turn.is_inherited:
            return  # only the parent can end the transaction; the exception propagates
        operation = Operation("transaction")
        try:
            if error is None:
                operation = transaction._commit()  # noqa: SLF001
        finally:
            self._context._end(turn, operation)  # noqa: SLF001

    def _clear(self) -> None:
        assert self._open is not None, "entered"
        turn, transaction, stay = self._open
        stay.leave()
        turn.abandon()
        self._context._over(transaction._finish())  # noqa: SLF001


class SyncWatch(Watch):
    """The iterator that :meth:`SyncPersistentContext.watch` returns."""

    def __init__(self, context: SyncPersistentContext, keys: Iterable[str]) -> None:
        super().__init__(context._path, context._observer(keys))  # noqa: SLF001
        self._rung = Flag()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Change]:
        """Wait for the next changes."""
        self._check()
        find = partial(self._follow, partial(_ring, self._rung))
        while not self._closed:
            self._rung.clear()
            self._observer.look(find)
            if changes := self._observer.take_changes():
                return changes
            while not self._closed and not self._rung.wait(_NAP_SECONDS):
                pass
        raise StopIteration

    def close(self) -> None:
        """End the iteration, even for a thread waiting for changes."""
        self._close()
        self._rung.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close it."""
        self.close()


def _ring(rung: Flag) -> bool:
    rung.set()
    return True


def _result(queue: CommitQueue, request: Request, began: float) -> Any:
    """Return the result of a completed call, or raise its error."""
    if request.error is not None:
        raise request.error
    if request.is_withdrawn:
        raise queue.timed_out(time.monotonic() - began)
    return request.result
