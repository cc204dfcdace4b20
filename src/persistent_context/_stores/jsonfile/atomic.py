"""Atomic replacement: readers see either all of the old content or all of the new.

The steps and their order are those of Pillai et al., "All File Systems Are Not Created Equal" (OSDI '14): write under
another name, fsync, rename; the caller fsyncs the directory afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from .access import Access
from .flock import try_lock
from .names import temporary_name
from .opening import NO_FOLLOW, check_regular, open_fd
from .syncing import durability_unknown, sync

_WRITE_BYTES: Final = 1024 * 1024
_WINDOWS_RETRIES: Final = 60
_WINDOWS_BUSY: Final = (5, 32)  # ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION: a reader or a virus scanner has it open


def replace(
    path: str,
    pieces: Iterable[bytes | memoryview],
    access: Access | None,
    *,
    durable: bool,
    check: Callable[[], None],
) -> int:
    """Replace or create a file atomically.

    Args:
        path: the file, not a symlink.
        pieces: the new content.
        access: the access of the existing file; None if there is none.
        durable: whether the content must survive a power loss when this returns. Its name may not, until the directory
            is synced.
        check: called just before the replacement; raises to prevent it.

    Returns:
        The number of bytes written.

    Raises:
        DurabilityUnknownError: the file was replaced, but a later step failed.
        OSError: the old file is unchanged, and nothing is left behind.
    """
    if access is not None:
        check_regular(path, access.status)
    temporary = temporary_name(path)
    mode = 0o666 if access is None else 0o600  # widened below
    try:
        fd = open_fd(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode)
    except PermissionError as error:
        reason = "this user may not create files in the directory, but the file is replaced, not written in place"
        raise PermissionError(error.errno, reason, os.path.dirname(path)) from None
    replaced = False
    try:
        try_lock(fd)  # marks it as owned by a live writer, see remove_leftovers()
        if access is not None:
            access.give_to(fd, os.fstat(fd))
        written = write_all(fd, pieces)
        if durable:
            sync(fd)
        check()
        if sys.platform == "win32":
            os.close(fd)
            fd = -1
        _rename(temporary, path)
        replaced = True
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
        raise durability_unknown(path, "the file was replaced", error) from error
    return written


def write_all(fd: int, pieces: Iterable[bytes | memoryview]) -> int:
    """Write a content to a new file; return the number of bytes."""
    written = 0
    for block in _blocks(pieces):
        rest = memoryview(block)
        while rest:  # writes may be short, on a full disk or under RLIMIT_FSIZE
            rest = rest[os.write(fd, rest) :]
        written += len(block)
    return written


def _blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small pieces, so that a small file takes a single write."""
    block: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)


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
