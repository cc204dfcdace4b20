"""The three-way merge of one key: what this context made of it, what others made of it, and what both started from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ._errors import ConflictError
from ._values import MISSING, MaybeText, decode, encode, same

Resolver: TypeAlias = Callable[[str, Any, Any, Any], Any]
"""``fn(key, base, mine, theirs) -> value``, with MISSING for absence in all four places."""

OnConflict: TypeAlias = Literal["mine", "theirs", "raise"] | Resolver
_POLICIES: Final = ("mine", "theirs", "raise")


class Unsaved(NamedTuple):
    """What a context makes of a key: a change that is not in the file yet, as far as the context knows."""

    base: MaybeText
    mine: MaybeText
    change: object
    """Tells one setting of the key from another, where both are to the same text."""
    moment: int
    """Tells an earlier change from a later one. Several calls may have found the same one unsaved."""


class OwnWrites:
    """What a context itself has put into the file: it is in no conflict with its own calls that came before."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[int, MaybeText]] = {}
        self._taken: dict[str, tuple[int, Unsaved]] = {}
        self.mark = 0
        """Tells earlier writes from later ones."""

    def note(self, texts: Mapping[str, MaybeText], taken: Mapping[str, Unsaved]) -> None:
        """Note that texts were committed, and which unsaved changes were taken along."""
        self.mark += 1
        for key, change in taken.items():
            self._taken[key] = self.mark, change
        for key, text in texts.items():
            self._texts[key] = self.mark, text

    def taken_since(self, mark: int, keys: Iterable[str]) -> dict[str, Unsaved]:
        """Return which unsaved changes of the keys were taken along since a mark, the last one of each."""
        found = {key: self._taken[key] for key in keys if key in self._taken}
        return {key: change for key, (written, change) in found.items() if written > mark}

    def keys(self) -> Iterable[str]:
        """Return all keys that were ever written."""
        return self._texts.keys()

    def since(self, mark: int, keys: Iterable[str]) -> dict[str, MaybeText]:
        """Return what was written to the keys since a mark, the last write to each."""
        writes = {key: self._texts[key] for key in keys if key in self._texts}
        return {key: text for key, (written, text) in writes.items() if written > mark}


def check_policy(policy: object) -> OnConflict:
    """Return the policy if it is one, else raise ValueError."""
    if policy in _POLICIES or callable(policy):
        return policy
    msg = f"on_conflict is 'mine', 'theirs', 'raise' or a callable, not {policy!r}"
    raise ValueError(msg)


def still_unsaved(unsaved: Mapping[str, Unsaved], taken: Mapping[str, Unsaved]) -> dict[str, Unsaved]:
    """Return those changes that are still to be written, after earlier calls of the context, which it did not know of.

    A call that came first may have taken a later change along: a transaction sees memory as it is when it looks.

    Args:
        unsaved: what the context makes of keys, also of those that it has set back to what the file held.
        taken: the changes of them that earlier calls took along.
    """
    return {
        key: change
        for key, change in unsaved.items()
        if (change.moment > taken[key].moment if key in taken else not same(change.base, change.mine))
    }


def merge(
    unsaved: Mapping[str, Unsaved], theirs: Mapping[str, MaybeText], policy: OnConflict, own: Mapping[str, MaybeText]
) -> dict[str, MaybeText]:
    """Return what each of the keys becomes.

    Args:
        unsaved: the changes of this context.
        theirs: the texts in the file now, of those keys that are in it.
        policy: what to do where both sides changed a key, and not to the same value.
        own: what this context itself has written since it looked: no other side's change.

    Raises:
        ConflictError: under ``"raise"``, naming all keys in conflict.
        UnserializableValueError: for what the callable returned.
    """
    merged: dict[str, MaybeText] = {}
    conflicts = []
    for key, change in unsaved.items():
        their = theirs.get(key, MISSING)
        if policy == "mine" or any(same(their, text) for text in (change.base, change.mine, own.get(key, change.base))):
            merged[key] = change.mine
        elif policy == "theirs":
            merged[key] = their
        elif policy == "raise":
            conflicts.append(key)
        else:
            value = policy(key, *(_value(text) for text in (change.base, change.mine, their)))
            merged[key] = MISSING if value is MISSING else encode(value, key)
    if conflicts:
        raise ConflictError(conflicts)
    return merged


def _value(text: MaybeText) -> Any:
    return MISSING if text is MISSING else decode(text)
