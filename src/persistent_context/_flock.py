"""The kernel's lock on an open file, as filelock takes it: the one module that imports filelock.

filelock is imported when a lock is first taken, which happens in a worker thread: it is half of the package's import
time, and a program that only reads never needs it.
"""

from __future__ import annotations

import sys
from typing import Final

_POLL_SECONDS: Final = 0.005


def try_lock(fd: int) -> bool:
    """Take the lock of an open file if it is free; the same lock as ``filelock.FileLock`` takes on its path."""
    from filelock import lock_descriptor  # noqa: PLC0415

    return lock_descriptor(fd, blocking=False)


def wait_for_lock(fd: int) -> None:
    """Wait for the lock of an open file, for ever, in the kernel's queue.

    filelock polls, and who polls starves among many who hammer: the kernel's queue is nearly first in, first out.
    Where there is none, on Windows, it is polled.
    """
    if sys.platform == "win32":
        from filelock import lock_descriptor  # noqa: PLC0415

        lock_descriptor(fd, blocking=True, poll_interval=_POLL_SECONDS)
    else:
        import fcntl  # noqa: PLC0415

        fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Release the lock of an open file."""
    from filelock import unlock_descriptor  # noqa: PLC0415

    unlock_descriptor(fd)
