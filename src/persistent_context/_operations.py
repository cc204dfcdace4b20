"""What one cycle of the lock applies to the file, in order: pure changes of a draft."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from ._document import Document
from ._merge import OnConflict, OwnWrites, Unsaved, merge, still_unsaved
from ._printable import printable
from ._values import MISSING, MaybeText, Missing, Text, decode, encode, same

Function: TypeAlias = Callable[[MaybeText], tuple[MaybeText, Any]]
"""Takes the text of a key, and returns the new one and the call's result."""

_NUMBERS: Final = frozenset({int, float})


class Draft:
    """The file's committed state with the changes of a cycle over it."""

    def __init__(self, document: Document, keys: Iterable[str]) -> None:
        self._document = document
        self._texts: dict[str, MaybeText] = dict.fromkeys(keys, MISSING)
        self._texts.update(document.find(self._texts))
        self._before = dict(self._texts)
        self._is_new = not document.present
        self._must_exist = False
        self._writes: list[_Write] = []

    @property
    def is_new(self) -> bool:
        """Whether there is no file to begin from, and nothing before in this cycle has made one."""
        return self._is_new

    def get(self, key: str) -> MaybeText:
        """Return the text of one of the keys that the draft was made for."""
        return self._texts[key]

    def own_writes(self, origin: Origin, keys: Iterable[str]) -> Mapping[str, MaybeText]:
        """Return what a context has written to keys since it made an operation, in this cycle or before."""
        writes = origin.writes.since(origin.mark, keys)
        for write in self._writes:
            if write.writes is origin.writes:
                writes.update(write.changes)
        return writes

    def still_unsaved(self, unsaved: Mapping[str, Unsaved], origin: Origin) -> dict[str, Unsaved]:
        """Return those changes of a context that are to be written, after what its calls before took along."""
        if not unsaved:
            return {}
        taken = origin.writes.taken_since(origin.mark, unsaved)
        for write in self._writes:
            if write.writes is origin.writes:
                taken.update(write.taken)
        return still_unsaved(unsaved, taken)

    def put(self, changes: Mapping[str, MaybeText], taken: Mapping[str, Unsaved], origin: Origin) -> None:
        """Change texts, on behalf of a context, whose unsaved changes of these keys are taken along by that."""
        for key, text in changes.items():
            if self._texts.get(key, MISSING) is MISSING:  # new keys stand in the order in which they came
                self._texts.pop(key, None)
            self._texts[key] = text
        self._writes.append(_Write(origin.writes, changes, taken))
        self._is_new = self._is_new and all(text is MISSING for text in changes.values())

    def create(self) -> None:
        """Have the file written even if it would be empty."""
        self._must_exist = self._is_new
        self._is_new = False

    def document(self) -> Document:
        """Return the document to commit: the one that the draft began from, if nothing is to be written."""
        changes = {key: text for key, text in self._texts.items() if not same(text, self._before.get(key, MISSING))}
        if changes or self._must_exist:
            return self._document.changed(changes)
        return self._document

    def note_own_writes(self) -> None:
        """Tell the contexts what was committed on their behalf."""
        for write in self._writes:
            write.writes.note(write.changes, write.taken)


class _Write(NamedTuple):
    writes: OwnWrites
    changes: Mapping[str, MaybeText]
    taken: Mapping[str, Unsaved]


class Origin(NamedTuple):
    """The context that an operation came from, and how much of what it has written was known to it by then."""

    writes: OwnWrites
    mark: int
    loads: int
    """How often the context had been loaded."""


class Operation:
    """One call's part in a cycle; this one looks at the file under the lock, and changes nothing.

    Args:
        purpose: what the lock is held for, in a word.
    """

    keys: Collection[str] = ()
    """The keys that it reads or changes."""
    unsaved: Mapping[str, Unsaved] = MappingProxyType({})
    """The unsaved changes that it takes along."""
    repeatable = True
    """Whether it can be applied again to a later state of the file."""

    def __init__(self, purpose: str) -> None:
        self.purpose: Final = purpose

    @property
    def written(self) -> int:
        """The mark of the last own write of the context that it came from."""
        return 0

    def apply(self, draft: Draft) -> Any:
        """Change the draft and return the call's result; if it raises, the draft is as it was."""


class Reload(Operation):
    """Has memory become what the file holds."""


class Write(Operation):
    """Writes on behalf of a context.

    Args:
        purpose: the name of the call.
        keys: the keys that it reads or changes.
        unsaved: the unsaved changes that it takes along.
        origin: the context.
    """

    def __init__(self, purpose: str, keys: Collection[str], unsaved: Mapping[str, Unsaved], origin: Origin) -> None:
        super().__init__(purpose)
        self.keys = keys
        self.unsaved = unsaved
        self.origin: Final = origin

    @property
    def written(self) -> int:
        """The mark of the last own write."""
        return self.origin.writes.mark


