"""The lock between processes: a file beside the JSON file, locked by the kernel, with the holder's stamp in it.

The file is never deleted, and the lock is no lease that expires. What stands in it is a stranger's word: it is read up
to a bound, checked, shown, and never trusted for locking.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import socket
import time
from typing import Any, Final

from ._errors import LockLostError, NotARegularFileError
from ._files import CLOEXEC, NO_FOLLOW, NO_WAIT, check_regular, share_access
from ._flock import fork_gate, try_lock, unlock, wait_for_lock
from ._printable import printable
from ._types import Holder

_logger = logging.getLogger("persistent_context")
_MAGIC: Final = b'{"persistent_context":'
_STAMP_BYTES: Final = 512
_LONGEST_NAME: Final = 64
_LOOKS: Final = (0, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Seconds before each look for the stamp of who holds the lock: it is written a moment after the lock was taken."""


class FileLock:
    """An exclusive lock, held by one thing at a time in this process; from any thread."""

    def __init__(self, path: str, data_path: str) -> None:
        self.path: Final = path
        self._data_path = data_path
        self._fd: int | None = None
        self._stamped = False
        self.waited = False
        self.holder_crashed = False
        """Whether the stamp showed, when the lock was last taken, that the holder before died with it."""

    def acquire(self, purpose: str, *, wait: bool) -> bool:
        """Take the lock and stamp it; whether it had to be waited for is in ``waited`` afterwards.

        Args:
            purpose: what for, for the stamp.
            wait: wait in the kernel's queue, for ever; else return False if somebody has it.

        Raises:
            OSError: the lock file cannot be opened or locked, or is a link.
        """
        self.waited = False
        while True:
            fd = self._open()
            try:
                if not try_lock(fd):
                    if not wait:
                        self._close()
                        return False
                    self.waited = True
                    if _logger.isEnabledFor(logging.DEBUG):
                        holder = _holder_of(_read_start(fd))
                        _logger.debug("%s: waiting for the lock, held by %s", printable(self._data_path), holder)
                    wait_for_lock(fd)
                status = os.fstat(fd)
                if self._is_at_path(status):
                    ours = status.st_nlink == 1  # else it is somebody's file under another name
                    if ours:
                        share_access(self._data_path, fd, mask=0o666)
                    self._stamp(fd, purpose, may_write=ours)
                    return True
            except BaseException:
                self._close()
                raise
            self._close()  # somebody deleted the file meanwhile: it excludes nobody any more

    def check(self) -> None:
        """Raise LockLostError if the lock file is not the one that was locked: others may hold its successor."""
        if self._fd is None or not self._is_at_path(os.fstat(self._fd)):
            raise LockLostError("the lock file was deleted or replaced while it was locked; nothing was written").about(
                self._data_path
            )

    def release(self) -> None:
        """Erase the stamp and release the lock; does nothing if it is not held."""
        if (fd := self._fd) is None:
            return
        if self._stamped:
            with contextlib.suppress(OSError):  # a stamp that stays makes the next holder look for leftovers, no more
                _write_at_start(fd, _EMPTY_STAMP)
        with contextlib.suppress(OSError):  # closing releases it as well, unless a child has inherited the descriptor
            unlock(fd)
        with contextlib.suppress(OSError):  # what close(2) says, the descriptor is gone
            self._close()

    def forget_after_fork(self) -> None:
        """Close the descriptor that a forked child inherited: its parent's lock is not released by that."""
        self._close()

    def holder(self, *, probe: bool) -> Holder | None:
        """Return who holds the lock now, or None.

        Args:
            probe: ask the kernel even if the stamp of a living process stands in the file. Whoever tries to take the
                lock at the same moment is turned away.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | CLOEXEC | NO_FOLLOW | NO_WAIT)
        except FileNotFoundError:
            return None
        try:
            check_regular(self.path, os.fstat(fd))
            for pause in _LOOKS:
                time.sleep(pause)
                holder = _holder_of(_read_start(fd))
                if (probe or not holder.verified) and try_lock(fd):
                    unlock(fd)
                    return None
                if holder.pid is not None:
                    break
            return holder
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | CLOEXEC | NO_FOLLOW | NO_WAIT
        try:
            with fork_gate:  # a child must know of every descriptor that it inherits
                try:
                    self._fd = os.open(self.path, flags)
                except FileNotFoundError:
                    mode = 0o600 if os.path.exists(self._data_path) else 0o666  # widened by share_access()
                    with contextlib.suppress(FileExistsError):
                        self._fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, mode)
                    if self._fd is None:  # another process was faster
                        self._fd = os.open(self.path, flags)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                message = "the lock file is a symbolic link, which is never followed; remove it"
                raise NotARegularFileError(error.errno, message, self.path) from error
            if error.errno in (errno.EISDIR, errno.ENXIO):
                raise NotARegularFileError(
                    error.errno, "something else stands in the place of the lock file", self.path
                ) from error
            raise
        try:
            check_regular(self.path, os.fstat(self._fd))
        except BaseException:
            self._close()
            raise
        return self._fd

    def _close(self) -> None:
        fd, self._fd, self._stamped = self._fd, None, False
        if fd is not None:
            os.close(fd)

    def _is_at_path(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.lstat(self.path), status)
        except FileNotFoundError:
            return False

    def _stamp(self, fd: int, purpose: str, *, may_write: bool) -> None:
        before = _read_start(fd)
        self._stamped = may_write and (not before or before.startswith(_MAGIC))  # else its content is not ours
        self.holder_crashed = self._stamped and bool(before) and before != _EMPTY_STAMP
        if self._stamped:
            _write_at_start(
                fd, _padded(b'%s, "since": %.6f, "for": "%s"}' % (_me(os.getpid()), time.time(), purpose.encode()))
            )


def _padded(content: bytes) -> bytes:
    return (_MAGIC + b" " + content + b"}").ljust(_STAMP_BYTES - 1) + b"\n"


_EMPTY_STAMP: Final = _padded(b"null")


def _write_at_start(fd: int, data: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, data)


def _read_start(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, _STAMP_BYTES)


@functools.lru_cache(maxsize=1)
def _myself(pid: int) -> dict[str, Any]:
    """Return what a stamp says of a process: a pid alone means nothing in another container, or after a reboot."""
    return {"pid": pid, "start": _start_of(pid), "host": socket.gethostname()[:_LONGEST_NAME], "space": _pid_space()}


@functools.lru_cache(maxsize=1)
def _me(pid: int) -> bytes:
    """Return the part of a stamp that does not change, an object that is not closed yet: it is in every cycle."""
    return json.dumps(_myself(pid)).encode()[:-1]


def _pid_space() -> str | None:
    """Return what tells one numbering of processes from another: the boot, and the namespace in it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot, or None if it is not there or nobody can say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _holder_of(stamp: bytes) -> Holder:
    """Read a stamp: what a dead or former holder left, or a stranger wrote in another form, says nothing."""
    nobody = Holder()
    try:
        content = json.loads(stamp)["persistent_context"]
        pid, host, since, purpose = content["pid"], content["host"], content["since"], content["for"]
        start, space = content["start"], content["space"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return nobody
    if not (
        type(pid) is int
        and 0 < pid < 2**31
        and isinstance(host, str)
        and isinstance(since, int | float)
        and isinstance(purpose, str)
    ):
        return nobody
    if not 0 <= since < 2**33:
        return nobody
    here = _myself(os.getpid())
    verified = (host, space) == (here["host"], here["space"])
    if verified and not _is_alive(pid, start):
        return nobody
    return Holder(pid, host[:_LONGEST_NAME], float(since), purpose[:_LONGEST_NAME], verified)


def _is_alive(pid: int, start: object) -> bool:
    if (now := _start_of(pid)) is not None:
        return now == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return os.name != "nt" and not os.path.exists("/proc/self/stat")
