"""A context's memory behind a lock, with an inbox for the outcomes of cycles that it has not taken over yet."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from .._engine.guard import is_owned, new_guard
from .._engine.request import Request
from .._model.arrival import Arrival, Differences
from .._model.live import LiveDict
from .._model.memory import Memory
from .._model.merge import Unsaved
from .._model.operations import Commit, Operation, Refresh, Write
from .._model.snapshot import NOTHING
from .._model.values import MISSING, MaybeText


class GuardedMemory(Memory):
    """A memory that threads share.

    Cycles never take its lock: an interrupted holder may be waiting for their thread. They put outcomes into the inbox.

    Args:
        drains: whether what is in the inbox is taken over whenever the lock is about to be taken; otherwise only
            :meth:`drain` does that, so that memory does not change between two awaits.
    """

    def __init__(self, *, drains: bool) -> None:
        super().__init__()
        self._drains: Final = drains
        self._pid = os.getpid()
        self._lock = new_guard()
        self._inbox: deque[Arrival] = deque()
        self._is_draining = False

    @property
    def is_loaded(self) -> bool:
        """Whether memory has taken over a whole state, by a load or a save."""
        return self.data.is_complete

    def locked(self) -> AbstractContextManager[object]:
        """Return the lock of memory."""
        if self._drains:
            self.drain()
        return self._own_lock()

    def receive(self, requests: Sequence[Request]) -> None:
        """Queue the outcome of completed calls; runs in the thread of the cycle, and never waits.

        If this fails, these calls fail, and no others.
        """
        try:
            arrival = _arrival(requests)
        except Exception as error:  # noqa: BLE001 - MemoryError, for one
            for request in requests:
                request.error = request.error or error
            return
        if arrival is not None:
            self._inbox.append(arrival)

    def drain(self) -> None:
        """Take over queued outcomes in order, unless this call interrupts an update of memory in the same thread."""
        lock = self._own_lock()
        if not self._inbox or self._is_draining or is_owned(lock):
            return
        with lock:
            self._is_draining = True
            try:
                while self._inbox:
                    self.absorb(self._inbox[0])
                    self._inbox.popleft()
            finally:
                self._is_draining = False

    def begin_transaction(self) -> Commit:
        """Return the commit of a transaction that begins now."""
        with self.locked():
            return self.transaction()

    def include(self, commit: Commit, key: str) -> Unsaved | None:
        """Return the unsaved change of a key, if there is one, for a transaction that includes it."""
        with self.locked():
            return self.touch(commit, key)

    def deletes(self, key: str) -> bool:
        """Return whether memory has an unsaved deletion of a key."""
        if key in self.data or key not in self.data.touched:
            return False
        with self.locked():
            return self.send(key) is not None

    def note_end(self, operation: Operation) -> None:
        """Note that a call has ended, whatever its outcome."""
        if self._drains:
            self.drain()  # a load() under the lock is not a write, and len() and in must see its outcome as well
        if isinstance(operation, Write) and self.is_in_flight(operation):
            with self.locked():
                self.end(operation)

    def _own_lock(self) -> AbstractContextManager[object]:
        if self._pid != os.getpid():
            self._start_anew_after_fork()
        lock: AbstractContextManager[object] = self._lock
        return lock

    def _start_anew_after_fork(self) -> None:
        """Reset in a forked child: forget the calls of the parent's threads, one of which may have held the lock."""
        self._pid, self._lock = os.getpid(), new_guard()
        self._inbox.clear()
        self._is_draining = False
        self.forget_calls()


def _arrival(requests: Sequence[Request]) -> Arrival | None:
    """Compute the outcome of a cycle's calls, for memory."""
    writes = [request.operation for request in requests if isinstance(request.operation, Write)]
    over = [request for request in requests if request.snapshot is not None and request.operation.origin]
    if not over:
        return Arrival(0, NOTHING, {}, {}, over=writes) if writes else None
    snapshot, position = over[-1].snapshot, over[-1].position
    assert snapshot is not None, "of a completed call"
    calls: dict[str, Write] = {}
    whole: Refresh | None = None
    live: LiveDict | None = None
    for request in over:
        operation = request.operation
        if isinstance(operation, Write):
            calls.update(dict.fromkeys(operation.keys, operation))
        else:
            live = live or LiveDict.of(snapshot)
        if isinstance(operation, Refresh) and (snapshot.exists or operation.seen is NOTHING):  # as in catch_up()
            whole = operation
    found = snapshot.get(calls)
    texts: dict[str, MaybeText] = {key: found.get(key, MISSING) for key in calls}
    differences = Differences.between(whole.seen, snapshot) if whole else Differences()
    return Arrival(position, snapshot, calls, texts, whole, differences, live, writes)
