"""The file that `watching` writes and watches, `watching.json`: its keys, and their initial values."""

from __future__ import annotations

from typing import Any

FILLERS = 400
FILLER = 1_000
"""How many values make `watching.json` a file of many pages, and the initial length of each in characters."""
COUNTERS = tuple(f"watching/counter/{number}" for number in range(2))
LATEST = tuple(f"watching/latest/{number}" for number in range(4))
"""Keys that are overwritten all the time, and watched."""
DONE = "watching/done"
"""Counts the children that have finished writing."""


def opening_watched() -> dict[str, Any]:
    """Return the content of `watching.json` before the run."""
    latest = dict.fromkeys(LATEST, "")
    return {**dict.fromkeys(COUNTERS, 0), **latest, **{filler(number): "-" * FILLER for number in range(FILLERS)}}


def filler(number: int) -> str:
    """Return the key of a value that is there from the beginning to the end."""
    return f"watching/filler/{number:03}"
