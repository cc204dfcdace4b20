"""Changing lists and dictionaries in place, so that all references to one see its new content."""

from __future__ import annotations

from typing import Any

from .values import canonical


def is_container(value: object) -> bool:
    """Whether a value can be changed in place."""
    return type(value) is dict or type(value) is list


def graft(old: Any, new: Any) -> Any:
    """Return the new value, as the old object changed in place if both are lists or both are dictionaries.

    In a dictionary, the values of its keys are treated likewise. In a list, elements that are equal stay the same
    objects, wherever they are now: elements with the same index are not necessarily the same element.
    """
    if type(old) is not type(new) or not is_container(old):
        return new
    pairs = [(old, new)]
    while pairs:
        known, value = pairs.pop()
        if isinstance(known, list):
            known[:] = _with_known(known, value)
            continue
        for name in [name for name in known if name not in value]:
            del known[name]
        for name, part in value.items():
            if type(known.get(name)) is type(part) and is_container(part):
                pairs.append((known[name], part))
            else:
                known[name] = part
    return old


def _with_known(old: list[Any], new: list[Any]) -> list[Any]:
    known: dict[bytes, list[Any]] = {}
    for item in reversed(old):
        if is_container(item):
            known.setdefault(canonical(item), []).append(item)
    if not known:
        return new
    return [twins.pop() if is_container(item) and (twins := known.get(canonical(item))) else item for item in new]
