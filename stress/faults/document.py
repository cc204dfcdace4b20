"""The content of the file before a fault, and what each operation makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

OPERATIONS = ("save", "incr", "transaction", "commit", "create")
"""`commit` is only the end of a transaction; `create` is the save that makes the file, its lock and directories."""
UNCHANGING = ("resave", "rewrite", "checkpoint")
"""`resave` saves when nothing is unsaved; `rewrite` is a transaction that sets what the file already has."""
JOURNALED = {"append": True, "append-save": True, "checkpoint": True, "begin": True, "end": False}
"""Operations on a file with a journal, or that begin or end one, and the journal option of the context."""
WITHOUT_JOURNAL = {"append": "incr", "append-save": "save", "begin": "incr", "end": "incr"}
"""Their effect on the document: the same as that of these."""
NEIGHBOUR = "neighbour"
"""The key that another process counts in the meantime."""
KEPT = "kept " * 1_000
SIZE = 5_000
"""Characters of the value that is written: more than a page, and less than a separate write."""

Document = dict[str, Any]


def opening() -> Document:
    """Return the content of the file before all operations."""
    return {"n": 0, "kept": KEPT, NEIGHBOUR: 0}


def value_of(number: int, size: int = SIZE) -> str:
    """Return the value that the operation with this number writes."""
    return f"{number} ".ljust(size, "y")


def caller_key(caller: int) -> str:
    """Return the key that one of several callers counts."""
    return f"caller {caller}"


def after(document: Document | None, operation: str, number: int, size: int = SIZE) -> Document:
    """Return the document, or the missing file, after an operation."""
    operation = WITHOUT_JOURNAL.get(operation, operation)
    if operation == "neighbour":
        return with_neighbour(document)
    changed = dict(document or {})
    if operation in {"incr", "transaction", "commit"}:
        changed["n"] += 1
    if operation not in {"incr", *UNCHANGING}:
        changed["new"] = value_of(number, size)
    return changed


def with_neighbour(document: Document | None) -> Document:
    """Return the document, or the missing file, after the other process's change."""
    changed = dict(document or {})
    changed[NEIGHBOUR] = changed.get(NEIGHBOUR, 0) + 1
    return changed


def write(path: Path, document: Document) -> None:
    """Write a document as an editor would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def read(path: Path) -> Document | str | None:
    """Return the document, `None` if there is no file, or what is wrong with it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"the file cannot be read: {error}"
    try:
        found = json.loads(content)
    except ValueError as error:
        return f"the file is torn: {len(content)} bytes, {error}"
    return found if isinstance(found, dict) else "the file does not hold an object"


def tell(document: Document | str | None) -> str:
    """Describe a document in one line."""
    if not isinstance(document, dict):
        return str(document or "no file")
    return repr({key: value[:6] if isinstance(value, str) else value for key, value in document.items()})


def leftovers(path: Path) -> list[str]:
    """Return the names in the directory other than those of the file, its lock and its journal."""
    wanted = {path.name, f"{path.name}.lock", f"{path.name}.journal"}
    return sorted({*os.listdir(path.parent)} - wanted) if path.parent.exists() else []
