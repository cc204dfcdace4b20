"""The lines of a journal: each is framed by a checksum, its length, and the generation of the journal.

``<crc32> <length> <generation> <payload>``, where the payload is a JSON object and the checksum is that of all that
follows it. The first line, the header, says what the JSON file looked like when the journal was begun. Every other line
is a record: the new texts of some keys, absolute, so that applying it twice does no harm; or a fold, which says what
the JSON file is about to look like, with all records before it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from ..._model.values import MISSING, MaybeText, Raw, Text, decode, encode, key_texts, split, split_any_depth

VERSION: Final = 1
GENERATION_DIGITS: Final = 16
_FIELDS: Final = 4
_LARGEST: Final = 2**63
_DAMAGE: Final = (LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading fields that no writer has written may raise: the content is anybody's, even with a right checksum."""


class Fingerprint(NamedTuple):
    """What identifies the content of the JSON file; (0, 0) if there is no file, as even an empty object has a size."""

    size: int
    crc32: int

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview]) -> Fingerprint:
        """Return that of a content."""
        size = crc32 = 0
        for piece in pieces:
            size += len(piece)
            crc32 = zlib.crc32(piece, crc32)
        return cls(size, crc32)


NO_FILE: Final = Fingerprint(0, 0)


class Author(NamedTuple):
    """Who wrote a line, and when."""

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


class Record(NamedTuple):
    """A commit."""

    number: int
    """The header is 0, and each line has the number after the one before."""
    author: Author
    set: Mapping[str, Text | Raw]
    """The new texts. A key that is also deleted comes last."""
    deleted: Collection[str]


class Fold(NamedTuple):
    """A checkpoint that is about to be made."""

    number: int
    author: Author
    becomes: Fingerprint
    """The JSON file, once it has been replaced. If it has not, this line means nothing."""
    ends: bool
    """Whether the journal is then removed, and no new one begun."""


def header_line(generation: str, follows: Fingerprint, author: Author) -> bytes:
    """Return the line of a header."""
    start = b'{"persistent_context_journal": %d, "number": 0, ' % VERSION
    return _framed(generation, start + _signed(author) + b', "follows": [%d, %d]}' % follows)


def record_line(
    generation: str, number: int, author: Author, texts: Mapping[str, MaybeText], moved: Collection[str] = ()
) -> bytes:
    """Return the line of a commit.

    Args:
        generation: of the journal.
        number: of the line.
        author: who commits.
        texts: the new texts; MISSING for a key that is deleted.
        moved: keys that come last though they are there.
    """
    new = {key: text for key, text in texts.items() if text is not MISSING}
    going = frozenset(moved)
    deleted = [key for key, text in texts.items() if text is MISSING or key in going]
    lines = b", ".join(key + text for key, text in zip(key_texts(new), new.values(), strict=True))
    payload = b'{"number": %d, %s, "set": {%s}' % (number, _signed(author), lines)
    if deleted:
        payload += b', "delete": ' + encode(deleted, "delete")
    return _framed(generation, payload + b"}")


def fold_line(generation: str, number: int, author: Author, becomes: Fingerprint, *, ends: bool) -> bytes:
    """Return the line of a fold; for the arguments, see :class:`Fold`."""
    what = b"end" if ends else b"fold"
    return _framed(generation, b'{"number": %d, %s, "%s": [%d, %d]}' % (number, _signed(author), what, *becomes))


def author_now(pid: int) -> Author:
    """Return the author of a line that a process writes now."""
    return Author(time.time(), pid)


def parse_header(line: bytes) -> Header | None:
    """Return the header in a line, or None if it is none."""
    frame = _unframed(line)
    if frame is None:
        return None
    generation, fields = frame
    try:
        version = _whole(fields["persistent_context_journal"])
        if version > VERSION:  # whose other fields are unknown
            return Header(version, generation, NO_FILE, Author(0.0, 0))
        return Header(version, generation, _fingerprint(fields["follows"]), _author(fields))
    except _DAMAGE:
        return None


def generation_of(line: bytes) -> str | None:
    """Return the generation that a line belongs to, or None if it is damaged."""
    frame = _unframed(line)
    return None if frame is None else frame[0]


def parse_line(line: bytes, generation: str) -> Record | Fold | None:
    """Return what is in a line, or None if it is damaged, or belongs to another generation."""
    frame = _unframed(line)
    if frame is None or frame[0] != generation:
        return None
    fields = frame[1]
    try:
        number, author = _whole(fields["number"]), _author(fields)
        for what in ("fold", "end"):
            if what in fields:
                return Fold(number, author, _fingerprint(fields[what]), ends=what == "end")
        texts = split(bytes(fields["set"]))
        deleted = decode(fields["delete"]) if "delete" in fields else []
    except _DAMAGE:
        return None
    if texts is None or not isinstance(deleted, list) or not all(isinstance(key, str) for key in deleted):
        return None
    return Record(number, author, texts, deleted)


def _framed(generation: str, payload: bytes) -> bytes:
    body = b"%d %s %s" % (len(payload), generation.encode(), payload)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _unframed(line: bytes) -> tuple[str, dict[str, Raw]] | None:
    """Return the generation and the fields of a line, or None if it is damaged."""
    parts = line.split(b" ", _FIELDS - 1)
    if len(parts) != _FIELDS:
        return None
    checksum, length, generation, payload = parts
    if checksum != b"%08x" % zlib.crc32(memoryview(line)[len(checksum) + 1 :]) or length != b"%d" % len(payload):
        return None
    fields = split_any_depth(payload)
    if fields is None or len(generation) != GENERATION_DIGITS or not generation.isalnum():
        return None
    return generation.decode(), fields


def _signed(author: Author) -> bytes:
    return b'"time": %.6f, "pid": %d' % author


def _author(fields: Mapping[str, Raw]) -> Author:
    return Author(float(decode(fields["time"])), _whole(fields["pid"]))


def _fingerprint(raw: Raw) -> Fingerprint:
    size, crc32 = decode(raw)
    return Fingerprint(int(size), int(crc32))


def _whole(raw: Raw) -> int:
    number = decode(raw)
    if type(number) is not int or not 0 <= number < _LARGEST:
        msg = "not a whole number"
        raise ValueError(msg)
    return number
