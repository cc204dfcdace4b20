"""Watching a file for what other writers change: what is new at a look, and when to look."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ._document import Document
from ._errors import ContextUsageError
from ._group import queue_of
from ._merge import OwnWrites
from ._parse import CorruptDocumentError
from ._types import Change
from ._values import MISSING, MaybeText, check_key, decode, same

_LOOK_ANYWAY_MILLISECONDS: Final = 500
_STEP_MILLISECONDS: Final = 20
_GATHER_AT_MOST_MILLISECONDS: Final = 40
_TICK_SECONDS: Final = 0.05
_TICKS: Final = 40


class Observer:
    """Finds out what other writers have changed since the last look.

    Args:
        path: the file.
        keys: those to look at; none stands for all.
        known: what the file held as far as the context knows.
        writes: what the context itself writes, which is no news.
    """

    def __init__(self, path: str, keys: Iterable[str], known: Document, writes: OwnWrites) -> None:
        self._path = path
        self._keys = frozenset(map(check_key, keys))
        self._seen = known
        self._writes = writes
        self._mark = writes.mark
        self._news: dict[str, tuple[MaybeText, MaybeText]] = {}
        self._changes: dict[str, Change] = {}
        self._guard = threading.Lock()  # a cancelled call leaves a look behind, which goes on beside the next one

    def look(self) -> None:
        """Read the file, and gather what is new; in a worker thread.

        Raises:
            OSError: the file cannot be read. One that is missing has no keys.
        """
        with self._guard:
            self._look()

    def take_changes(self) -> dict[str, Change]:
        """Return what was gathered; it is not returned again. Never waits: an event loop's thread may call it."""
        if not self._guard.acquire(blocking=False):
            return {}  # the look that is going on will have it
        try:
            changes, self._changes, self._news = self._changes, {}, {}
        finally:
            self._guard.release()
        return changes

    def _look(self) -> None:
        queue = queue_of(self._path)
        with queue.between_commits():
            try:
                document = queue.store.read()
            except CorruptDocumentError:  # half-written by somebody who takes no lock, or to be moved aside soon
                return
            own = self._writes.since(self._mark, self._writes.keys())
            self._mark = self._writes.mark
        now = document.differences(self._seen)
        now |= _texts(document, own.keys() - now.keys())
        before = _texts(self._seen, now) | own
        self._seen = document
        for key, text in now.items():
            old = self._news[key][0] if key in self._news else before[key]
            if not self._keys or key in self._keys:
                self._news[key] = old, text
        self._changes = {
            key: Change(_value(old), _value(new)) for key, (old, new) in self._news.items() if not same(old, new)
        }
        self._news = {key: self._news[key] for key in self._changes}


def _texts(document: Document, keys: Iterable[str]) -> dict[str, MaybeText]:
    wanted = list(keys)
    return {**dict.fromkeys(wanted, MISSING), **document.find(wanted)}


def _value(text: MaybeText) -> Any:
    return MISSING if text is MISSING else decode(text)


class Watch:
    """What both faces' watches have in common: they are closed, and do not survive a fork."""

    def __init__(self, path: str, observer: Observer) -> None:
        self._path = path
        self._observer = observer
        self._pid = os.getpid()
        self._alarm: Alarm | None = None
        self._closed = False

    def _set_alarm(self, ring: Callable[[], bool]) -> None:
        if self._pid != os.getpid():
            msg = f"this watch belongs to process {self._pid}, from which this process was forked"
            raise ContextUsageError(msg).about(self._path)
        if self._alarm is None:
            self._alarm = Alarm(self._path, ring)
            weakref.finalize(self, self._alarm.silence)
        if self._closed:
            self._alarm.silence()

    def _close(self) -> None:
        self._closed = True
        if self._alarm is not None:
            self._alarm.silence()


class Alarm:
    """Rings, in a thread of its own, when a file may have changed, and now and then anyway.

    The events of the file system make it quick, and the looks without one make it certain: events are lost when too
    many come at once, are not to be had on every file system, and do not follow a symlink that is turned elsewhere.
    Without the package watchfiles, or where it cannot watch, it rings so often that a change is seen in time.

    Args:
        path: the file.
        ring: called in the alarm's thread; returns False if nobody listens any more.
    """

    def __init__(self, path: str, ring: Callable[[], bool]) -> None:
        self._silenced = threading.Event()
        threading.Thread(
            target=_sound, args=(path, ring, self._silenced), name=f"watch {os.path.basename(path)}", daemon=True
        ).start()

    def silence(self) -> None:
        """Never ring again; the thread ends soon."""
        self._silenced.set()


def _sound(path: str, ring: Callable[[], bool], silenced: threading.Event) -> None:
    while not silenced.is_set():
        target = os.path.realpath(path)
        for _ in itertools.chain(_events(target, silenced), _ticks(silenced)):
            if silenced.is_set() or not ring():
                return
            if os.path.realpath(path) != target:
                break


def _events(target: str, silenced: threading.Event) -> Iterator[object]:
    """Yield when the file was replaced or written, and now and then anyway; end where this cannot be watched."""
    directory, name = os.path.split(target)
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # not there; no directory; too many watches
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


def _ticks(silenced: threading.Event) -> Iterator[object]:
    """Yield many times a second, for a while."""
    for _ in range(_TICKS):
        if silenced.wait(_TICK_SECONDS):
            return
        yield None
