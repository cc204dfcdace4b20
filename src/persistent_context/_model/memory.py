"""A context's memory: the live dictionary, and which of it is unsaved, in flight to the file, or known from the file.

Memory is changed by the users of the context, and by the outcomes of its calls, which arrive well after their cycle: by
then keys may have been set again, other calls made, and the file read. Two kinds of numbers keep this in order.
Every cycle of the lock has a *position*; memory is at one, and takes over nothing from before it. Every change and
every call has a *moment*: an outcome does not undo what was set after its call was made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from ..errors import UnserializableValueError
from .arrival import Arrival, Differences
from .draft import Origin
from .keys import Keys
from .live import LiveDict
from .merge import OnConflict, Unsaved
from .operations import Commit, Operation, Refresh, Reload, Save, Update, Write, whole_memory
from .snapshot import NOTHING, Snapshot
from .tracking import Tracker
from .updates import Function
from .values import MISSING, MaybeText, Raw, decode, same

_COPY_ATTEMPTS: Final = 100
W = TypeVar("W", bound=Write)


class Memory(Keys):
    """The live dictionary, the snapshot that it was read from, and what has become known since.

    ``seen`` is the last snapshot that memory took over as a whole. The bases of the keys in ``_ahead`` differ from it:
    they are newer, from atomic operations and transactions, or older, if memory has an unsaved change in conflict with
    it, or a value that JSON cannot hold. ``_ahead`` keeps the texts that ``seen`` has for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Snapshot = NOTHING
        self.tracker = Tracker()
        self._ahead: dict[str, MaybeText] = {}
        self.position = 0
        """The position of the last cycle whose outcome is known here."""
        self._read = 0  # when the last load began to read

    def now(self) -> int:
        """Return a new moment: a reading that begins now is older than all that begin later."""
        return next(self._moments)

    def load(self, position: int, snapshot: Snapshot, live: LiveDict, began: int) -> bool:
        """Take over a whole snapshot, read at a position, and drop unsaved changes.

        Returns False, and does nothing, if memory knows of a later cycle, as it may be newer than what was read. A
        snapshot that another thread began to read later, and has already loaded, is kept.
        """
        if position < self.position:
            return False
        if position == self.position and began < self._read:
            return True
        live.moments = self._moments
        self.data, self.seen, self._ahead = live, snapshot, {}
        self._move_to(position)
        self._loaded, self._read = next(self._moments), began
        self._in_conflict = set()
        self._postponed.clear()
        self._flights.count_as_part_of(live)
        return True

    def catch_up(self, position: int, snapshot: Snapshot, began: int) -> bool:
        """Take over what others changed, from a snapshot read at a position, and keep what is unsaved.

        A snapshot of a missing file says nothing about changes by others, unless nothing was read before. Otherwise
        like :meth:`load`.
        """
        if position != self.position:
            return False
        if began >= self._read and (snapshot.exists or self.seen is NOTHING):
            with self.data.keeping():
                self._take_in(snapshot, Differences.between(self.seen, snapshot), before=position + 1)
            self._read = began
        return True

    def known_since(self) -> dict[str, MaybeText]:
        """Return the texts that are known to be newer than ``seen``."""
        return {key: self.data.base(key) for key in list(self._ahead) if key not in self._in_conflict}

    def unsaved_keys(self) -> set[str]:
        """Return the keys whose values differ from the file, as far as is known here."""
        return {key for key in list(self.data.touched) if self._differs(key)}

    def save(self, policy: OnConflict) -> Save:
        """Return an operation that saves memory as it is now."""
        data = self.data
        appended = dict.fromkeys(list(data.appended))
        keys = [key for key in list(data.touched) if key not in appended]
        unsaved = {}
        for key in (*keys, *appended):
            if change := self.send(key):
                unsaved[key] = change
            else:
                self._bury(key)
        mine = {key: change.mine for key, change in unsaved.items()}
        texts = self.known_since() | mine
        changes = {key: texts[key] for key in texts if key not in appended}
        changes |= {key: texts[key] for key in appended if key in texts}
        memory = partial(whole_memory, self.seen, changes, appended.keys())
        return self._begun(Save(unsaved, policy, memory, self.seen, self.origin()))

    def refresh(self) -> Refresh:
        """Return an operation that takes over what others changed."""
        return self._begun(Refresh(self.seen, self.origin()))

    def update(self, purpose: str, key: str, function: Function, policy: OnConflict) -> Update:
        """Return an atomic operation on one key."""
        change = self.send(key)
        unsaved = {key: change} if change else {}
        return self._begun(
            Update(purpose, key, function, unsaved=unsaved, policy=policy, origin=self.origin()),
        )

    def transaction(self) -> Commit:
        """Return the commit of a transaction that begins now."""
        return self._begun(Commit(self.origin()))

    def touch(self, commit: Commit, key: str) -> Unsaved | None:
        """Return the unsaved change of a key, if there is one, for a transaction that includes it."""
        change = self.send(key)
        self._flights.include(commit, key, change)
        return change

    def reload(self) -> Reload:
        """Return an operation that loads under the lock."""
        return Reload(self.origin())

    def origin(self) -> Origin:
        """Return the origin of an operation made here and now."""
        return Origin(self.tracker, self.position, next(self._moments))

    def is_in_flight(self, operation: Operation) -> bool:
        """Return whether the outcome of a call is still unknown."""
        return operation in self._flights

    def end(self, write: Write) -> None:
        """Note that a call has completed: its outcome has arrived, or it will have none."""
        for key in self._flights.end(write):
            self._bury(key)
        self._see_horizon()

    def absorb(self, arrival: Arrival) -> None:
        """Take over the outcome of a cycle, except for keys that were changed here since the call.

        If an exception interrupts this, it can be repeated.
        """
        if arrival.live is not None:
            self.load(arrival.position, arrival.snapshot, arrival.live, self.now())
        elif arrival.position > self.position:  # otherwise memory was loaded since
            with self.data.keeping():
                self._absorb(arrival)
        for write in arrival.over:  # now: its caller may be notified later
            self.end(write)

    def _absorb(self, arrival: Arrival) -> None:
        if arrival.whole:
            differences = arrival.differences
            if arrival.whole.seen is not self.seen:  # another save or load came in between
                differences = Differences.between(self.seen, arrival.snapshot)
            self._take_in(arrival.snapshot, differences, arrival.position, arrival.texts, arrival.calls)
        else:
            for key, text in arrival.texts.items():
                if arrival.position <= self.position:
                    return  # by another thread, while a signal handler had the lock of memory released
                seen = self._ahead.setdefault(key, self.data.base(key))
                if not self._settle(key, text, arrival.calls.get(key)):
                    continue  # JSON cannot hold memory's value
                self._in_conflict.discard(key)
                if seen == text:
                    self._ahead.pop(key, None)
        if arrival.position > self.position:
            self._move_to(arrival.position)

    def _take_in(
        self,
        snapshot: Snapshot,
        differences: Differences,
        before: int,
        texts: Mapping[str, MaybeText] = MappingProxyType({}),
        calls: Mapping[str, Write] = MappingProxyType({}),
    ) -> None:
        """Take over a whole snapshot, except for changes made here, until memory reaches the position ``before``."""
        in_conflict = {}
        for key, text in {**self._ahead, **self._take_over_untouched(differences), **texts}.items():
            if self.position >= before:
                return  # by another thread, as before
            if not self._settle(key, text, calls.get(key)):
                in_conflict[key] = text
        self.seen, self._ahead, self.data.is_complete = snapshot, in_conflict, True
        self._in_conflict = set(in_conflict)
        for key in [key for key in self.data.appended if self.data.base(key) is not MISSING]:
            self.data.appended.pop(key, None)

    def copy(self) -> dict[str, Any]:
        """Return a deep copy of all values."""
        data = self.data
        return {
            key: decode(value) if type(value) is Raw and key not in data.touched else _own_copy(value)
            for key, value in list(dict.items(data))
        }

    def forget_calls(self) -> None:
        """Forget calls whose outcome will never arrive here: those of another event loop or the parent process."""
        for write in self._flights.calls():
            self.end(write)
        self.tracker.is_writing = False

    def _begun(self, operation: W) -> W:
        self._flights.begin(operation)
        return operation

    def _take_over_untouched(self, differences: Differences) -> dict[str, MaybeText]:
        """Take over, in bulk, the keys that were not touched here; return the rest."""
        concerned = (*self.data.touched, *self._flights.keys(), *self._ahead)
        texts, gone = dict(differences.texts), set(differences.gone)
        rest: dict[str, MaybeText] = {key: bytes(texts.pop(key)) for key in concerned if key in texts}
        rest.update((key, MISSING) for key in concerned if key in gone)
        self.data.take_over_all(texts, gone - rest.keys())
        return rest

    def _move_to(self, position: int) -> None:
        self.position = position
        self._see_horizon()

    def _see_horizon(self) -> None:
        oldest = self._flights.oldest()
        self.tracker.horizon = oldest.origin.mark if oldest else self.position

    def _differs(self, key: str) -> bool:
        postponed = self._postponed.get(key)
        try:
            return not same(self.data.text(key), postponed.change.mine if postponed else self.data.base(key))
        except UnserializableValueError:
            return True


def _own_copy(value: Any) -> Any:
    for _ in range(_COPY_ATTEMPTS):
        try:
            return copy.deepcopy(value)
        except RecursionError:
            raise
        except RuntimeError:  # another thread is changing its size
            continue
    return copy.deepcopy(value)
