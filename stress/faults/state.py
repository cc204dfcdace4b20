"""The state that a JSON file and its journal represent, determined without the library: a second opinion on it.

It only uses what is documented: the JSON file, and the records after the last one that it already includes.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from stress.faults.document import Document, read

Line = dict[str, Any]


def journal_of(path: Path) -> Path:
    """Return the path of the journal of a file, if it has one."""
    return path.with_name(f"{path.name}.journal")


def read_state(path: Path) -> Document | str | None:
    """Return the state, `None` if there is nothing, or what is wrong with it.

    If a process folds the journal meanwhile, this reads again, as the journal belongs to one of two JSON files.
    """
    content: bytes | None = b"not read yet"
    while content != (content := _content(path)):
        document, journal = read(path), _content(journal_of(path))
    if journal is None:
        return document
    try:
        lines = _lines(journal)
    except ValueError as error:
        return f"the journal cannot be read: {error}"
    if isinstance(document, str) or not lines:
        return document
    identity = [len(content or b""), zlib.crc32(content or b"")]
    begins = [index for index, line in enumerate(lines) if identity in (line.get("follows"), *_becomes(line))]
    if not begins:
        return "the JSON file does not match the journal"
    return _applied(document, lines[begins[-1] :])


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _becomes(line: Line) -> list[Any]:
    return [line[name] for name in ("fold", "end") if name in line]


def _applied(document: Document | None, lines: list[Line]) -> Document | None:
    for line in lines:
        if "set" in line:
            document = {key: value for key, value in (document or {}).items() if key not in line.get("delete", [])}
            document.update(line["set"])
    return document


def _lines(content: bytes) -> list[Line]:
    """Return the valid lines; what comes after them was never acknowledged.

    Raises:
        ValueError: there is a bad line before a good one.
    """
    lines: list[Line] = []
    is_torn = False
    for line in content.split(b"\n"):
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            is_torn = True
            continue
        if is_torn:
            msg = f"there is a bad line before this one: {line[:80]!r}"
            raise ValueError(msg)
        lines.append(json.loads(body.split(b" ", 2)[2]))
    return lines
