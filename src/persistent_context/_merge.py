"""The three-way merge of one key: what this context made of it, what others made of it, and what both started from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    moment: int
    """Tells an earlier change from a later one. Several calls may have found the same one unsaved."""
    set_at: int = 0
    """When the key was last set or deleted; 0 for a value that was only changed in place."""
    moved: bool = False
    """Whether the key was deleted and set again, and so stands at the end."""


def check_policy(policy: object) -> OnConflict:
    """Return the policy if it is one, else raise ValueError."""
    if policy in _POLICIES or callable(policy):
        return policy
    msg = f"on_conflict must be 'mine', 'theirs', 'raise' or a callable, not {policy!r}"
    raise ValueError(msg)


def merge(unsaved: Mapping[str, Unsaved], theirs: Mapping[str, MaybeText], policy: OnConflict) -> dict[str, MaybeText]:
    """Return what each of the keys becomes; a change that is none, as it is its own base, is left out.

    Args:
        unsaved: the changes of this context.
        theirs: the texts in the file now, of those keys that are in it.
        policy: what to do where both sides changed a key, and not to the same value.

    Raises:
        ConflictError: under ``"raise"``, naming all keys in conflict.
        UnserializableValueError: for what the callable returned.
    """
    merged: dict[str, MaybeText] = {}
    conflicts = []
    for key, change in unsaved.items():
        if same(change.base, change.mine):
            continue
        their = theirs.get(key, MISSING)
        if policy == "mine" or same(their, change.base) or same(their, change.mine):
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
