"""The lock between processes: a file beside the JSON file, locked by the kernel, with the holder's stamp in it.

The file is never deleted, and the lock is not a lease that expires. The content is untrusted: a bounded part of it is
read, checked and shown, but never relied on for locking.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from ..._printable import printable
from ...errors import LockLostError, NotARegularFileError
from ...types import Holder
from .files import (
    NO_FOLLOW,
    NO_WAIT,
    check_regular,
    loop_of_links,
    make_directories,
    not_a_regular_file,
    open_fd,
    share_access,
)
from .flock import fork_gate, try_lock, unlock, wait_for_lock

_logger = logging.getLogger("persistent_context")
_MAGIC: Final = b'{"persistent_context":'
_STAMP_BYTES: Final = 512
_LONGEST_NAME: Final = 64
_ATTEMPTS: Final = 100
_DEAD: Final = ("Z", "X")  # a zombie holds no lock, and only waits for its parent to notice
_LOOKS: Final = (0, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Delays in seconds between reads of the holder's stamp, which is written a moment after the lock is taken."""


class _Wait:
    """A thread's wait in the kernel's queue. The first to settle it decides how it ends: granted or abandoned."""

    def __init__(self, status: os.stat_result) -> None:
        self.status: Final = status
        """The status of the file whose lock it waits for."""
        self._settled = threading.Lock()  # an atomic flag, locked once by the first to try

    @property
    def is_over(self) -> bool:
        return self._settled.locked()

    def settle(self) -> bool:
        """Settle it; return whether the caller is the first to do so."""
        return self._settled.acquire(blocking=False)


