"""Watching a file for changes by other writers: what is new at a check, and when to check."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .._engine.registry import StoreQueue, queue_of
from .._model.faults import check_key
from .._model.snapshot import Snapshot
from .._model.tracking import Tracker
from .._model.values import MISSING, MaybeText, decode, same
from .._stores.protocol import CorruptStateError, SessionLostError, Store, Subscription
from ..errors import ContextUsageError
from ..types import Change

_READINGS: Final = 3
_NOTES_KEPT: Final = 1000


class Observer:
    """Finds out what other writers have changed since the last check.

    Args:
        path: the file.
        keys: the keys to watch; all if there are none.
        seen: the last state that the context has seen as a whole.
        since: newer texts of some keys, as far as the context knows.
        tracker: reports what the context itself writes, which is not a change by others.
        position: the position of the last known cycle of the context.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        path: str,
        keys: Iterable[str],
        seen: Snapshot,
        since: Mapping[str, MaybeText],
        *,
        tracker: Tracker,
        position: int,
    ) -> None:
        self._path = path
        self._keys = frozenset(map(check_key, keys))
        self._seen = seen
        self._since = since
        self._tracker = tracker
        self._position = position
        self._notes: deque[tuple[int, Mapping[str, MaybeText]]] = deque()
        self._latest = position, seen
        self._news: dict[str, tuple[MaybeText, MaybeText]] = {}
        self._changes: dict[str, Change] = {}
        self._guard = threading.Lock()  # a cancelled call leaves a check running, concurrently with the next one
        self._looker: int | None = None
        self._failure: BaseException | None = None
        tracker.listen(self)
        self._notes.append((position, tracker.written_since(position)))

    def note(self, position: int, snapshot: Snapshot, texts: Mapping[str, MaybeText]) -> None:
        """Record what the context wrote; runs in the thread of the cycle, and never waits."""
        self._notes.append((position, texts))
        self._latest = position, snapshot
        if len(self._notes) > _NOTES_KEPT and self._guard.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._guard.release()

    def fail(self, error: BaseException) -> None:
        """Make the next check raise an error."""
        self._failure = error

    def look(self, find: Callable[[], Store]) -> None:
        """Read the state, and gather what is new; runs in a worker thread.

        Args:
            find: returns the store; never called by two threads at once.

        Raises:
            OSError: the state cannot be read. A missing file has no keys.
            ContextUsageError: a signal handler interrupted this thread in the middle of a check.
        """
        if self._looker == threading.get_ident():
            raise ContextUsageError("a watch cannot be used by a call that interrupts its own read of the file").about(
                self._path
            )
        with self._guard:
            try:
                self._looker = threading.get_ident()
                self._look(find())
            finally:
                self._looker = None
        if self._failure is not None:
            raise self._failure

    def take_changes(self) -> dict[str, Change]:
        """Return what was gathered, once. Never waits: an event loop's thread may call it."""
        if not self._guard.acquire(blocking=False):
            return {}  # the check in progress will have it
        try:
            changes, self._changes, self._news = self._changes, {}, {}
        finally:
            self._guard.release()
        return changes

    def _look(self, store: Store) -> None:
        try:
            found = self._read(store)
        except (CorruptStateError, SessionLostError):  # half-written, soon to be moved aside, or out of reach
            return
        if found is None:
            return
        self._position, snapshot = found
        own = self._take_notes(self._position)
        now = snapshot.changes_since(self._seen)
        now |= _texts(snapshot, (own.keys() | self._since.keys()) - now.keys())
        before = {**_texts(self._seen, now), **self._since, **own}
        self._seen, self._since = snapshot, {}
        for key, text in now.items():
            if key in own:
                self._news.pop(key, None)  # the context's own write is the latest
            if not self._keys or key in self._keys:
                self._news[key] = self._news.get(key, (before[key],))[0], text
        self._changes = {
            key: Change(_value(old), _value(new)) for key, (old, new) in self._news.items() if not same(old, new)
        }
        self._news = {key: self._news[key] for key in self._changes}

    def _read(self, store: Store) -> tuple[int, Snapshot] | None:
        """Return the position of the context's own cycle before the content of the file, and that content.

        No cycle waits for this. While one is writing, the content may be from before or after it: if the context
        writes all the time, what it wrote last is used instead. None means that a write takes long: the change of the
        file at its end will trigger another check.
        """
        tracker = self._tracker
        for _ in range(_READINGS):
            position = tracker.written
            if not tracker.is_writing:
                snapshot = store.snapshot()
                if not tracker.is_writing and tracker.written == position:
                    return max(position, self._position), snapshot
        return self._latest if self._latest[0] > self._position else None

    def _take_notes(self, position: int) -> dict[str, MaybeText]:
        """Return what the context wrote since the last check, up to a cycle."""
        own: dict[str, MaybeText] = {}
        while self._notes and self._notes[0][0] <= position:
            own.update(self._notes.popleft()[1])
        return own

    def _fold(self) -> None:
        """Merge all notes into one, without keys that came and went."""
        position = self._latest[0]
        own = self._take_notes(position)
        gone = [key for key, text in own.items() if text is MISSING]
        for key in set(gone) - self._seen.get(gone).keys() - self._since.keys():
            del own[key]
        self._notes.appendleft((position, own))


def _texts(snapshot: Snapshot, keys: Iterable[str]) -> dict[str, MaybeText]:
    wanted = list(keys)
    return {**dict.fromkeys(wanted, MISSING), **snapshot.get(wanted)}


def _value(text: MaybeText) -> Any:
    return MISSING if text is MISSING else decode(text)


class Watch:
    """What both kinds of watches share: the subscription, closing, and refusing use after a fork."""

    def __init__(self, path: str, observer: Observer) -> None:
        self._path = path
        self._observer = observer
        self._pid = os.getpid()
        self._queue: StoreQueue | None = None
        self._subscribed: tuple[Store, Subscription] | None = None
        self._closed = False

    def _check(self) -> None:
        if self._pid != os.getpid():
            msg = f"this watch belongs to process {self._pid}, and cannot be used in a process forked from it"
            raise ContextUsageError(msg).about(self._path)

    def _follow(self, ring: Callable[[], bool]) -> Store:
        """Return the store that the place leads to now, after subscribing to it."""
        self._queue = queue_of(self._path)  # kept: with its last reference, the store goes, and its subscription
        store = self._queue.store
        if self._subscribed is None or self._subscribed[0] is not store:
            self._unsubscribe()
            self._subscribed = store, store.subscribe(ring, self._observer.fail)
            weakref.finalize(self, self._subscribed[1].close)
        if self._closed:
            self._unsubscribe()
        return store

    def _close(self) -> None:
        self._closed = True
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        subscribed, self._subscribed = self._subscribed, None
        if subscribed is not None:
            subscribed[1].close()
