"""The link from a context to the queue of its store, or of one of the store's leases."""

from __future__ import annotations

import abc
import os
from typing import Final, Generic, TypeVar

from .._engine.holds import owner_inside
from .._engine.owner import Owner
from .._engine.queue import CommitQueue
from .._engine.registry import StoreQueue, lease_queue_of, queue_of

Q = TypeVar("Q", bound=CommitQueue)


class QueueLink(abc.ABC, Generic[Q]):
    """Finds a queue, and remembers it.

    Args:
        place: the place of the store, in absolute form.
    """

    def __init__(self, place: str) -> None:
        self.place: Final = place
        self._queue: Q | None = None

    def here(self) -> Q | None:
        """Return the queue, if it is known and belongs to this process."""
        return self._queue if self._queue is not None and self._queue.pid == os.getpid() else None

    @abc.abstractmethod
    def find(self) -> Q:
        """Find the queue that the place leads to now. This may do I/O: call it in a worker thread."""

    def here_or_found(self) -> Q:
        """Return the queue, and find it if it is not known."""
        return self.here() or self.find()


class Link(QueueLink[StoreQueue]):
    """Finds the queue of the store that a place leads to, and remembers it.

    Args:
        place: the place, in absolute form.
        journal: whether the store is to have a journal; None leaves that unchanged.
    """

    def __init__(self, place: str, *, journal: bool | None = None) -> None:
        super().__init__(place)
        self._journal: Final = journal

    def find(self) -> StoreQueue:
        """Find the queue of the store that the place leads to now. This may do I/O: call it in a worker thread."""
        queue = queue_of(self.place)
        if queue is not self._queue:  # only once: another context may have set something else since
            queue.store.want(journal=self._journal)
            self._queue = queue
        return queue

    def is_held_by_caller(self) -> bool:
        """Whether the caller is inside a transaction on the same file, through any context.

        This does no I/O: until the queue is known, the place itself is taken for the name of the store.
        """
        queue = self.here()
        owner = owner_inside(self.place if queue is None else queue.name)
        return owner is not None and Owner.current(blocks=False).is_inside(owner)


class LeaseLink(QueueLink[CommitQueue]):
    """Finds the queue of a lease of the store that a place leads to, and remembers it.

    Args:
        place: the place, in absolute form.
        name: the name of the lease.
        lasting: see :meth:`Store.lease`.
    """

    def __init__(self, place: str, name: str, *, lasting: bool) -> None:
        super().__init__(place)
        self._name: Final = name
        self._lasting: Final = lasting

    def find(self) -> CommitQueue:
        """Find the queue of the lease. This may do I/O: call it in a worker thread."""
        self._queue = lease_queue_of(self._name, self.place, lasting=self._lasting)
        return self._queue
