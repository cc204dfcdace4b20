"""Functions that compute a new text of one key from the current one: increments, comparisons, and the caller's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from .._printable import printable
from ..errors import UnserializableValueError
from .values import MISSING, MaybeText, Missing, decode, encode, same

Function: TypeAlias = Callable[[MaybeText], tuple[MaybeText, Any]]
"""Takes the text of a key, and returns the new one and the call's result."""

_NUMBERS: Final = frozenset({int, float})


def incr(key: str, delta: float, default: float) -> Function:
    """Return the function of an increment."""
    _check_number(delta, "delta")
    _check_number(default, "default")

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        value = default if text is MISSING else decode(text)
        _check_number(value, "the value", key)
        value += delta
        return encode(value, key), value

    return function


def compare_and_set(key: str, expected: object, new: object) -> Callable[[MaybeText], tuple[MaybeText, bool]]:
    """Return the function that replaces one value by another if it is the expected one."""
    wanted = expected if isinstance(expected, Missing) else encode(expected, key)
    replacement = new if isinstance(new, Missing) else encode(new, key)
    return lambda text: (replacement, True) if same(text, wanted) else (text, False)


def mutate(key: str, fn: Callable[[Any], Any], default: object) -> Function:
    """Return the function that computes a new value from the current one with a callable."""
    if not callable(fn):
        msg = f"fn must be a callable, not {type(fn).__name__}"
        raise TypeError(msg)
    if _is_coroutine_function(fn):
        raise _awaitable(key)
    start = encode(default, key)

    def function(text: MaybeText) -> tuple[MaybeText, Any]:
        before = start if text is MISSING else text
        argument = decode(before)
        value = fn(argument)
        if value is None and _was_changed(argument, before, key):
            msg = f"fn changed the value of {printable(repr(key))} in place and returned None: return the new value"
            raise TypeError(msg)
        if isinstance(value, Awaitable):
            if isinstance(value, Coroutine):
                value.close()  # or else Python warns that it was never awaited
            raise _awaitable(key)
        return encode(value, key), value

    return function


def _is_coroutine_function(fn: object) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _was_changed(value: object, text: MaybeText, key: str) -> bool:
    try:
        return not same(text, encode(value, key))
    except UnserializableValueError:
        return True


def _awaitable(key: str) -> TypeError:
    return TypeError(
        f"fn must return the new value of {printable(repr(key))}, not an awaitable: it runs under the lock, where "
        "nothing can be awaited; pass a plain function, or await in a transaction()"
    )


def _check_number(value: object, what: str, key: str | None = None) -> None:
    if type(value) in _NUMBERS:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        whose = "" if key is None else f" of {printable(repr(key))}"
        msg = f"{what}{whose} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
