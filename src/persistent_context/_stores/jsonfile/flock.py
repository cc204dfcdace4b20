"""The kernel's lock on an open file, as taken by filelock: the only module that imports filelock.

It does so when the first file is locked: importing filelock takes a quarter of the time that importing asyncio takes,
and programs that only read do not need it. filelock registers fork handlers, so no other thread may fork meanwhile.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import Any, Final

if sys.platform != "win32":  # pragma: no branch - Windows has no fcntl
    import fcntl

_POLL_SECONDS: Final = 0.005

fork_gate: Final = threading.RLock()
"""Held during steps that a fork in another thread must not interrupt.

A signal handler or finalizer may interrupt such a step and lock another file, or fork, in the same thread.
"""

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=fork_gate.acquire, after_in_parent=fork_gate.release, after_in_child=fork_gate.release)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file if it is free: the same lock that ``filelock.FileLock`` takes on its path."""
    return bool(_filelock().lock_descriptor(fd, blocking=False))


def wait_for_lock(fd: int) -> None:
    """Wait for the lock of an open file, without a limit, in the kernel's queue.

    filelock polls, and under contention pollers starve; the kernel's queue is nearly first in, first out. Windows has
    no such queue, so this polls there.
    """
    if sys.platform == "win32":
        _filelock().lock_descriptor(fd, blocking=True, poll_interval=_POLL_SECONDS)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Release the lock of an open file."""
    _filelock().unlock_descriptor(fd)


@functools.cache
def _filelock() -> Any:
    with fork_gate:
        import filelock  # noqa: PLC0415

        return filelock
