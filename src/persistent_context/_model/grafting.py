"""Changing lists and dictionaries in place, so that all references to one see its new content."""

from __future__ import annotations

from typing import Any, Final

from .values import canonical

_GONE: Final = object()


def is_container(value: object) -> bool:
    """Whether a value can be changed in place."""
    return type(value) is dict or type(value) is list


def graft(old: Any, was: Any, new: Any) -> Any:
    """Return the new value, as the old object changed in place if both are lists or both are dictionaries.

    In a dictionary, the values of its keys are treated likewise. In a list, elements that are equal stay the same
    objects, wherever they are now: elements with the same index are not necessarily the same element.

    Args:
        old: the live object. Another thread or a signal handler may be changing it: what it adds stays.
        was: a copy of the live object, from which the new value was computed.
        new: the new value.
    """
    if type(old) is not type(new) or not is_container(old):
        return new
    places = [(old, was if type(was) is type(old) else type(old)(), new)]
    while places:
        live, before, value = places.pop()
        if isinstance(live, list):
            live[: len(before)] = _with_known(list(live), value)
            continue
        for name in before:
            if name not in value:
                live.pop(name, None)
        for name, part in value.items():
            known, start = live.get(name, _GONE), before.get(name, _GONE)
            if type(known) is type(part) and is_container(part):
                places.append((known, start if type(start) is type(part) else type(part)(), part))
            else:
                live[name] = part
    return old


def _with_known(old: list[Any], new: list[Any]) -> list[Any]:
    known: dict[bytes, list[Any]] = {}
    for item in reversed(old):
        if is_container(item):
            known.setdefault(canonical(item), []).append(item)
    if not known:
        return new
    return [twins.pop() if is_container(item) and (twins := known.get(canonical(item))) else item for item in new]
