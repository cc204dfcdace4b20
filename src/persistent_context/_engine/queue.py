"""Group commit: one lock cycle carries out all calls of this process that wait for the same file.

A cycle is lock, read, apply in order, write, unlock; then each call gets its own result or error. It runs in the thread
that requests it if the lock is free, and otherwise in a daemon thread of the process's pool, which waits for the lock:
waiting calls never occupy an executor thread, and a hung holder does not keep the interpreter from exiting. A
transaction is a call whose cycle stays open until its body has ended.

Lock order: a context's ``asyncio.Lock``, then the file lock. A caller's thread never waits for a lock here, since a
signal handler or finalizer may interrupt it anywhere and make another call.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from .._model.operations import Draft
from .._printable import printable
from .._stores.jsonfile.document import Document
from .._stores.jsonfile.store import JsonFileStore, Session, Store
from ..errors import (
    ContextUsageError,
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    PersistentContextError,
    ReentrantTransactionError,
)
from ..types import Holder
from .request import Begin, Deliver, Owner, Request
from .worker import pool

_logger = logging.getLogger("persistent_context")

_IN_VAIN_SECONDS: Final = 1.0
"""How long a thread waits for the lock before the lock file is checked again."""

_HELD_UP_SECONDS: Final = 0.001
"""How long a thread waits for the lock before it is no longer assumed to be free."""


class _Outcome(enum.Enum):
    """How an attempt to run a cycle ended."""

    NO_LOCK = enum.auto()
    DONE = enum.auto()
    GRANTED = enum.auto()
    """A transaction is open, and its end takes care of the waiting calls."""
    ABANDONED = enum.auto()
    """The wait was abandoned, and another thread takes care of the waiting calls."""


class Turn:
    """A transaction's turn: the lock is held until it ends. It ends itself when no longer referenced."""

    __slots__ = ("__weakref__", "_queue", "_sessions", "document")

    def __init__(self, queue: CommitQueue, session: Session, document: Document) -> None:
        self.document: Final = document
        """The content of the file."""
        self._queue = queue
        self._sessions = deque([session])  # taking it out is ending it

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the parent process, and was inherited by a fork."""
        return os.getpid() != self._queue.pid

    @property
    def is_open(self) -> bool:
        """Whether ending it has not begun."""
        return bool(self._sessions)

    def end(self, request: Request) -> None:
        """Apply the request's operation, release the lock, and deliver the request; does not wait for it.

        A second call with the same request does nothing.

        Raises:
            ContextUsageError: in a forked child; the lock stays with the parent.
        """
        if self.is_inherited:
            msg = (
                f"this transaction belongs to process {self._queue.pid}, and cannot be used in a process forked from it"
            )
            raise ContextUsageError(msg).about(self._queue.name)
        self._queue.end(self._sessions, [request])

    def abandon(self) -> None:
        """Release the lock without writing, unless it has ended; does not wait."""
        if self.is_open and not self.is_inherited:
            self._queue.end(self._sessions, [])

    def __del__(self) -> None:
        if not sys.is_finalizing():  # pragma: no branch - at the interpreter's exit, which runs no coverage
            self.abandon()


class CommitQueue:
    """The waiting calls of this process for one file, and the transaction that holds it.

    Args:
        store: the file.
        name: the name of the file, for errors and thread names.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store: Final = store
        self.name: Final = name
        self.pid: Final = os.getpid()
        self._thread_name = f"persistent_context {os.path.basename(name)}"
        self._waiting: deque[Request] = deque()  # a call leaves it by being taken, or by being withdrawn in any thread
        self._busy = threading.Lock()  # held while a thread runs a cycle or a transaction is open; never waited for
        self._cycle_thread: int | None = None
        self._waiting_since: float | None = None  # since when a thread has been waiting for the lock
        self._holder: Owner | None = None  # of the open transaction

    def submit(self, request: Request) -> None:
        """Queue a call; the queue has to be run afterwards.

        Raises:
            ReentrantTransactionError: the call would wait for its own task or thread.
        """
        self._check_reentrancy(request.owner)
        self._waiting.append(request)

    def withdraw(self, request: Request) -> bool:
        """Withdraw a call that has not begun, so that it never takes effect; return whether it is withdrawn."""
        is_withdrawn = request.withdraw()
        if is_withdrawn:
            self._discard(request)
        return is_withdrawn

    def needs_running(self) -> bool:
        """Whether calls wait and no thread takes care of them."""
        return bool(self._waiting) and not self._busy.locked()

    def run(self) -> None:
        """Run one cycle here if the lock is free, and leave the rest to a pool thread; never waits for a lock.

        This also is the one try of calls that only try.
        """
        self._try()
        self.run_elsewhere()

    def run_elsewhere(self, *, even_if_busy: bool = False) -> bool:
        """Let a pool thread run the queue, or try here if there is none; never waits for a lock.

        Args:
            even_if_busy: even while another thread runs it, for a call that only tries.

        Returns:
            Whether a thread takes care of the queue. If not, call again soon.
        """
        if not self._waiting or (self._busy.locked() and not even_if_busy):
            return True
        if pool.submit(self._run_all, self._thread_name):
            return True
        self._try()
        return False

    def look_after(self, *, even_if_busy: bool = False) -> bool:
        """Check on the queue, for a call that has waited a while: make sure that a thread runs it, not in vain."""
        since = self._waiting_since
        if since is not None and time.monotonic() - since > _IN_VAIN_SECONDS:
            pool.submit(self._abandon_wait, self._thread_name)
        return self.run_elsewhere(even_if_busy=even_if_busy)

    def end(self, sessions: deque[Session], batch: Sequence[Request]) -> None:
        """End a transaction: apply the operation, and release the lock.

        This runs in a pool thread, so that a full executor cannot keep the lock held.

        Args:
            sessions: holds the session of the transaction, unless it has ended.
            batch: the request with its operation, if there is one.
        """
        if sessions:
            self._holder = None  # now: its task may call again, and waits for its turn
        if not pool.submit(partial(self._end_turn, sessions, batch, self._run_all), self._thread_name):
            self._end_turn(sessions, batch, self.run_elsewhere)

    def timed_out(self, waited: float) -> LockTimeoutError:
        """Return the error of a call that timed out. It looks up the holder, so do not call it in a loop's thread."""
        try:
            holder = self.store.holder(probe=False)
        except OSError:  # too many open files, for example: the holder is unknown
            holder = Holder()
        error = LockTimeoutError(waited, holder).about(self.name)
        _logger.debug("%s", error)
        return error

    def disown(self) -> None:
        """Release everything, in a forked child."""
        self.store.forget_after_fork()

    def _check_reentrancy(self, owner: Owner) -> None:
        coming = [request.owner for request in self._beginnings()] if owner.blocks else ()
        holder = self._holder
        if self._cycle_thread == owner.thread:
            what = "a callable that runs under the lock of this file made a call that needs the same lock"
        elif any(map(owner.would_hold_up, coming)):
            what = "this call would block the event loop that a transaction ahead of it on the same file needs"
        elif any(map(owner.is_inside, coming)):
            what = "this call interrupts a thread that is waiting for a transaction on the same file"
        elif holder is None:
            return
        elif owner.is_inside(holder):
            who = "thread" if holder.task is None else "task"
            what = f"this {who} is inside a transaction on the same file; use the transaction, or leave it first"
        elif holder.thread == owner.thread and holder.task is not None and owner.blocks:
            what = "this thread is inside a transaction on the same file, which could not end while this call blocks it"
        else:
            return
        raise ReentrantTransactionError(what).about(self.name)

    def _beginnings(self) -> list[Begin]:
        waiting = self._waiting.copy()
        return [request for request in waiting if isinstance(request, Begin) and not request.is_withdrawn]

    # -------------------------------- running cycles

    def _run_all(self) -> None:
        """Run cycles while calls are waiting, waiting for the lock if necessary."""
        self._try()
        while self._turn(wait=True) is _Outcome.DONE:
            pass

    def _try(self) -> None:
        """Run a cycle if the lock is free; otherwise, reject the calls that only try."""
        trying = [request for request in self._waiting.copy() if not request.patient]
        outcome: _Outcome | None = None
        if trying or not self.store.had_to_wait:  # else a try would most likely fail
            outcome = self._turn(wait=False)
            while outcome is _Outcome.DONE and any(request.is_waiting for request in trying):
                outcome = self._turn(wait=False)
        if outcome is not None or self._is_held_up():  # else another thread runs a cycle, and they get the next one
            self._settle([request for request in trying if self.withdraw(request)])

    def _is_held_up(self) -> bool:
        since = self._waiting_since
        return self._holder is not None or (since is not None and time.monotonic() - since > _HELD_UP_SECONDS)

    def _turn(self, *, wait: bool) -> _Outcome | None:
        """Run one cycle if calls are waiting and no other thread runs one; otherwise return None.

        The caller must take care of calls that arrive meanwhile: their threads found this one busy.
        """
        if not self._waiting or not self._busy.acquire(blocking=False):
            return None
        return self._carry_on(wait=wait)

    def _carry_on(self, *, wait: bool) -> _Outcome:
        outcome = self._cycle(wait=wait) if self._waiting else _Outcome.DONE
        if outcome in {_Outcome.NO_LOCK, _Outcome.DONE}:
            self._cycle_thread = None
            self._busy.release()
        return outcome

    def _abandon_wait(self) -> None:
        """Wait for the lock file at the path, if a thread is waiting for one that was deleted."""
        abandoned = self.store.is_waiting_in_vain() and self.store.abandon_wait()
        if abandoned and self._carry_on(wait=True) is _Outcome.DONE:
            self._run_all()

    def _end_turn(self, sessions: deque[Session], batch: Sequence[Request], go_on: Callable[[], object]) -> None:
        try:
            session = sessions.pop()
        except IndexError:  # it was ended
            return
        self._cycle_thread = threading.get_ident()
        self._end_cycle(self._committed([request for request in batch if request.begin()], session), session)
        self._cycle_thread = None
        self._busy.release()
        go_on()

    # -------------------------------- one cycle

    def _cycle(self, *, wait: bool) -> _Outcome:
        """Run one cycle: lock, read, apply, write, unlock; every call completes, even if an exception is raised."""
        self._cycle_thread = threading.get_ident()
        batch: list[Request] = []
        session: Session | None = None
        try:
            session = self._begin(wait=wait)
            if session is None:
                return _Outcome.ABANDONED if wait else _Outcome.NO_LOCK
            self._take(batch)
            if batch and isinstance(batch[0], Begin):
                return self._grant(batch[0], session)
        except BaseException as error:  # noqa: BLE001 - reported to the calls
            over = self._failed(batch if session else self._take_all(), error)
        else:
            over = self._committed(batch, session)
        self._end_cycle(over, session)
        return _Outcome.DONE

    def _begin(self, *, wait: bool) -> Session | None:
        purpose = next((request.operation.purpose for request in self._waiting.copy()), "")
        if not wait:
            return self.store.begin(purpose, wait=False)
        self._waiting_since = time.monotonic()
        try:
            session = self.store.begin(purpose, wait=True)
        except BaseException:
            self._waiting_since = None
            raise
        if session is not None:  # else it is another thread's
            self._waiting_since = None
        return session

    def _grant(self, request: Begin, session: Session) -> _Outcome:
        """Give a transaction its turn."""
        request.document = session.read()
        request.result = Turn(self, session, request.document)
        self._cycle_thread = None  # before its body runs, which may end in another thread before this method returns
        self._settle([request])
        return _Outcome.GRANTED

    def _committed(self, batch: Sequence[Request], session: Session) -> Sequence[Request]:
        """Commit; record the outcome in each request, and return the completed ones."""
        try:
            return self._commit(batch, session) if batch else batch
        except BaseException as error:  # noqa: BLE001 - reported to all calls of the cycle
            return self._failed(batch, error)

    def _commit(self, batch: Sequence[Request], session: Session) -> Sequence[Request]:
        """Read, apply in order, and write once."""
        draft = Draft(session.read(), (request.operation for request in batch))
        try:
            applied = [request for request in batch if self._apply(request, draft)]
            document = draft.document()
            draft.commit(document, session.commit, durable=any(request.durable for request in applied))
        except DurabilityUnknownError as error:  # it was written nevertheless
            self._failed(applied, error)
        except LockLostError:
            if not all(request.operation.repeatable for request in applied):
                raise
            return [request for request in batch if request.error is not None] + self._queue_again(applied)
        finally:
            draft.end()
        for request in applied:
            request.document, request.position = document, draft.position
        return batch

    def _apply(self, request: Request, draft: Draft) -> bool:
        """Apply an operation to a draft; return whether it succeeded."""
        try:
            request.result = request.operation.apply(draft)
        except BaseException as error:  # noqa: BLE001 - reported to this call alone
            request.error = error  # unchanged: it may come from the caller's function
            if isinstance(error, PersistentContextError):
                error.about(self.name)
        return request.error is None

    # -------------------------------- the end of a cycle: nothing here raises, whatever fails

    def _end_cycle(self, over: Sequence[Request], session: Session | None) -> None:
        """Unlock, and deliver the completed calls: the end of every cycle and every transaction."""
        self._holder = None
        if session is not None:
            self._close(session, len(over))
        self._settle(over)

    def _close(self, session: Session, operations: int) -> None:
        try:
            session.close(operations)
        except BaseException:  # out of memory, or a logging handler raised: the calls have taken effect nevertheless
            with contextlib.suppress(BaseException):
                session.close(operations)
            with contextlib.suppress(BaseException):
                _logger.exception("%s: the cycle did not end cleanly", printable(self.name))

    def _settle(self, over: Sequence[Request]) -> None:
        """Deliver the completed calls to their callers, in order."""
        groups: dict[Deliver, list[Request]] = {}
        for request in over:
            groups.setdefault(request.deliver, []).append(request)
        for deliver, requests in groups.items():
            deliver(requests)

    def _failed(self, batch: Iterable[Request], error: BaseException) -> Sequence[Request]:
        """Record the error in calls that have begun and have none of their own; return them."""
        begun = [request for request in batch if request.has_begun]
        for request in begun:
            request.error = request.error or self._named(own_copy(error))
        return begun

    def _named(self, error: BaseException) -> BaseException:
        if isinstance(error, PersistentContextError):
            error.about(self.name)
        elif isinstance(error, OSError) and error.errno is not None and error.filename is None:
            with contextlib.suppress(Exception):  # a subclass may not allow setting it
                error.filename = self.name  # the system does not know it for a descriptor
        return error

    # -------------------------------- what waits

    def _take(self, batch: list[Request]) -> None:
        """Begin the operations before the next transaction, or that transaction alone.

        Calls whose symlink now points to another file are moved there, and can be withdrawn meanwhile.
        """
        turned = {self.name: False}
        for request in self._waiting.copy():
            if request.path not in turned:
                turned[request.path] = os.path.realpath(request.path) != self.name
            is_begin = isinstance(request, Begin) and not turned[request.path]
            if is_begin and batch:
                return
            if turned[request.path]:
                queue_of(request.path).adopt(request)
            elif request.begin():
                batch.append(request)
                if is_begin:
                    self._holder = request.owner  # before it leaves the queue, where other calls see it
            self._discard(request)
            if is_begin and batch:
                return

    def _take_all(self) -> list[Request]:
        waiting = self._waiting.copy()
        for request in waiting:
            self._discard(request)
        return [request for request in waiting if request.begin()]

    def _discard(self, request: Request) -> None:
        with contextlib.suppress(ValueError):  # a thread that withdraws it may be doing the same
            self._waiting.remove(request)

    def adopt(self, request: Request) -> None:
        """Queue and run a call of another queue."""
        self._waiting.append(request)
        self.run_elsewhere(even_if_busy=not request.patient)

    def _queue_again(self, batch: Sequence[Request]) -> list[Request]:
        """Requeue operations, before all others, to apply them under the new lock; return those no longer wanted."""
        again = [request for request in batch if request.reopen()]
        self._waiting.extendleft(reversed(again))
        _logger.info("%s: the lock file was deleted; retrying under the new one", printable(self.name))
        return [request for request in batch if request.is_withdrawn]


def own_copy(error: BaseException) -> BaseException:
    """Return a copy of an error, as raising changes an exception; the error itself if it cannot be copied."""
    try:
        twin = copy.copy(error).with_traceback(error.__traceback__)
        twin.__cause__ = error.__cause__
    except Exception:  # noqa: BLE001 - from foreign exception classes
        return error
    return twin


_queues: Final[dict[str, weakref.ref[CommitQueue]]] = {}


def queue_of(path: str) -> CommitQueue:
    """Return this process's queue for a file, by its real path; all contexts on the file share it."""
    real = os.path.realpath(path)
    while True:
        known = _queues.get(real)
        queue = known and known()
        if queue:
            return queue
        if known is not None:
            _forget(real, known)
        queue = CommitQueue(JsonFileStore(real), real)
        if _queues.setdefault(real, weakref.ref(queue, partial(_forget, real)))() is queue:
            return queue


def _forget(real: str, dead: weakref.ref[CommitQueue]) -> None:
    if _queues.get(real) is dead:
        _queues.pop(real, None)


def _after_fork_in_child() -> None:
    for known in list(_queues.values()):
        if queue := known():
            queue.disown()
    _queues.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
