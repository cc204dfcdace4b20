"""A number that any thread may add to."""

from __future__ import annotations

import contextlib
import threading
from collections import deque


class Tally:
    """A sum. Adding never waits: a signal handler may interrupt it in the same thread, and add as well."""

    def __init__(self) -> None:
        self._total = 0
        self._news: deque[int] = deque()
        self._adding = threading.Lock()  # never waited for

    def add(self, number: int) -> None:
        """Add a number."""
        self._news.append(number)
        self._sum_up()

    def total(self) -> int:
        """Return the sum so far."""
        self._sum_up()
        return self._total

    def _sum_up(self) -> None:
        while self._news and self._adding.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):  # another thread was faster
                    self._total += self._news.popleft()
            finally:
                self._adding.release()
