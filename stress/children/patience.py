"""How long a call, or the end of a process, may take: the children wait that long, and the checkers allow it."""

from __future__ import annotations

PATIENCE = 20.0
"""Seconds within which a call gets its turn, and a watcher is told of the last change, however crowded the run is."""
PATIENCE_WITH_ETCD = 75.0
"""The same if the states are in a cluster of etcd, whose members fail: a turn may outlive its process by ten seconds,
and an unanswered commit is settled for up to thirty."""
PATIENCE_PER_WORKER = 2.5
"""Further seconds for the end of a program, which makes several calls."""
