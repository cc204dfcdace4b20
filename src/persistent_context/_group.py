"""Group commit: all calls of this process that wait for the same file are carried by one cycle of its lock.

A cycle is lock, read, apply in order, write, unlock; then each call gets its own result or its own error. It runs in
the thread that asks for it while the lock is free, and otherwise in the file's own daemon thread, which waits for the
lock: who waits holds no thread of an executor, and a hung holder keeps no interpreter from exiting. A transaction is a
call whose cycle stays open until its body has ended.

Lock order: a context's ``asyncio.Lock``, then the file lock. The mutex in here is held for moments only.
"""

from __future__ import annotations

import copy
import enum
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ._document import Document
from ._errors import (
    ContextUsageError,
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    PersistentContextError,
    ReentrantTransactionError,
)
from ._operations import Draft, Operation
from ._printable import printable
from ._store import JsonFileStore, Session, Store
from ._worker import DaemonWorker

Deliver: TypeAlias = "Callable[[Sequence[Request]], None]"

_logger = logging.getLogger("persistent_context")


class _State(enum.Enum):
    WAITING = enum.auto()
    BEGUN = enum.auto()
    WITHDRAWN = enum.auto()


class Owner(NamedTuple):
    """Who makes a call: a thread, and the asyncio task that runs in it, if any."""

    thread: int
    task: object | None
    blocks: bool
    """Whether the thread stands still until the call is over."""


class _Outcome(enum.Enum):
    """How an attempt to run a cycle ended."""

    NO_LOCK = enum.auto()
    DONE = enum.auto()
    GRANTED = enum.auto()
    """A transaction is open, and its end takes care of what waits."""


class Request:
    """One call on its way through a cycle."""

    __slots__ = (
        "_queue",
        "_state",
        "arrived",
        "deliver",
        "document",
        "durable",
        "error",
        "operation",
        "owner",
        "path",
        "patient",
        "position",
        "result",
        "waiter",
    )

    def __init__(  # noqa: PLR0913 - made in one place of each face
        self,
        path: str,
        operation: Operation,
        owner: Owner,
        deliver: Deliver,
        *,
        durable: bool = True,
        patient: bool = True,
    ) -> None:
        self.path: Final = path
        """Of the file, as the caller knows it: a symlink may lead elsewhere by now."""
        self.operation: Final = operation
        self.owner: Final = owner
        self.deliver: Final = deliver
        """Gets those requests of a cycle that are over, in their order, in the thread of the cycle."""
        self.durable: Final = durable
        self.patient: Final = patient
        """Whether it waits for the lock, and does not only try."""
        self.waiter: Any = None
        """What the caller waits with; nothing in here looks at it."""
        self.arrived = False
        """Whether the caller has been told that the call is over."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.document: Document | None = None
        """What the file holds since the cycle, or None if the operation failed."""
        self.position = 0
        """Of the cycle that carried it, among all cycles of this process."""
        self._state = _State.WAITING
        self._queue: CommitQueue | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a cycle has taken the call, so that it cannot be withdrawn any more."""
        return self._state is _State.BEGUN

    def withdraw(self) -> bool:
        """Take back a call that has not begun, so that it never takes effect; return whether this was so."""
        return self._queue is not None and self._queue.change_state(self, _State.WAITING, _State.WITHDRAWN)

    def fail(self, error: Exception) -> bool:
        """Take back a call that has not begun, with an error; return whether this was so."""
        if not self.withdraw():
            return False
        self.error = error
        return True


class Begin(Request):
    """The beginning of a transaction; the result is the :class:`Turn`."""

    __slots__ = ()


class Turn(NamedTuple):
    """A transaction's turn: the lock is held until it is ended."""

    queue: CommitQueue
    session: Session

    @property
    def document(self) -> Document:
        """What the file holds."""
        return self.session.read()

    def end(self, request: Request) -> None:
        """Apply the request's operation, release the lock, and deliver the request; does not wait for it.

        Raises:
            ContextUsageError: in a forked child; the lock stays with the parent.
        """
        self.queue.end(self.session, request)


