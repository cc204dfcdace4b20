"""Opening and reading regular files, never following a link or waiting for a FIFO."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Final, NamedTuple

from ...errors import NotARegularFileError

NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # a FIFO would block open() forever
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
_LAST_STANDARD_STREAM: Final = 2
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Opened(NamedTuple):
    """A file that is open for reading."""

    fd: int
    """Its descriptor, for the caller to close."""
    status: os.stat_result
    """Its status when it was opened."""


def open_fd(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file as ``os.open`` does, but never as standard input, output or error.

    If a process has closed one of them, the next opened file takes its number, and printed output would go there.
    """
    fd = os.open(path, flags | _CLOEXEC, mode)
    if fd > _LAST_STANDARD_STREAM:
        return fd
    taken = []
    try:
        while fd <= _LAST_STANDARD_STREAM:
            taken.append(fd)
            fd = os.dup(fd)
    finally:
        for low in taken:
            os.close(low)
    if flags & os.O_EXCL:  # it is new: discard what another thread may have printed into it in between
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def open_to_read(path: str) -> Opened:
    """Open a regular file for reading.

    Args:
        path: its real path: a link that has been planted there since is not followed.

    Raises:
        FileNotFoundError: it does not exist.
        NotARegularFileError: it is not a regular file.
        OSError: raised by the system.
    """
    try:
        fd = open_fd(path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise (loop_of_links(path) if _is_loop(path) else not_a_regular_file(path, stat.S_IFLNK)) from error
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise not_a_regular_file(path, os.stat(path).st_mode) from error
        raise
    try:
        status = os.fstat(fd)
        check_regular(path, status)
    except BaseException:
        os.close(fd)
        raise
    return Opened(fd, status)


def is_descriptor_of(fd: int, status: os.stat_result) -> bool:
    """Whether a descriptor is that of a file: a program may have closed it, and its number may have been reused."""
    try:
        return os.path.samestat(os.fstat(fd), status)
    except OSError:
        return False


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read this many bytes, or up to the end of the file."""
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def write_at(fd: int, offset: int, data: bytes) -> None:
    """Write a few bytes."""
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data)
    else:
        os.pwrite(fd, data, offset)


def check_regular(path: str, status: os.stat_result) -> None:
    """Raise NotARegularFileError unless the file is a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise not_a_regular_file(path, status.st_mode)


def not_a_regular_file(path: str, mode: int) -> NotARegularFileError:
    """Return an error that names what was found instead of a regular file."""
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    what = _KINDS.get(stat.S_IFMT(mode), "something unknown")
    return NotARegularFileError(code, f"expected a regular file, found {what}", path)


def _is_loop(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def loop_of_links(path: str) -> NotARegularFileError:
    """Return an error for a path that is a loop of symbolic links."""
    return NotARegularFileError(errno.ELOOP, "expected a regular file, found a loop of symbolic links", path)
