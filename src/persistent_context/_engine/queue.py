"""Group commit: one lock cycle carries out all calls of this process that wait for the same file.

A cycle is lock, read, apply in order, write, unlock; then each call gets its own result or error. It runs in the thread
that requests it if the lock is free, and otherwise in a daemon thread of the process's pool, which waits for the lock:
waiting calls never occupy an executor thread, and a hung holder does not keep the interpreter from exiting. A
transaction is a call whose cycle stays open until its body has ended.

Lock order: a context's ``asyncio.Lock``, then the file lock. A caller's thread never waits for a lock here, since a
signal handler or finalizer may interrupt it anywhere and make another call.
"""

from __future__ import annotations

import enum
import gc
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from .._printable import printable
from .._stores.protocol import Session, SessionLostError, Sessions
from ..errors import ReentrantTransactionError, StoreUnavailableError
from ..types import Holder, Statistics
from .counts import Counts
from .cycle import carry_out, fail, read
from .holds import Hold, open_transactions, owner_inside
from .request import Begin, Request
from .turn import Turn
from .waiting import WaitingCalls, deliver
from .worker import pool

_logger = logging.getLogger("persistent_context")

_RECHECK_SECONDS: Final = 1.0
"""How long a thread waits for the lock before the lock file is checked again."""


class _Outcome(enum.Enum):
    """How an attempt to run a cycle ended."""

    NO_LOCK = enum.auto()
    DONE = enum.auto()
    GRANTED = enum.auto()
    """A transaction is open, and its end takes care of the waiting calls."""
    ABANDONED = enum.auto()
    """The wait was abandoned, and another thread takes care of the waiting calls."""


