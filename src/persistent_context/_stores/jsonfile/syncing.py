"""Making files, names and directories survive a power loss.

A failed fsync is never tried again on the same file: the kernel has marked the pages clean by then (Rebello et al.,
"Can Applications Recover from fsync Failures?", USENIX ATC '20).
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from ...errors import DurabilityUnknownError
from .opening import NO_WAIT, open_fd

_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NOT_OURS_TO_SYNC: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL)
"""Errors of syncing where only others create directories: no permission, or a read-only file system."""


def sync(fd: int) -> None:
    """Make an open file or directory survive a power loss."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # on macOS, fsync(2) does not flush the drive's cache
    else:
        os.fsync(fd)


def sync_data(fd: int) -> None:
    """Make the content and size of an open file survive a power loss, but not its times."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        sync(fd)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss."""
    if sys.platform == "win32":  # there is no such call, and NTFS journals names
        return
    fd = open_fd(path, _DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def make_name_durable(path: str, *, new_directory: bool) -> None:
    """Make the name of a replaced file survive a power loss.

    Args:
        path: the file.
        new_directory: whether its directory may be so new that it would not survive.

    Raises:
        DurabilityUnknownError: syncing failed.
    """
    try:
        _sync_name(path, new_directory=new_directory)
    except BaseException as error:
        raise durability_unknown(path, "the file was replaced", error) from error


def make_durable(path: str, *, new_directory: bool) -> None:
    """Make an existing file survive a power loss, no matter who wrote it; ignore a missing file.

    Args:
        path: the file.
        new_directory: whether its directory may be so new that it would not survive.

    Raises:
        DurabilityUnknownError: syncing failed.
    """
    try:
        fd = open_fd(path, NO_WAIT | (os.O_RDWR if sys.platform == "win32" else os.O_RDONLY))
        try:
            sync(fd)
        finally:
            os.close(fd)
        _sync_name(path, new_directory=new_directory)
    except FileNotFoundError:
        return
    except BaseException as error:
        raise durability_unknown(path, "there was nothing to write", error) from error


def make_directories(path: str) -> None:
    """Create a directory and its missing parents.

    If a directory exists, all its parents survive a power loss: each is synced before anything is created in it.
    The syncs of a file's name ensure this for the directory itself.

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


def durability_unknown(path: str, what: str, error: BaseException) -> DurabilityUnknownError:
    """Return the error for a file that may not survive a power loss."""
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or repr(error)
    message = f"{what}, but it is unknown whether the file would survive a power loss: {reason}"
    return DurabilityUnknownError(number, message, path)


def _sync_name(path: str, *, new_directory: bool) -> None:
    directory = os.path.dirname(path)
    sync_directory(directory)
    if new_directory:
        _sync_parent(directory)


def _sync_parent(directory: str) -> None:
    """Make the name of a directory survive a power loss, if this user could have created it."""
    try:
        sync_directory(os.path.dirname(directory))
    except OSError as error:
        if error.errno not in _NOT_OURS_TO_SYNC:
            raise
