"""Changing lists and dictionaries in place, so that whoever has a reference to one has its new content."""

from __future__ import annotations

from typing import Any

from .values import canonical


def graft(old: Any, new: Any) -> Any:
    """Return the new value, as the old object changed in place if both are lists or both are dictionaries.

    In a dictionary, this goes on with the value of each key. In a list, elements that are equal stay the same objects,
    wherever they are now; the place of an element does not say that it is the same.
    """
    if type(old) is dict and type(new) is dict:
        for name in [name for name in old if name not in new]:
            del old[name]
        for name, value in new.items():
            old[name] = graft(old.get(name), value)
        return old
    if type(old) is list and type(new) is list:
        old[:] = _with_known(old, new)
        return old
    return new


def is_container(value: object) -> bool:
    """Whether a value can be changed in place."""
    return type(value) is dict or type(value) is list


def _with_known(old: list[Any], new: list[Any]) -> list[Any]:
    known: dict[bytes, list[Any]] = {}
    for item in reversed(old):
        if is_container(item):
            known.setdefault(canonical(item), []).append(item)
    if not known:
        return new
    return [same.pop() if is_container(item) and (same := known.get(canonical(item))) else item for item in new]
