"""The lock between processes: a file beside the JSON file, locked by the kernel, with the holder's stamp in it.

The file is never deleted, and the lock is not a lease that expires.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from typing import Final

from ..._printable import printable
from ...types import Holder
from ..protocol import SessionLostError
from .access import Access
from .flock import is_locked_here, try_lock, unlock, wait_for_lock
from .lockfile import LockFile, LockFiles
from .opening import NO_FOLLOW, NO_WAIT, check_regular, open_fd, read_at, write_at
from .stamp import (
    EMPTY_STAMP,
    STAMP_BYTES,
    UNSYNCED_STAMP,
    VOLATILE_STAMP,
    holder_of,
    is_of_holder,
    is_stamp,
    stamp_for,
    tells_of_promises,
    this_process,
)
from .syncing import sync_data

_logger = logging.getLogger("persistent_context")
_LOOKS: Final = (0, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Delays in seconds between reads of the holder's stamp, which is written a moment after the lock is taken."""


class _Wait:
    """A thread's wait in the kernel's queue. The first to settle it decides whether it was granted or abandoned."""

    def __init__(self, file: LockFile) -> None:
        self.file: Final = file
        self._settled = threading.Lock()  # an atomic flag: the first to try locks it, for good

    @property
    def is_over(self) -> bool:
        return self._settled.locked()

    def settle(self) -> bool:
        """Settle it; return whether the caller is the first to do so."""
        return self._settled.acquire(blocking=False)


