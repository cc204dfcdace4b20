"""Files: read, replace atomically, move aside, and never give more users access than before.

The steps of :func:`replace` and their order are those of Pillai et al., "All File Systems Are Not Created Equal"
(OSDI '14): write under another name, fsync, rename, fsync the directory. A failed fsync is never tried again on the
same file: the kernel has marked the pages clean by then (Rebello et al., "Can Applications Recover from fsync
Failures?", USENIX ATC '20).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ...errors import DurabilityUnknownError, NotARegularFileError
from .flock import try_lock

_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # a FIFO would block open() for ever
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_WRITE_BYTES: Final = 1024 * 1024
_NAME_BYTES: Final = 200  # leaves room for suffixes: a file name has at most 255 bytes
_ACL: Final = "system.posix_acl_access"
_LAST_STANDARD_STREAM: Final = 2
_NOT_OURS_TO_SYNC: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL)
"""Errors of syncing where only others create directories: no permission, or a read-only file system."""
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_WINDOWS_RETRIES: Final = 60
_WINDOWS_BUSY: Final = (5, 32)  # ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION: a reader or a virus scanner has it open


def open_fd(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file as ``os.open`` does, but never as the standard input, output or error.

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
    if flags & os.O_EXCL:  # it is new: discard what another thread has printed into it meanwhile
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def open_to_read(path: str) -> int:
    """Open a regular file for reading.

    Raises:
        FileNotFoundError: there is none.
        NotARegularFileError: it is not a regular file, or a loop of symbolic links.
        OSError: raised by the system.
    """
    try:
        fd = open_fd(path, os.O_RDONLY | NO_WAIT)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise loop_of_links(path) from error
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise not_a_regular_file(path, os.stat(path).st_mode) from error
        raise
    try:
        check_regular(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_regular(path: str, status: os.stat_result) -> None:
    """Raise NotARegularFileError unless the file is a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise not_a_regular_file(path, status.st_mode)


def not_a_regular_file(path: str, mode: int) -> NotARegularFileError:
    """Return an error that says what was found instead of a regular file."""
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    what = _KINDS.get(stat.S_IFMT(mode), "something unknown")
    return NotARegularFileError(code, f"expected a regular file, found {what}", path)


