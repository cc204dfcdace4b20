"""Copies of a file, kept beside it under a second name before its content is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from .access import Access
from .atomic import write_all
from .flock import try_lock
from .names import aside_name, moved_aside, temporary_name
from .opening import NO_FOLLOW, Opened, open_fd, open_to_read, read_at
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
    original = open_to_read(path)  # once: its name may be given to a file with other permissions in the meantime
    try:
        kept = next((copy for copy in moved_aside(path, why) if _is_copy(copy, original)), None)
        aside = kept or aside_name(path, why)
        if not kept:
            _copy(original, temporary_name(path), aside, durable=durable)
    finally:
        os.close(original.fd)
    if durable:
        sync_directory(os.path.dirname(path))
    return aside


def _copy(original: Opened, temporary: str, target: str, *, durable: bool) -> None:
    fd = open_fd(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600)
    try:
        try:
            try_lock(fd)  # marks it as owned by a live writer, see remove_leftovers()
            Access.of_open(original.fd).give_to(fd, os.fstat(fd))
            write_all(fd, _chunks(original))
            if durable:
                sync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _is_copy(path: str, original: Opened) -> bool:
    """Whether a file is our copy of another one, and not one that a stranger has planted."""
    with contextlib.suppress(OSError):
        found = open_to_read(path)
        try:
            is_ours = not hasattr(os, "geteuid") or found.status.st_uid in (original.status.st_uid, os.geteuid())
            if is_ours and found.status.st_size == original.status.st_size:
                return all(one == other for one, other in zip(_chunks(found), _chunks(original), strict=True))
        finally:
            os.close(found.fd)
    return False


def _chunks(file: Opened) -> Iterator[bytes]:
    """Yield the content of a file; the last chunk is empty."""
    offset = 0
    while chunk := read_at(file.fd, offset, _CHUNK_BYTES):
        yield chunk
        offset += len(chunk)
    yield b""
