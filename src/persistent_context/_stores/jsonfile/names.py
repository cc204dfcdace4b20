"""The other files beside a file: temporary files, those left by crashed writers, and copies that were moved aside."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Final

from .flock import try_lock
from .opening import NO_FOLLOW, NO_WAIT, open_fd
from .syncing import sync_directory

_NAME_BYTES: Final = 200  # leaves room for suffixes: a file name has at most 255 bytes


def temporary_name(path: str) -> str:
    """Return a new path for a temporary file beside a file."""
    return f"{_temporary_start(path)}.{os.urandom(8).hex()}.tmp"


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
    start = os.path.basename(_temporary_start(path))
    for temporary in beside(path, re.compile(rf"{re.escape(start)}\.[0-9a-f]{{16}}\.tmp")):
        with contextlib.suppress(OSError):  # gone, a link, or another user's
            fd = open_fd(temporary, os.O_RDWR | NO_FOLLOW | NO_WAIT)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode) and try_lock(fd):
                    yield temporary
            finally:
                os.close(fd)


def move_aside(path: str, *, durable: bool) -> str:
    """Rename a corrupt file; return the new path."""
    aside = aside_name(path, "corrupt")
    os.rename(path, aside)
    if durable:
        sync_directory(os.path.dirname(path))
    return aside


def aside_name(path: str, why: str) -> str:
    """Return a new path for a file that is moved aside or copied; it states the reason."""
    directory, name = os.path.split(path)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return os.path.join(directory, f"{shortened(name)}.{why}-{moment}-{os.urandom(4).hex()}")


def moved_aside(path: str, why: str = "corrupt") -> list[str]:
    """Return the files that were moved aside or kept for this reason, oldest first."""
    start = f"{shortened(os.path.basename(path))}.{why}-"
    return sorted(beside(path, re.compile(rf"{re.escape(start)}\d{{8}}T\d{{6}}Z-[0-9a-f]{{8}}")))


@functools.lru_cache
def _temporary_start(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{shortened(name)}")


def beside(path: str, pattern: re.Pattern[str]) -> list[str]:
    """Return the files in the directory of a file whose names match."""
    directory = os.path.dirname(path)
    names: list[str] = []
    with contextlib.suppress(PermissionError, FileNotFoundError):  # it may be writable but not listable, or gone
        names = os.listdir(directory)
    return [os.path.join(directory, name) for name in names if pattern.fullmatch(name)]


def shortened(name: str) -> str:
    """Return a file name, cut so that a suffix does not make it too long."""
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES]) if len(os.fsencode(name)) > _NAME_BYTES else name