class CommitQueue:
    """The calls of this process that wait for one file, and the transaction that holds it.

    Args:
        store: the file.
        name: of the file, for errors and the thread.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store: Final = store
        self.name: Final = name
        self.pid: Final = os.getpid()
        self._mutex = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._busy = False  # a thread runs cycles or waits for the lock, or a transaction is open
        self._cycle_thread: int | None = None
        self._holder: Owner | None = None  # of the open transaction
        self._delivery = threading.Lock()  # has calls delivered in the order of their cycles
        self._worker = DaemonWorker(f"persistent_context {os.path.basename(name)}")

    def submit(self, request: Request) -> None:
        """Queue a call; it needs somebody to run the queue.

        Raises:
            ReentrantTransactionError: the call would wait for its own task or thread.
        """
        self._check_reentrancy(request.owner)
        self.accept(request)

    def accept(self, request: Request) -> None:
        """Queue a call that another queue had."""
        request._queue = self  # noqa: SLF001 - of this module
        with self._mutex:
            self._waiting.append(request)

    def needs_running(self) -> bool:
        """Whether calls wait and no thread takes care of them."""
        with self._mutex:
            return not self._busy and self._has_waiting()

    def run(self) -> None:
        """Run one cycle here if the lock is free, and leave all else to the file's own thread; waits for no lock."""
        if self._become_busy() and (self._is_crowded() or self._cycle(wait=False) is _Outcome.NO_LOCK):
            self._pass_on(patient=True)

    def run_elsewhere(self) -> None:
        """Have the file's own thread run the queue."""
        if self._become_busy():
            self._worker.submit(self._wait_and_run)

    def change_state(self, request: Request, old: _State, new: _State) -> bool:
        """Change the state of a request if it is the old one."""
        with self._mutex:
            if request._state is not old:  # noqa: SLF001 - of this module
                return False
            request._state = new  # noqa: SLF001
            return True

    def end(self, session: Session, request: Request) -> None:
        """End a transaction: apply the request's operation, and release the lock.

        It is done in the file's own thread, so that a full executor cannot keep the lock held.
        """
        if os.getpid() != self.pid:
            msg = f"this transaction belongs to process {self.pid}, from which this process was forked"
            raise ContextUsageError(msg).about(self.name)
        self._worker.submit(lambda: self._end_cycle([request], session))

    def timed_out(self, waited: float) -> LockTimeoutError:
        """Return the error of a call that waited too long. It looks who holds the lock: not for a loop's thread."""
        error = LockTimeoutError(waited, self.store.holder(probe=False)).about(self.name)
        _logger.debug("%s", error)
        return error

    def disown(self) -> None:
        """Let go of everything, in a forked child."""
        self.store.forget_after_fork()

    def _check_reentrancy(self, owner: Owner) -> None:
        holder = self._holder
        if self._cycle_thread == owner.thread:
            what = "a callable that runs in a cycle of this file called for another one"
        elif holder is None:
            return
        elif holder.task is not None and holder.task is owner.task:
            what = "this task is inside a transaction on the same file; use the transaction, or leave it first"
        elif holder.thread == owner.thread and (owner.blocks or holder.task is None):
            what = "this thread is inside a transaction on the same file, which could not end while it waited"
        else:
            return
        raise ReentrantTransactionError(what).about(self.name)

    def _become_busy(self) -> bool:
        with self._mutex:
            if self._busy or not self._has_waiting():
                return False
            self._busy = True
            return True

    def _is_crowded(self) -> bool:
        """Whether a try would be in vain: the lock had to be waited for the last time. Who only tries gets a try."""
        with self._mutex:
            return self.store.had_to_wait and all(request.patient for request in self._waiting)

    def _pass_on(self, *, patient: bool = False) -> None:
        """Leave what waits to the file's own thread; with ``patient`` only if somebody would wait for the lock."""
        with self._mutex:
            self._busy = self._has_waiting(patient=patient)
            if self._busy:
                self._worker.submit(self._wait_and_run)

    def _has_waiting(self, *, patient: bool = False) -> bool:
        while self._waiting and self._waiting[0]._state is _State.WITHDRAWN:  # noqa: SLF001 - of this module
            self._waiting.popleft()
        return any(request.patient or not patient for request in self._waiting)

    def _wait_and_run(self) -> None:
        self._cycle(wait=True)

    def _cycle(self, *, wait: bool) -> _Outcome:
        """Run one cycle: lock, read, apply, write, unlock."""
        try:
            session = self.store.begin(self._purpose(), wait=wait)
        except BaseException as error:  # noqa: BLE001 - it is the calls' error
            calls = self._take_all()
            for request in calls:
                request.error = _own_copy(error)
            self._finish(calls)
            return _Outcome.DONE
        if session is None:
            return _Outcome.NO_LOCK
        batch = self._send_on(self._take_batch())
        # It may be empty by now: then nothing is done, not even a corrupt file moved.
        if batch and isinstance(batch[0], Begin):
            return self._grant(batch[0], session)
        self._end_cycle(batch, session)
        return _Outcome.DONE

    def _send_on(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Send on calls whose symlink was turned to another file, and return the others."""
        paths = {request.path for request in batch} - {self.name}
        turned = {path for path in paths if os.path.realpath(path) != self.name}
        if not turned:
            return batch
        for request in batch:
            if request.path in turned:
                request._state = _State.WAITING  # noqa: SLF001 - of this module
                queue = queue_of(request.path)
                queue.accept(request)
                queue.run_elsewhere()
        return [request for request in batch if request.path not in turned]

    def _end_cycle(self, batch: Sequence[Request], session: Session) -> None:
        """Commit, unlock, deliver: the end of every cycle and of every transaction."""
        over: Sequence[Request] = ()
        try:
            over = self._commit(batch, session)
        finally:
            self._close(session, len(over))
        self._holder = None
        self._finish(over)

    def _close(self, session: Session, operations: int) -> None:
        """Unlock; who listens to metrics is told, and must not wait for this thread."""
        self._cycle_thread = threading.get_ident()
        session.close(operations)
        self._cycle_thread = None

    def _finish(self, over: Sequence[Request]) -> None:
        with self._delivery:
            self._pass_on()
            self._settle(over)

    def _commit(self, batch: Sequence[Request], session: Session) -> Sequence[Request]:
        """Read, apply, and write once; note in each request what became of it, and return those that are over."""
        if not batch:
            return batch
        applied = batch
        failure: BaseException | None = None
        draft: Draft | None = None
        try:
            draft = Draft(session.read(), (request.operation for request in batch))
            applied = self._apply_in_order(batch, draft)
            document = draft.document()
            draft.commit(document, session.commit, durable=any(request.durable for request in applied))
        except DurabilityUnknownError as error:
            failure = error
        except LockLostError as error:
            if all(request.operation.repeatable for request in applied):
                self._queue_again(applied)
                return [request for request in batch if request.error is not None]
            failure = error
        except BaseException as error:  # noqa: BLE001 - it is the error of all calls of the cycle
            failure = error
        finally:
            if draft is not None:
                draft.end()
        if draft is not None and (failure is None or isinstance(failure, DurabilityUnknownError)):
            for request in applied:
                request.document, request.position = document, draft.position
        for request in applied:
            request.error = failure and _own_copy(failure)
        return batch

    def _apply_in_order(self, batch: Sequence[Request], draft: Draft) -> Sequence[Request]:
        """Apply the operations to a draft; return those that did not fail, and changed it."""
        self._cycle_thread = threading.get_ident()
        for request in batch:
            try:
                request.result = request.operation.apply(draft)
            except BaseException as error:  # noqa: BLE001 - it is this call's error alone
                request.error = error
        self._cycle_thread = None
        return [request for request in batch if request.error is None]

    def _grant(self, request: Request, session: Session) -> _Outcome:
        """Give a transaction its turn, unless the file cannot be read."""
        try:
            request.document = session.read()
        except BaseException as error:  # noqa: BLE001 - it is the transaction's error
            request.error = _own_copy(error)
            self._close(session, 1)
            self._finish([request])
            return _Outcome.DONE
        request.result = Turn(self, session)
        self._holder = request.owner
        with self._delivery:
            self._settle([request])
        return _Outcome.GRANTED

    def _settle(self, batch: Sequence[Request]) -> None:
        """Deliver the calls that are over to those who made them, in their order."""
        groups: dict[Deliver, list[Request]] = {}
        for request in batch:
            if request.error is not None:
                self._name_file(request.error)
            groups.setdefault(request.deliver, []).append(request)
        for deliver, requests in groups.items():
            deliver(requests)

    def _name_file(self, error: BaseException) -> None:
        if isinstance(error, PersistentContextError):
            error.about(self.name)
        elif isinstance(error, OSError) and error.filename is None:
            error.filename = self.name  # the system does not say it of a descriptor

    def _purpose(self) -> str:
        with self._mutex:
            return next((request.operation.purpose for request in self._waiting), "nothing")

    def _take_all(self) -> list[Request]:
        with self._mutex:
            batch = [request for request in self._waiting if request._state is _State.WAITING]  # noqa: SLF001
            self._waiting.clear()
            for request in batch:
                request._state = _State.BEGUN  # noqa: SLF001
        return batch

    def _take_batch(self) -> list[Request]:
        """Take the operations that come before the next transaction, or that transaction alone."""
        batch: list[Request] = []
        with self._mutex:
            while self._waiting:
                request = self._waiting[0]
                if request._state is _State.WAITING:  # noqa: SLF001
                    if isinstance(request, Begin) and batch:
                        break
                    request._state = _State.BEGUN  # noqa: SLF001
                    batch.append(request)
                self._waiting.popleft()
                if isinstance(request, Begin) and batch:
                    break
        return batch

    def _queue_again(self, batch: Sequence[Request]) -> None:
        """Have operations applied once more, under the new lock, before all others."""
        _logger.info("%s: the lock file was deleted; the cycle starts again under the new one", printable(self.name))
        with self._mutex:
            for request in reversed(batch):
                request._state = _State.WAITING  # noqa: SLF001
                request.result = None
                self._waiting.appendleft(request)


def _own_copy(error: BaseException) -> BaseException:
    """Return an error to raise in one more place, which changes an exception."""
    twin = copy.copy(error).with_traceback(error.__traceback__)
    twin.__cause__ = error.__cause__
    return twin


_queues: weakref.WeakValueDictionary[str, CommitQueue] = weakref.WeakValueDictionary()
_queues_guard = threading.Lock()


def queue_of(path: str) -> CommitQueue:
    """Return this process's queue for a file, by its real path; all contexts on the file share it."""
    real = os.path.realpath(path)
    with _queues_guard:
        queue = _queues.get(real)
        if queue is None:
            queue = _queues[real] = CommitQueue(JsonFileStore(real), real)
        return queue


def _after_fork_in_child() -> None:
    global _queues, _queues_guard
    for queue in list(_queues.values()):
        queue.disown()
    _queues, _queues_guard = weakref.WeakValueDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
