"""Notifications that a namespace has changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from ..._flag import Flag
from .client import Client, end_of, get
from .connections import Stream
from .failures import RefusedError, UnansweredError, UnreachableError
from .feed import watch
from .state import Names

_RETRY_SECONDS: Final = 0.2


class EtcdSubscription:
    """Notifies, from its own thread, when a namespace has changed; see :meth:`Store.subscribe`.

    Whenever the stream is opened, the function is called once, and only then is the stream followed from the revision
    before that call: so nothing is missed when connections break, when the history was compacted, or by members whose
    streams leave out a deletion (etcd-io/etcd#18089, #19179).

    Args:
        client: the cluster.
        names: the names of the keys in the namespace.
        notify: called in the thread; returns False if there is no listener left.
        fail: called with the error that ends the thread, before the last call of ``notify``.
    """

    def __init__(
        self, client: Client, names: Names, notify: Callable[[], bool], fail: Callable[[BaseException], None]
    ) -> None:
        self._client: Final = client
        self._names: Final = names
        self._notify: Final = notify
        self._fail: Final = fail
        self._pid: Final = os.getpid()
        self._closed = Flag()
        self._stream: Stream | None = None
        threading.Thread(target=self._run, name="watch etcd", daemon=True).start()

    def close(self) -> None:
        """Never notify again; the thread ends soon. In a forked child, leave the parent's stream alone."""
        if self._pid != os.getpid():
            return
        self._closed.set()
        if (stream := self._stream) is not None:
            stream.interrupt()

    def _run(self) -> None:
        try:
            while not self._closed.is_set() and self._follow():
                pass
        except BaseException as error:  # noqa: BLE001 - reported to the listener
            self._fail(error)
            self._notify()

    def _follow(self) -> bool:
        """Notify until the stream is lost; return False if there is no listener left."""
        try:
            revision = self._client.read(get(self._names.marker)).revision
        except UnreachableError:
            self._closed.wait(_RETRY_SECONDS)
            return True
        if not self._notify():
            return False
        try:
            with watch(self._client, self._names.values, end_of(self._names.values), revision + 1) as (stream, batches):
                self._stream = stream
                try:
                    for _ in batches:
                        if self._closed.is_set() or not self._notify():
                            return False
                finally:
                    self._stream = None
        except (UnreachableError, UnansweredError, RefusedError):  # if it was refused for good, so is the next read
            self._closed.wait(_RETRY_SECONDS)
        return True
