"""Functions that compute a new text of one key from the current one: increments, comparisons, and the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from .._printable import printable
from ..errors import UnserializableValueError
from .faults import place
from .functions import check_not_async, check_returned
from .values import MISSING, MaybeText, Missing, Text, decode, elements, encode, same

Function: TypeAlias = Callable[[MaybeText], tuple[MaybeText, Any]]
"""Takes the text of a key, and returns the new one and the call's result."""

_NUMBERS: Final = frozenset({int, float})


def incr(key: str, delta: float, default: float) -> Function:
    """Return the function that adds to a number."""
    _check_number(delta, "delta")
    _check_number(default, "default")

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        value = default if text is MISSING else decode(text)
        _check_number(value, "the value", key)
        value += delta
        return encode(value, key), value

    return function


def compare_and_set(key: str, expected: object, new: object) -> Callable[[MaybeText], tuple[MaybeText, bool]]:
    """Return the function that replaces the value if it is the expected one."""
    wanted = expected if isinstance(expected, Missing) else _encode_argument(expected, "expected")
    replacement = new if isinstance(new, Missing) else encode(new, key)
    return lambda text: (replacement, True) if same(text, wanted) else (text, False)


def add(key: str, value: object) -> Callable[[MaybeText], tuple[MaybeText, bool]]:
    """Return the function that sets a key if it is missing."""
    text_of_value = encode(value, key)
    return lambda text: (text_of_value, True) if text is MISSING else (text, False)


def delete(key: str) -> Callable[[MaybeText], tuple[MaybeText, bool]]:  # noqa: ARG001 - as for the others
    """Return the function that deletes a key."""
    return lambda text: (MISSING, text is not MISSING)


def take(key: str, default: object) -> Function:  # noqa: ARG001 - as for the others
    """Return the function that deletes a key and returns its value."""
    return lambda text: (MISSING, default if text is MISSING else decode(text))


def extend(key: str, items: Iterable[object]) -> Callable[[MaybeText], tuple[MaybeText, int]]:
    """Return the function that appends items to a list, and returns its length."""
    added = listed(items)
    tail = _encode_argument(added, "items")

    def function(text: MaybeText) -> tuple[MaybeText, int]:
        if text is not MISSING and not text.startswith(b"["):
            raise not_a_list(key, decode(text))
        known = 0 if text is MISSING else len(elements(text))
        if not added:
            return text, known
        return (text[:-1] + b", " + tail[1:] if known and text is not MISSING else tail), known + len(added)

    return function


def listed(items: Iterable[object]) -> list[object]:
    """Return the items to append as a list.

    Raises:
        TypeError: they are a ``str``, ``bytes`` or mapping, which is iterable, but hardly meant as items.
    """
    if isinstance(items, str | bytes | Mapping):
        msg = f"items must be a list or another iterable of items, not {type(items).__name__}; append() appends one"
        raise TypeError(msg)
    return list(items)


def not_a_list(key: str, value: object) -> TypeError:
    """Return the error of appending to a value that is not a list."""
    return TypeError(f"the value of {printable(repr(key))} must be a list, not {type(value).__name__}")


def mutate(key: str, fn: Callable[[Any], Any], default: object) -> Function:
    """Return the function that computes a new value from the current one with a callable."""
    if not callable(fn):
        msg = f"fn must be a callable, not {type(fn).__name__}"
        raise TypeError(msg)
    check_not_async(fn, "fn")
    start = _encode_argument(default, "default")

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        before = start if text is MISSING else text
        argument = decode(before)
        try:
            value = fn(argument)
        except (TypeError, AttributeError) as error:
            if text is MISSING and default is None:
                error.add_note(f"{printable(repr(key))} is missing, so fn was given None: pass a default")
            raise
        check_returned(value, "fn", key, [(argument, before)])
        return encode(value, key), value

    return function


def _encode_argument(value: object, name: str) -> Text:
    """Return the text of an argument; errors name the place within it, rather than in the context."""
    try:
        return encode(value, name)
    except UnserializableValueError as error:
        raise type(error)(name + error.place.removeprefix(place([name])), error.reason) from None


def _check_number(value: object, what: str, key: str | None = None) -> None:
    if type(value) in _NUMBERS:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        whose = "" if key is None else f" of {printable(repr(key))}"
        msg = f"{what}{whose} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
