"""The state that a JSON file and its journal represent, determined without the library: a second opinion on it.

It only uses what is documented: the JSON file, and the records after the last one that it already includes.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from stress.faults.document import Document, read

Line = dict[str, Any]


def journal_of(path: Path) -> Path:
    """Return the path of the journal of a file, if it has one."""
    return path.with_name(f"{path.name}.journal")


def read_state(path: Path) -> Document | str | None:
    """Return the state, `None` if there is nothing, or what is wrong with it."""
    document = read(path)
    try:
        lines = _lines(journal_of(path).read_bytes())
    except FileNotFoundError:
        return document
    except (OSError, ValueError) as error:
        return f"the journal cannot be read: {error}"
    if isinstance(document, str) or not lines:
        return document
    content = path.read_bytes() if path.exists() else b""
    identity = [len(content), zlib.crc32(content)]
    begins = [index for index, line in enumerate(lines) if identity in (line.get("follows"), *_becomes(line))]
    if not begins:
        return "the JSON file does not match the journal"
    return _applied(document, lines[begins[-1] :])


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