def loop_of_links(path: str) -> NotARegularFileError:
    """Return an error for a path that is a loop of symbolic links."""
    return NotARegularFileError(errno.ELOOP, "expected a regular file, found a loop of symbolic links", path)


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read this many bytes, or up to the end of the file."""
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def make_directories(path: str) -> None:
    """Create a directory and its missing parents.

    If a directory exists, all its parents survive a power loss: each is synced before anything is created in it.
    :func:`sync_name` ensures this for the directory itself.

    Raises:
        FileExistsError: another process created one of them first; try again.
        OSError: raised by the system.
    """
    missing = []
    while not os.path.isdir(path) and path != os.path.dirname(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        _sync_parent(os.path.dirname(directory))
        os.mkdir(directory)


def sync_name(path: str, *, new_directory: bool) -> None:
    """Make the name of a file survive a power loss, and the name of its directory if that may be new."""
    directory = os.path.dirname(path)
    sync_directory(directory)
    if new_directory:
        _sync_parent(directory)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss."""
    if sys.platform == "win32":  # no such call: NTFS journals names
        return
    fd = open_fd(path, _DIRECTORY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def make_durable(path: str, *, new_directory: bool) -> None:
    """Make sure that an existing file survives a power loss, no matter who wrote it; ignore a missing file.

    Args:
        path: the file.
        new_directory: whether the directory may be so new that it would not survive.

    Raises:
        DurabilityUnknownError: syncing failed.
    """
    try:
        fd = open_fd(path, NO_WAIT | (os.O_RDWR if sys.platform == "win32" else os.O_RDONLY))
        try:
            _sync(fd)
        finally:
            os.close(fd)
        sync_name(path, new_directory=new_directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _durability_unknown(path, "there was nothing to write", error) from error


def replace(
    path: str,
    pieces: Iterable[bytes | memoryview],
    *,
    durable: bool,
    new_directory: bool,
    check: Callable[[], None],
) -> int:
    """Replace or create a file atomically: readers see either all of the old content or all of the new.

    Args:
        path: the file, not a symlink.
        pieces: the new content.
        durable: whether it must survive a power loss when this returns.
        new_directory: whether the directory may be so new that it would not survive.
        check: called just before replacing; raises to prevent it.

    Returns:
        The number of bytes written.

    Raises:
        DurabilityUnknownError: the file was replaced, but a later step failed.
        OSError: the old file is unchanged, and nothing is left behind.
    """
    mode = 0o666
    with contextlib.suppress(FileNotFoundError):
        check_regular(path, os.lstat(path))
        mode = 0o600  # widened by share_access()
    temporary = _temporary_name(path)
    fd = open_fd(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode)
    replaced = False
    try:
        try_lock(fd)  # marks it as owned by a live writer, see remove_leftovers()
        share_access(path, fd)
        written = _write(fd, pieces)
        if durable:
            _sync(fd)
        check()
        if sys.platform == "win32":
            os.close(fd)
            fd = -1
        _rename(temporary, path)
        replaced = True
        if durable:
            sync_name(path, new_directory=new_directory)
        if fd >= 0:
            closing, fd = fd, -1
            os.close(closing)
    except BaseException as error:
        replaced = replaced or (fd >= 0 and _is_at(path, fd))
        if fd >= 0:
            with contextlib.suppress(OSError):  # report the first error
                os.close(fd)
        if not replaced:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        raise _durability_unknown(path, "the file was replaced", error) from error
    return written


def share_access(path: str, fd: int, mask: int = 0o7777) -> None:
    """Give an open file of ours the permissions of the file at a path: never more, and less where not permitted.

    Does nothing if there is no such file.
    """
    if sys.platform == "win32":
        return
    try:
        model = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    mode = stat.S_IMODE(model.st_mode) & mask
    status = os.fstat(fd)
    if (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, model.st_uid, model.st_gid) and not _has_acl(
        path
    ):
        return
    if status.st_uid not in (os.geteuid(), model.st_uid) and os.geteuid() != 0:
        return  # a lock file that is not ours
    if (status.st_uid, status.st_gid) != (model.st_uid, model.st_gid):
        try:
            os.fchown(fd, model.st_uid, model.st_gid)
        except PermissionError:
            with contextlib.suppress(PermissionError):
                os.fchown(fd, -1, model.st_gid)
    if os.fstat(fd).st_gid != model.st_gid:
        mode &= ~0o070 | (mode & 0o007) << 3  # a different group gets no more than others
    with contextlib.suppress(PermissionError):  # no longer ours after fchown, if not root
        _copy_acl(path, fd)
        os.fchmod(fd, mode)


def _has_acl(path: str) -> bool:
    if sys.platform != "linux":
        return False
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:  # ENODATA, or a file system without
        return False


def _copy_acl(path: str, fd: int) -> None:
    # With an access list, the group bits of the mode are its mask: without it they would mean more than before.
    if sys.platform != "linux":
        return
    if _has_acl(path):
        os.setxattr(fd, _ACL, os.getxattr(path, _ACL))
    else:  # inherited from the directory's default
        with contextlib.suppress(OSError):
            os.removexattr(fd, _ACL)


def remove_leftovers(path: str) -> list[str]:
    """Remove the temporary files left by crashed writers of a file; the caller holds its lock."""
    removed = []
    for leftover in leftovers(path):
        with contextlib.suppress(OSError):  # gone, or owned by another user
            os.unlink(leftover)
            removed.append(leftover)
    return removed


def leftovers(path: str) -> Iterator[str]:
    """Yield the temporary files left by crashed writers of a file; a live writer holds a lock on its own."""
    start = f".{_shortened(os.path.basename(path))}."
    for temporary in _beside(path, re.compile(rf"{re.escape(start)}[0-9a-f]{{16}}\.tmp")):
        with contextlib.suppress(OSError):  # gone, a link, or another user's
            fd = open_fd(temporary, os.O_RDWR | NO_FOLLOW | NO_WAIT)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode) and try_lock(fd):
                    yield temporary
            finally:
                os.close(fd)


def move_aside(path: str, *, durable: bool, keep: bool = False) -> str:
    """Rename a corrupt file, or with ``keep`` link it under a second name, and return the new name."""
    directory, name = os.path.split(path)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = os.path.join(directory, f"{_shortened(name)}.corrupt-{moment}-{os.urandom(4).hex()}")
    (os.link if keep else os.rename)(path, aside)
    if durable:
        sync_directory(directory)
    return aside


def moved_aside(path: str) -> list[str]:
    """Return the files that were moved aside from a path, or kept, oldest first."""
    start = f"{_shortened(os.path.basename(path))}.corrupt-"
    return sorted(_beside(path, re.compile(rf"{re.escape(start)}\d{{8}}T\d{{6}}Z-[0-9a-f]{{8}}")))


def _sync_parent(directory: str) -> None:
    """Make the name of a directory survive a power loss, if this user could have created it."""
    try:
        sync_directory(os.path.dirname(directory))
    except OSError as error:
        if error.errno not in _NOT_OURS_TO_SYNC:
            raise


def _durability_unknown(path: str, what: str, error: BaseException) -> DurabilityUnknownError:
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or repr(error)
    message = f"{what}, but it is unknown whether the file would survive a power loss: {reason}"
    return DurabilityUnknownError(number, message, path)


def _write(fd: int, pieces: Iterable[bytes | memoryview]) -> int:
    written = 0
    for block in _blocks(pieces):
        rest = memoryview(block)
        while rest:  # writes may be short, on a full disk or under RLIMIT_FSIZE
            rest = rest[os.write(fd, rest) :]
        written += len(block)
    return written


def _blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small pieces, so that a small file takes one write."""
    block: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync(2) of macOS does not empty the drive's cache
    else:
        os.fsync(fd)


def _rename(source: str, target: str) -> None:
    attempts = 0
    while True:
        try:
            os.replace(source, target)
        except OSError as error:
            attempts += 1
            if getattr(error, "winerror", None) not in _WINDOWS_BUSY or attempts == _WINDOWS_RETRIES:
                raise
            time.sleep(0.001 * min(attempts, 50))
        else:
            return


def _is_at(path: str, fd: int) -> bool:
    """Whether a path names this open file, after a rename that may have failed halfway."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    return False


def _temporary_name(path: str) -> str:
    return f"{_temporary_start(path)}.{os.urandom(8).hex()}.tmp"


@functools.lru_cache
def _temporary_start(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{_shortened(name)}")


def _beside(path: str, pattern: re.Pattern[str]) -> list[str]:
    directory = os.path.dirname(path)
    names: list[str] = []
    with contextlib.suppress(PermissionError, FileNotFoundError):  # it may be writable but not listable, or gone
        names = os.listdir(directory)
    return [os.path.join(directory, name) for name in names if pattern.fullmatch(name)]


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES]) if len(os.fsencode(name)) > _NAME_BYTES else name
