"""Changing lists and dictionaries in place, so that all references to one see its new content."""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from .values import Text, appended, canonical, decode, is_scalar

Step: TypeAlias = Callable[[], object]
"""One of several changes to make at once: a function written in C, with its arguments."""

_GONE: Final = object()
_USED: Final[dict[type, tuple[str, ...]]] = {dict: ("__setitem__", "get", "pop"), list: ("__iter__", "__setitem__")}
"""The methods by which containers are changed here."""
_KNOWN: Final = frozenset({OrderedDict})
"""Subclasses with their own such methods, which have the same effect."""


def container(value: object) -> type | None:
    """Return ``dict`` or ``list`` if a value is one that can be changed in place, else None.

    Subclasses count, such as Counter, unless they override what is used here. Their other methods, such as ``append``,
    are not called: the object stays the same, so that nothing is lost that is added to it later.
    """
    kind = type(value)
    if kind is dict or kind is list:
        return kind
    if is_scalar(value):  # most elements of lists are
        return None
    for base, methods in _USED.items():
        if issubclass(kind, base) and (kind in _KNOWN or all(getattr(kind, n) is getattr(base, n) for n in methods)):
            return base
    return None


def at_once(steps: Iterable[Step]) -> None:
    """Make changes, all or none of them: a signal handler runs before the first one or after the last one."""
    deque(map(operator.call, steps), maxlen=0)


def graft(old: Any, was: Any, new: Any) -> tuple[Any, list[Step]]:
    """Return the new value, and the steps that make it.

    It is the old object changed in place if both are lists or both are dictionaries. In a dictionary, the values of its
    keys are treated likewise. In a list, elements that are equal stay the same objects, wherever they are now: elements
    with the same index are not necessarily the same element. An object that is in several places stays in one of them
    only, since what changes in one place does not change in the others.

    Args:
        old: the live object. Another thread or a signal handler may be changing it: what it adds stays.
        was: a copy of the live object, from which the new value was computed.
        new: the new value.
    """
    if container(old) is None or container(old) is not type(new):
        return new, []
    steps: list[Step] = []
    places: list[tuple[Any, Any, Any]] = [(old, was if type(was) is type(new) else type(new)(), new)]
    lists: list[tuple[Any, Any, Any]] = []
    met = {id(old)}
    while places:
        live, before, value = places.pop()
        if type(value) is list:
            lists.append((live, before, value))
            continue
        steps += [partial(live.pop, name, None) for name in before if name not in value]
        for name, part in value.items():
            known, start = live.get(name, _GONE), before.get(name, _GONE)
            if container(known) is type(part) and id(known) not in met:
                met.add(id(known))
                places.append((known, start if type(start) is type(part) else type(part)(), part))
            else:
                steps.append(partial(live.__setitem__, name, part))
    for live, before, value in lists:
        steps.append(partial(live.__setitem__, slice(len(before)), _with_known(list(live), value, met)))
    return old, steps


def graft_text(old: Any, was: Text, text: Text) -> tuple[Any, list[Step]]:
    """Do what :func:`graft` does with texts; of a list that was appended to, only the new items are decoded."""
    before = decode(was)
    if container(old) is list and (tail := appended(was, text)) is not None:
        end = slice(len(before), len(before))
        return old, [partial(old.__setitem__, end, decode(b"[" + tail + b"]"))]
    return graft(old, before, decode(text))


def _with_known(old: list[Any], new: list[Any], changed: set[int]) -> list[Any]:
    """Return a list with those old elements that are equal to new ones, unless they are changed in another place."""
    known: dict[bytes, list[Any]] = {}
    for item in reversed(old):
        if container(item) and (text := _canonical(item)) and not _has_any(item, changed):
            known.setdefault(text, []).append(item)
    if not known:
        return new
    return [twins.pop() if container(item) and (twins := known.get(canonical(item))) else item for item in new]


def _canonical(item: object) -> bytes | None:
    """Return the canonical text of an element; None if another thread has just added what JSON cannot hold."""
    try:
        return canonical(item)
    except (TypeError, ValueError, RecursionError):
        return None


def _has_any(value: Any, ids: set[int]) -> bool:
    """Whether a container, or one inside it, is among some."""
    to_do = [value]
    while to_do and len(ids) > 1:  # the only one would be the list itself, which its elements do not contain
        one = to_do.pop()
        if id(one) in ids:
            return True
        inside = list(dict.values(one)) if isinstance(one, dict) else list.__iter__(one)
        to_do += [part for part in inside if isinstance(part, dict | list)]
    return False
