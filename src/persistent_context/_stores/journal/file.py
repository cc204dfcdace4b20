"""The file of a journal: opening it, reading on from the last position, appending, truncating and syncing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from ...errors import NotARegularFileError
from ..jsonfile.access import Access
from ..jsonfile.accesslist import lets_write
from ..jsonfile.opening import (
    NO_FOLLOW,
    NO_WAIT,
    check_regular,
    is_descriptor_of,
    loop_of_links,
    not_a_regular_file,
    open_fd,
    read_at,
)
from ..jsonfile.page import let_others_run
from ..jsonfile.syncing import sync_data, sync_directory

_CHUNK_BYTES: Final = 256 * 1024


class JournalFile:
    """An open journal, closed when no longer referenced. While it is open, its inode number cannot be reused.

    Args:
        path: the path under which it was opened.
        fd: its descriptor.
        writable: whether it may be appended to.
    """

    def __init__(self, path: str, fd: int, *, writable: bool) -> None:
        self.path: Final = path
        self.fd = fd
        self.writable: Final = writable
        self.status: Final = os.fstat(fd)
        self._syncing: Final = threading.Lock()  # between calls and the checkpoint of an idle journal
        self._sync_failed = False
        self.name_is_durable = False
        """Whether its name is certain to survive a power loss: the process that created it may have died since."""
        self.is_linked = False
        """Whether it had a second name when its size was last asked for, as in a backup made by ``cp -al``."""

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def has_its_descriptor(self) -> bool:
        """Whether its descriptor is still that of this file: the program may have closed it by mistake."""
        return is_descriptor_of(self.fd, self.status)

    def forget(self) -> None:
        """Give up a descriptor that was closed elsewhere, and whose number may have been reused."""
        self.fd = -1

    def is_at_path(self) -> bool:
        """Whether the path still names this file."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(status, self.status)

    def is_idle_since(self, moment: float) -> bool:
        """Whether it has not been written to since a moment, in seconds of the Unix epoch.

        If its time lies in the future, the clock has been set back: the time says nothing, and never would.
        """
        return not moment < os.fstat(self.fd).st_mtime <= time.time()

    def size(self) -> int:
        """Return its size."""
        status = os.fstat(self.fd)
        self.is_linked = status.st_nlink > 1
        return status.st_size

    def lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the end offset and the text, without its line end, of each whole line from an offset on."""
        rest, offset = b"", start
        while data := read_at(self.fd, offset + len(rest), _CHUNK_BYTES + len(rest)):
            is_last = len(data) < _CHUNK_BYTES + len(rest)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                yield offset, line
            if is_last:
                return
            let_others_run()

    def append(self, line: bytes, end: int) -> None:
        """Write a line at the end, all of it or nothing; the remains of an interrupted append are cut off first.

        Raises:
            OSError: nothing was written.
        """
        if not self.writable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.path)
        if self.size() > end:
            os.ftruncate(self.fd, end)
        try:
            rest = memoryview(line)
            while rest:  # writes may be short, on a full disk or under RLIMIT_FSIZE
                rest = rest[os.pwrite(self.fd, rest, end + len(line) - len(rest)) :]
        except BaseException:
            os.ftruncate(self.fd, end)
            raise

    def sync(self) -> None:
        """Make its content and its name survive a power loss. If this fails, never try again.

        For the reason, see :mod:`..jsonfile.syncing`. The kernel reports an error only once, to the first caller.
        """
        with self._syncing:
            if self._sync_failed:
                raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
            try:
                sync_data(self.fd)
                if not self.name_is_durable:
                    sync_directory(os.path.dirname(self.path))
                    self.name_is_durable = True
            except BaseException:
                self._sync_failed = True
                raise

    def give(self, access: Access) -> None:
        """Give it the permissions of the JSON file: the same users may use it, and no others."""
        access.give_to(self.fd, os.fstat(self.fd), mask=0o666)


def journal_exists(path: str) -> bool:
    """Whether there is anything at the path of a journal.

    Raises:
        OSError: the check failed.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    return True


def open_journal(path: str, data_path: str) -> JournalFile | None:
    """Open the journal at a path, or return None if there is none.

    Raises:
        NotARegularFileError: it is not a regular file but, for example, a link.
        PermissionError: its owner may not write the JSON file, or this is unknown, because there is none.
        OSError: it cannot be opened.
    """
    flags = NO_FOLLOW | NO_WAIT
    try:
        try:
            file = JournalFile(path, open_fd(path, os.O_RDWR | flags), writable=True)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            file = JournalFile(path, open_fd(path, os.O_RDONLY | flags), writable=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        if error.errno in (errno.ELOOP, errno.EMLINK):
            if not os.path.islink(path):
                raise loop_of_links(path) from error
            message = "the journal is a symbolic link, which is never followed; remove it"
            raise NotARegularFileError(error.errno, message, path) from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise not_a_regular_file(path, os.lstat(path).st_mode) from error
        raise
    status = os.fstat(file.fd)
    check_regular(path, status)
    if hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(), 0):
        _check_owner(path, status, Access.of(data_path))
    return file


def _check_owner(path: str, journal: os.stat_result, data: Access | None) -> None:
    """Raise PermissionError unless the owner of a journal may write the JSON file: otherwise it may be planted."""
    if data is not None and _may_write(data, journal, os.path.dirname(path)):
        return
    message = f"the journal belongs to user {journal.st_uid} of group {journal.st_gid}, "
    if data is None:
        message += (
            "and the JSON file, which would show whether that user may write it, is missing; the journal may "
            "hold the only copy of the data: if it can be trusted, create the JSON file again, as {} with its former "
            "owner and permissions; otherwise move the journal away"
        )
    else:
        message += "who may not write the file; find out who created it, then remove it"
    raise PermissionError(errno.EPERM, message, path)


def _may_write(data: Access, journal: os.stat_result, directory: str) -> bool:
    """Whether the owner of a journal may certainly write the JSON file."""
    file = data.status
    if journal.st_uid == file.st_uid or file.st_mode & stat.S_IWOTH:
        return True
    is_member = _shows_membership(directory) or _is_member(journal.st_uid, journal.st_gid)
    groups = (journal.st_gid,) if is_member else ()
    if data.acl is not None:
        return lets_write(data.acl, journal.st_uid, groups, file.st_gid)
    return bool(file.st_mode & stat.S_IWGRP) and file.st_gid in groups


def _shows_membership(directory: str) -> bool:
    """Whether the owner of a file in a directory must be a member of the file's group.

    Not if anybody may create files there, and they get the directory's group: outside Linux, they always do.
    """
    mode = os.stat(directory).st_mode
    return not (mode & stat.S_IWOTH and (mode & stat.S_ISGID or sys.platform != "linux"))


def _is_member(user: int, group: int) -> bool:
    """Whether a user is a member of a group, by the system's list of users."""
    import pwd  # noqa: PLC0415 - Windows has none

    try:
        account = pwd.getpwuid(user)
    except KeyError:
        return False
    return group in os.getgrouplist(account.pw_name, account.pw_gid)