class FileLock:
    """An exclusive lock, held at most once in this process; usable from any thread."""

    def __init__(self, path: str, data_path: str) -> None:
        self.path: Final = path
        self._data_path = data_path
        self._fd: int | None = None  # of the held lock
        self._open_fds: set[int] = set()  # that one, and those of waiting threads
        self._wait: _Wait | None = None  # the last one
        self._stamped = False
        self.waited = False
        self.holder_crashed = False
        """Whether the stamp showed, when the lock was last taken, that the previous holder died holding it."""
        self.in_new_directory = True
        """Whether the directory may not survive a power loss: no holder has recorded in the file that it synced it."""

    def acquire(self, purpose: str, *, wait: bool) -> bool:
        """Take the lock and stamp it; afterwards, ``waited`` tells whether it had to wait.

        A missing lock file is created, and so is its directory.

        Args:
            purpose: the purpose to write into the stamp.
            wait: wait in the kernel's queue, without a limit; otherwise, return False if the lock is held.

        Returns:
            Whether the lock is held. After an abandoned wait it is not, and other threads may be using this object.

        Raises:
            OSError: the lock file cannot be opened or locked, or is a link.
        """
        self.waited = False
        while True:
            fd = self._open()
            try:
                granted = try_lock(fd) or (wait and self._wait_in_queue(fd))
                if granted and self._is_at_path(status := os.fstat(fd)):
                    ours = status.st_nlink == 1  # else it is a foreign file under another name
                    if ours:
                        share_access(self._data_path, fd, mask=0o666)
                    self._stamp(fd, purpose, may_write=ours)
                    self._fd = fd
                    return True
            except BaseException:
                self._let_go(fd)
                raise
            self._let_go(fd)
            if not granted:
                return False
            # The file was deleted meanwhile: its lock excludes no one.

    def is_waiting_in_vain(self) -> bool:
        """Whether a thread waits for a lock file that was deleted or replaced, while others may lock its successor.

        It would wait until the former holder, which may be stopped, continues or dies. Callable from any thread.
        """
        wait = self._wait
        if wait is None or wait.is_over:
            return False
        with contextlib.suppress(OSError):  # without access, assume that the wait is not in vain
            return not self._is_at_path(wait.status)
        return False

    def abandon_wait(self) -> bool:
        """End a wait without the lock; return False if there is none, or the lock has just been granted.

        The waiting thread cannot be woken. When the kernel grants it the lock, it releases it immediately, and its
        ``acquire`` returns False. Meanwhile this object is free for another thread to acquire.
        """
        wait = self._wait
        return wait is not None and wait.settle()

    def check(self) -> None:
        """Raise LockLostError if the lock file is not the one that was locked: others may hold its successor."""
        if self._fd is None or not self._is_at_path(os.fstat(self._fd)):
            raise LockLostError("the lock file was deleted or replaced while it was locked; nothing was written").about(
                self._data_path
            )

    def release(self) -> None:
        """Erase the stamp and release the lock; does nothing if it is not held."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            if self._stamped:
                with contextlib.suppress(OSError):  # a remaining stamp only makes the next holder look for leftovers
                    _write_at_start(fd, _NEW_STAMP if self.in_new_directory else _EMPTY_STAMP)
        finally:
            self._let_go(fd)

    def forget_after_fork(self) -> None:
        """Close the descriptors inherited by a forked child; this does not release the parent's lock."""
        for fd in self._open_fds:
            os.close(fd)
        self._open_fds.clear()
        self._fd = self._wait = None

    def holder(self, *, probe: bool) -> Holder | None:
        """Return the current holder of the lock, or None.

        Args:
            probe: ask the kernel even if the file has the stamp of a live process. Another attempt to take the lock at
                the same moment fails.
        """
        try:
            with self._explaining():
                fd = open_fd(self.path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)
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
        with self._explaining():
            fd = self._open_or_make()
        try:
            check_regular(self.path, os.fstat(fd))
        except BaseException:
            self._let_go(fd)
            raise
        return fd

    def _open_or_make(self) -> int:
        """Open the lock file, creating it if it is missing."""
        flags = os.O_RDWR | NO_FOLLOW | NO_WAIT
        for _ in range(_ATTEMPTS):  # others may create it concurrently, or remove the directory
            with contextlib.suppress(FileNotFoundError):
                return self._open_fd(flags)
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                make_directories(os.path.dirname(self.path))
                mode = 0o600 if os.path.exists(self._data_path) else 0o666  # widened by share_access()
                return self._open_fd(flags | os.O_CREAT | os.O_EXCL, mode)
        return self._open_fd(flags)

    def _open_fd(self, flags: int, mode: int = 0o666) -> int:
        with fork_gate:  # a child must know of every descriptor that it inherits
            fd = open_fd(self.path, flags, mode)
            self._open_fds.add(fd)
        return fd

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Explain an error of opening the lock file, if it is not a regular file."""
        try:
            yield
        except OSError as error:
            if explained := self._explained(error):
                raise explained from error
            raise

    def _explained(self, error: OSError) -> NotARegularFileError | None:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            if not os.path.islink(self.path):
                return loop_of_links(self.path)
            message = "the lock file is a symbolic link, which is never followed; remove it"
            return NotARegularFileError(error.errno, message, self.path)
        if error.errno in (errno.EISDIR, errno.ENXIO):
            return not_a_regular_file(self.path, os.lstat(self.path).st_mode)
        return None

    def _wait_in_queue(self, fd: int) -> bool:
        """Wait in the kernel's queue; return whether the lock was granted, or False if the wait was abandoned."""
        self.waited = True
        if _logger.isEnabledFor(logging.DEBUG):
            holder = _holder_of(_read_start(fd))
            _logger.debug("%s: waiting for the lock, held by %s", printable(self._data_path), holder)
        wait = self._wait = _Wait(os.fstat(fd))
        try:
            wait_for_lock(fd)
        except BaseException as error:
            if wait.settle() or not isinstance(error, OSError):  # an abandoned wait has no one to report it to
                raise
        return wait.settle()

    def _let_go(self, fd: int) -> None:
        """Unlock and close the file, ignoring failures."""
        try:
            with contextlib.suppress(OSError):  # closing unlocks it as well, unless a child inherited it
                unlock(fd)
        finally:
            with fork_gate, contextlib.suppress(OSError):  # the descriptor is gone whatever close(2) returns
                self._open_fds.discard(fd)
                os.close(fd)

    def _is_at_path(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.lstat(self.path), status)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _stamp(self, fd: int, purpose: str, *, may_write: bool) -> None:
        before = _read_start(fd)
        self._stamped = may_write and (not before or before.startswith(_MAGIC))  # else the content is foreign
        self.holder_crashed = self._stamped and before not in (b"", _EMPTY_STAMP, _NEW_STAMP)
        self.in_new_directory = before != _EMPTY_STAMP
        if self._stamped:
            _write_at_start(
                fd, _padded(b'%s, "since": %.6f, "for": "%s"}' % (_me(os.getpid()), time.time(), purpose.encode()))
            )


def _padded(content: bytes) -> bytes:
    return (_MAGIC + b" " + content + b"}").ljust(_STAMP_BYTES - 1) + b"\n"


_EMPTY_STAMP: Final = _padded(b"null")
_NEW_STAMP: Final = _padded(b'"new"')
"""The empty stamp until a holder has made sure that the directory survives a power loss."""


def _write_at_start(fd: int, data: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, data)


def _read_start(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, _STAMP_BYTES)


@functools.lru_cache(maxsize=1)
def _myself(pid: int) -> dict[str, Any]:
    """Return a stamp's description of a process: a pid alone means nothing in another container or after a reboot."""
    process = _process(pid)
    return {
        "pid": pid,
        "start": process and process[1],
        "host": socket.gethostname()[:_LONGEST_NAME],
        "space": _pid_space(),
    }


@functools.lru_cache(maxsize=1)
def _me(pid: int) -> bytes:
    """Return the constant start of this process's stamp, an unclosed object; cached, as every cycle needs it."""
    return json.dumps(_myself(pid)).encode()[:-1]


def _pid_space() -> str | None:
    """Return what identifies a process ID space: the boot, and the namespace within it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and its start time in ticks since boot, or None if unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _holder_of(stamp: bytes) -> Holder:
    """Parse a stamp; one of a dead or former holder, or in a foreign format, gives an empty holder."""
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
    if process := _process(pid):
        return process[0] not in _DEAD and process[1] == start
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not os.path.exists("/proc/self/stat")