class Save(Write):
    """Merges the unsaved changes of a context into the file.

    Args:
        unsaved: the changes.
        policy: for keys that others changed as well.
        memory: returns all of memory as it was at the call, for a file that is gone.
        seen: what memory had last taken over as a whole.
        origin: the context.
    """

    def __init__(
        self,
        unsaved: Mapping[str, Unsaved],
        policy: OnConflict,
        memory: Callable[[], Mapping[str, Text]],
        seen: Document,
        origin: Origin,
    ) -> None:
        super().__init__("save", unsaved.keys(), unsaved, origin)
        self._policy = policy
        self._memory = memory
        self.seen: Final = seen

    def apply(self, draft: Draft) -> None:
        """Merge."""
        unsaved = draft.still_unsaved(self.unsaved, self.origin)
        if draft.is_new:
            draft.create()
            draft.put(self._memory(), unsaved, self.origin)
        else:
            theirs = {key: draft.get(key) for key in unsaved}
            own = draft.own_writes(self.origin, unsaved)
            draft.put(merge(unsaved, theirs, self._policy, own), unsaved, self.origin)


class Update(Write):
    """Computes a new text of one key from its present one.

    Args:
        purpose: the name of the call.
        key: the key.
        function: what is done to it.
        unsaved: the unsaved change of the key, if there is one, which goes first.
        policy: for this unsaved change.
        origin: the context.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        purpose: str,
        key: str,
        function: Function,
        *,
        unsaved: Mapping[str, Unsaved],
        policy: OnConflict,
        origin: Origin,
    ) -> None:
        super().__init__(purpose, (key,), unsaved, origin)
        self._key = key
        self._function = function
        self._policy = policy

    def apply(self, draft: Draft) -> Any:
        """Compute."""
        text = draft.get(self._key)
        unsaved = draft.still_unsaved(self.unsaved, self.origin)
        if unsaved:
            own = draft.own_writes(self.origin, self.keys)
            text = merge(unsaved, {self._key: text}, self._policy, own)[self._key]
        text, result = self._function(text)
        draft.put({self._key: text}, unsaved, self.origin)
        return result


class Commit(Write):
    """Writes what a transaction changed.

    Args:
        changes: the new texts.
        keys: all keys that it looked at.
        unsaved: the unsaved changes that it takes along.
        origin: the context.
    """

    repeatable = False

    def __init__(
        self, changes: Mapping[str, MaybeText], keys: Collection[str], unsaved: Mapping[str, Unsaved], origin: Origin
    ) -> None:
        super().__init__("transaction", keys, unsaved, origin)
        self._changes = changes

    def apply(self, draft: Draft) -> None:
        """Change them."""
        draft.put(self._changes, self.unsaved, self.origin)


def incr(key: str, delta: float, default: float) -> Function:
    """Return the function of an increment."""
    _check_number(delta, "delta")
    _check_number(default, "default")

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        value = default if text is MISSING else decode(text)
        _check_number(value, "the value", key)
        value += delta
        return encode(value, key), value

    return function


def compare_and_set(key: str, expected: object, new: object) -> Callable[[MaybeText], tuple[MaybeText, bool]]:
    """Return the function that replaces one value by another if it is the expected one."""
    wanted = expected if isinstance(expected, Missing) else encode(expected, key)
    replacement = new if isinstance(new, Missing) else encode(new, key)
    return lambda text: (replacement, True) if same(text, wanted) else (text, False)


def mutate(key: str, fn: Callable[[Any], Any], default: object) -> Function:
    """Return the function that lets a callable make a new value of the present one."""
    if not callable(fn):
        msg = f"fn is a callable, not a {type(fn).__name__}"
        raise TypeError(msg)
    start = encode(default, key)

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        value = fn(decode(start if text is MISSING else text))
        return encode(value, key), value

    return function


def _check_number(value: object, what: str, key: str | None = None) -> None:
    if type(value) in _NUMBERS:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        whose = "" if key is None else f" of {printable(repr(key))}"
        msg = f"{what}{whose} is no number but a {type(value).__name__}"
        raise TypeError(msg)


def whole_memory(seen: Document, ahead: Mapping[str, MaybeText], mine: Mapping[str, MaybeText]) -> dict[str, Text]:
    """Put all of a context's memory together, in order, from what it has read and what it changed."""
    whole = seen.changed({**ahead, **mine})
    return {key: bytes(text) for entries in whole.entries() for key, text in entries.items()}
