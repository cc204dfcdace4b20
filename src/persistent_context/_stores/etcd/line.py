"""The waiting processes: the keys with a prefix, in the order of their creation, kept up to date while one waits."""

from __future__ import annotations

import threading
import time
from typing import Final

from .client import Client, Item, end_of, first_created
from .connections import Stream
from .failures import RefusedError, UnansweredError, UnreachableError
from .feed import Event, watch
from .lease import started

_IDLE_SECONDS: Final = 5.0
"""How long the stream stays open after the last wait: the next one may begin soon."""
_RETRY_SECONDS: Final = 0.1


class Line:
    """The keys of one queue. Usable from any thread.

    Args:
        client: the cluster.
        prefix: the start of the keys.
    """

    def __init__(self, client: Client, prefix: bytes) -> None:
        self._client: Final = client
        self._prefix: Final = prefix
        self.forget()

    def forget(self) -> None:
        """Start anew, in a forked child."""
        self._changed = threading.Condition()  # guards all of these
        self._items: dict[bytes, Item] | None = None  # None while it is not known
        self._revision = 0
        self._thread: threading.Thread | None = None
        self._stream: Stream | None = None
        self._waiting = 0
        self._idle_since = 0.0

    def is_first(self, place: Item, *, seconds: float) -> bool:
        """Wait until a key is the first one; return False if it is gone.

        Args:
            place: the key.
            seconds: how long to wait.

        Raises:
            TimeoutError: it is neither, as far as is known.
        """
        with self._changed:
            self._waiting += 1
            try:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = started(self._follow, "etcd queue")
                if self._changed.wait_for(lambda: self._is_decided(place), seconds):
                    return self._items is not None and place.key in self._items
            finally:
                self._waiting -= 1
                self._idle_since = time.monotonic()
        raise TimeoutError

    def _is_decided(self, place: Item) -> bool:
        """Whether a key is known to be the first one, or gone."""
        if self._items is None or self._revision < place.created:
            return False
        if place.key not in self._items:
            return True
        return min(self._items.values(), key=lambda item: item.created).key == place.key

    def close(self) -> None:
        """Close the stream soon, if nobody waits."""
        with self._changed:
            self._idle_since = float("-inf")
            if self._stream is not None and not self._waiting:
                self._stream.interrupt()

    def _follow(self) -> None:
        while self._is_wanted():
            try:
                outcome = self._client.read(first_created(self._prefix))
                with self._changed:
                    self._items = {item.key: item for item in outcome.found[0].items}
                    self._revision = outcome.revision
                    self._changed.notify_all()
                with watch(self._client, self._prefix, end_of(self._prefix), outcome.revision + 1) as (stream, batches):
                    self._stream = stream
                    for revision, events in batches:
                        self._apply(revision, events)
                        if not self._is_wanted():
                            return
            except (UnreachableError, UnansweredError, RefusedError):
                time.sleep(_RETRY_SECONDS)
            finally:
                self._stream = None

    def _is_wanted(self) -> bool:
        """Whether somebody waits or may wait soon; if not, the thread has to end."""
        with self._changed:
            if self._waiting or time.monotonic() < self._idle_since + _IDLE_SECONDS:
                return True
            self._thread = self._items = None
            return False

    def _apply(self, revision: int, events: list[Event]) -> None:
        with self._changed:
            if self._items is not None:
                for event in events:
                    if event.is_deletion:
                        self._items.pop(event.item.key, None)
                    else:
                        self._items[event.item.key] = event.item
            self._revision = revision
            self._changed.notify_all()
