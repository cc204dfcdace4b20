"""A context's memory: the live dictionary, and by key what the file held when it was last read or written."""

from __future__ import annotations

import copy
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from functools import partial
from typing import Any, NamedTuple, Self

from ._document import EMPTY, Document
from ._errors import UnserializableValueError
from ._merge import OnConflict, OwnWrites, Unsaved
from ._operations import Origin, Save, Write, whole_memory
from ._values import MISSING, MaybeText, Raw, check_key, decode, encode, is_scalar, same


class _Touched(NamedTuple):
    base: MaybeText
    """The text that the file held."""
    seen: object
    """The value decoded from it, while it is in memory."""
    change: object
    """Tells one setting of the key from the next one."""


class LiveDict(dict[str, Any]):  # noqa: PLW1641 - no dictionary can be hashed
    """A dictionary that decodes a value when it is first asked for, and knows the texts that it came from.

    A key that was not touched holds the undecoded text, which is its base as well; the base of every other key
    (looked at, set, deleted) is in ``touched``. So what may be unsaved is found without looking at all keys.
    """

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[str, _Touched] = {}

    @classmethod
    def of(cls, document: Document) -> LiveDict:
        """Make one for a document, without decoding it."""
        live = cls()
        for entries in document.entries():
            dict.update(live, entries)
        return live

    def take_over(self, key: str, text: MaybeText) -> None:
        """Set a key and its base to what the file holds."""
        self.touched.pop(key, None)
        if text is MISSING:
            dict.pop(self, key, None)
        else:
            dict.__setitem__(self, key, Raw(text))

    def take_along(self, key: str, base: MaybeText, text: MaybeText) -> None:
        """Set a key to a text that is not the one of the file."""
        self.touched[key] = _Touched(base, MISSING, object())
        if text is MISSING:
            dict.pop(self, key, None)
        else:
            dict.__setitem__(self, key, decode(text))

    def _untouched(self, key: str) -> MaybeText:
        """Return what the file held for a key that was not touched."""
        raw = dict[str, Any].get(self, key)
        return MISSING if raw is None else bytes(raw)

    def text(self, key: str) -> MaybeText:
        """Return the text of the value as it is now, or MISSING for a key that is not here.

        Raises:
            UnserializableValueError: JSON cannot hold it.
        """
        if key not in self:
            return MISSING
        value = dict.__getitem__(self, key)
        touched = self.touched.get(key)
        if touched is None:
            return self._untouched(key)
        if value is touched.seen and is_scalar(value) and touched.base is not MISSING:
            return touched.base
        return encode(value, key)

    def _touch(self, key: str) -> None:
        touched = self.touched.get(key)
        base = touched.base if touched else self._untouched(key)
        if key not in self:  # it was deleted, and stands at the end from now on
            self.touched.pop(key, None)
        self.touched[key] = _Touched(base, MISSING, object())

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        if type(value) is Raw and key not in self.touched:
            text = bytes(value)
            value = decode(text)
            self.touched[key] = _Touched(text, value, object())
            dict.__setitem__(self, key, value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        key = check_key(key)
        self._touch(key)
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._touch(key)
        dict.__delitem__(self, key)

    # What C code copies goes through __iter__ where it is overridden: dict(live) has values, not texts.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return ItemsView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return ValuesView(self)

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault
    update = MutableMapping.update

    def copy(self) -> dict[str, Any]:
        return dict[str, Any](self)

    def __eq__(self, other: object) -> bool:
        return dict(self) == (dict(other) if isinstance(other, LiveDict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict[str, Any](self) | dict[str, Any](other)

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict[str, Any](other) | self.copy()

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class Reading(NamedTuple):
    """A reading of the file on its way into memory, marked with when it began."""

    mark: int
    saves: int


class Memory:
    """The live dictionary with the document that it was read from, and what became known since.

    ``seen`` is the document that memory was last brought up to as a whole, and ``ahead`` the texts of single keys that
    are newer (from atomic operations and transactions): together they are the base of all keys.
    """

    def __init__(self) -> None:
        self.data = LiveDict()
        self.seen: Document = EMPTY
        self._ahead: dict[str, tuple[int, MaybeText]] = {}
        self._clock = 0
        self._saves = 0
        self._own_writes = OwnWrites()
        self._loads = 0
        self._moment = 0
        self._written = 0  # the mark of the last own write that is known here
        self._sent: dict[str, Unsaved] = {}  # the last change of each key that a call took along, until that is over

    def begin_reading(self) -> Reading:
        """Note that a reading begins now."""
        return Reading(self._clock, self._saves)

    def load(self, reading: Reading, document: Document, live: LiveDict) -> bool:
        """Take over a whole document, and drop what is unsaved.

        Returns False, and does nothing, if a save came to an end since the reading began: which is newer is unknown.
        """
        if reading.saves != self._saves:
            return False
        self.data, self.seen = live, document
        self._loads += 1
        self._sent.clear()
        self._ahead = {key: ahead for key, ahead in self._ahead.items() if ahead[0] > reading.mark}
        for key, (_, text) in self._ahead.items():
            live.take_over(key, text)
        return True

    def known(self) -> Document:
        """Return what the file holds, as far as is known here."""
        return self.seen.changed({key: text for key, (_, text) in self._ahead.items()})

    def unsaved_keys(self) -> set[str]:
        """Return the keys whose value is not the one of the file, as far as is known here."""
        return {key for key in self.data.touched if self._differs(key)}

    def send(self, key: str) -> Unsaved | None:
        """Return what a call has to take along of a key, if there is something.

        That is an unsaved change. While another call with a change of the key is on its way, it is what memory makes
        of the key even if that is what the file held before: it is the last word.
        """
        touched = self.data.touched.get(key)
        if touched is None:
            return None
        mine = self.data.text(key)
        if key not in self._sent and same(mine, touched.base):
            return None
        last = self._sent.get(key)
        if last and last.change is touched.change and last.mine == mine:
            moment = last.moment
        else:
            moment = self._moment = self._moment + 1
        change = self._sent[key] = Unsaved(touched.base, mine, touched.change, moment)
        return change

    def save(self, policy: OnConflict) -> Save:
        """Return the saving of memory as it is now."""
        unsaved = {key: change for key in self.data.touched if (change := self.send(key))}
        ahead = {key: text for key, (_, text) in self._ahead.items()}
        mine = {key: change.mine for key, change in unsaved.items()}
        return Save(unsaved, policy, partial(whole_memory, self.seen, ahead, mine), self.seen, self.origin())

    def origin(self) -> Origin:
        """Return what says that an operation comes from here, and from now."""
        return Origin(self._own_writes, self._written, self._loads)

    def texts_sent(self, writes: Iterable[Write]) -> dict[str, MaybeText]:
        """Return the texts that calls took along, but for what a load has dropped from memory since."""
        return {
            key: change.mine
            for write in writes
            if write.unsaved and write.origin.loads == self._loads
            for key, change in write.unsaved.items()
        }

    def knows_writes(self, mark: int) -> None:
        """Note that own writes up to a mark are known now."""
        self._written = max(self._written, mark)

    def is_over(self, unsaved: Mapping[str, Unsaved]) -> None:
        """Note that a call is over that took changes along."""
        for key, change in unsaved.items():
            if self._sent.get(key) is change:
                del self._sent[key]

    def absorb(self, final: Mapping[str, MaybeText], sent: Mapping[str, MaybeText]) -> None:
        """Take over what single keys are in the file by now, but for those changed here meanwhile.

        Args:
            final: the texts in the file.
            sent: the unsaved texts that were taken along.
        """
        self._clock += 1
        for key, text in final.items():
            self._ahead[key] = (self._clock, text)
            self._settle(key, text, sent)

    def absorb_save(
        self, since: Document, document: Document, final: Mapping[str, MaybeText], sent: Mapping[str, MaybeText]
    ) -> None:
        """Take over a whole document that a save has written or found.

        Args:
            since: what memory had seen when the save was called.
            document: the document.
            final: the differences between the two, and the texts in the document of all keys that were sent.
            sent: the unsaved texts that were saved.
        """
        if self.seen is not since:  # another save or load came in between: what is newer is known by key only
            self.absorb(final, sent)
        else:
            newer = document.find(self._ahead.keys() - final.keys())
            known = {**{key: newer.get(key, MISSING) for key in self._ahead if key not in final}, **final}
            for key, text in known.items():
                self._settle(key, text, sent)
            self.seen, self._ahead = document, {}
        self._saves += 1

    def copy(self) -> dict[str, Any]:
        """Return all values, sharing nothing that can change."""
        data = self.data
        return {
            key: decode(value) if type(value) is Raw and key not in data.touched else copy.deepcopy(value)
            for key, value in dict.items(data)
        }

    def _differs(self, key: str) -> bool:
        try:
            return not same(self.data.text(key), self.data.touched[key].base)
        except UnserializableValueError:
            return True

    def _settle(self, key: str, text: MaybeText, sent: Mapping[str, MaybeText]) -> None:
        data = self.data
        touched = data.touched.get(key)
        if touched is not None:
            try:
                mine = data.text(key)
            except UnserializableValueError:
                data.touched[key] = _Touched(text, MISSING, touched.change)
                return
            if same(mine, text):  # the very object stays
                value = dict.get(data, key, MISSING)
                if value is MISSING:
                    del data.touched[key]
                else:
                    data.touched[key] = _Touched(text, value, touched.change)
                return
            if not same(mine, sent.get(key, touched.base)):  # changed since the call
                data.touched[key] = _Touched(text, MISSING, touched.change)
                return
        elif text is not MISSING and dict.get(data, key) == Raw(text):
            return
        data.take_over(key, text)
