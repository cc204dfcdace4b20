"""The three-way merge inside a value: objects by their keys, to any depth, and lists that grew at their end.

It works on texts and decodes nothing: parts that are equal byte by byte, which are most, cost one comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias, TypeGuard

from .faults import place
from .values import MISSING, MaybeText, Text, compose, elements, members, same

Path: TypeAlias = tuple[str, ...]
"""Leads to a place: a key, then a key of the object that is its value, and so on."""


class Conflict(NamedTuple):
    """A place that both sides changed in ways that cannot be merged; MISSING means absent."""

    path: Path
    base: MaybeText

    def __str__(self) -> str:
        """Return the place, as Python would index it."""
        return place(self.path)


class Merge:
    """One merge of two values that have a common base; collects the places in conflict.

    Args:
        prefer_mine: whether my side prevails in a conflict, or theirs.
        theirs_has_mine: whether their value is the outcome of an earlier call of mine, so that the base is part of it:
            a list has all of its elements, if not at its beginning.
    """

    def __init__(self, *, prefer_mine: bool = True, theirs_has_mine: bool = False) -> None:
        self._prefer_mine: Final = prefer_mine
        self._theirs_has_mine: Final = theirs_has_mine
        self.conflicts: Final[list[Conflict]] = []

    def __call__(self, base: MaybeText, mine: MaybeText, theirs: MaybeText, path: Path) -> MaybeText:
        """Return the merged text of the value at a path."""
        if same(mine, base):
            return theirs
        if same(theirs, base):
            return mine
        if (joined := self._joined(base, mine, theirs)) is not None:
            return joined  # first, as both may have appended the same
        if same(mine, theirs):
            return mine
        if _is_object(mine) and _is_object(theirs):
            return self._with_all_members(base if _is_object(base) else b"{}", mine, theirs, path)
        self.conflicts.append(Conflict(path, base))
        return mine if self._prefer_mine else theirs

    def _with_all_members(self, base: Text, mine: Text, theirs: Text, path: Path) -> Text:
        parts, ours, others = members(base), members(mine), members(theirs)
        merged = {}
        for name in {**others, **ours}:
            text = self(parts.get(name, MISSING), ours.get(name, MISSING), others.get(name, MISSING), (*path, name))
            if text is not MISSING:
                merged[name] = text
        return compose(merged)

    def _joined(self, base: MaybeText, mine: MaybeText, theirs: MaybeText) -> Text | None:
        """Return their list with what was appended to mine; None unless both are lists that only grew at their end."""
        if not (_is_array(mine) and _is_array(theirs) and (base is MISSING or _is_array(base))):
            return None
        if base is MISSING and same(mine, theirs):
            return mine
        before, ours, others = [] if base is MISSING else elements(base), elements(mine), elements(theirs)
        if not _begins(ours, before) or not (self._theirs_has_mine or _begins(others, before)):
            return None
        return compose(others + ours[len(before) :])


def rebase(base: MaybeText, mine: MaybeText, theirs: MaybeText, key: str) -> tuple[MaybeText, MaybeText]:
    """Return my unsaved value over what others made of its base, and its new base.

    Both stay as they are at the places in conflict, which are for the next save to settle.
    """
    merge = Merge()
    merged = merge(base, mine, theirs, (key,))
    return merged, _replaced(theirs, merge.conflicts)


def resume(included: MaybeText, mine: MaybeText, outcome: MaybeText, key: str) -> MaybeText:
    """Return my value over the outcome of an earlier call of mine; mine prevails where both were changed.

    Args:
        included: my value when that call was made, which it included.
        mine: my value now.
        outcome: the value after that call.
        key: the key.
    """
    return mine if outcome == included else Merge(theirs_has_mine=True)(included, mine, outcome, (key,))


def resume_all(
    included: MaybeText, later: Iterable[MaybeText], outcome: MaybeText, key: str, *, is_own: bool
) -> list[MaybeText]:
    """Return my later values, each of which came from the one before, over an outcome.

    Args:
        included: my value, or my base, that the outcome came from.
        later: my values since.
        outcome: the value now.
        key: the key.
        is_own: whether the outcome is that of a call of mine, or what others wrote.
    """
    moved = []
    for mine in later:
        result = resume(included, mine, outcome, key) if is_own else Merge()(included, mine, outcome, (key,))
        moved.append(result)
        included, outcome, is_own = mine, result, True
    return moved


def _is_object(text: MaybeText) -> TypeGuard[Text]:
    return text is not MISSING and text.startswith(b"{")


def _is_array(text: MaybeText) -> TypeGuard[Text]:
    return text is not MISSING and text.startswith(b"[")


def _begins(longer: list[Text], shorter: list[Text]) -> bool:
    return len(longer) >= len(shorter) and all(map(same, longer, shorter))


def _replaced(text: MaybeText, places: list[Conflict]) -> MaybeText:
    """Return a text with the bases of places that are in conflict."""
    for path, base in places:
        text = _with(text, path[1:], base)
    return text


def _with(text: MaybeText, path: Path, part: MaybeText) -> MaybeText:
    if not path:
        return part
    assert text is not MISSING, "both sides have objects above a conflict"
    parts = members(text)
    changed = _with(parts.get(path[0], MISSING), path[1:], part)
    parts.pop(path[0], None)
    return compose(parts if changed is MISSING else {**parts, path[0]: changed})
