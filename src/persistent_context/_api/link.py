"""The way from a context to the queue of its store."""

from __future__ import annotations

import os
from typing import Final

from .._engine.holds import owner_inside
from .._engine.owner import Owner
from .._engine.queue import CommitQueue
from .._engine.registry import queue_of


class Link:
    """Finds the queue of the store that a place leads to, and remembers it.

    Args:
        place: the place, in absolute form.
        journal: whether its state is to be kept in a journal; None for no wish.
    """

    def __init__(self, place: str, *, journal: bool | None = None) -> None:
        self.place: Final = place
        self._journal: Final = journal
        self._queue: CommitQueue | None = None

    def here(self) -> CommitQueue | None:
        """Return the queue, if it is known and belongs to this process."""
        return self._queue if self._queue is not None and self._queue.pid == os.getpid() else None

    def find(self) -> CommitQueue:
        """Find the queue of the store that the place leads to now. This may do I/O: call it in a worker thread."""
        queue = queue_of(self.place)
        if queue is not self._queue:  # once: what another context wants of the same store comes later
            queue.store.want(journal=self._journal)
            self._queue = queue
        return queue

    def is_held_by_caller(self) -> bool:
        """Whether the caller is inside a transaction on the same file, through whichever context.

        This does no I/O: until the queue is known, the place is taken for what it leads to.
        """
        queue = self.here()
        owner = owner_inside(self.place if queue is None else queue.name)
        return owner is not None and Owner.current(blocks=False).is_inside(owner)

    def here_or_found(self) -> CommitQueue:
        """Return the queue, and find it if it is not known."""
        return self.here() or self.find()
