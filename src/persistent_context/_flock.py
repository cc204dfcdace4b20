"""The kernel's lock on an open file, as filelock takes it: the one module that imports filelock.

filelock is imported when a lock is first taken, which happens in a worker thread: it is half of the package's import
time, and a program that only reads never needs it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from types import ModuleType
from typing import Final

if sys.platform != "win32":  # pragma: no branch - Windows has no fcntl
    import fcntl

_POLL_SECONDS: Final = 0.005

fork_gate: Final = threading.Lock()
"""Held for moments that must not be cut in two by a fork in another thread."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=fork_gate.acquire, after_in_parent=fork_gate.release, after_in_child=fork_gate.release)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file if it is free; the same lock as ``filelock.FileLock`` takes on its path."""
    return bool(_filelock().lock_descriptor(fd, blocking=False))


def wait_for_lock(fd: int) -> None:
    """Wait for the lock of an open file, for ever, in the kernel's queue.

    filelock polls, and who polls starves among many who hammer: the kernel's queue is nearly first in, first out.
    Where there is none, on Windows, it is polled.
    """
    if sys.platform == "win32":
        _filelock().lock_descriptor(fd, blocking=True, poll_interval=_POLL_SECONDS)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Release the lock of an open file."""
    _filelock().unlock_descriptor(fd)


@functools.cache
def _filelock() -> ModuleType:
    with fork_gate:  # a child forked in the middle of an import would wait for its end for ever
        import filelock  # noqa: PLC0415

        return filelock
