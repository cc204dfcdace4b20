"""A daemon thread that runs jobs in order, is started when there is one, and ends when there was none for a while."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

_IDLE_SECONDS: Final = 1.0


class DaemonWorker:
    """Runs jobs in a thread of its own, which never keeps the interpreter from exiting.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._running = False

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job run; it must not raise."""
        with self._changed:
            self._jobs.append(job)
            if self._running:
                self._changed.notify()
            else:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._running = True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # and with it what the job refers to, while waiting for the next one

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if not self._jobs:
                self._changed.wait(_IDLE_SECONDS)
            if self._jobs:
                return self._jobs.popleft()
            self._running = False
            return None
