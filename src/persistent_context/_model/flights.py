"""The calls of a context that are in flight: made, with outcomes that memory does not know yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from .live import LiveDict
from .merge import Unsaved
from .operations import Operation, Write
from .values import MaybeText


class Flight:
    """The calls in flight on one key."""

    __slots__ = ("last", "sent", "since", "writes")

    def __init__(self) -> None:
        self.writes: dict[Write, int] = {}
        """The calls, with the moment at which each read the key."""
        self.last: Unsaved | None = None
        """The last unsaved change that one of them includes."""
        self.since = 0
        """The moment when memory last took over the key."""
        self.sent: Mapping[int, MaybeText] = MappingProxyType({})
        """By moment, the unsaved changes that they include, over the base that memory knows."""

    def mine(self, change: Unsaved) -> MaybeText:
        """Return the value of a change that one of them includes, over the base that memory knows."""
        return self.sent.get(change.moment, change.mine)


class Flights:
    """All calls in flight of a context, in the order in which they were made.

    Args:
        moments: the context's clock of changes.
    """

    def __init__(self, moments: Iterator[int]) -> None:
        self._moments = moments
        self._keys: dict[Write, dict[str, None]] = {}
        self._flights: dict[str, Flight] = {}

    def __contains__(self, operation: Operation) -> bool:
        return operation in self._keys

    def on(self, key: str) -> Flight | None:
        """Return the calls on a key, if there are any."""
        return self._flights.get(key)

    def keys(self) -> list[str]:
        """Return the keys that calls are in flight on."""
        return list(self._flights)

    def calls(self) -> list[Write]:
        """Return all calls."""
        return list(self._keys)

    def oldest(self) -> Write | None:
        """Return the call that was made first."""
        return next(iter(self._keys), None)

    def begin(self, write: Write) -> None:
        """Add a call, on the keys of its operation."""
        self._keys[write] = {}
        for key in write.keys:
            self.include(write, key, write.unsaved.get(key))

    def include(self, write: Write, key: str, change: Unsaved | None) -> None:
        """Add a key to a call, with the unsaved change that the call includes."""
        self._keys[write][key] = None
        flight = self._flights.setdefault(key, Flight())
        flight.writes[write] = next(self._moments)
        if change is not None:
            flight.last = change
            if change.moment not in flight.sent:
                flight.sent = {**self._sent_by(flight, key), change.moment: change.mine}

    def _sent_by(self, flight: Flight, key: str) -> Mapping[int, MaybeText]:
        """Return what the calls on a key include, without those that have ended, if that may be many."""
        if len(flight.sent) <= 2 * len(flight.writes):
            return flight.sent
        moments = {change.moment for write in list(flight.writes) if (change := write.unsaved.get(key))}
        return {moment: text for moment, text in flight.sent.items() if moment in moments}

    def count_as_part_of(self, live: LiveDict) -> None:
        """Note that memory was loaded: the calls' texts and the loaded ones do not count as changes of each other."""
        for key, flight in list(self._flights.items()):
            flight.sent = dict.fromkeys(flight.sent, live.base(key))

    def end(self, write: Write) -> Iterator[str]:
        """Remove a call; yield the keys that have no calls left."""
        for key in self._keys.get(write, ()):
            flight = self._flights.get(key)
            if flight is None:  # an interrupt came before it was recorded, or after
                continue
            flight.writes.pop(write, None)
            if not flight.writes:
                self._flights.pop(key, None)
                yield key
        self._keys.pop(write, None)
