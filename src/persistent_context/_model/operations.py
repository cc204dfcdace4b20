"""The operations that a lock cycle applies, in order: pure changes of a draft."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final

from .draft import Draft, Origin, pending
from .merge import UNCHANGED, OnConflict, Unsaved, merge
from .nested import Conflict
from .snapshot import Snapshot
from .updates import Function
from .values import MISSING, MaybeText, Text


class Operation:
    """One call's part in a cycle; this base class reads the file under the lock, and changes nothing.

    Args:
        purpose: what the lock is held for, in one word.
    """

    keys: Collection[str] = ()
    """The keys that it reads or changes."""
    unsaved: Mapping[str, Unsaved] = MappingProxyType({})
    """The unsaved changes that it includes."""
    conflicts: tuple[Conflict, ...] = ()
    """The places in conflict that a policy has settled."""
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


class Checkpoint(Operation):
    """Brings up to date what other programs read of the state."""

    def __init__(self) -> None:
        super().__init__("checkpoint")

    def apply(self, draft: Draft) -> None:
        """Request it."""
        draft.fold()


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


class Refresh(Write):
    """Takes over what others changed, and keeps what is unsaved.

    Args:
        seen: the last snapshot that memory took over as a whole.
        origin: the context.
        purpose: the name of the call.
        unsaved: the unsaved changes that it includes.
    """

    def __init__(
        self,
        seen: Snapshot,
        origin: Origin,
        *,
        purpose: str = "refresh",
        unsaved: Mapping[str, Unsaved] = MappingProxyType({}),
    ) -> None:
        super().__init__(purpose, unsaved.keys(), unsaved, origin)
        self.seen: Final = seen


class Save(Refresh):
    """Merges the unsaved changes of a context into the file, and then does what a refresh does.

    Args:
        unsaved: the changes.
        policy: settles conflicts in places that others changed as well.
        memory: returns all of memory at the time of the call, in case the file is missing.
        seen: the last snapshot that memory took over as a whole.
        origin: the context.
    """

    def __init__(
        self,
        unsaved: Mapping[str, Unsaved],
        policy: OnConflict,
        memory: Callable[[], Mapping[str, Text]],
        seen: Snapshot,
        origin: Origin,
    ) -> None:
        super().__init__(seen, origin, purpose="save", unsaved=unsaved)
        self._policy = policy
        self._memory = memory

    def apply(self, draft: Draft) -> None:
        """Merge."""
        draft.claim()
        pending = draft.pending(self.unsaved, self.origin)
        if draft.is_new:
            draft.create()
            draft.put(self._memory(), self, pending)
        else:
            theirs = {key: draft.get(key) for key in pending}
            merged = merge(pending, theirs, self._policy)
            draft.put(merged.texts, self, pending)
            self.conflicts = merged.conflicts


class Update(Write):
    """Computes a new text of one key from the current one.

    Args:
        purpose: the name of the call.
        key: the key.
        function: computes the new text.
        unsaved: the unsaved change of the key, if any, which is applied first.
        policy: settles a conflict of this unsaved change.
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
        found = draft.get(self._key)
        pending = draft.pending(self.unsaved, self.origin)
        merged = merge(pending, {self._key: found}, self._policy) if pending else UNCHANGED
        text, result = self._function(merged.texts.get(self._key, found))
        draft.put({} if text is found else {self._key: text}, self, pending)
        self.conflicts = merged.conflicts
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
            policy: settles a conflict of this unsaved change.

        Raises:
            ConflictError: under ``"raise"``.
        """
        taken = {} if change is None else {key: change}
        found = pending(taken, self.origin, self.origin.tracker.own)
        merged = merge(found, {key: theirs}, policy)
        self.conflicts += merged.conflicts
        self._taken.update(taken)
        self._pending.update(found)
        self.looked_at[key] = theirs
        return merged.texts.get(key, theirs)

    def apply(self, draft: Draft) -> None:
        """Write them."""
        if self.has_set:
            draft.claim()
        if self.changes or self.unsaved:
            draft.put(self.changes, self, self._pending, self.moved)


def whole_memory(seen: Snapshot, changes: Mapping[str, MaybeText], appended: AbstractSet[str]) -> dict[str, Text]:
    """Assemble all of a context's memory, in order, from what it has read and changed."""
    whole: dict[str, MaybeText] = {key: bytes(text) for part in seen.parts() for key, text in part.items()}
    for key in changes.keys() & appended:
        whole.pop(key, None)
    whole.update(changes)
    return {key: text for key, text in whole.items() if text is not MISSING}
