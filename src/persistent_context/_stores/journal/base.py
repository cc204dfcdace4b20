"""The JSON file under a journal: its content, and a check that it has not changed that does not read it again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from ..jsonfile.document import Document
from ..jsonfile.opening import open_to_read, read_at
from .record import NO_FILE, Fingerprint

_ATTEMPTS: Final = 100
_CHUNK_BYTES: Final = 1024 * 1024
_CLOCK_TICK: Final = 20_000_000
_COARSE_CLOCK_TICK: Final = 2_000_000_000
_DEVICE_AND_INODE: Final = 2
_WITH_SIZE_AND_MTIME: Final = 4
_COARSE_TIMES: Final = 10_000_000
"""A file system whose times are multiples of this may have a clock as coarse as that of FAT, 2 s; all in ns."""

Identity: TypeAlias = tuple[int, ...]


class Base(NamedTuple):
    """The JSON file as read."""

    document: Document
    fingerprint: Fingerprint
    identity: Identity | None
    """Its device, inode, size and times from stat(2); None if there was no file."""
    is_settled: bool
    """Whether any later change would show in its times: it was older than one clock tick when it was read.

    Otherwise it may have been written again within that tick: git calls such a file racily clean.
    """

    def is_still(self, later: Base, *, unmodified: bool = False) -> bool:
        """Whether it is the same file later on, with the same content; its permissions and links may have changed.

        Args:
            later: what is there later on.
            unmodified: whether its modification time counts as well, so that ``touch`` makes another file of it.
                Otherwise, one that was deleted and created again with the same content may be taken for the same file,
                because inode numbers are reused.
        """
        count = _WITH_SIZE_AND_MTIME if unmodified else _DEVICE_AND_INODE
        before, after = ((one.identity or ())[:count] for one in (self, later))
        return self.fingerprint == later.fingerprint and before == after


def look(path: str, known: Base | None, read: Callable[[], Document]) -> Base:
    """Return the JSON file at a path: the known one if it cannot have changed.

    Args:
        path: the file.
        known: the file as last read or written, if any.
        read: reads it.

    Raises:
        OSError: it cannot be read, or kept changing.
    """
    if known is not None and known.is_settled and known.identity == identity_of(path):
        return known
    for _ in range(_ATTEMPTS):
        began = time.time_ns()
        identity = identity_of(path)
        document = read()
        if known is not None and document is known.document and identity == known.identity:
            fingerprint = known.fingerprint
        else:
            fingerprint = _fingerprint(path)
        if identity == identity_of(path):
            return Base(document, fingerprint, identity, is_settled=_is_settled(identity, began))
    msg = "the file changed each time it was read; stop the program that writes it without taking its lock"
    raise OSError(None, msg, path)


def written(path: str, document: Document, fingerprint: Fingerprint) -> Base:
    """Return a file that was just written under the lock."""
    return Base(document, fingerprint, identity_of(path), is_settled=False)


def identity_of(path: str) -> Identity | None:
    """Return what distinguishes a file from others at its path, and from its own earlier content; None if missing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_settled(identity: Identity | None, began: int) -> bool:
    if identity is None:
        return True
    times = identity[-2:]
    tick = _COARSE_CLOCK_TICK if any(time % _COARSE_TIMES == 0 for time in times) else _CLOCK_TICK
    return all(time < began - tick for time in times)


def _fingerprint(path: str) -> Fingerprint:
    try:
        fd, status = open_to_read(path)
    except FileNotFoundError:
        return NO_FILE
    try:
        return Fingerprint.of(read_at(fd, start, _CHUNK_BYTES) for start in range(0, status.st_size, _CHUNK_BYTES))
    finally:
        os.close(fd)
