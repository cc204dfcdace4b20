"""The kernel's lock on an open file, as filelock takes it: the one module that imports filelock.

filelock is imported with the package, though a program that only reads never needs it: it registers functions to be
called at a fork, which an import in a worker thread would do in the midst of another thread's fork.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

import filelock

if sys.platform != "win32":  # pragma: no branch - Windows has no fcntl
    import fcntl

_POLL_SECONDS: Final = 0.005

fork_gate: Final = threading.RLock()
"""Held for moments that must not be cut in two by a fork in another thread.

A signal handler, or a finalizer, may come in such a moment and lock another file, or fork, in the same thread.
"""

if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=fork_gate.acquire, after_in_parent=fork_gate.release, after_in_child=fork_gate.release)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file if it is free; the same lock as ``filelock.FileLock`` takes on its path."""
    return bool(filelock.lock_descriptor(fd, blocking=False))


def wait_for_lock(fd: int) -> None:
    """Wait for the lock of an open file, for ever, in the kernel's queue.

    filelock polls, and who polls starves among many who hammer: the kernel's queue is nearly first in, first out.
    Where there is none, on Windows, it is polled.
    """
    if sys.platform == "win32":
        filelock.lock_descriptor(fd, blocking=True, poll_interval=_POLL_SECONDS)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Release the lock of an open file."""
    filelock.unlock_descriptor(fd)
