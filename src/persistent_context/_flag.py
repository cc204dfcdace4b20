"""A flag to wait for, which a signal handler may set at any point."""

from __future__ import annotations

import contextlib
from queue import Empty, SimpleQueue


class Flag:
    """A flag to wait for; unlike a ``threading.Event``, it has no lock that an interrupted thread may hold."""

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
        self._tokens.put(None)  # for the next waiting thread
        return True