class FileLock:
    """An exclusive lock, held at most once in this process; usable from any thread.

    The lock file stays open between two holds, since opening it is a large part of the cost of a hold.
    """

    def __init__(self, path: str, data_path: str) -> None:
        self.path: Final = path
        self.data_path: Final = data_path
        self._files = LockFiles(path, data_path)
        self._idle: deque[LockFile] = deque()  # at most one
        self._wait: _Wait | None = None  # the latest one
        weakref.finalize(self, self._files.close_all).atexit = False

    def acquire(self, purpose: str, *, wait: bool) -> HeldLock | None:
        """Take the lock and stamp it. A missing lock file is created, and so is its directory.

        Args:
            purpose: the purpose to write into the stamp.
            wait: wait in the kernel's queue, without a limit; otherwise, return None if the lock is held.

        Returns:
            The lock. None also after an abandoned wait; other threads may then be using this object.

        Raises:
            OSError: the lock file cannot be opened or locked, or is a link.
        """
        waited = False
        while True:
            file = self._take_file()
            try:
                granted = try_lock(file.fd)
                if not granted and wait and file.status_at_path():
                    waited = True
                    granted = self._wait_in_queue(file)
                    if not granted:
                        self._let_go(file)
                        return None
                status = file.status_at_path()
                if granted and status:
                    return HeldLock(self, file, status, purpose, waited=waited)
            except BaseException:
                self._let_go(file)
                raise
            if status:
                self._keep(file)
                return None
            self._let_go(file)  # it was deleted meanwhile: its lock excludes no one

    def is_waiting(self) -> bool:
        """Whether a thread is waiting in the kernel's queue."""
        wait = self._wait
        return wait is not None and not wait.is_over

    def abandon_vain_wait(self) -> bool:
        """End a wait for a lock file that was deleted or replaced, while others may lock its successor.

        Such a wait would last until the former holder, which may be stopped, continues or dies. The waiting thread
        cannot be woken: when the kernel grants it the lock, it releases the lock at once, and its ``acquire`` returns
        None. Until then, another thread may acquire this object.

        Returns:
            Whether there was such a wait, and the lock has not just been granted.
        """
        wait = self._wait
        if wait is None or wait.is_over:
            return False
        with contextlib.suppress(OSError):  # without access, assume that the wait is not in vain
            return wait.file.status_at_path() is None and wait.settle()
        return False

    def holder(self, *, probe: bool) -> Holder | None:
        """Return the current holder of the lock, or None.

        Args:
            probe: ask the kernel even if the file has the stamp of a live process. This makes another attempt to take
                the lock at the same moment fail.
        """
        try:
            with self._files.explaining():
                fd = open_fd(self.path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            check_regular(self.path, status)
            for pause in _LOOKS:
                time.sleep(pause)
                holder = holder_of(read_at(fd, 0, STAMP_BYTES))
                if (probe or not holder.verified) and try_lock(fd):
                    unlock(fd)
                    return None
                if holder.pid is not None:
                    return holder
            return this_process() if is_locked_here(status, except_by=self._files.descriptors()) else holder
        finally:
            os.close(fd)

    def give_back(self, file: LockFile) -> None:
        """Unlock a file, and keep it open for the next hold."""
        try:
            unlock(file.fd)
        except BaseException as error:
            self._let_go(file)  # this unlocks it as well
            if not isinstance(error, OSError):
                raise
        else:
            self._keep(file)

    def close(self) -> None:
        """Close the lock file, unless it is locked."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._let_go(self._idle.pop())

    def after_fork_in_child(self) -> None:
        """Close the descriptors inherited by a forked child; this does not release the parent's lock."""
        self._idle.clear()
        self._wait = None
        self._files.close_all()

    def _take_file(self) -> LockFile:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                file = self._idle.pop()
                if file.has_its_descriptor():
                    return file
                self._files.forget(file)
        return self._files.open()

    def _keep(self, file: LockFile) -> None:
        self._idle.append(file)
        while len(self._idle) > 1:  # an abandoned wait had another one
            with contextlib.suppress(IndexError):
                self._let_go(self._idle.popleft())

    def _wait_in_queue(self, file: LockFile) -> bool:
        """Wait in the kernel's queue; return whether the lock was granted, or False if the wait was abandoned."""
        if _logger.isEnabledFor(logging.DEBUG):
            holder = holder_of(read_at(file.fd, 0, STAMP_BYTES))
            _logger.debug("%s: waiting for the lock, held by %s", printable(self.data_path), holder)
        wait = self._wait = _Wait(file)
        try:
            wait_for_lock(file.fd)
        except BaseException as error:
            if wait.settle() or not isinstance(error, OSError):  # after an abandoned wait, no caller wants the error
                raise
        return wait.settle()

    def _let_go(self, file: LockFile) -> None:
        """Unlock and close the file, ignoring failures."""
        try:
            with contextlib.suppress(OSError):  # closing unlocks it as well, unless a child inherited it
                unlock(file.fd)
        finally:
            self._files.close(file)


class HeldLock:
    """A held lock.

    Args:
        lock: the lock.
        file: the lock file, locked.
        status: its status.
        purpose: the purpose to write into the stamp.
        waited: whether acquiring it had to wait.
    """

    def __init__(self, lock: FileLock, file: LockFile, status: os.stat_result, purpose: str, *, waited: bool) -> None:
        self.waited: Final = waited
        self._lock: Final = lock
        self._file: Final = file
        self._status: Final = status
        self._is_ours: Final = status.st_nlink == 1  # else it is a foreign file under another name
        before = read_at(file.fd, 0, STAMP_BYTES)
        access = None
        if file.is_new or not before:
            access = Access.of(lock.data_path)
            self.share(access)
            file.is_new = False
        self._is_stamped: Final = self._is_ours and is_stamp(before)
        self.holder_crashed: Final = self._is_stamped and is_of_holder(before)
        """Whether the previous holder died holding it."""
        self.in_new_directory: Final = before != EMPTY_STAMP and not file.directory_is_durable
        """Whether the directory may not survive a power loss: no holder has recorded in the file that it was synced."""
        is_erased = not before and access is not None
        self.promised = tells_of_promises(before) or is_erased or not self._is_stamped
        """Whether a call has promised, or is about to promise, that the content of the file survives a power loss.

        A later writer then has to sync the new content even if it promises nothing itself: its file may be the one
        that survives, and it has to contain what was promised. An empty lock file beside an existing file may have been
        emptied, or deleted and made again, and the record of a promise with it.
        """
        self._denies_promises = self._is_stamped and bool(before) and not tells_of_promises(before)
        self._purpose: Final = purpose
        if self._is_stamped:  # the first stamp of a file may be all that survives of it, whatever this call promises
            write_at(file.fd, 0, stamp_for(purpose, promised=self.promised or not before))

    @property
    def file(self) -> LockFile:
        """The lock file."""
        return self._file

    @property
    def is_stamped(self) -> bool:
        """Whether the lock file belongs to this package, and has the holder's stamp."""
        return self._is_stamped

    def share(self, access: Access | None) -> None:
        """Give the lock file the permissions of the data file: the same users may lock it, and no others."""
        if self._is_ours and access is not None:
            access.give_to(self._file.fd, self._status, mask=0o666)

    def promise(self) -> None:
        """Record that a call is about to promise this; the record survives a power loss, unless an earlier one does.

        Raises:
            OSError: it may not survive, so the call must not promise anything.
        """
        if self._denies_promises:  # and after a power loss, would do so again
            write_at(self._file.fd, 0, stamp_for(self._purpose, promised=True))
            sync_data(self._file.fd)
            self._denies_promises = False
        self.promised = True

    def check(self) -> None:
        """Raise SessionLostError if the lock file is not the one that was locked: others may hold its successor."""
        if not self._file.status_at_path():
            message = "the lock file was deleted or replaced while it was locked; nothing was written"
            raise SessionLostError(message)

    def release(self) -> None:
        """Erase the stamp and release the lock; in a forked child, leave it to the parent."""
        if self._file.fd < 0:
            return
        try:
            if self._is_stamped:
                with contextlib.suppress(OSError):  # a remaining stamp only makes the next holder look for leftovers
                    write_at(self._file.fd, 0, self._last_stamp())
        finally:
            self._lock.give_back(self._file)

    def _last_stamp(self) -> bytes:
        if not self.promised:
            return VOLATILE_STAMP
        return UNSYNCED_STAMP if self.in_new_directory else EMPTY_STAMP

    def note_durable_directory(self) -> None:
        """Note that the directory now survives a power loss; later holds need not sync it."""
        self._file.directory_is_durable = True
