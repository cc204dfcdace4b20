"""The three-way merge of a context's unsaved changes into the stored state, and the policies for conflicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ..errors import ConflictError
from .functions import check_not_async, check_returned
from .nested import Conflict, Merge
from .values import MISSING, MaybeText, decode, encode, same

Resolver: TypeAlias = Callable[[str, Any, Any, Any], Any]
"""``fn(key, base, mine, theirs) -> value``, where each value can be MISSING."""

OnConflict: TypeAlias = Literal["mine", "theirs", "raise"] | Resolver
"""What a context does about a place in a value that another writer changed as well."""

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
    guessed: bool = False
    """Whether the base is unknown, and not absent: the key was set before anything was read."""
    sent: Mapping[int, MaybeText] = MappingProxyType({})
    """By moment, the changes of the key that calls in flight included, over the same base."""


def check_policy(policy: object) -> OnConflict:
    """Return the policy if it is valid, else raise ValueError, or TypeError for an ``async`` function."""
    if callable(policy):
        check_not_async(policy, "on_conflict")
        return policy
    if policy in _POLICIES:
        return policy
    msg = f"on_conflict must be 'mine', 'theirs', 'raise' or a callable, not {policy!r}"
    raise ValueError(msg)


class Merged(NamedTuple):
    """The outcome of a merge."""

    texts: dict[str, MaybeText]
    """The new text of each key; changes that equal their base are left out."""
    conflicts: tuple[Conflict, ...] = ()
    """The places in conflict that ``"mine"`` or ``"theirs"`` has settled."""


UNCHANGED: Final = Merged({})


def merge(unsaved: Mapping[str, Unsaved], theirs: Mapping[str, MaybeText], policy: OnConflict) -> Merged:
    """Merge unsaved changes into the current state, place by place.

    Args:
        unsaved: the changes of this context.
        theirs: the current texts of those keys that are in the file.
        policy: decides about places that both sides changed; a callable decides about the whole value of a key.

    Raises:
        ConflictError: under ``"raise"``, naming all places in conflict.
        UnserializableValueError: the callable returned a value that JSON cannot hold.
        TypeError: it changed a value in place and returned None, or returned an awaitable.
    """
    texts: dict[str, MaybeText] = {}
    settled: list[Conflict] = []
    refused: list[Conflict] = []
    for key, change in unsaved.items():
        if same(change.base, change.mine):
            continue
        their = theirs.get(key, MISSING)
        both = Merge(prefer_mine=policy != "theirs", as_a_whole=change.guessed)
        texts[key] = both(change.base, change.mine, their, key)
        if both.conflicts and policy == "raise":
            refused += both.conflicts
        elif both.conflicts and callable(policy):
            given = [(_value(text), text) for text in (change.base, change.mine, their)]
            value = policy(key, *(argument for argument, _ in given))
            check_returned(value, "on_conflict", key, given)
            texts[key] = MISSING if value is MISSING else encode(value, key)
        else:
            settled += both.conflicts
    if refused:
        raise ConflictError({conflict.path[0] for conflict in refused}, map(str, refused))
    return Merged(texts, tuple(settled))


def _value(text: MaybeText) -> Any:
    return MISSING if text is MISSING else decode(text)
