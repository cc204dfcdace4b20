"""Turns: a fair queue of keys in etcd, in which the key that was created first has the turn.

A key belongs to a lease, so it vanishes soon after its process. As that is no proof for a process that was stopped,
whatever is written in a turn has to compare the revision at which the key was created (:meth:`Turn.comparison`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from ...types import Holder
from ..process import describe_this_process, holder_from
from .client import (
    NOTHING_FOUND,
    Client,
    Found,
    Item,
    Json,
    counted,
    delete,
    end_of,
    first_created,
    get,
    is_created_at,
    is_empty,
    put,
)
from .failures import RefusedError, UnansweredError, UnreachableError
from .lease import KeptLease
from .line import Line

_LOOK_AGAIN_SECONDS: Final = 0.5
"""How often a waiting call asks who has the turn, if the line that it follows does not move."""
_RETRY_SECONDS: Final = 0.2
_LEASE_NOT_FOUND: Final = 5


class Turn:
    """A turn that this process has obtained.

    Args:
        turns: the queue.
        place: its key.
        waited: whether another process had the turn first.
        found: the results of the requested reads, if the turn came at once; otherwise nothing.
        revision: the revision at which they were made.
    """

    def __init__(self, turns: Turns, place: Item, *, waited: bool, found: Sequence[Found], revision: int) -> None:
        self.waited: Final = waited
        self.found: Final = found
        self.revision: Final = revision
        self._turns: Final = turns
        self._place: Final = place
        self._pid: Final = os.getpid()
        self._is_over = False

    @property
    def token(self) -> int:
        """A number greater than that of every earlier turn."""
        return self._place.created

    def comparison(self) -> Json:
        """Return the comparison that is true as long as the turn lasts."""
        return is_created_at(self._place.key, self._place.created)

    def lasts(self) -> bool:
        """Ask the cluster whether the turn lasts.

        Raises:
            UnreachableError: it cannot be reached.
            RefusedError: it refuses to say.
        """
        return self._turns.client.transact((), when=[self.comparison()], repeatable=True).succeeded

    def ending(self) -> Sequence[Json]:
        """Return the operations that end the turn, and count those that wait; :meth:`ended` has to follow."""
        prefix = self._turns.prefix
        return (delete(self._place.key), counted(prefix, end_of(prefix)))

    def ended(self, waiting: int) -> None:
        """Note that the turn has ended, and how many others waited then."""
        if not self._is_over:
            self._is_over = True
            self._turns.left(waiting)

    def end(self) -> None:
        """End the turn, unless it has ended. If this cannot be told to the cluster, it ends with its lease."""
        if self._is_over or self._pid != os.getpid():
            return
        waiting = 1
        try:
            outcome = self._turns.client.transact(self.ending(), when=[self.comparison()], repeatable=True)
            waiting = outcome.found[0].count if outcome.succeeded else 1
        except BaseException as error:
            self._turns.give_up(self._place)
            if not isinstance(error, UnreachableError | RefusedError):
                raise
        finally:
            self.ended(waiting)


class Turns:
    """A queue. Usable from any thread.

    Args:
        client: the cluster.
        prefix: the start of its keys.
    """

    def __init__(self, client: Client, prefix: bytes) -> None:
        self.client: Final = client
        self.prefix: Final = prefix
        self.is_crowded = False
        """Whether others waited when the last turn of this process ended."""
        self._lease: Final = KeptLease(client)
        self._line: Final = Line(client, prefix)
        self._numbers: Final = itertools.count()
        self._waiting: set[int] = set()
        self._trouble: UnreachableError | None = None  # why this process could not get in line the last time

    def take(self, purpose: str, *, wait: bool, reads: Sequence[Json] = ()) -> Turn | None:
        """Take a turn; return None if another one has it and ``wait`` is false, or the cluster cannot be reached.

        Args:
            purpose: what it is for, for others to see.
            wait: whether to wait, without a limit.
            reads: what to read if the turn comes at once.

        Raises:
            RefusedError: the cluster refuses it.
        """
        try:
            return self._take(purpose, wait=wait, reads=reads)
        finally:
            self._waiting.discard(threading.get_ident())

    def _take(self, purpose: str, *, wait: bool, reads: Sequence[Json]) -> Turn | None:
        waited = False
        while True:
            try:
                place, found, revision = self._line_up(purpose, wait=wait, reads=reads)
            except UnreachableError as error:
                self._trouble = error
                if not wait:
                    return None
                self._waiting.add(threading.get_ident())
                time.sleep(_RETRY_SECONDS)
                continue
            self._trouble = None
            if place is None:
                if not self._evict(found[0].items[:1]):
                    return None
                continue
            if not found[0].items or found[0].items[0].key == place.key:
                return Turn(self, place, waited=waited, found=found[1:], revision=revision)
            waited = True
            turn = Turn(self, place, waited=True, found=(), revision=0)
            self._waiting.add(threading.get_ident())
            try:
                if self._wait(place):
                    return turn
            except BaseException:
                turn.end()
                raise
            turn.end()

    def is_waiting(self) -> bool:
        """Whether a thread waits for its turn, or for the cluster."""
        return bool(self._waiting)

    def holder(self, *, probe: bool) -> Holder | None:
        """Return who has the turn, or None.

        Args:
            probe: ask the cluster even if it could not be reached the last time.

        Raises:
            StoreUnavailableError: the cluster cannot be reached.
        """
        trouble = self.client.gateway.trouble
        if trouble is not None and not probe:
            raise trouble.as_unavailable()
        try:
            first = self.client.read(first_created(self.prefix, limit=1)).found[0]
        except UnreachableError as error:
            raise error.as_unavailable() from None
        holder = _holder_of(first.items[0]) if first.items else None
        is_nobody = holder is None or holder.pid == os.getpid()  # what is left of a request without an answer
        if is_nobody and self._trouble is not None and not probe:
            raise self._trouble.as_unavailable()
        return holder

    def left(self, waiting: int) -> None:
        """Note that a turn has ended."""
        self.is_crowded = waiting > 0
        self._lease.leave()

    def give_up(self, place: Item) -> None:
        """End a turn whose end could not be told to the cluster, together with its lease."""
        self._lease.discard(int(place.value))

    def close(self) -> None:
        """Close the stream, if nobody waits."""
        self._line.close()

    def forget(self) -> None:
        """Leave turns, in a forked child, to its parent."""
        self._lease.forget()
        self._line.forget()
        self._waiting = set()
        self._trouble = None

    def _line_up(self, purpose: str, *, wait: bool, reads: Sequence[Json]) -> tuple[Item | None, Sequence[Found], int]:
        """Create a key; return it (None if others are there and ``wait`` is false), what is in line, and the reads."""
        lease, is_in_line = self._lease.enter(), False
        key = b"%s%016x/%d" % (self.prefix, lease, next(self._numbers))
        create = put(key, _stamp(purpose), lease=lease)
        try:
            if wait:
                outcome = self.client.transact([create, first_created(self.prefix, limit=2), *reads])
            else:
                first = first_created(self.prefix, limit=1)
                outcome = self.client.transact([create, *reads], when=[is_empty(self.prefix)], otherwise=[first])
            is_in_line = outcome.succeeded
        except UnansweredError as error:
            self._lease.discard(lease)  # if it arrives late, it must not be taken for somebody's
            raise UnreachableError({error.endpoint: error.reason}) from None
        except RefusedError as error:
            self._lease.discard(lease)  # the place may be taken all the same, if it has filled the store
            if error.code != _LEASE_NOT_FOUND:
                raise
            raise UnreachableError({"lease": error.reason}) from None
        finally:
            if not is_in_line:
                self._lease.leave()
        if not is_in_line:
            return None, outcome.found, outcome.revision
        place = Item(key, b"%d" % lease, outcome.revision, outcome.revision)
        return place, outcome.found if wait else (NOTHING_FOUND, *outcome.found), outcome.revision

    def _wait(self, place: Item) -> bool:
        """Wait until a key is the first one; return False if it is gone."""
        while True:
            with contextlib.suppress(TimeoutError):
                return self._line.is_first(place, seconds=_LOOK_AGAIN_SECONDS)
            # The member that is followed may be cut off, or the process that has the turn dead.
            with contextlib.suppress(UnreachableError):
                outcome = self.client.read(first_created(self.prefix, limit=1), get(place.key))
                if outcome.revision < place.created:  # of a member that was paused (etcd-io/etcd#20418)
                    continue
                first, own = outcome.found
                if not own.items or first.items[0].key == place.key:
                    return bool(own.items)
                self._evict(first.items)

    def _evict(self, items: Sequence[Item]) -> bool:
        """Delete the keys of dead processes; return whether there is none of another process."""
        for item in items:
            if _holder_of(item) is not None:
                return False
            self.client.transact([delete(item.key)], when=[is_created_at(item.key, item.created)], repeatable=True)
        return True


def _stamp(purpose: str) -> bytes:
    content: dict[str, Any] = {**describe_this_process(os.getpid()), "since": time.time(), "for": purpose}
    return json.dumps(content).encode()


def _holder_of(item: Item) -> Holder | None:
    """Return the process that has created a key; None if it was seen dead."""
    try:
        content = json.loads(item.value)
    except (ValueError, RecursionError):
        return Holder()
    return holder_from(content)
