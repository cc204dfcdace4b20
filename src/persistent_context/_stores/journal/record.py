"""The lines of a journal: each is framed by a checksum, its length, and the generation of the journal.

``<crc32> <length> <generation> <payload>``, where the payload is a JSON object and the checksum covers everything after
it. The first line, the header, identifies the JSON file on which the journal was begun. Every other line is a record,
which has the new texts of some keys, absolute, so that applying it twice does no harm; or a fold, which identifies the
JSON file that is about to be written with all earlier records.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from ..._model.values import MISSING, Frozen, MaybeText, Raw, Whole, encode, key_texts, reader_of

VERSION: Final = 1
GENERATION_DIGITS: Final = 16
_FIELDS: Final = 4


class Fingerprint(NamedTuple):
    """What identifies the content of the JSON file; (0, 0) if there is no file, as even an empty object has a size."""

    size: int
    crc32: int

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview]) -> Fingerprint:
        """Return the fingerprint of a content."""
        size = crc32 = 0
        for piece in pieces:
            size += len(piece)
            crc32 = zlib.crc32(piece, crc32)
        return cls(size, crc32)


NO_FILE: Final = Fingerprint(0, 0)


class Author(NamedTuple):
    """The process that wrote a line, and the time."""

    time: float
    """In seconds since the Unix epoch."""
    pid: int


class Header(NamedTuple):
    """The first line of a journal."""

    version: int
    generation: str
    follows: Fingerprint
    """The JSON file to which the records are to be applied."""
    author: Author


class Record(Frozen, frozen=True, rename={"deleted": "delete"}):
    """A commit: the fields of its line."""

    number: Whole
    """The header has 0, and each line has the number after that of the previous line."""
    time: float
    pid: Whole
    set: dict[str, Raw]
    """The new texts. A key that is in ``deleted`` as well goes to the end."""
    deleted: list[str] = []  # noqa: RUF012 - each record has its own

    @property
    def author(self) -> Author:
        """The process that wrote it, and when."""
        return Author(self.time, self.pid)


class Fold(NamedTuple):
    """A checkpoint that is about to be made."""

    number: int
    author: Author
    becomes: Fingerprint
    """The new JSON file. If the file is never replaced, this line means nothing."""
    ends: bool
    """Whether the journal is then removed, and no new one is begun."""


def header_line(generation: str, follows: Fingerprint, author: Author) -> bytes:
    """Return a header line."""
    start = b'{"persistent_context_journal": %d, "number": 0, ' % VERSION
    return _framed(generation, start + _signed(author) + b', "follows": [%d, %d]}' % follows)


def record_line(
    generation: str, number: int, author: Author, texts: Mapping[str, MaybeText], moved: Collection[str] = ()
) -> bytes:
    """Return the line of a commit.

    Args:
        generation: that of the journal.
        number: that of the line.
        author: the process that commits, and when.
        texts: the new texts; MISSING for a key that is deleted.
        moved: keys that go to the end even if they are present.
    """
    new = {key: text for key, text in texts.items() if text is not MISSING}
    going = frozenset(moved)
    deleted = [key for key, text in texts.items() if text is MISSING or key in going]
    lines = b", ".join(key + text for key, text in zip(key_texts(new), new.values(), strict=True))
    payload = b'{"number": %d, %s, "set": {%s}' % (number, _signed(author), lines)
    if deleted:
        payload += b', "delete": ' + encode(deleted, "delete")
    return _framed(generation, payload + b"}")


def size_of(texts: Mapping[str, MaybeText]) -> int:
    """Return about how long the line of a commit is."""
    return sum(len(key) if text is MISSING else len(key) + len(text) for key, text in texts.items())


def fold_line(generation: str, number: int, author: Author, becomes: Fingerprint, *, ends: bool) -> bytes:
    """Return the line of a fold; for the arguments, see :class:`Fold`."""
    what = b"end" if ends else b"fold"
    return _framed(generation, b'{"number": %d, %s, "%s": [%d, %d]}' % (number, _signed(author), what, *becomes))


def author_now(pid: int) -> Author:
    """Return the author of a line that this process writes now."""
    return Author(time.time(), pid)


def parse_header(line: bytes) -> Header | None:
    """Return the header in a line, or None if the line is not a header."""
    frame = _unframed(line)
    opening = frame and _read_opening(frame[1])
    if not frame or not opening:
        return None
    generation, version = frame[0].decode(), opening.persistent_context_journal
    if version > VERSION:  # whose other fields are unknown
        return Header(version, generation, NO_FILE, Author(0.0, 0))
    fields = _read_header(frame[1])
    return Header(version, generation, fields.follows, Author(fields.time, fields.pid)) if fields else None


def generation_of(line: bytes) -> str | None:
    """Return the generation that a line belongs to, or None if it is damaged."""
    frame = _unframed(line)
    return None if frame is None else frame[0].decode()


def parse_line(line: bytes, generation: str) -> Record | Fold | None:
    """Return the content of a line, or None if it is damaged or belongs to another generation."""
    frame = _unframed(line)
    if frame is None or frame[0] != generation.encode():
        return None
    payload = frame[1]
    return _read_record(payload) or _parse_fold(payload)


class _Opening(Frozen, frozen=True):
    """The first field of a header."""

    persistent_context_journal: Whole


class _HeaderFields(Frozen, frozen=True):
    time: float
    pid: Whole
    follows: Fingerprint


class _FoldFields(Frozen, frozen=True):
    number: Whole
    time: float
    pid: Whole
    fold: Fingerprint | None = None
    end: Fingerprint | None = None


_read_opening: Final = reader_of(_Opening)
_read_header: Final = reader_of(_HeaderFields)
_read_record: Final = reader_of(Record)
_read_fold: Final = reader_of(_FoldFields)


def _parse_fold(payload: bytes) -> Fold | None:
    fields = _read_fold(payload)
    becomes = fields and (fields.fold or fields.end)
    if not fields or not becomes:
        return None
    return Fold(fields.number, Author(fields.time, fields.pid), becomes, ends=not fields.fold)


def _framed(generation: str, payload: bytes) -> bytes:
    body = b"%d %s %s" % (len(payload), generation.encode(), payload)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _unframed(line: bytes) -> tuple[bytes, bytes] | None:
    """Return the generation and the payload of a line, or None if it is damaged."""
    parts = line.split(b" ", _FIELDS - 1)
    if len(parts) != _FIELDS:
        return None
    checksum, length, generation, payload = parts
    if checksum != b"%08x" % zlib.crc32(memoryview(line)[len(checksum) + 1 :]) or length != b"%d" % len(payload):
        return None
    if len(generation) != GENERATION_DIGITS or not generation.isalnum():
        return None
    return generation, payload


def _signed(author: Author) -> bytes:
    return b'"time": %.6f, "pid": %d' % author
