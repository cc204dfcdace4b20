"""A store in memory, for tests: several stores may share one place, as several processes share a file.

A test decides what happens there: :meth:`Place.plan` makes the next call that reaches a point fail, or wait at a
:class:`Gate` until the test opens it.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Literal

from persistent_context._model.snapshot import Changes, Snapshot
from persistent_context._model.values import MISSING, MaybeText, Raw, Text
from persistent_context._stores.protocol import NUMBER, CorruptStateError, SessionLostError, Traffic
from persistent_context.types import Holder

Point = Literal["snapshot", "begin", "read", "commit", "committed", "closed"]
"""Where something can be planned: when a call starts, after it has written, or after it has ended the session."""
Action = BaseException | Callable[[], object]

PART = 3  # entries


class Gate:
    """Holds the thread that reaches it until it is opened; then lets it go on, or raises an error there."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._error = error

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(60), "the gate was not opened"
        if self._error is not None:
            raise self._error


class MemorySnapshot:
    """A revision of a place; `None` as the texts means that nothing is stored there, not even an empty state."""

    def __init__(self, revision: int, texts: dict[str, Text] | None) -> None:
        self.revision = revision
        self.exists = texts is not None
        self.texts = texts or {}

    def get(self, keys: Iterable[str]) -> dict[str, Text]:
        return {key: self.texts[key] for key in keys if key in self.texts}

    def keys(self) -> Iterator[str]:
        return iter(self.texts)

    def parts(self) -> Iterator[Mapping[str, Raw]]:
        entries = iter(self.texts.items())
        while part := dict(itertools.islice(entries, PART)):
            yield {key: Raw(text) for key, text in part.items()}

    def changes_since(self, older: Snapshot) -> dict[str, MaybeText]:
        old = older.get(older.keys())
        changes: dict[str, MaybeText] = {key: text for key, text in self.texts.items() if old.get(key) != text}
        return changes | {key: MISSING for key in old if key not in self.texts}

    def changed(self, changes: Changes) -> MemorySnapshot:
        if not changes:
            return self
        texts: dict[str, MaybeText] = {key: text for key, text in self.texts.items() if key not in changes.moved}
        texts.update(changes.texts)
        return MemorySnapshot(self.revision + 1, {key: text for key, text in texts.items() if text is not MISSING})


class Turn:
    """A session that is open, or waits to be."""

    def __init__(self, purpose: str) -> None:
        self.holder = Holder(os.getpid(), socket.gethostname(), time.time(), purpose, verified=True)
        self.is_abandoned = False


class Place:
    """What stores share, and what is planned to happen there."""

    def __init__(self) -> None:
        self.state = MemorySnapshot(0, None)
        self.is_corrupt = False
        self.turns: list[Turn] = []
        """The turns of the open session and of the waiting ones, in order. :meth:`lose_sessions` replaces the list."""
        self.changed = threading.Condition()  # guards all of these
        self.subscriptions: set[MemorySubscription] = set()
        self.leases: defaultdict[tuple[str, bool], Place] = defaultdict(Place)
        self._plans: dict[Point, deque[Action]] = defaultdict(deque)

    def plan(self, point: Point, *actions: Action) -> None:
        """Plan for the next calls that reach a point, one action each: an error to raise, or a function to call."""
        self._plans[point].extend(actions)

    def reach(self, point: Point) -> None:
        """Do what is planned for a point, in the thread that has reached it."""
        if self._plans[point]:
            action = self._plans[point].popleft()
            if isinstance(action, BaseException):
                raise action
            action()

    def lose_sessions(self) -> None:
        """Lose all sessions, as if their lock file was deleted: waiting calls wait in vain until these are closed."""
        with self.changed:
            self.turns = []

    def write(self, state: MemorySnapshot) -> None:
        self.state = state
        for subscription in list(self.subscriptions):
            subscription.ring()


class MemorySession:
    """An open session."""

    is_exclusive = True

    def __init__(self, store: MemoryStore, turn: Turn, turns: list[Turn], waited: float) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self._store = store
        self._place = store.place
        self._turn = turn
        self._turns = turns
        self._since = time.monotonic()
        self._snapshot: MemorySnapshot | None = None
        self._is_over = False

    @property
    def snapshot(self) -> MemorySnapshot:
        if self._snapshot is None:
            self._place.reach("read")
            with self._place.changed:
                if self._place.is_corrupt:
                    raise CorruptStateError("corrupt")
                self._snapshot = self._store.read()
        return self._snapshot

    def set_aside(self) -> None:
        with self._place.changed:
            if self._place.is_corrupt:
                logging.getLogger("persistent_context").warning("memory: what was corrupt was set aside")
                self._place.is_corrupt = False
                self._place.write(MemorySnapshot(self._place.state.revision + 1, None))

    def commit(self, changes: Changes, *, durable: bool) -> MemorySnapshot:
        assert not self._is_over, "a session is for one commit, before it is closed"
        self._is_over = True
        self._place.reach("commit")
        after = self.snapshot.changed(changes)
        with self._place.changed:
            if self._turns is not self._place.turns:
                raise SessionLostError("the session was lost; nothing was written")
            if changes:
                self._place.write(after)
                self._snapshot = after
                self.bytes_written = self._store.count_commit(changes)
        self._place.reach("committed")
        return after

    def close(self) -> None:
        with self._place.changed:
            if self._turn not in self._turns:
                return
            self._is_over = True
            self.held = time.monotonic() - self._since
            self._turns.remove(self._turn)
            self._place.changed.notify_all()
        self._place.reach("closed")


