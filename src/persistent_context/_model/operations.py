"""The operations that a lock cycle applies to the file, in order: pure changes of a draft."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from .._printable import printable
from .._stores.jsonfile.document import Document
from ..errors import DurabilityUnknownError
from .merge import OnConflict, Unsaved, merge
from .tracking import Own, Tracker, next_position
from .values import MISSING, MaybeText, Missing, Text, decode, encode, same

Function: TypeAlias = Callable[[MaybeText], tuple[MaybeText, Any]]
"""Takes the text of a key, and returns the new one and the call's result."""

_NUMBERS: Final = frozenset({int, float})


class Origin(NamedTuple):
    """The context that an operation came from, and what it knew at that time."""

    tracker: Tracker
    mark: int
    """The position of the last cycle whose outcome the context knew."""
    moment: int
    """When the call was made, on the context's clock of changes."""


class Draft:
    """The file's committed state, overlaid with the changes of a cycle.

    Args:
        document: the state.
        operations: the operations of the cycle.
    """

    def __init__(self, document: Document, operations: Iterable[Operation]) -> None:
        self.position: Final = next_position()
        operations = tuple(operations)
        self._trackers: Final = {operation.origin.tracker for operation in operations if operation.origin}
        self._document = document
        self._texts: dict[str, MaybeText] = {key: MISSING for operation in operations for key in operation.keys}
        self._texts.update(document.find(self._texts))
        self._before = dict(self._texts)
        self._moved: set[str] = set()
        self._own: dict[Tracker, dict[str, Own]] = {}
        self._written: dict[Tracker, dict[str, MaybeText]] = {}
        self._is_new = not document.present
        self._must_exist = False
        self._claims = False

    @property
    def is_new(self) -> bool:
        """Whether there is no file, and nothing earlier in this cycle has created one."""
        return self._is_new

    def get(self, key: str) -> MaybeText:
        """Return the text of one of the keys that the draft was made for."""
        return self._texts[key]

    def pending(self, unsaved: Mapping[str, Unsaved], origin: Origin) -> dict[str, Unsaved]:
        """Return the context's changes that none of its earlier calls has included, against their current base."""
        return pending(unsaved, origin, partial(self._own_of, origin.tracker)) if unsaved else {}

    def put(
        self,
        changes: Mapping[str, MaybeText],
        write: Write,
        pending: Mapping[str, Unsaved],
        moved: Collection[str] = (),
    ) -> None:
        """Change texts on behalf of a call, which includes unsaved changes of its context.

        Args:
            changes: the new texts.
            write: the call.
            pending: its unsaved changes that no earlier call has included.
            moved: keys to move to the end.
        """
        tracker = write.origin.tracker
        self._moved.update(moved)
        own = self._own.setdefault(tracker, {})
        written = self._written.setdefault(tracker, {})
        for key, text in changes.items():
            before = self._texts.get(key, MISSING)
            if before is MISSING:  # new keys keep the order in which they came
                self._texts.pop(key, None)
            self._texts[key] = text
            if text != before:
                written[key] = text
                known = self._own_of(tracker, key)
                own[key] = Own(text, self.position, known.moment, known.taken)
        for key, change in pending.items():
            text = self._texts.get(key, MISSING)
            if same(text, change.mine):
                known = self._own_of(tracker, key)
                own[key] = Own(text, self.position, known.moment, known.taken)
                self._claims = True
            if change.moved:
                self._moved.add(key)
        # Even if an earlier call included a change: a later one may know of that call but not of this one.
        for key, change in write.unsaved.items():
            known = self._own_of(tracker, key)
            own[key] = Own(known.text, known.written, max(known.moment, change.moment), self.position)
        self._is_new = self._is_new and all(text is MISSING for text in changes.values())
        self._claims = self._claims or bool(changes)

    def claim(self) -> None:
        """Note that a call acknowledges what it found in the file, without a change of its own."""
        self._claims = True

    def create(self) -> None:
        """Write the file even if it is empty."""
        self._must_exist = self._is_new
        self._is_new = False

    def document(self) -> Document:
        """Return the document to commit: the original one if there is nothing to write."""
        changes = {key: text for key, text in self._texts.items() if not same(text, self._before.get(key, MISSING))}
        if changes or self._must_exist:
            return self._document.changed(changes, self._moved)
        return self._document

    def commit(self, document: Document, commit: Callable[..., None], *, durable: bool) -> None:
        """Commit the document, and record what was done for each context.

        Args:
            document: what :meth:`document` returned.
            commit: commits it: ``commit(document, durable=...)``.
            durable: whether the calls guarantee that the change survives a power loss. If the file already had what
                they were to write, they guarantee that; if they write nothing at all, they guarantee nothing.
        """
        for tracker in self._trackers:
            tracker.is_writing = True
        try:
            commit(document, durable=durable and self._claims)
        except DurabilityUnknownError:
            self._note(document)
            raise
        self._note(document)

    def end(self) -> None:
        """Note that the cycle is over, whatever its outcome."""
        for tracker in self._trackers:
            tracker.done = self.position
            tracker.is_writing = False

    def _note(self, document: Document) -> None:
        for tracker, own in self._own.items():
            tracker.note(self.position, document, own, self._written[tracker])

    def _own_of(self, tracker: Tracker, key: str) -> Own:
        return self._own.get(tracker, {}).get(key) or tracker.own(key)


