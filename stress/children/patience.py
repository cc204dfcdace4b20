"""How long a call or the end of a process may take, which the children wait and the checkers allow."""

from __future__ import annotations

PATIENCE = 20.0
"""Seconds in which a call has its turn, and a watcher is told of the last change, however crowded."""
PATIENCE_PER_WORKER = 2.5
"""Further seconds in which a program ends, which makes several calls."""
