"""The kernel's lock on an open file, as taken by filelock: the only module that imports filelock.

filelock is imported with the package, though programs that only read do not need it: it registers fork handlers, which
an import in a worker thread could do in the middle of another thread's fork.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Container
from typing import Final

import filelock

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
    return bool(filelock.lock_descriptor(fd, blocking=False))


def wait_for_lock(fd: int) -> None:
    """Wait for the lock of an open file, without a limit, in the kernel's queue.

    filelock polls, and under contention pollers starve; the kernel's queue is nearly first in, first out. Windows has
    no such queue, so this polls there.
    """
    if sys.platform == "win32":
        filelock.lock_descriptor(fd, blocking=True, poll_interval=_POLL_SECONDS)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX)


def is_locked_here(status: os.stat_result, *, except_by: Container[int]) -> bool:
    """Whether this process has locked a file; False where the system does not report it.

    Linux lists the locks of an open file with the process that took each; a child that inherited the file took none.

    Args:
        status: the status of the file.
        except_by: descriptors to ignore.
    """
    taken_here = ["FLOCK", str(os.getpid())]
    with contextlib.suppress(OSError):
        for fd in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):  # it was closed in between
                if fd not in except_by and os.path.samestat(os.fstat(fd), status):
                    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
                        locks = [line.split() for line in info if line.startswith("lock:")]
                    if any(lock[2:6:3] == taken_here for lock in locks):
                        return True
    return False


def unlock(fd: int) -> None:
    """Release the lock of an open file."""
    filelock.unlock_descriptor(fd)