class MemorySubscription:
    """A thread that calls the function; several changes during a call lead to one more call."""

    def __init__(self, place: Place, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> None:
        self._signals: SimpleQueue[bool] = SimpleQueue()  # the only queue that a signal handler may put something into
        self._place, self._notify, self._fail = place, notify, fail
        place.subscriptions.add(self)
        threading.Thread(target=self._run, daemon=True).start()

    def ring(self) -> None:
        self._signals.put(True)

    def close(self) -> None:
        self._signals.put(False)

    def _run(self) -> None:
        try:
            while self._wait() and self._notify():
                pass
        except BaseException as error:  # reported
            self._fail(error)
            self._notify()
        finally:
            self._place.subscriptions.discard(self)

    def _wait(self) -> bool:
        goes_on = self._signals.get()
        try:
            while goes_on:
                goes_on = self._signals.get_nowait()
        except Empty:
            return True
        return False


class MemoryStore:
    """A store at a place."""

    Session = MemorySession
    Subscription = MemorySubscription

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or Place()
        self._waiting: list[tuple[Turn, list[Turn]]] = []
        self._traffic = Traffic()

    def want(self, *, journal: bool | None) -> None:
        pass

    def snapshot(self, *, whole: bool = False) -> MemorySnapshot:
        self.place.reach("snapshot")
        with self.place.changed:
            if self.place.is_corrupt:
                raise CorruptStateError("corrupt")
            return self.read()

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> MemorySession | None:
        self.place.reach("begin")
        began, turn, must_wait = time.monotonic(), Turn(purpose), False
        with self.place.changed:
            while not turn.is_abandoned:
                turns = self.place.turns
                if turns and not wait:
                    return None
                must_wait = must_wait or bool(turns)
                turns.append(turn)
                self._waiting.append((turn, turns))
                self.place.changed.wait_for(lambda: turns[0] is turn)
                self._waiting.remove((turn, turns))
                if turns is self.place.turns and not turn.is_abandoned:
                    return self.Session(self, turn, turns, time.monotonic() - began if must_wait else 0.0)
                turns.remove(turn)
                self.place.changed.notify_all()
        return None

    def is_waiting(self) -> bool:
        with self.place.changed:
            return any(turns[0] is not turn for turn, turns in self._waiting)

    def abandon_vain_wait(self) -> bool:
        with self.place.changed:
            vain = [turn for turn, turns in self._waiting if turns is not self.place.turns and not turn.is_abandoned]
            for turn in vain[:1]:
                turn.is_abandoned = True
        return bool(vain)

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> MemorySubscription:
        with self.place.changed:
            return self.Subscription(self.place, notify, fail)

    def lease(self, name: str, *, lasting: bool) -> MemoryLease:
        return MemoryLease(self.place.leases[name, lasting], lasting=lasting)

    def holder(self, *, probe: bool = True) -> Holder | None:
        with self.place.changed:
            return self.place.turns[0].holder if self.place.turns else None

    def traffic(self) -> Traffic:
        return self._traffic

    def close(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        self._waiting.clear()

    def read(self) -> MemorySnapshot:
        state = self.place.state
        self._count(bytes_read=sum(map(len, state.texts.values())))
        return state

    def count_commit(self, changes: Changes) -> int:
        size = len("".join(changes.texts)) + sum(len(text) for text in changes.texts.values() if text is not MISSING)
        self._count(commits=1, bytes_written=size)
        return size

    def _count(self, **more: int) -> None:
        self._traffic = Traffic(**{name: n + more.get(name, 0) for name, n in self._traffic._asdict().items()})


class MemoryLease(MemoryStore):
    """A lease: a separate place, at which every session finds another number."""

    def __init__(self, place: Place, *, lasting: bool) -> None:
        super().__init__(place)
        self._lasting = lasting

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> MemorySession | None:
        session = super().begin(purpose, wait=wait)
        if session is not None and self._lasting:
            with self.place.changed:
                number = self.place.state.revision + 1
                self.place.write(MemorySnapshot(number, {NUMBER: b"%d" % number}))
            assert session.snapshot.exists, "read now: it is this session's number"
        return session
