"""What is in the file of a journal, line by line, without applying any of it: for those who look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ...errors import JournalVersionError
from .file import JournalFile
from .record import VERSION, Fold, Header, Record, generation_of, parse_header, parse_line


class Line(NamedTuple):
    """A part of a journal."""

    start: int
    end: int
    content: Header | Record | Fold | None
    """None if this part is damaged; an empty one stands where lines are missing."""


class History:
    """Reads a journal from its beginning, and what is appended to it later.

    Args:
        file: the journal, which is not changed.
    """

    def __init__(self, file: JournalFile) -> None:
        self.file: Final = file
        self.end = 0
        """The offset after the last line that was understood. What comes after it may be an append in progress, or one
        that was interrupted; nobody relies on it, and the next append replaces it."""
        self._last = -1
        self._generation: str | None = None

    def lines(self) -> Iterator[Line]:
        """Yield what has come since the last call.

        Raises:
            JournalVersionError: a newer version of this package wrote the journal.
        """
        for end, text in self.file.lines(self.end):
            start = end - len(text) - 1
            content = self._parsed(text, is_first=start == 0)
            number = _number(content)
            if number <= self._last:
                continue
            if start > self.end or number > self._last + 1:
                yield Line(self.end, start, None)
            self.end, self._last = end, number
            yield Line(start, end, content)

    def _parsed(self, text: bytes, *, is_first: bool) -> Header | Record | Fold | None:
        header = parse_header(text) if is_first else None
        if header is not None:
            if header.version > VERSION:
                raise JournalVersionError(header.version, VERSION).about(self.file.path)
            self._generation = header.generation
            return header
        self._generation = self._generation or generation_of(text)
        return parse_line(text, self._generation) if self._generation else None


def _number(content: Header | Record | Fold | None) -> int:
    if content is None:
        return -1
    return 0 if isinstance(content, Header) else content.number
