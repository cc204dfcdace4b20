"""What the file holds before a fault, and what each operation makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

OPERATIONS = ("save", "incr", "transaction", "commit", "create")
"""`commit` is the end of a transaction alone; `create` the save that makes the file, its lock and directories."""
UNCHANGING = ("resave", "rewrite", "checkpoint")
"""`resave` saves when nothing is unsaved; `rewrite` is a transaction that sets what the file has."""
JOURNALED = {"append": True, "append-save": True, "checkpoint": True, "begin": True, "end": False}
"""Operations on a file that has a journal, or that begin or end it, and what the context wants of it."""
WITHOUT_JOURNAL = {"append": "incr", "append-save": "save", "begin": "incr", "end": "incr"}
"""What they change: the same as these."""
NEIGHBOUR = "neighbour"
"""The key that another process counts meanwhile."""
KEPT = "kept " * 1_000
SIZE = 5_000
"""Characters of the value that is written: more than a page, less than a write of its own."""

Document = dict[str, Any]


def opening() -> Document:
    """Return what the file holds at first."""
    return {"n": 0, "kept": KEPT, NEIGHBOUR: 0}


def value_of(number: int, size: int = SIZE) -> str:
    """Return the value that the operation of that number writes."""
    return f"{number} ".ljust(size, "y")


def caller_key(caller: int) -> str:
    """Return the key that one of several callers counts."""
    return f"caller {caller}"


def after(document: Document | None, operation: str, number: int, size: int = SIZE) -> Document:
    """Return what an operation makes of a document, or of no file."""
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
    """Return what the other process makes of a document, or of no file."""
    changed = dict(document or {})
    changed[NEIGHBOUR] = changed.get(NEIGHBOUR, 0) + 1
    return changed


def write(path: Path, document: Document) -> None:
    """Write a document as somebody's editor would."""
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
    return found if isinstance(found, dict) else "the file holds no object"


def tell(document: Document | str | None) -> str:
    """Describe a document in a line."""
    if not isinstance(document, dict):
        return str(document or "no file")
    return repr({key: value[:6] if isinstance(value, str) else value for key, value in document.items()})


def leftovers(path: Path) -> list[str]:
    """Return the names in the directory other than those of the file, its lock and its journal."""
    wanted = {path.name, f"{path.name}.lock", f"{path.name}.journal"}
    return sorted({*os.listdir(path.parent)} - wanted) if path.parent.exists() else []
