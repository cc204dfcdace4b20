"""Each key of a context's memory: the unsaved change that a call includes, and how an outcome is taken over."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from ..errors import UnserializableValueError
from .flights import Flights
from .grafting import Step
from .live import LiveDict, Touched
from .merge import Unsaved
from .nested import rebase, resume_all
from .operations import Write
from .values import MISSING, Frozen, MaybeText, Raw, same


class _Postponed(Frozen, frozen=True):
    """The outcome of a call that came while JSON could not hold memory's value."""

    change: Unsaved
    """What the call included, over the base that memory knows."""
    text: MaybeText
    """The text in the file after it."""


class Keys:
    """The keys of a memory, their changes, and the calls in flight on them."""

    def __init__(self) -> None:
        self._moments = itertools.count(1)
        self.data = LiveDict(self._moments)
        self._flights = Flights(self._moments)
        self._postponed: dict[str, _Postponed] = {}
        self._in_conflict: set[str] = set()
        """The keys whose bases are older than the text in the last snapshot."""
        self._loaded = 0  # the moment of the last load

    def send(self, key: str) -> Unsaved | None:
        """Return the unsaved change of a key that a call has to include, if there is one.

        While another call on the key is in flight, this is the value in memory even if it equals what the file had
        before: it was set after that call, or set back, and takes precedence.
        """
        if key not in self.data.touched:
            return None
        mine = self._text(key)
        touched = self.data.touched[key]
        flight = self._flights.on(key)
        last = flight.last if flight else None
        is_known = (
            last is not None
            and flight is not None
            and last.moment > self._loaded
            and last.set_at == touched.moment
            and flight.mine(last) == mine
        )
        if same(mine, touched.base) and not is_known and not self._is_last_word(key, mine, touched.moment):
            return None
        moment = last.moment if last is not None and is_known else next(self._moments)
        sent = flight.sent if flight else MappingProxyType({})
        return Unsaved(
            touched.base, mine, moment, touched.moment, key in self.data.moved, key in self.data.guesses, sent
        )

    def _text(self, key: str) -> MaybeText:
        """Return the text of a key, after taking over the outcome of a call that came while it had none.

        Raises:
            UnserializableValueError: it still has none.
        """
        mine = self.data.text(key)
        if postponed := self._postponed.get(key):
            self._merge(key, mine, postponed.text, postponed.change, is_own=True)
            mine = self.data.text(key)
        return mine

    def _reference(self, key: str, write: Write | None) -> Unsaved | None:
        """Return the change that a call includes, unless memory has taken over the key since."""
        change = write.unsaved.get(key) if write else None
        flight = self._flights.on(key)
        since = max(self._loaded, flight.since if flight else 0)
        if change is None or change.moment <= since:
            return None
        return change._replace(mine=flight.mine(change)) if flight else change

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
        if looked is None and write is not None:  # the call has ended: a signal handler made it
            looked = write.origin.moment
        if looked is not None and touched.moment > looked:
            return True
        return not same(mine, touched.base) or self._is_last_word(key, mine, touched.moment)

    def _settle(self, key: str, text: MaybeText, write: Write | None) -> bool:
        """Take over the text of a key in the file, and keep what was changed since the calls on it were made.

        Returns:
            Whether it was taken over; otherwise some places are in conflict, or memory cannot be compared with it: the
            next save merges them.
        """
        data = self.data
        if key not in data.touched:
            if text is MISSING or dict.get(data, key) != Raw(text):
                self._take_over(key, text)
            return True
        try:
            mine = self._text(key)
        except UnserializableValueError:  # it stays, and saving it raises the error
            if change := self._reference(key, write):
                self._postponed[key] = _Postponed(change, text)
                self._in_conflict.discard(key)
            return False
        change, is_own = self._reference(key, write), write is not None
        if self._agrees(key, mine, text, change, is_own=is_own):
            self._bury(key)
        elif key in data.guesses and write is None:
            return False
        elif self._was_changed_since(key, mine, write):
            return self._merge(key, mine, text, change, is_own=is_own)
        else:
            self._take_over(key, text, mine)
        return True

    def _agrees(self, key: str, mine: MaybeText, text: MaybeText, change: Unsaved | None, *, is_own: bool) -> bool:
        """Whether the file has memory's value, and not because others appended equal items to a list.

        If so, the object stays, and this is noted, also for what the calls in flight include.
        """
        if not same(mine, text):
            return False
        sent, merged = self._moved(key, mine, text, change, is_own=is_own)
        if not same(merged, text):
            return False
        self.data.rebase(key, text, also=self._noting(key, sent=sent))
        return True

    def _merge(self, key: str, mine: MaybeText, text: MaybeText, change: Unsaved | None, *, is_own: bool) -> bool:
        """Take over the text of a key in the file, except for what was changed here; return whether nothing conflicts.

        Args:
            key: the key.
            mine: the text of its value in memory.
            text: the text in the file.
            change: the change that led to it, if a call included one.
            is_own: whether it is the outcome of a call of this context, or what others wrote.
        """
        touched = self.data.touched[key]
        sent, merged = self._moved(key, mine, text, change, is_own=is_own)
        base = text if is_own else rebase(touched.base, mine, text, key)[1]
        done = partial(self._postponed.pop, key, None)
        after = Touched(base, MISSING, touched.moment)
        self.data.move(key, mine, merged, after, also=(*self._noting(key, sent=sent), done))
        return base == text

    def _moved(
        self, key: str, mine: MaybeText, text: MaybeText, change: Unsaved | None, *, is_own: bool
    ) -> tuple[Mapping[int, MaybeText], MaybeText]:
        """Return what calls in flight include, and memory's value, over another text in the file."""
        flight = self._flights.on(key)
        included = change.mine if change else self.data.base(key)
        sent = dict(flight.sent) if flight else {}
        if change is None and key in self.data.guesses:
            return sent, mine
        later = [moment for moment in sent if change is None or moment > change.moment]
        *moved, merged = resume_all(included, [*map(sent.__getitem__, later), mine], text, key, is_own=is_own)
        return dict.fromkeys(sent, text) | dict(zip(later, moved, strict=True)), merged

    def _take_over(self, key: str, text: MaybeText, was: MaybeText = MISSING) -> None:
        flight = self._flights.on(key)
        sent = dict.fromkeys(flight.sent, text) if flight else {}
        also = self._noting(key, last=None, since=next(self._moments), sent=sent)
        self.data.take_over(key, text, was, also=also)

    def _noting(self, key: str, **attributes: object) -> list[Step]:
        """Return the steps that change what is known about the calls in flight on a key."""
        flight = self._flights.on(key)
        return [partial(setattr, flight, *attribute) for attribute in attributes.items()] if flight else []

    def _bury(self, key: str) -> None:
        """Forget a key that is neither here nor in the file, once no call on it is in flight."""
        touched = self.data.touched.get(key)
        is_absent = touched and touched.base is MISSING and key not in self.data
        if is_absent and key not in self._postponed and not self._flights.on(key):
            del self.data.touched[key]
