"""The queues of this process: one per store, and one per lease in use, however many contexts there are on it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from .._stores.factory import identify, open_store
from .._stores.protocol import Session, Store
from .queue import CommitQueue
from .request import Request


class StoreQueue(CommitQueue):
    """The queue of a store, rather than of a lease."""

    store: Store


class LeaseQueue(CommitQueue):
    """The queue of a lease, whose sessions are not cycles of the store, and are not counted as such."""

    def _deliver(self, over: Sequence[Request], session: Session | None, purpose: str) -> None:  # noqa: ARG002
        super()._deliver(over, None, purpose)


Q = TypeVar("Q", bound=CommitQueue)

_queues: Final[dict[str, weakref.ref[Any]]] = {}


def queue_of(place: str) -> StoreQueue:
    """Return this process's queue for the store that a place leads to now; all contexts on the store share it."""
    identity = identify(place)
    return _known_or(lambda: StoreQueue(open_store(identity), identity, queue_of), identity)


def lease_queue_of(name: str, place: str, *, lasting: bool) -> CommitQueue:
    """Return this process's queue for a lease of the store that a place leads to now."""
    identity = f"{identify(place)} ({'lease' if lasting else 'computation'} {name!r})"

    def make() -> CommitQueue:
        lease = queue_of(place).store.lease(name, lasting=lasting)
        return LeaseQueue(lease, identity, partial(lease_queue_of, name, lasting=lasting))

    return _known_or(make, identity)


def _known_or(make: Callable[[], Q], identity: str) -> Q:
    while True:
        known = _queues.get(identity)
        if known is not None:
            found: Q | None = known()
            if found is not None:
                return found
            _forget(identity, known)
        queue = make()
        if _queues.setdefault(identity, weakref.ref(queue, partial(_forget, identity)))() is queue:
            return queue


def _forget(identity: str, dead: weakref.ref[Any]) -> None:
    if _queues.get(identity) is dead:
        _queues.pop(identity, None)


def _after_fork_in_child() -> None:
    for known in list(_queues.values()):
        if queue := known():
            queue.store.after_fork_in_child()
    _queues.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
