"""Files: read whole ones, replace one atomically, move one aside, and never give more users access than before.

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

from ._errors import DurabilityUnknownError, NotARegularFileError
from ._flock import try_lock

_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # a FIFO would block open() for ever
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_WRITE_BYTES: Final = 1024 * 1024
_NAME_BYTES: Final = 200  # leaves room for what is appended: a file name has at most 255
_ACL: Final = "system.posix_acl_access"
_LAST_STANDARD_STREAM: Final = 2
_NOT_OURS_TO_SYNC: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL)
"""What syncing says where only others make directories: no permission, or a file system that is only read."""
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

    In a process that has closed one of them, the next file that is opened takes its place, and gets what is printed.
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
    if flags & os.O_EXCL:  # it is new: whatever another thread has printed into it meanwhile goes
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def open_to_read(path: str) -> int:
    """Open a regular file for reading.

    Raises:
        FileNotFoundError: there is none.
        NotARegularFileError: something else is in its place, or links lead round in a loop.
        OSError: as the system says.
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
    """Raise NotARegularFileError unless the file is a regular one."""
    if not stat.S_ISREG(status.st_mode):
        raise not_a_regular_file(path, status.st_mode)


def not_a_regular_file(path: str, mode: int) -> NotARegularFileError:
    """Return the error that says what stands in the place of a file."""
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    what = _KINDS.get(stat.S_IFMT(mode), "something unknown")
    return NotARegularFileError(code, f"expected a regular file, found {what}", path)


def loop_of_links(path: str) -> NotARegularFileError:
    """Return the error that says that a path never arrives anywhere."""
    return NotARegularFileError(errno.ELOOP, "expected a regular file, found a loop of symbolic links", path)


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read that much, or up to the end of the file."""
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def make_directories(path: str) -> None:
    """Make a directory and its missing parents.

    Whoever finds a directory can rely on it that all above it survive a power loss: each is synced before there is
    anything in it. Whether it does itself is for :func:`sync_name` to make sure.

    Raises:
        FileExistsError: another process was faster in making one of them; try again.
        OSError: as the system says.
    """
    missing = []
    while not os.path.isdir(path) and path != os.path.dirname(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        _sync_parent(os.path.dirname(directory))
        os.mkdir(directory)


def sync_name(path: str, *, new_directory: bool) -> None:
    """Make the name of a file survive a power loss, and that of its directory if this may be new."""
    directory = os.path.dirname(path)
    sync_directory(directory)
    if new_directory:
        _sync_parent(directory)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss."""
    if sys.platform == "win32":  # has no such call: NTFS journals names
        return
    fd = open_fd(path, _DIRECTORY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def make_durable(path: str, *, new_directory: bool) -> None:
    """Make sure that a file survives a power loss as it is, whoever wrote it; one that is gone does not matter.

    Args:
        path: the file.
        new_directory: whether the directory may be so new that it would not survive.

    Raises:
        DurabilityUnknownError: this failed.
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
    """Replace a file, or make it: whoever opens it sees all of the old content or all of the new.

    Args:
        path: the file, no symlink.
        pieces: the new content.
        durable: whether it is to survive a power loss when this returns.
        new_directory: whether the directory may be so new that it would not survive.
        check: called last before the replacing; it stops it by raising.

    Returns:
        The number of bytes written.

    Raises:
        DurabilityUnknownError: the file was replaced, but what came after failed.
        OSError: the old file stands as it was, and nothing is left behind.
    """
    mode = 0o666
    with contextlib.suppress(FileNotFoundError):
        check_regular(path, os.lstat(path))
        mode = 0o600  # widened by share_access()
    temporary = _temporary_name(path)
    fd = open_fd(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode)
    replaced = False
    try:
        try_lock(fd)  # says that a living writer owns it, see remove_leftovers()
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
            with contextlib.suppress(OSError):  # the first error is the one to tell
                os.close(fd)
        if not replaced:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        raise _durability_unknown(path, "the file was replaced", error) from error
    return written


def share_access(path: str, fd: int, mask: int = 0o7777) -> None:
    """Give an open file of ours the access rights of the file at a path: never more, and less where we may not give.

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
        mode &= ~0o070 | (mode & 0o007) << 3  # the group is another one: it gets no more than everybody
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
    """Remove the temporaries that crashed writers of a file left; the caller holds the lock of the file."""
    removed = []
    for leftover in leftovers(path):
        with contextlib.suppress(OSError):  # gone, or another user's to remove
            os.unlink(leftover)
            removed.append(leftover)
    return removed


def leftovers(path: str) -> Iterator[str]:
    """Yield the temporaries that crashed writers of a file left: one whose writer lives is locked by it."""
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
    """Give a corrupt file another name, or with ``keep`` a second one, and return that name."""
    directory, name = os.path.split(path)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = os.path.join(directory, f"{_shortened(name)}.corrupt-{moment}-{os.urandom(4).hex()}")
    (os.link if keep else os.rename)(path, aside)
    if durable:
        sync_directory(directory)
    return aside


def moved_aside(path: str) -> list[str]:
    """Return what was moved aside from a file's place, or kept, the oldest first."""
    start = f"{_shortened(os.path.basename(path))}.corrupt-"
    return sorted(_beside(path, re.compile(rf"{re.escape(start)}\d{{8}}T\d{{6}}Z-[0-9a-f]{{8}}")))


def _sync_parent(directory: str) -> None:
    """Make the name of a directory survive a power loss, if it could be one of ours that had made it."""
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
        while rest:  # a write may be short, on a full disk or under RLIMIT_FSIZE
            rest = rest[os.write(fd, rest) :]
        written += len(block)
    return written


def _blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small pieces, so that a small file is one write."""
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
    """Whether a path names this open file: after a rename that failed half-way."""
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
    with contextlib.suppress(PermissionError, FileNotFoundError):  # it may be written and not be listed, or be gone
        names = os.listdir(directory)
    return [os.path.join(directory, name) for name in names if pattern.fullmatch(name)]


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES]) if len(os.fsencode(name)) > _NAME_BYTES else name
