"""Watching a file for changes by other writers: what is new at a check, and when to check."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final

from .._engine.queue import queue_of
from .._model.tracking import Tracker
from .._model.values import MISSING, MaybeText, check_key, decode, same
from .._stores.jsonfile.document import Document
from .._stores.jsonfile.flock import fork_gate
from .._stores.jsonfile.parse import CorruptDocumentError
from .._stores.jsonfile.store import Store
from ..errors import ContextUsageError
from ..types import Change

_LOOK_ANYWAY_MILLISECONDS: Final = 500
_STEP_MILLISECONDS: Final = 20
_GATHER_AT_MOST_MILLISECONDS: Final = 40
_READINGS: Final = 3
_NOTES_KEPT: Final = 1000
_LOOK_SECONDS: Final = 0.05
_TICKS: Final = 40


class Observer:
    """Finds out what other writers have changed since the last check.

    Args:
        path: the file.
        keys: the keys to watch; all if there are none.
        known: the content of the file, as far as the context knows.
        tracker: reports what the context itself writes, which is not news.
        position: the position of the last known cycle of the context.
    """

    def __init__(self, path: str, keys: Iterable[str], known: Document, tracker: Tracker, position: int) -> None:
        self._path = path
        self._keys = frozenset(map(check_key, keys))
        self._seen = known
        self._tracker = tracker
        self._position = position
        self._notes: deque[tuple[int, Mapping[str, MaybeText]]] = deque()
        self._latest = position, known
        self._news: dict[str, tuple[MaybeText, MaybeText]] = {}
        self._changes: dict[str, Change] = {}
        self._guard = threading.Lock()  # a cancelled call leaves a check running, concurrently with the next one
        self._looker: int | None = None
        self._failure: BaseException | None = None
        tracker.listen(self)
        self._notes.append((position, tracker.written_since(position)))

    def note(self, position: int, document: Document, texts: Mapping[str, MaybeText]) -> None:
        """Record what the context wrote; runs in the thread of the cycle, and never waits."""
        self._notes.append((position, texts))
        self._latest = position, document
        if len(self._notes) > _NOTES_KEPT and self._guard.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._guard.release()

    def fail(self, error: BaseException) -> None:
        """Make the next check raise an error."""
        self._failure = error

    def look(self) -> None:
        """Read the file, and gather what is new; runs in a worker thread.

        Raises:
            OSError: the file cannot be read. A missing file has no keys.
            ContextUsageError: a signal handler interrupted this thread in the middle of a check.
        """
        if self._looker == threading.get_ident():
            raise ContextUsageError("a watch cannot be used by a call that interrupts its own read of the file").about(
                self._path
            )
        with self._guard:
            try:
                self._looker = threading.get_ident()
                self._look()
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

    def _look(self) -> None:
        try:
            found = self._read(queue_of(self._path).store)
        except CorruptDocumentError:  # half-written by a writer without the lock, or soon to be moved aside
            return
        if found is None:
            return
        self._position, document = found
        own = self._take_notes(self._position)
        now = document.differences(self._seen)
        now |= _texts(document, own.keys() - now.keys())
        before = _texts(self._seen, now) | own
        self._seen = document
        for key, text in now.items():
            if key in own:
                self._news.pop(key, None)  # the context's own write is the latest
            if not self._keys or key in self._keys:
                self._news[key] = self._news.get(key, (before[key],))[0], text
        self._changes = {
            key: Change(_value(old), _value(new)) for key, (old, new) in self._news.items() if not same(old, new)
        }
        self._news = {key: self._news[key] for key in self._changes}

    def _read(self, store: Store) -> tuple[int, Document] | None:
        """Return the content of the file, and the context's own cycle that it follows.

        No cycle waits for this. While one is writing, the reading may be from before or after it: if the context
        writes all the time, what it wrote last is used instead. None means that a write is taking long: the change of
        the file at its end will trigger another check.
        """
        tracker = self._tracker
        for _ in range(_READINGS):
            position = tracker.written
            if not tracker.is_writing:
                document = store.read()
                if not tracker.is_writing and tracker.written == position:
                    return max(position, self._position), document
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
        for key in set(gone) - self._seen.find(gone).keys():
            del own[key]
        self._notes.appendleft((position, own))


def _texts(document: Document, keys: Iterable[str]) -> dict[str, MaybeText]:
    wanted = list(keys)
    return {**dict.fromkeys(wanted, MISSING), **document.find(wanted)}


def _value(text: MaybeText) -> Any:
    return MISSING if text is MISSING else decode(text)


class Watch:
    """What both kinds of watches share: closing, and refusing use after a fork."""

    def __init__(self, path: str, observer: Observer) -> None:
        self._path = path
        self._observer = observer
        self._pid = os.getpid()
        self._alarm: Alarm | None = None
        self._closed = False

    def _set_alarm(self, ring: Callable[[], bool]) -> None:
        if self._pid != os.getpid():
            msg = f"this watch belongs to process {self._pid}, and cannot be used in a process forked from it"
            raise ContextUsageError(msg).about(self._path)
        if self._alarm is None:
            self._alarm = Alarm(self._path, ring, self._observer.fail)
            weakref.finalize(self, self._alarm.silence)
        if self._closed:
            self._alarm.silence()

    def _close(self) -> None:
        self._closed = True
        self._silence()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.silence()
            self._alarm = None


class Flag:
    """A flag to wait for; unlike a ``threading.Event``, a signal handler may set it at any point."""

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Wake all waiting threads."""
        self._tokens.put(None)

    def is_set(self) -> bool:
        """Whether it is set."""
        return not self._tokens.empty()

    def clear(self) -> None:
        """Reset the flag."""
        with contextlib.suppress(Empty):
            while True:
                self._tokens.get_nowait()

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, or for some seconds; return whether it is set."""
        try:
            self._tokens.get(timeout=timeout)
        except Empty:
            return False
        self._tokens.put(None)  # for the next one
        return True


class Alarm:
    """Rings, in its own thread, when a file may have changed, and periodically anyway.

    File system events make it fast, and the periodic rings make it reliable: events are lost when too many come at
    once, are not available on every file system, and do not follow a symlink that is redirected. Without the package
    watchfiles, or where it cannot watch, it rings often enough to see changes in time.

    Args:
        path: the file.
        ring: called in the alarm's thread; returns False if there is no listener left.
        fail: called with the error that ends the alarm's thread, before it rings for the last time.
    """

    def __init__(self, path: str, ring: Callable[[], bool], fail: Callable[[BaseException], None]) -> None:
        self._silenced = Flag()
        threading.Thread(
            target=_sound, args=(path, ring, fail, self._silenced), name=f"watch {os.path.basename(path)}", daemon=True
        ).start()

    def silence(self) -> None:
        """Never ring again; the thread ends soon."""
        self._silenced.set()


def _sound(path: str, ring: Callable[[], bool], fail: Callable[[BaseException], None], silenced: Flag) -> None:
    try:
        while not silenced.is_set():
            target = os.path.realpath(path)
            for _ in itertools.chain(_events(target, silenced), _ticks(silenced)):
                if silenced.is_set() or not ring():
                    return
                if os.path.realpath(path) != target:
                    break
    except BaseException as error:  # noqa: BLE001 - reported to the waiting iterator
        fail(error)
        ring()


def _events(target: str, silenced: Flag) -> Iterator[object]:
    """Yield when the file was replaced or written, and periodically; end if it cannot be watched."""
    directory, name = os.path.split(target)
    # Not installed; no directory; too many watches; a name that is not UTF-8, which watchfiles cannot take.
    with contextlib.suppress(ImportError, OSError, RuntimeError, UnicodeError):
        with fork_gate:  # a child forked in the middle of an import would deadlock on importing the same
            import watchfiles  # noqa: PLC0415

        yield from watchfiles.watch(
            directory,
            watch_filter=lambda _, changed: os.path.basename(changed) == name,
            debounce=_GATHER_AT_MOST_MILLISECONDS,
            step=_STEP_MILLISECONDS,
            rust_timeout=_LOOK_ANYWAY_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=silenced,
            raise_interrupt=False,
            recursive=False,
        )


def _ticks(silenced: Flag) -> Iterator[object]:
    """Yield many times a second, for a while."""
    for _ in range(_TICKS):
        if silenced.wait(_LOOK_SECONDS):
            return
        yield None
