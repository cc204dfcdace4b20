"""All files of a run: the initial content of each, and which key belongs to which file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stress.documents.hammered import opening_document
from stress.documents.paged import opening_paged
from stress.documents.watched import opening_watched

STATE = "state"
"""The file that the workers hammer. A kind of child that has its own file gives it its name."""
OPENINGS: Mapping[str, dict[str, Any] | None] = {
    STATE: opening_document(),
    "watching": opening_watched(),
    "pages": opening_paged(),
    "threads": None,
    "jobs": None,
}
"""The content of each file before the run; None if it is missing."""


FILES_ONLY = ("pages",)
"""Those that a run has only if its states are JSON files."""


def opening_keys() -> set[str]:
    """Return the keys that are there from the beginning."""
    return {key for opening in OPENINGS.values() for key in opening or ()}


def file_of(key: str) -> str:
    """Return the name of the file that has a key."""
    kind = key.partition("/")[0]
    return kind if kind in OPENINGS else STATE
