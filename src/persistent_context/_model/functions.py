"""Functions of the caller that run under the lock: what they may be, and what they may return."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from .._printable import printable
from ..errors import UnserializableValueError
from .values import MISSING, MaybeText, encode, same

_RULE: Final = "it runs under the lock, where nothing can be awaited"


def check_not_async(function: Callable[..., Any], name: str) -> None:
    """Raise TypeError for a function that returns an awaitable; ``name`` is that of the argument."""
    while isinstance(function, functools.partial):
        function = function.func
    if any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None)))):  # noqa: B004
        msg = f"{name} must be a plain function, not an async one: {_RULE}"
        raise TypeError(msg)


def check_returned(value: object, name: str, key: str, given: Sequence[tuple[object, MaybeText]]) -> None:
    """Raise TypeError for what was hardly meant as the new value of a key.

    Args:
        value: what the function has returned.
        name: the name of the argument that the function is.
        key: the key.
        given: the values that the function was given, and their texts.
    """
    if value is None and any(_was_changed(argument, text, key) for argument, text in given):
        msg = f"{name} changed a value of {printable(repr(key))} in place and returned None: return the new value"
        raise TypeError(msg)
    if isinstance(value, Awaitable):
        if isinstance(value, Coroutine):
            value.close()  # otherwise Python warns that it was never awaited
        msg = f"{name} must return the new value of {printable(repr(key))}, not an awaitable: {_RULE}"
        raise TypeError(msg)


def _was_changed(value: object, text: MaybeText, key: str) -> bool:
    if value is MISSING:
        return False
    try:
        return not same(text, encode(value, key))
    except UnserializableValueError:
        return True
