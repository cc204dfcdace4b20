"""A lease of etcd that ends soon after its process: a thread keeps it alive while it is used."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from .client import Client
from .failures import RefusedError, UnreachableError

LIFETIME_SECONDS: Final = 10
"""How long a lease outlives its process, or one that was stopped or cut off."""
_RENEWALS: Final = 4
"""How often it is prolonged within its lifetime."""


def started(target: Callable[[], None], name: str) -> threading.Thread:
    """Return a new daemon thread that runs."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class KeptLease:
    """A lease, granted when it is first used, and again after it has ended. Usable from any thread.

    Args:
        client: the cluster.
    """

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()  # a finalizer may end a turn in the middle
        self._number = 0
        self._users = 0
        self._ends = 0.0
        self._thread: threading.Thread | None = None

    def enter(self) -> int:
        """Return the number of a lease that is kept alive until :meth:`leave`.

        Raises:
            UnreachableError: no lease could be granted.
            RuntimeError: no thread could be started.
        """
        with self._lock:
            began = time.monotonic()
            if not self._number or began >= self._ends:
                self._number = self._client.grant(LIFETIME_SECONDS)
                self._ends = began + LIFETIME_SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = started(self._keep_alive, "etcd lease")
            self._users += 1
            return self._number

    def leave(self) -> None:
        """End one use."""
        with self._lock:
            self._users -= 1

    def discard(self, number: int) -> None:
        """Never use this lease again, and end it: what was sent with it and has not arrived has no effect."""
        with self._lock:
            if self._number == number:
                self._number = 0
        with contextlib.suppress(UnreachableError, RefusedError):  # it ends by itself
            self._client.revoke(number)

    def forget(self) -> None:
        """Leave the lease, in a forked child, to its parent."""
        self._forget()

    def _keep_alive(self) -> None:
        """Prolong the lease while it is used, and for its lifetime after that, as it may be used again."""
        idle = 0
        while True:
            time.sleep(LIFETIME_SECONDS / _RENEWALS)
            with self._lock:
                number, idle = self._number, 0 if self._users else idle + 1
                if idle > _RENEWALS:
                    self._number, self._thread = 0, None
                    break
            if not number:
                continue
            began = time.monotonic()
            with contextlib.suppress(Exception):  # the next time, maybe
                is_alive = self._client.keep_alive(number)
                with self._lock:
                    if number == self._number:
                        self._number, self._ends = (number, began + LIFETIME_SECONDS) if is_alive else (0, 0.0)
        if number:
            self.discard(number)
