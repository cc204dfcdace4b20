"""Copies of a file, kept beside it under a second name before its content is lost."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from .access import Access
from .atomic import write_all
from .flock import try_lock
from .names import aside_name, moved_aside, temporary_name
from .opening import NO_FOLLOW, open_fd, open_to_read, read_at
from .syncing import sync, sync_directory

_CHUNK_BYTES: Final = 1024 * 1024


def keep_copy(path: str, *, durable: bool, why: str = "corrupt") -> str:
    """Copy a file; return the path of the copy, which states ``why``.

    A second link would not do: it changes if the file is changed in place, and some file systems have none. If a copy
    with this content is there already, because replacing the file has failed before, it is not copied again.

    Args:
        path: the file.
        durable: whether the copy must survive a power loss when this returns.
        why: the reason.

    Raises:
        OSError: it cannot be copied; nothing is left behind.
    """
    kept = next((copy for copy in moved_aside(path, why) if _is_copy(copy, path)), None)
    aside = kept or aside_name(path, why)
    if not kept:
        _copy(path, aside, durable=durable)
    if durable:
        sync_directory(os.path.dirname(path))
    return aside


def _copy(source: str, target: str, *, durable: bool) -> None:
    access, temporary = Access.of(source), temporary_name(source)
    fd = open_fd(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600)
    try:
        try:
            try_lock(fd)  # marks it as owned by a live writer, see remove_leftovers()
            if access is not None:
                access.give_to(fd, os.fstat(fd))
            write_all(fd, _chunks(source))
            if durable:
                sync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _is_copy(copy: str, path: str) -> bool:
    """Whether a file is our copy of another one, and not one that a stranger has planted."""
    with contextlib.suppress(OSError):
        found, original = os.lstat(copy), os.lstat(path)
        is_ours = not hasattr(os, "geteuid") or found.st_uid in (original.st_uid, os.geteuid())
        if is_ours and stat.S_ISREG(found.st_mode) and found.st_size == original.st_size:
            return all(one == other for one, other in zip(_chunks(copy), _chunks(path), strict=True))
    return False


def _chunks(path: str) -> Iterator[bytes]:
    """Yield the content of a file; the last chunk is empty."""
    fd, _ = open_to_read(path)
    try:
        offset = 0
        while chunk := read_at(fd, offset, _CHUNK_BYTES):
            yield chunk
            offset += len(chunk)
        yield b""
    finally:
        os.close(fd)
