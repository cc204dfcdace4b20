"""Changing lists and dictionaries in place, so that all references to one see its new content."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from .values import canonical

_GONE: Final = object()
_USED: Final[dict[type, tuple[str, ...]]] = {dict: ("__setitem__", "get", "pop"), list: ("__iter__", "__setitem__")}
"""The methods by which containers are changed here."""
_KNOWN: Final = frozenset({OrderedDict})
"""Subclasses with their own such methods, which have the same effect."""


def container(value: object) -> type | None:
    """Return ``dict`` or ``list`` if a value is one that can be changed in place, else None.

    Subclasses count, such as Counter, unless they have their own ways to be changed.
    """
    kind = type(value)
    if kind is dict or kind is list:
        return kind
    for base, methods in _USED.items():
        if issubclass(kind, base) and (kind in _KNOWN or all(getattr(kind, n) is getattr(base, n) for n in methods)):
            return base
    return None


def graft(old: Any, was: Any, new: Any) -> Any:
    """Return the new value, as the old object changed in place if both are lists or both are dictionaries.

    In a dictionary, the values of its keys are treated likewise. In a list, elements that are equal stay the same
    objects, wherever they are now: elements with the same index are not necessarily the same element. An object that is
    in several places stays in one of them only, since what changes in one place does not change in the others.

    Args:
        old: the live object. Another thread or a signal handler may be changing it: what it adds stays.
        was: a copy of the live object, from which the new value was computed.
        new: the new value.
    """
    if container(old) is None or container(old) is not type(new):
        return new
    places: list[tuple[Any, Any, Any]] = [(old, was if type(was) is type(new) else type(new)(), new)]
    lists: list[tuple[Any, Any, Any]] = []
    met = {id(old)}
    while places:
        live, before, value = places.pop()
        if type(value) is list:
            lists.append((live, before, value))
            continue
        for name in before:
            if name not in value:
                live.pop(name, None)
        for name, part in value.items():
            known, start = live.get(name, _GONE), before.get(name, _GONE)
            if container(known) is type(part) and id(known) not in met:
                met.add(id(known))
                places.append((known, start if type(start) is type(part) else type(part)(), part))
            else:
                live[name] = part
    for live, before, value in lists:  # last: an element may be one of the dictionaries
        live[: len(before)] = _with_known(list(live), value)
    return old


def _with_known(old: list[Any], new: list[Any]) -> list[Any]:
    known: dict[bytes, list[Any]] = {}
    for item in reversed(old):
        if container(item):
            known.setdefault(canonical(item), []).append(item)
    if not known:
        return new
    return [twins.pop() if container(item) and (twins := known.get(canonical(item))) else item for item in new]
