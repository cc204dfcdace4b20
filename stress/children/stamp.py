"""Reads who says, in the lock file, that it holds the lock: a hint for where to strike, and no more."""

from __future__ import annotations

import json
from pathlib import Path


def holder(lock_file: Path) -> int | None:
    """Return the process that says so, or `None`."""
    try:
        return int(json.loads(lock_file.read_bytes())["persistent_context"]["pid"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