def pending(unsaved: Mapping[str, Unsaved], origin: Origin, own_of: Callable[[str], Own]) -> dict[str, Unsaved]:
    """Return the changes that no earlier call of the context has included, against their current base.

    Args:
        unsaved: the context's values of keys, including those that it has set back to the text in the file.
        origin: what it knew at that time.
        own_of: returns what its earlier calls did to a key. One of them may have included a later change: a
            transaction sees the current memory when it touches a key.
    """
    found = {}
    for key, change in unsaved.items():
        own = own_of(key)
        if own.taken > origin.mark and change.moment <= own.moment:
            continue
        base = own.text if own.text is not None and own.written > origin.mark else change.base
        found[key] = change._replace(base=base)
    return found


class Operation:
    """One call's part in a cycle; this base class reads the file under the lock, and changes nothing.

    Args:
        purpose: what the lock is held for, in one word.
    """

    keys: Collection[str] = ()
    """The keys that it reads or changes."""
    unsaved: Mapping[str, Unsaved] = MappingProxyType({})
    """The unsaved changes that it includes."""
    repeatable = True
    """Whether it can be applied again to a later state of the file."""
    origin: Origin | None = None
    """The context that it belongs to."""

    def __init__(self, purpose: str) -> None:
        self.purpose: Final = purpose

    def apply(self, draft: Draft) -> Any:
        """Change the draft and return the call's result; if it raises, the draft is unchanged."""


class Reload(Operation):
    """Replaces memory with the content of the file.

    Args:
        origin: the context.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__("load")
        self.origin = origin


class Write(Operation):
    """Writes on behalf of a context.

    Args:
        purpose: the name of the call.
        keys: the keys that it reads or changes.
        unsaved: the unsaved changes that it includes.
        origin: the context.
    """

    origin: Origin

    def __init__(self, purpose: str, keys: Collection[str], unsaved: Mapping[str, Unsaved], origin: Origin) -> None:
        super().__init__(purpose)
        self.keys = keys
        self.unsaved = unsaved
        self.origin = origin


class Save(Write):
    """Merges the unsaved changes of a context into the file.

    Args:
        unsaved: the changes.
        policy: for keys that others changed as well.
        memory: returns all of memory at the time of the call, in case the file is missing.
        seen: the last document that memory took over as a whole.
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
        draft.claim()
        pending = draft.pending(self.unsaved, self.origin)
        if draft.is_new:
            draft.create()
            draft.put(self._memory(), self, pending)
        else:
            theirs = {key: draft.get(key) for key in pending}
            draft.put(merge(pending, theirs, self._policy), self, pending)


class Update(Write):
    """Computes a new text of one key from the current one.

    Args:
        purpose: the name of the call.
        key: the key.
        function: computes the new text.
        unsaved: the unsaved change of the key, if any, which is applied first.
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
        found = text = draft.get(self._key)
        pending = draft.pending(self.unsaved, self.origin)
        text = merge(pending, {self._key: text}, self._policy).get(self._key, text)
        text, result = self._function(text)
        draft.put({} if text is found else {self._key: text}, self, pending)
        return result


class Commit(Write):
    """Writes the changes of a transaction; created when it begins, and filled by its body.

    Args:
        origin: the context.
    """

    repeatable = False

    def __init__(self, origin: Origin) -> None:
        self.looked_at: Final[dict[str, MaybeText]] = {}
        """The keys that it touched, and their texts in the file."""
        self._taken: Final[dict[str, Unsaved]] = {}
        self._pending: Final[dict[str, Unsaved]] = {}
        self.changes: Final[dict[str, MaybeText]] = {}
        """The new texts."""
        self.moved: Final[set[str]] = set()
        """The keys that were deleted and set again, and so come last."""
        self.has_set = False
        """Whether it set or deleted a key, even to the value in the file."""
        super().__init__("transaction", self.looked_at.keys(), self._taken, origin)

    def touch(self, key: str, change: Unsaved | None, theirs: MaybeText, policy: OnConflict) -> MaybeText:
        """Note that a key is touched, and return its text for the transaction.

        Args:
            key: the key.
            change: the context's unsaved change of it, if any.
            theirs: the text in the file.
            policy: for this unsaved change.

        Raises:
            ConflictError: under ``"raise"``.
        """
        taken = {} if change is None else {key: change}
        found = pending(taken, self.origin, self.origin.tracker.own)
        text = merge(found, {key: theirs}, policy).get(key, theirs)
        self._taken.update(taken)
        self._pending.update(found)
        self.looked_at[key] = theirs
        return text

    def apply(self, draft: Draft) -> None:
        """Change them."""
        if self.has_set:
            draft.claim()
        if self.changes or self.unsaved:
            draft.put(self.changes, self, self._pending, self.moved)


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
    """Return the function that computes a new value from the current one with a callable."""
    if not callable(fn):
        msg = f"fn must be a callable, not {type(fn).__name__}"
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
        msg = f"{what}{whose} must be a number, not {type(value).__name__}"
        raise TypeError(msg)


def whole_memory(seen: Document, changes: Mapping[str, MaybeText], appended: Collection[str]) -> dict[str, Text]:
    """Assemble all of a context's memory, in order, from what it has read and changed."""
    whole = seen.changed(changes, appended)
    return {key: bytes(text) for entries in whole.entries() for key, text in entries.items()}
