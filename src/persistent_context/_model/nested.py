"""The three-way merge inside a value: objects by their keys, to any depth, and lists that grew at the end.

It works on texts: parts that are equal byte by byte, which are most, are not decoded. It does not recurse, since values
may nest deeper than calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias, TypeGuard

from .faults import place
from .values import MISSING, MaybeText, Text, appended, compose, decode, elements, encode, members, same

Path: TypeAlias = tuple[str, ...]
"""Leads to a place: a key, then a key of the object that is its value, and so on."""


class Conflict(NamedTuple):
    """A place that both sides changed in ways that cannot be merged; MISSING means absent."""

    path: Path
    base: MaybeText

    def __str__(self) -> str:
        """Return the place, as Python would index it."""
        return place(self.path)


class _Node(NamedTuple):
    """The three texts of one place."""

    path: Path
    base: MaybeText
    mine: MaybeText
    theirs: MaybeText
    merged: dict[str, MaybeText]
    """Receives the merged text, under the last name of the path."""

    def members(self, merged: dict[str, MaybeText]) -> Iterator[_Node]:
        """Merge the members that only one side has changed, and yield the others.

        The order is that of their side, and then that of mine.
        """
        base, mine, theirs = (members(side) if _is_object(side) else {} for side in (self.base, self.mine, self.theirs))
        for name in {**theirs, **mine}:
            start, ours, others = base.get(name, MISSING), mine.get(name, MISSING), theirs.get(name, MISSING)
            merged[name] = others if ours == start else ours
            if start not in (ours, others):
                yield _Node((*self.path, name), start, ours, others, merged)


class Merge:
    """One merge of two values that have a common base; collects the places in conflict.

    Args:
        prefer_mine: whether my side prevails in a conflict, or theirs.
        theirs_has_mine: whether their value is the outcome of an earlier call of mine, so that the base is part of it:
            a list has all of its elements, if not at its beginning.
        as_a_whole: whether different values are in conflict as a whole, since their base is unknown.
    """

    def __init__(self, *, prefer_mine: bool = True, theirs_has_mine: bool = False, as_a_whole: bool = False) -> None:
        self._prefer_mine: Final = prefer_mine
        self._as_a_whole: Final = as_a_whole
        self._theirs_has_mine: Final = theirs_has_mine
        self.conflicts: Final[list[Conflict]] = []

    def __call__(self, base: MaybeText, mine: MaybeText, theirs: MaybeText, key: str) -> MaybeText:
        """Return the merged text of a key."""
        outcome: dict[str, MaybeText] = {}
        to_do = [_Node((key,), base, mine, theirs, outcome)]
        objects = []
        while to_do:
            node = to_do.pop()
            text = None if self._differ_inside(node) else self._merge_as_a_whole(node)
            node.merged[node.path[-1]] = MISSING if text is None else text
            if text is None:
                parts: dict[str, MaybeText] = {}
                objects.append((node, parts))
                to_do += reversed([*node.members(parts)])
        for node, parts in reversed(objects):  # the inner ones first
            texts = {name: text for name, text in parts.items() if text is not MISSING}
            node.merged[node.path[-1]] = compose(texts)
        return outcome[key]

    def _differ_inside(self, node: _Node) -> bool:
        """Whether both sides are objects with other texts than the base, so that their members are compared instead."""
        is_inside = _is_object(node.mine) and _is_object(node.theirs) and not self._as_a_whole
        return is_inside and node.base not in (node.mine, node.theirs)

    def _merge_as_a_whole(self, node: _Node) -> MaybeText:
        """Return the merged text of one place."""
        path, base, mine, theirs, _ = node
        if same(mine, base):
            return theirs
        if same(theirs, base):
            return mine
        if (joined := self._joined(base, mine, theirs)) is not None:
            return joined  # first, as both may have appended the same
        if same(mine, theirs):
            return mine
        self.conflicts.append(Conflict(path, base))
        return mine if self._prefer_mine else theirs

    def _joined(self, base: MaybeText, mine: MaybeText, theirs: MaybeText) -> Text | None:
        """Return their list with what was appended to mine; None unless both are lists that only grew at their end."""
        if self._as_a_whole or not (_is_array(mine) and _is_array(theirs) and (base is MISSING or _is_array(base))):
            return None
        if base is MISSING and same(mine, theirs):
            return mine
        tails = [None if base is MISSING or self._theirs_has_mine else appended(base, side) for side in (theirs, mine)]
        if base is not MISSING and None not in tails:
            return b"[" + b", ".join(filter(None, [base[1:-1], *tails])) + b"]"
        before, ours, others = [] if base is MISSING else elements(base), elements(mine), elements(theirs)
        if not _begins(ours, before) or not (self._theirs_has_mine or _begins(others, before)):
            return None
        return compose(others + ours[len(before) :])


def rebase(base: MaybeText, mine: MaybeText, theirs: MaybeText, key: str) -> tuple[MaybeText, MaybeText]:
    """Return my unsaved value over what others made of its base, and its new base.

    Both are unchanged at the places in conflict, which the next save settles.
    """
    if _was_set_to(mine, base):
        return mine, base
    merge = Merge()
    merged = merge(base, mine, theirs, key)
    return merged, _with_bases(theirs, merge.conflicts)


def resume(included: MaybeText, mine: MaybeText, outcome: MaybeText, key: str) -> MaybeText:
    """Return my value over the outcome of an earlier call of mine; mine prevails where both were changed.

    Args:
        included: my value when that call was made, which it included.
        mine: my value now.
        outcome: the value after that call.
        key: the key.
    """
    if outcome == included or _was_set_to(mine, included):
        return mine
    return Merge(theirs_has_mine=True)(included, mine, outcome, key)


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
        result = resume(included, mine, outcome, key) if is_own else Merge()(included, mine, outcome, key)
        moved.append(result)
        included, outcome, is_own = mine, result, True
    return moved


def _was_set_to(mine: MaybeText, known: MaybeText) -> bool:
    """Whether my value was set back to what it had been, which is a change, too."""
    return not _is_object(mine) and not _is_array(mine) and same(mine, known)


def _is_object(text: MaybeText) -> TypeGuard[Text]:
    return text is not MISSING and text.startswith(b"{")


def _is_array(text: MaybeText) -> TypeGuard[Text]:
    return text is not MISSING and text.startswith(b"[")


def _begins(longer: list[Text], shorter: list[Text]) -> bool:
    return len(longer) >= len(shorter) and all(map(same, longer, shorter))


def _with_bases(theirs: MaybeText, conflicts: list[Conflict]) -> MaybeText:
    """Return their text with the bases of the places in conflict."""
    if not conflicts or theirs is MISSING or len(conflicts[0].path) == 1:
        return conflicts[0].base if conflicts else theirs
    value = decode(theirs)
    for path, base in conflicts:
        around = value
        for name in path[1:-1]:
            around = around[name]
        if base is MISSING:
            around.pop(path[-1], None)
        else:
            around[path[-1]] = decode(base)
    return encode(value, conflicts[0].path[0])
