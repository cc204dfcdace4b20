"""A plain specification of merging inside values: on decoded values, recursive, regardless of cost."""

import copy
import json
from typing import NamedTuple

from persistent_context import MISSING


class Merged(NamedTuple):
    """A merged value, and the paths of the places in conflict."""

    value: object
    conflicts: tuple = ()


def canonical(value):
    """A form that distinguishes values: ``1``, ``1.0`` and ``True`` differ, the order of object keys does not count."""
    return "MISSING" if value is MISSING else json.dumps(value, sort_keys=True)


def same(one, other):
    """Return whether two values are the same JSON."""
    return canonical(one) == canonical(other)


def begins(longer, shorter):
    """Return whether a list begins with another."""
    return canonical(longer[: len(shorter)]) == canonical(shorter)


def merge(base, mine, theirs, prefers="mine", path=()):
    """Merge two sides of a value, where MISSING means that it is absent; the preferred side wins conflicts."""
    if same(mine, base):
        return Merged(theirs)
    if same(theirs, base):
        return Merged(mine)
    if isinstance(mine, list) and isinstance(theirs, list):
        if isinstance(base, list) and begins(mine, base) and begins(theirs, base):
            return Merged(theirs + mine[len(base) :])
        if base is MISSING and not same(mine, theirs):
            return Merged(theirs + mine)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        value, conflicts = {}, ()
        start = base if isinstance(base, dict) else {}
        for name in [*theirs, *(name for name in mine if name not in theirs)]:
            sides = (side.get(name, MISSING) for side in (start, mine, theirs))
            part = merge(*sides, prefers, (*path, name))
            conflicts += part.conflicts
            if part.value is not MISSING:
                value[name] = part.value
        return Merged(value, conflicts)
    if same(mine, theirs):
        return Merged(mine)
    return Merged(mine if prefers == "mine" else theirs, (path,))


def rebase(base, mine, theirs):
    """Rebase an unsaved value on others' changes; return it and its new base, both unchanged at places in conflict."""
    merged = merge(base, mine, theirs)
    top = {"": copy.deepcopy(theirs)}
    for path in merged.conflicts:
        around, start = top, base
        for name in path:
            start = start.get(name, MISSING) if isinstance(start, dict) else MISSING
        for name in ("", *path)[:-1]:
            around = around[name]
        around.pop(("", *path)[-1], None)
        if start is not MISSING:
            around[("", *path)[-1]] = start
    return merged.value, top.get("", MISSING)
