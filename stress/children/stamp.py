"""Reads from the lock file which process claims to hold the lock: only a hint for where to strike."""

from __future__ import annotations

import json
from pathlib import Path


def holder(lock_file: Path) -> int | None:
    """Return the process that claims to hold the lock, or `None`."""
    try:
        return int(json.loads(lock_file.read_bytes())["persistent_context"]["pid"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
