"""The three-way merge of one key: this context's value, the others' value, and their common base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ..errors import ConflictError
from .values import MISSING, MaybeText, decode, encode, same

Resolver: TypeAlias = Callable[[str, Any, Any, Any], Any]
"""``fn(key, base, mine, theirs) -> value``, where each value can be MISSING."""

OnConflict: TypeAlias = Literal["mine", "theirs", "raise"] | Resolver
"""What a context does with a key that another writer changed as well."""

_POLICIES: Final = ("mine", "theirs", "raise")


class Unsaved(NamedTuple):
    """A context's change of a key that is not in the file yet, as far as the context knows."""

    base: MaybeText
    mine: MaybeText
    moment: int
    """Orders changes in time. Several calls may include the same unsaved change."""
    set_at: int = 0
    """When the key was last set or deleted; 0 for a value that was only changed in place."""
    moved: bool = False
    """Whether the key was deleted and set again, and so comes last."""


def check_policy(policy: object) -> OnConflict:
    """Return the policy if it is valid, else raise ValueError."""
    if policy in _POLICIES or callable(policy):
        return policy
    msg = f"on_conflict must be 'mine', 'theirs', 'raise' or a callable, not {policy!r}"
    raise ValueError(msg)


def merge(unsaved: Mapping[str, Unsaved], theirs: Mapping[str, MaybeText], policy: OnConflict) -> dict[str, MaybeText]:
    """Return the new text of each key; changes that equal their base are left out.

    Args:
        unsaved: the changes of this context.
        theirs: the current texts of those keys that are in the file.
        policy: what to do if both sides changed a key to different values.

    Raises:
        ConflictError: under ``"raise"``, naming all keys in conflict.
        UnserializableValueError: the callable returned a value that JSON cannot hold.
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
