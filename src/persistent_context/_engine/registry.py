"""The queues of this process: one per store, however many contexts there are on it."""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import Final

from .._stores.factory import identify, open_store
from .queue import CommitQueue

_queues: Final[dict[str, weakref.ref[CommitQueue]]] = {}


def queue_of(place: str) -> CommitQueue:
    """Return this process's queue for the store that a place leads to now; all contexts on the store share it."""
    identity = identify(place)
    while True:
        known = _queues.get(identity)
        queue = known and known()
        if queue:
            return queue
        if known is not None:
            _forget(identity, known)
        queue = CommitQueue(open_store(identity), identity, queue_of)
        if _queues.setdefault(identity, weakref.ref(queue, partial(_forget, identity)))() is queue:
            return queue


def _forget(identity: str, dead: weakref.ref[CommitQueue]) -> None:
    if _queues.get(identity) is dead:
        _queues.pop(identity, None)


def _after_fork_in_child() -> None:
    for known in list(_queues.values()):
        if queue := known():
            queue.store.after_fork_in_child()
    _queues.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
