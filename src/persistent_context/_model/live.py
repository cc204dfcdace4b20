"""The live dictionary: values decoded on first access, and for each key the text that it came from."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import partial
from typing import Any, Final, Self

from .faults import check_key
from .grafting import Step, at_once, container, graft_text
from .snapshot import Snapshot
from .values import MISSING, Frozen, MaybeText, Raw, decode, encode, is_scalar
from .views import Items, Values

_GONE: Final = object()
_UNDECODED: Final = object()
_REMOVED_KEPT: Final = 1000


class Touched(Frozen, frozen=True):
    """The state of a key that was read, set or deleted."""

    base: MaybeText
    """The text in the file."""
    seen: object
    """The value in memory decoded from it, or found to be equal; or the marker for a value not decoded yet."""
    moment: int = 0
    """When the key was last set or deleted; 0 if it was only read."""


class LiveDict(dict[str, Any]):  # noqa: PLW1641 - no dictionary can be hashed
    """A dictionary that decodes values on first access, and knows the texts that they came from.

    An untouched key holds the undecoded text, which is also its base; the bases of all other keys are in ``touched``.
    So possibly unsaved keys are found without checking all keys. The dictionary is consistent for a signal handler at
    whatever line it interrupts.
    """

    __slots__ = ("_kept", "_removed", "appended", "guesses", "is_complete", "moments", "moved", "touched")

    def __init__(self, moments: Iterator[int] | None = None) -> None:
        super().__init__()
        self.touched: dict[str, Touched] = {}
        self.appended: dict[str, None] = {}
        """The keys that come after those of the snapshot, in order."""
        self.moved: set[str] = set()
        """The keys of the snapshot that were deleted and set again."""
        self.is_complete = False
        """Whether an absent key is known to be absent in the file."""
        self.guesses: set[str] = set()
        """The keys that were set without knowing what the file has for them."""
        self.moments = moments or itertools.count(1)
        self._kept: dict[str, object] | None = None
        self._removed: deque[str] = deque(maxlen=_REMOVED_KEPT)  # bounded, as a queue's keys come and go forever

    @classmethod
    def of(cls, snapshot: Snapshot) -> LiveDict:
        """Create one for a snapshot, without decoding it."""
        live = cls()
        live.is_complete = True
        for entries in snapshot.parts():
            dict.update(live, entries)
        return live

    def knows(self, key: object) -> bool:
        """Whether a key was set, deleted or taken over here, so that its presence or absence is known."""
        return key in self or key in self.touched or key in self._removed

    def base(self, key: str) -> MaybeText:
        """Return the text of a key in the file."""
        touched = self.touched.get(key)
        return touched.base if touched else self._untouched(key)

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what a signal handler sets or deletes, whatever is taken over in the block that it interrupts."""
        kept = self._kept = {}
        try:
            yield
        finally:
            self._kept = None
            for key, value in kept.items():
                if value is _GONE and key in self:
                    del self[key]
                elif value is not _GONE and dict.get(self, key, _GONE) is not value:
                    self[key] = value

    def take_over(self, key: str, text: MaybeText, was: MaybeText = MISSING, *, also: Iterable[Step] = ()) -> None:
        """Set a key and its base to the text in the file, and make other changes at once.

        A list or dictionary is changed in place if it ``was`` a text, except for what was changed in it since.
        """
        old = dict.get(self, key) if key in self.touched else None
        if text is MISSING:
            self._change(key, None, *self._removing(key), *also)
        elif container(old) and was is not MISSING:
            value, steps = graft_text(old, was, text)
            self._change(key, Touched(text, value), *steps, *self._placing(key, value), *also)
        else:
            self._change(key, None, *self._placing(key, Raw(text)), *also)

    def move(self, key: str, was: MaybeText, text: MaybeText, touched: Touched, *, also: Iterable[Step] = ()) -> None:
        """Set a key with an unsaved change from one text to another, over another base; otherwise like take_over()."""
        steps: list[Step] = []
        if text is not MISSING and text != was:
            old = dict.get(self, key)
            value, steps = (decode(text), []) if was is MISSING else graft_text(old, was, text)
            steps += self._placing(key, value)
        self._change(key, touched, *steps, *also)

    def take_over_all(self, texts: Mapping[str, Raw], gone: Iterable[str]) -> None:
        """Set any number of untouched keys to their texts in the file."""
        dict.update(self, texts)
        for key in gone:
            self._remove(key)
        for key in list(self.touched):
            if key in texts and dict.get(self, key) is texts[key]:  # a signal handler has just touched it
                self.touched.pop(key)

    def take_along(self, key: str, base: MaybeText, text: MaybeText) -> None:
        """Set a key to a text that differs from the file."""
        self.touched[key] = Touched(base, MISSING, next(self.moments))
        if text is MISSING:
            self._remove(key)
        else:
            self._place(key, decode(text))

    def rebase(self, key: str, base: MaybeText, *, also: Iterable[Step] = ()) -> None:
        """Update the base of a key whose value stays, and is the same value; otherwise like take_over()."""
        self._change(key, Touched(base, dict.get(self, key, MISSING), self.touched[key].moment), *also)

    def _change(self, key: str, touched: Touched | None, *steps: Step) -> None:
        """Change a key and its base at once: with only one of them changed, a change by the program would be lost."""
        last = partial(self.touched.__setitem__, key, touched) if touched else partial(self.touched.pop, key, None)
        at_once((*steps, partial(self.moved.discard, key), partial(self.guesses.discard, key), last))

    def text(self, key: str) -> MaybeText:
        """Return the text of the current value, or MISSING if the key is absent.

        Raises:
            UnserializableValueError: JSON cannot hold it.
        """
        if key not in self:
            return MISSING
        touched = self.touched.get(key)
        if touched is None:
            return self._untouched(key)
        value = dict.__getitem__(self, key)
        if touched.seen is _UNDECODED and type(value) is Raw:
            return touched.base
        if value is touched.seen and is_scalar(value) and touched.base is not MISSING:
            return touched.base
        return encode(value, key)

    def _untouched(self, key: str) -> MaybeText:
        raw = dict.get(self, key)
        if raw is None:
            return MISSING
        return bytes(raw) if type(raw) is Raw else encode(raw, key)  # not Raw if interrupted between two steps

    def _place(self, key: str, value: Any) -> None:
        at_once(self._placing(key, value))

    def _placing(self, key: str, value: Any) -> list[Step]:
        place: Step = partial(dict.__setitem__, self, key, value)
        return [place] if key in self else [partial(self.appended.__setitem__, key, None), place]

    def _remove(self, key: str) -> None:
        at_once(self._removing(key))

    def _removing(self, key: str) -> list[Step]:
        return [
            partial(self.appended.pop, key, None),
            partial(dict.pop, self, key, None),
            partial(self._removed.append, key),
        ]

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        if type(value) is Raw:
            touched = self.touched.get(key)
            if touched is None or touched.seen is _UNDECODED:
                text = bytes(value)
                value = decode(text)
                dict.__setitem__(self, key, value)
                self.touched[key] = Touched(text, value, touched.moment if touched else 0)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        key = check_key(key)
        base = self.base(key)
        if base is not MISSING and key not in self:
            self.moved.add(key)
        if not self.is_complete and not self.knows(key):
            self.guesses.add(key)
        self._touch(key, base)
        self._place(key, value)
        if self._kept is not None:
            self._kept[key] = value
        self.touched[key] = Touched(base, MISSING, next(self.moments))  # a handler's call in between came first

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._touch(key, self.base(key))
        self._remove(key)
        self.guesses.discard(key)
        if self._kept is not None:
            self._kept[key] = _GONE

    def _touch(self, key: str, base: MaybeText) -> None:
        """Note that a key is about to be set or deleted; until then it keeps its value."""
        is_undecoded = key not in self.touched and type(dict.get(self, key)) is Raw
        self.touched[key] = Touched(base, _UNDECODED if is_undecoded else MISSING, next(self.moments))

    # C code that copies uses __iter__ if it is overridden, so dict(live) has values, not texts.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return Items(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return Values(self)

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        if not self:
            msg = "popitem(): dictionary is empty"
            raise KeyError(msg)
        key = next(reversed(self))
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **more: Any) -> None:
        for key, value in dict(*others, **more).items():
            self[key] = value

    def clear(self) -> None:
        for key in list(self):
            del self[key]

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
