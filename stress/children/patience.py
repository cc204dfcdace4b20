"""How long a call, or the end of a process, may take: the children wait that long, and the checkers allow it."""

from __future__ import annotations

PATIENCE = 20.0
"""Seconds within which a call gets its turn, and a watcher is told of the last change, however crowded the run is."""
PATIENCE_PER_WORKER = 2.5
"""Further seconds for the end of a program, which makes several calls."""