class CommitQueue:
    """The waiting calls of this process for one file, and the transaction that holds it.

    Args:
        store: the store, or one of its leases.
        name: its identity, for errors and thread names.
        queue_of: finds the queue of a place, which may lead to another store by now.
    """

    def __init__(self, store: Sessions, name: str, queue_of: Callable[[str], CommitQueue]) -> None:
        self.store: Sessions = store
        self.name: Final = name
        self.pid: Final = os.getpid()
        self._thread_name = f"persistent_context {os.path.basename(name)}"
        self._waiting = WaitingCalls()
        self._busy = threading.Lock()  # held while a thread runs a cycle or a transaction is open; never waited for
        self._cycle_thread: int | None = None
        self._waiting_since: float | None = None  # since when a thread has been in begin() that may wait
        self._queue_of = queue_of
        self.is_contended = False
        """Whether the last session had to wait for another process, so that a try would most likely fail."""
        self._counts = Counts(name)
        self._was_lost = False  # the last session: its name itself may lead to another store by now

    def submit(self, request: Request) -> None:
        """Queue a call; the queue has to be run afterwards.

        Raises:
            ReentrantTransactionError: the call would wait for its own task or thread.
        """
        coming = self._waiting.coming_owners() if request.owner.blocks else ()
        holder = owner_inside(self.name)
        if why := request.owner.why_not(self._cycle_thread, holder, coming):
            raise ReentrantTransactionError(why).about(self.name)
        self._waiting.append(request)

    def withdraw(self, request: Request) -> bool:
        """Withdraw a call that has not begun, so that it never takes effect; return whether it is withdrawn."""
        return self._waiting.withdraw(request)

    def adopt(self, request: Request) -> None:
        """Queue and run a call of another queue."""
        self._waiting.append(request)
        self.run_elsewhere(even_if_busy=not request.patient)

    def needs_running(self) -> bool:
        """Whether calls wait and no thread takes care of them."""
        return bool(self._waiting) and not self._busy.locked()

    def run(self) -> None:
        """Run one cycle here if the lock is free, and leave the rest to a pool thread; never waits for a lock.

        This is also the one try of calls that only try.
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

    def wait_in_pool(self) -> bool:
        """Let a pool thread wait for the lock without trying first; return whether there is one."""
        return pool.submit(self._run_all, self._thread_name)

    def look_after(self, *, even_if_busy: bool = False) -> bool:
        """For a call that has waited a while, check that a thread runs the queue, and waits for the right lock file."""
        since = self._waiting_since
        if since is not None and time.monotonic() - since > _RECHECK_SECONDS:
            pool.submit(self._abandon_wait, self._thread_name)
        holder = owner_inside(self.name)
        if holder is not None and holder.is_left_behind:
            pool.submit(gc.collect, self._thread_name)  # discards the task, which ends its transaction
        return self.run_elsewhere(even_if_busy=even_if_busy)

    def end(self, sessions: deque[Session], batch: Sequence[Request]) -> None:
        """End a transaction: apply the operation, and release the lock.

        This runs in a pool thread, so that a full executor cannot keep the lock held.

        Args:
            sessions: holds the session of the transaction, unless it has ended.
            batch: the request with its operation, if there is one.
        """
        hold = open_transactions.get(self.name) if sessions else None
        if not pool.submit(partial(self._end_turn, sessions, batch, self._run_all), self._thread_name):
            self._end_turn(sessions, batch, self.run_elsewhere)
        elif hold is not None:  # not before: until then, a signal handler that waited would wait for its own thread
            hold.is_ending = True

    def find_holder(self) -> Holder | None:
        """Find the holder of the lock, for an error. This does I/O, so do not call it in a loop's thread.

        Raises:
            StoreUnavailableError: that is the reason, rather than a holder.
        """
        try:
            return self.store.holder(probe=False)
        except StoreUnavailableError as error:
            raise error.about(self.name) from None
        except OSError:  # too many open files, for example: the holder is unknown
            return Holder()

    def statistics(self) -> Statistics:
        """Return what this process has done so far."""
        return self._counts.statistics(self.store.traffic())

    # -------------------------------- running cycles

    def _run_all(self) -> None:
        """Run cycles while calls are waiting, waiting for the lock if necessary."""
        self._try()
        while self._turn(wait=True) is _Outcome.DONE:
            pass

    def _try(self) -> None:
        """Run a cycle if the lock is free; otherwise, reject the calls that only try."""
        trying = self._waiting.impatient()
        outcome: _Outcome | None = None
        if trying or not self.is_contended:
            outcome = self._turn(wait=False)
            while outcome is _Outcome.DONE and any(request.is_waiting for request in trying):
                outcome = self._turn(wait=False)
        if outcome is not None or self._is_held_up():  # else another thread runs a cycle, and they get the next one
            deliver([request for request in trying if self.withdraw(request)])

    def _is_held_up(self) -> bool:
        return owner_inside(self.name) is not None or self.store.is_waiting()

    def _turn(self, *, wait: bool) -> _Outcome | None:
        """Run one cycle if calls are waiting and no other thread runs one; otherwise return None.

        The caller must take care of calls that arrive during the cycle: their threads found this one busy.
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
        if self.store.abandon_vain_wait() and self._carry_on(wait=True) is _Outcome.DONE:
            self._run_all()

    def _end_turn(self, sessions: deque[Session], batch: Sequence[Request], go_on: Callable[[], object]) -> None:
        try:
            session = sessions.pop()
        except IndexError:  # it has ended
            return
        self._cycle_thread = threading.get_ident()
        self._carry_out([request for request in batch if request.begin()], session, "transaction")
        self._cycle_thread = None
        self._busy.release()
        go_on()

    def _cycle(self, *, wait: bool) -> _Outcome:
        """Run one cycle for the calls that wait; every call taken completes, even if an exception is raised."""
        self._cycle_thread = threading.get_ident()
        purpose = self._waiting.purpose()
        batch: list[Request] = []
        session: Session | None = None
        try:
            session = self._begin(purpose, wait=wait, exclusive=self._waiting.has_begin_first())
            if session is None:
                return _Outcome.ABANDONED if wait else _Outcome.NO_LOCK
            self._take(batch, session)
            if batch and isinstance(batch[0], Begin) and read(batch, session, self.name):
                return self._grant(batch[0], session)
        except SessionLostError:  # when reading for a transaction
            self._was_lost = True
            if session is not None:
                carry_out([], session, self.name)
            self._deliver(self._waiting.put_back(batch), session, purpose)
        except BaseException as error:  # noqa: BLE001 - reported to the calls
            over = batch if session else self._waiting.take_all()
            fail(over, error, self.name)
            if session is not None:
                carry_out([], session, self.name)
            self._deliver(over, session, purpose)
        else:
            self._carry_out(batch, session, purpose)
        return _Outcome.DONE

    def _begin(self, purpose: str, *, wait: bool, exclusive: bool) -> Session | None:
        self._waiting_since = time.monotonic() if wait else None
        try:
            session = self.store.begin(purpose, wait=wait, exclusive=exclusive)
        except BaseException:
            self._waiting_since = None
            raise
        if session is not None:  # else another thread may be waiting by now
            self._waiting_since = None
            self.is_contended = session.waited > 0
        return session

    def _take(self, batch: list[Request], session: Session) -> None:
        """Begin the operations before the next transaction, or that transaction alone if the session is exclusive.

        Calls whose place now leads to another store are moved there, and can be withdrawn until they begin.
        """
        leads_here = {} if self._was_lost else {self.name: True}
        self._was_lost = False
        for request in self._waiting.snapshot():
            place = request.place
            if place not in leads_here:
                leads_here[place] = self._queue_of(place) is self
            is_begin = isinstance(request, Begin) and leads_here[place]
            if is_begin and (batch or not session.is_exclusive):
                return
            if batch and (request.goes_alone or batch[0].goes_alone):
                return
            if not leads_here[place]:
                self._queue_of(place).adopt(request)
            elif request.begin():
                batch.append(request)
                if is_begin:
                    open_transactions[self.name] = Hold(request.owner)  # before others miss it in the queue
            self._waiting.remove(request)
            if is_begin and batch:
                return

    def _grant(self, request: Begin, session: Session) -> _Outcome:
        """Give a transaction its turn."""
        request.snapshot = session.snapshot
        request.result = Turn(self.name, session, request.snapshot, self.end)
        self._cycle_thread = None  # before its body runs, which may end in another thread before this method returns
        deliver([request])
        return _Outcome.GRANTED

    def _carry_out(self, batch: Sequence[Request], session: Session, purpose: str) -> None:
        """Carry out calls, close the session, and deliver what is over."""
        again = carry_out(batch, session, self.name)
        over = [request for request in batch if request not in again]
        if again:
            self._counts.note_retry()
            self._was_lost = True
            if again[0].goes_alone:
                _logger.info("%s: too much for one commit; the calls are carried out one by one", printable(self.name))
            elif session.is_exclusive:
                _logger.info("%s: the session was lost before anything was written; trying again", printable(self.name))
            over += self._waiting.put_back(again)
        self._deliver(over, session, purpose)

    def _deliver(self, over: Sequence[Request], session: Session | None, purpose: str) -> None:
        """Deliver the completed calls to their callers, in order: the end of every cycle and every transaction."""
        open_transactions.pop(self.name, None)
        if session is not None:
            self._counts.note(session, purpose, over)
        deliver(over)
