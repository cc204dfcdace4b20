"""A context's memory: the live dictionary, and which of it is unsaved, in flight to the file, or known from the file.

Memory is changed by the users of the context, and by the outcomes of its calls, which arrive well after their cycle:
meanwhile keys may have been set again, other calls made, and the file read. Two kinds of numbers keep this in order.
Every cycle of the lock has a *position*; memory is at one, and takes over nothing from before it. Every change and
every call has a *moment*: an outcome does not undo what was set after its call was made.
"""

from __future__ import annotations

import copy
import itertools
from functools import partial
from typing import Any, Final, TypeVar

from ..errors import UnserializableValueError
from .arrival import Arrival, Differences
from .draft import Origin
from .flights import Flights
from .live import LiveDict
from .merge import OnConflict, Unsaved
from .operations import Commit, Operation, Reload, Save, Update, Write, whole_memory
from .snapshot import NOTHING, Snapshot
from .tracking import Tracker
from .updates import Function
from .values import MISSING, MaybeText, Raw, decode, same

_COPY_ATTEMPTS: Final = 100
W = TypeVar("W", bound=Write)


class Memory:
    """The live dictionary, the snapshot that it was read from, and what is known since.

    ``seen`` is the last snapshot that memory took over as a whole. Newer texts, from atomic operations and
    transactions, are known for the keys in ``_ahead``, which keeps the texts that ``seen`` has for them.
    """

    def __init__(self) -> None:
        self._moments = itertools.count(1)
        self.data = LiveDict(self._moments)
        self.seen: Snapshot = NOTHING
        self.tracker = Tracker()
        self._ahead: dict[str, MaybeText] = {}
        self.position = 0
        """The position of the last cycle whose outcome is known here."""
        self._loaded = 0  # the moment of the last load
        self._read = 0  # when it began to read
        self._flights = Flights(self._moments)

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
        self._stand_at(position)
        self._loaded, self._read = next(self._moments), began
        return True

    def known_since(self) -> dict[str, MaybeText]:
        """Return the texts that are known to be newer than ``seen``."""
        return {key: self.data.base(key) for key in list(self._ahead)}

    def unsaved_keys(self) -> set[str]:
        """Return the keys whose values differ from the file, as far as known here."""
        return {key for key in list(self.data.touched) if self._differs(key)}

    def send(self, key: str) -> Unsaved | None:
        """Return the unsaved change of a key that a call has to include, if there is one.

        While another call on the key is in flight, this is the value in memory even if it equals what the file had
        before: it was set after that call, or set back, and takes precedence.
        """
        touched = self.data.touched.get(key)
        if touched is None:
            return None
        mine = self.data.text(key)
        flight = self._flights.on(key)
        last = flight.last if flight else None
        is_known = (
            last is not None and last.moment > self._loaded and last.set_at == touched.moment and last.mine == mine
        )
        if same(mine, touched.base) and not is_known and not self._is_last_word(key, mine, touched.moment):
            return None
        moment = last.moment if last is not None and is_known else next(self._moments)
        return Unsaved(touched.base, mine, moment, touched.moment, key in self.data.moved)

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

    def is_under_way(self, operation: Operation) -> bool:
        """Return whether the outcome of a call is still unknown."""
        return operation in self._flights

    def is_over(self, write: Write) -> None:
        """Note that a call has completed: its outcome has arrived, or it will have none."""
        for key in self._flights.end(write):
            self._bury(key)
        self._see_horizon()

    def absorb(self, arrival: Arrival) -> None:
        """Take over the outcome of a cycle, except for keys that were changed here meanwhile.

        If an exception interrupts this, it can be repeated.
        """
        if arrival.live is not None:
            self.load(arrival.position, arrival.snapshot, arrival.live, self.now())
        elif arrival.position > self.position:  # else memory was loaded since
            with self.data.keeping():
                self._absorb(arrival)
        for write in arrival.over:  # now: its caller may be notified later
            self.is_over(write)

    def _absorb(self, arrival: Arrival) -> None:
        texts = arrival.texts
        if arrival.save:
            since_seen = arrival.differences
            if arrival.save.seen is not self.seen:  # another save or load came in between
                since_seen = Differences.between(self.seen, arrival.snapshot)
            texts = {**self._ahead, **self._take_over_untouched(since_seen), **texts}
        for key, text in texts.items():
            if arrival.position <= self.position:
                return  # by another thread, while a signal handler had the lock of memory released
            base = self.data.base(key)
            if not arrival.save and self._ahead.setdefault(key, base) == text:
                del self._ahead[key]
            self._settle(key, text, arrival.calls.get(key))
        if arrival.save:
            self.seen, self._ahead = arrival.snapshot, {}
            for key in [key for key in self.data.appended if self.data.base(key) is not MISSING]:
                self.data.appended.pop(key, None)
        self._stand_at(arrival.position)

    def copy(self) -> dict[str, Any]:
        """Return a deep copy of all values."""
        data = self.data
        return {
            key: decode(value) if type(value) is Raw and key not in data.touched else _own_copy(value)
            for key, value in list(dict.items(data))
        }

    def forget_calls(self) -> None:
        """Forget calls whose outcome will never arrive here: those of another event loop or of the parent process."""
        for write in self._flights.calls():
            self.is_over(write)
        self.tracker.is_writing = False

    def _begun(self, operation: W) -> W:
        self._flights.begin(operation)
        return operation

    def _reference(self, key: str, write: Write | None) -> Unsaved | None:
        """Return the change that a call includes, unless memory has taken over the key since."""
        change = write.unsaved.get(key) if write else None
        flight = self._flights.on(key)
        since = max(self._loaded, flight.since if flight else 0)
        return change if change and change.moment > since else None

    def _is_last_word(self, key: str, mine: MaybeText, set_at: int) -> bool:
        """Whether memory was set back to the text in the file after a call in flight on the key was made."""
        flight = self._flights.on(key)
        for write, looked in list(flight.writes.items()) if flight else ():
            change = self._reference(key, write)
            if set_at > (change.set_at if change else looked):
                return True
            if change and not same(change.mine, mine):
                return True
        return False

    def _was_changed_since(self, key: str, mine: MaybeText, write: Write | None) -> bool:
        """Whether memory was changed since the last call that included or read the key."""
        touched = self.data.touched[key]
        if change := self._reference(key, write):
            return touched.moment > change.set_at or not same(mine, change.mine)
        flight = self._flights.on(key)
        looked = flight.writes.get(write) if flight and write else None
        if looked is None and write is not None:  # it is over: a signal handler made it
            looked = write.origin.moment
        if looked is not None and touched.moment > looked:
            return True
        return not same(mine, touched.base) or self._is_last_word(key, mine, touched.moment)

    def _settle(self, key: str, text: MaybeText, write: Write | None) -> None:
        """Take over the text of a key in the file, unless memory was changed since the calls on it were made."""
        data = self.data
        if key not in data.touched:
            if text is MISSING or dict.get(data, key) != Raw(text):
                self._take_over(key, text)
            return
        try:
            mine = data.text(key)
        except UnserializableValueError:  # it stays, and saving it raises the error
            data.rebase(key, text, agrees=False)
            return
        if same(mine, text):
            data.rebase(key, text, agrees=True)  # the object keeps its identity
            self._bury(key)
        elif self._was_changed_since(key, mine, write):
            data.rebase(key, text, agrees=False)
        else:
            self._take_over(key, text)

    def _take_over_untouched(self, differences: Differences) -> dict[str, MaybeText]:
        """Take over, in bulk, the keys that were not touched here; return the rest."""
        concerned = (*self.data.touched, *self._flights.keys(), *self._ahead)
        texts, gone = dict(differences.texts), set(differences.gone)
        rest: dict[str, MaybeText] = {key: bytes(texts.pop(key)) for key in concerned if key in texts}
        rest.update((key, MISSING) for key in concerned if key in gone)
        self.data.take_over_all(texts, gone - rest.keys())
        return rest

    def _take_over(self, key: str, text: MaybeText) -> None:
        self.data.take_over(key, text)
        if flight := self._flights.on(key):
            flight.last, flight.since = None, next(self._moments)

    def _bury(self, key: str) -> None:
        """Forget a key that is neither here nor in the file, once no call on it is in flight."""
        touched = self.data.touched.get(key)
        if touched and touched.base is MISSING and key not in self.data and not self._flights.on(key):
            del self.data.touched[key]

    def _stand_at(self, position: int) -> None:
        self.position = position
        self._see_horizon()

    def _see_horizon(self) -> None:
        oldest = self._flights.oldest()
        self.tracker.horizon = oldest.origin.mark if oldest else self.position

    def _differs(self, key: str) -> bool:
        try:
            return not same(self.data.text(key), self.data.base(key))
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
