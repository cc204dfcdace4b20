"""Group commit: all calls of this process that wait for the same file are carried by one cycle of its lock.

A cycle is lock, read, apply in order, write, unlock; then each call gets its own result or its own error. It runs in
the thread that asks for it while the lock is free, and otherwise in a daemon thread of the process's pool, which waits
for the lock: waiting calls never occupy a thread of an executor, and a hung holder keeps no interpreter from exiting. A
transaction is a call whose cycle stays open until its body has ended.

Lock order: a context's ``asyncio.Lock``, then the file lock. Nothing that a caller's thread does in here waits for a
lock, since the thread may be interrupted anywhere by a signal handler or a finalizer that calls as well.
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

from ._document import Document
from ._errors import (
    ContextUsageError,
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    PersistentContextError,
    ReentrantTransactionError,
)
from ._operations import Draft
from ._printable import printable
from ._request import Begin, Deliver, Owner, Request
from ._store import JsonFileStore, Session, Store
from ._types import Holder
from ._worker import pool

_logger = logging.getLogger("persistent_context")

_IN_VAIN_SECONDS: Final = 1.0
"""How long a thread has waited for the lock when the lock file is first looked at again."""

_HELD_UP_SECONDS: Final = 0.001
"""How long a thread has waited for the lock when it is no longer taken for free."""


class _Outcome(enum.Enum):
    """How an attempt to run a cycle ended."""

    NO_LOCK = enum.auto()
    DONE = enum.auto()
    GRANTED = enum.auto()
    """A transaction is open, and its end takes care of what waits."""
    ABANDONED = enum.auto()
    """The wait was in vain, and another thread takes care of what waits."""


class Turn:
    """A transaction's turn: the lock is held until it is ended. One that nobody refers to any more ends itself."""

    __slots__ = ("__weakref__", "_queue", "_sessions", "document")

    def __init__(self, queue: CommitQueue, session: Session, document: Document) -> None:
        self.document: Final = document
        """What the file holds."""
        self._queue = queue
        self._sessions = deque([session])  # whoever takes it out ends it

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the process from which this one was forked."""
        return os.getpid() != self._queue.pid

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to end it."""
        return bool(self._sessions)

    def end(self, request: Request) -> None:
        """Apply the request's operation, release the lock, and deliver the request; does not wait for it.

        Called once more with the same request, it does nothing.

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
        """Release the lock with nothing written, unless it was ended; does not wait for it."""
        if self.is_open and not self.is_inherited:
            self._queue.end(self._sessions, [])

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.abandon()


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
        self._thread_name = f"persistent_context {os.path.basename(name)}"
        self._waiting: deque[Request] = deque()  # only whoever holds _busy takes out
        self._busy = threading.Lock()  # never waited for: a thread runs a cycle, or a transaction is open
        self._cycle_thread: int | None = None
        self._waiting_since: float | None = None  # a thread waits for the lock
        self._holder: Owner | None = None  # of the open transaction

    def submit(self, request: Request) -> None:
        """Queue a call; it needs somebody to run the queue.

        Raises:
            ReentrantTransactionError: the call would wait for its own task or thread.
        """
        self._check_reentrancy(request.owner)
        self._waiting.append(request)

    def withdraw(self, request: Request) -> bool:
        """Take back a call that has not begun, so that it never takes effect; return whether this is so."""
        is_withdrawn = request.withdraw()
        if is_withdrawn:
            self._discard(request)
        return is_withdrawn

    def needs_running(self) -> bool:
        """Whether calls wait and no thread takes care of them."""
        return bool(self._waiting) and not self._busy.locked()

    def run(self) -> None:
        """Run one cycle here if the lock is free, and leave all else to a thread of the pool; waits for no lock.

        Calls that only try have had their try by that.
        """
        self._try()
        self.run_elsewhere()

    def run_elsewhere(self, *, even_if_busy: bool = False) -> bool:
        """Have a thread of the pool run the queue, and where there is none, try here; waits for no lock.

        Args:
            even_if_busy: also while another thread runs it: for a call that only tries.

        Returns:
            Whether a thread takes care of the queue. If not, it is worth another call soon.
        """
        if not self._waiting or (self._busy.locked() and not even_if_busy):
            return True
        if pool.submit(self._run_all, self._thread_name):
            return True
        self._try()
        return False

    def look_after(self, *, even_if_busy: bool = False) -> bool:
        """Do what a call does that has waited for a while: see to it that somebody runs the queue, and not in vain."""
        since = self._waiting_since
        if since is not None and time.monotonic() - since > _IN_VAIN_SECONDS:
            pool.submit(self._abandon_wait, self._thread_name)
        return self.run_elsewhere(even_if_busy=even_if_busy)

    def end(self, sessions: deque[Session], batch: Sequence[Request]) -> None:
        """End a transaction: apply the operation, and release the lock.

        It is done in a thread of the pool, so that a full executor cannot keep the lock held.

        Args:
            sessions: what holds the session of the transaction, unless it was ended.
            batch: the request with its operation, if there is something to do.
        """
        if sessions:
            self._holder = None  # at once: its task may call again, and waits for its turn
        if not pool.submit(partial(self._end_turn, sessions, batch, self._run_all), self._thread_name):
            self._end_turn(sessions, batch, self.run_elsewhere)

    def timed_out(self, waited: float) -> LockTimeoutError:
        """Return the error of a call that waited too long. It looks who holds the lock: not for a loop's thread."""
        try:
            holder = self.store.holder(probe=False)
        except OSError:  # too many open files, for one: who it is cannot be found out
            holder = Holder()
        error = LockTimeoutError(waited, holder).about(self.name)
        _logger.debug("%s", error)
        return error

    def disown(self) -> None:
        """Let go of everything, in a forked child."""
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
        """Run cycles for as long as calls wait, and wait for the lock where one of them does."""
        self._try()
        while self._turn(wait=True) is _Outcome.DONE:
            pass

    def _try(self) -> None:
        """Run a cycle if the lock is free, and turn away those who only try, if it is not."""
        trying = [request for request in self._waiting.copy() if not request.patient]
        outcome: _Outcome | None = None
        if trying or not self.store.had_to_wait:  # else a try would be in vain, most likely
            outcome = self._turn(wait=False)
            while outcome is _Outcome.DONE and any(request.is_waiting for request in trying):
                outcome = self._turn(wait=False)
        if outcome is not None or self._is_held_up():  # else another thread runs a cycle, and they have the next one
            self._settle([request for request in trying if self.withdraw(request)])

    def _is_held_up(self) -> bool:
        since = self._waiting_since
        return self._holder is not None or (since is not None and time.monotonic() - since > _HELD_UP_SECONDS)

    def _turn(self, *, wait: bool) -> _Outcome | None:
        """Run one cycle if calls wait, and no other thread is at it; else return None.

        What comes meanwhile is for the caller to look after: it was not seen by those who found this thread busy.
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
        """Wait for the lock file that stands at the path, if another one is waited for, which somebody has deleted."""
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
        """Run one cycle: lock, read, apply, write, unlock; whatever is raised, every call is told."""
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
        except BaseException as error:  # noqa: BLE001 - it is the calls' error
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
        self._cycle_thread = None  # before its body goes on, which may end in another thread before this one does
        self._settle([request])
        return _Outcome.GRANTED

    def _committed(self, batch: Sequence[Request], session: Session) -> Sequence[Request]:
        """Commit; note in each request what became of it, and return those that are over."""
        try:
            return self._commit(batch, session) if batch else batch
        except BaseException as error:  # noqa: BLE001 - it is the error of all calls of the cycle
            return self._failed(batch, error)

    def _commit(self, batch: Sequence[Request], session: Session) -> Sequence[Request]:
        """Read, apply in order, and write once."""
        draft = Draft(session.read(), (request.operation for request in batch))
        try:
            applied = [request for request in batch if self._apply(request, draft)]
            document = draft.document()
            draft.commit(document, session.commit, durable=any(request.durable for request in applied))
        except DurabilityUnknownError as error:  # it is written all the same
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
        """Apply an operation to a draft; return whether it did not fail, and changed it."""
        try:
            request.result = request.operation.apply(draft)
        except BaseException as error:  # noqa: BLE001 - it is this call's error alone
            request.error = error  # as it is: it may be one of the caller's own function
            if isinstance(error, PersistentContextError):
                error.about(self.name)
        return request.error is None

    # -------------------------------- the end of a cycle: nothing here raises, whatever fails

    def _end_cycle(self, over: Sequence[Request], session: Session | None) -> None:
        """Unlock, and tell the calls that are over: the end of every cycle and of every transaction."""
        self._holder = None
        if session is not None:
            self._close(session, len(over))
        self._settle(over)

    def _close(self, session: Session, operations: int) -> None:
        try:
            session.close(operations)
        except BaseException:  # memory ran out, or a logging handler raised: what the calls did is done all the same
            with contextlib.suppress(BaseException):
                session.close(operations)
            with contextlib.suppress(BaseException):
                _logger.exception("%s: the cycle did not end cleanly", printable(self.name))

    def _settle(self, over: Sequence[Request]) -> None:
        """Deliver the calls that are over to those who made them, in their order."""
        groups: dict[Deliver, list[Request]] = {}
        for request in over:
            groups.setdefault(request.deliver, []).append(request)
        for deliver, requests in groups.items():
            deliver(requests)

    def _failed(self, batch: Iterable[Request], error: BaseException) -> Sequence[Request]:
        """Note the error of calls that have begun, and have none of their own; return them."""
        begun = [request for request in batch if request.has_begun]
        for request in begun:
            request.error = request.error or self._named(own_copy(error))
        return begun

    def _named(self, error: BaseException) -> BaseException:
        if isinstance(error, PersistentContextError):
            error.about(self.name)
        elif isinstance(error, OSError) and error.errno is not None and error.filename is None:
            with contextlib.suppress(Exception):  # of a class that does not let it be set
                error.filename = self.name  # the system does not say it of a descriptor
        return error

    # -------------------------------- what waits

    def _take(self, batch: list[Request]) -> None:
        """Begin the operations that come before the next transaction, or that transaction alone.

        Calls whose symlink was turned to another file go there, and can be withdrawn all the while.
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
                    self._holder = request.owner  # before it leaves the queue, where whoever comes sees it
            self._discard(request)
            if is_begin and batch:
                return

    def _take_all(self) -> list[Request]:
        waiting = self._waiting.copy()
        for request in waiting:
            self._discard(request)
        return [request for request in waiting if request.begin()]

    def _discard(self, request: Request) -> None:
        with contextlib.suppress(ValueError):  # whoever withdraws it may be doing the same
            self._waiting.remove(request)

    def adopt(self, request: Request) -> None:
        """Queue and run a call that another queue had."""
        self._waiting.append(request)
        self.run_elsewhere(even_if_busy=not request.patient)

    def _queue_again(self, batch: Sequence[Request]) -> list[Request]:
        """Have operations applied once more, under the new lock, before all others; return those nobody wants now."""
        again = [request for request in batch if request.reopen()]
        self._waiting.extendleft(reversed(again))
        _logger.info("%s: the lock file was deleted; retrying under the new one", printable(self.name))
        return [request for request in batch if request.is_withdrawn]


def own_copy(error: BaseException) -> BaseException:
    """Return an error to raise in one more place, which changes an exception; the error itself if it has no copy."""
    try:
        twin = copy.copy(error).with_traceback(error.__traceback__)
        twin.__cause__ = error.__cause__
    except Exception:  # noqa: BLE001 - whatever a class of somebody else's raises there
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
