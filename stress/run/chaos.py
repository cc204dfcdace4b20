"""What the supervisor does to hurt, besides killing: it stops processes for a while, and deletes the lock file."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from stress.logs.history import Kind, Log
from stress.run.child import Child

LONGEST_STOP = 1.0
"""The longest time for which a process is stopped, in seconds."""
LONG_STOP = (11.0, 15.0)
"""The same for long stops, the least and the most: longer than a lease of etcd outlives its process, which is 10 s."""


class Clock:
    """Tells when something that happens at random moments, with a mean period, is due."""

    def __init__(self, random: Random, every: float) -> None:
        """Draw the first moment; `every` is in seconds, and 0 means never."""
        self._random = random
        self._every = every
        self._next = 0.0
        self._wind(0.0)

    def rings(self, now: float) -> bool:
        """Return whether it is time, and draw the next moment if it is."""
        if now < self._next:
            return False
        self._wind(now)
        return True

    def _wind(self, now: float) -> None:
        self._next = now + (self._every * self._random.uniform(0.5, 1.5) or math.inf)


class Stopper:
    """Stops processes with SIGSTOP, preferably the one that holds the lock, and continues them later."""

    def __init__(self, random: Random, holder: Callable[[], int | None], log: Log) -> None:
        """Prepare; no process is stopped yet. `holder` returns the process that has the lock, as far as is known."""
        self._random = random
        self._find_holder = holder
        self._log = log
        self._stopped: dict[int, float] = {}
        """The moment until which each process is stopped."""

    def stop_one(self, now: float, workers: list[Child], *, long: bool = False) -> None:
        """Stop the holder of the lock, or one time in three any process."""
        pid = self._holder(workers)
        if pid is None or not self._random.randrange(3):
            if not workers:
                return
            pid = self._random.choice(workers).pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            until = now + self._random.uniform(*(LONG_STOP if long else (0.0, LONGEST_STOP)))
            self._stopped[pid] = max(until, self._stopped.get(pid, 0.0))
            self._log.write(Kind.FAULT, name="long_stop" if long else "stop", target=str(pid))

    def continue_due(self, now: float) -> None:
        """Continue those whose time is over."""
        for pid in [pid for pid, until in self._stopped.items() if until <= now]:
            del self._stopped[pid]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _holder(self, workers: list[Child]) -> int | None:
        """Return the process that is named as the holder, if it is a worker or a child of one."""
        pid = self._find_holder()
        with suppress(ProcessLookupError):
            if pid is not None and os.getsid(pid) in {worker.pid for worker in workers}:
                return pid
        return None


def delete_lock(lock_file: Path, log: Log) -> None:
    """Delete the lock file, whether it is held or not."""
    with suppress(FileNotFoundError):
        lock_file.unlink()
        log.write(Kind.FAULT, name="delete_lock", target=lock_file.name)
