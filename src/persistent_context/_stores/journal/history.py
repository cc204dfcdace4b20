"""The lines of a journal, parsed one by one and not applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from ...errors import JournalVersionError
from .file import JournalFile
from .record import VERSION, Fold, Header, Record, generation_of, parse_header, parse_line

Content: TypeAlias = Header | Record | Fold


def contents(file: JournalFile, start: int, generation: str) -> Iterator[tuple[int, int, Content | None]]:
    """Yield the offset after each line, its number and its content; -1 and None if it is damaged.

    Args:
        file: the journal.
        start: the offset of the first line.
        generation: the generation of the journal, or an empty string if the header is unread or damaged.

    Raises:
        JournalVersionError: a newer version of this package wrote the journal.
    """
    for offset, text in file.lines(start):
        header = parse_header(text) if offset == len(text) + 1 else None
        if header is not None:
            if header.version > VERSION:
                raise JournalVersionError(header.version, VERSION).about(file.path)
            generation = header.generation
            yield offset, 0, header
            continue
        generation = generation or generation_of(text) or ""
        line = parse_line(text, generation) if generation else None
        yield offset, line.number if line else -1, line


class Line(NamedTuple):
    """A part of a journal."""

    start: int
    end: int
    content: Content | None
    """None if this part is damaged; a part of no bytes marks missing lines."""


class History:
    """Lists the lines of a journal from its beginning, and later those appended to it.

    Args:
        file: the journal; it is only read.
    """

    def __init__(self, file: JournalFile) -> None:
        self.file: Final = file
        self.end = 0
        """The offset after the last valid line. Anything after it is an append in progress or an interrupted one; it
        was not acknowledged, and the next append replaces it."""
        self._last = -1
        self._generation = ""

    def lines(self) -> Iterator[Line]:
        """Yield the lines appended since the last call.

        Raises:
            JournalVersionError: a newer version of this package wrote the journal.
        """
        start = self.end
        for end, number, content in contents(self.file, start, self._generation):
            if number > self._last:
                if start > self.end or number > self._last + 1:
                    yield Line(self.end, start, None)
                if isinstance(content, Header):
                    self._generation = content.generation
                self.end, self._last = end, number
                yield Line(start, end, content)
            start = end
