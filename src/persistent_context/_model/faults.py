"""Which values and keys JSON cannot hold, and where they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from .._printable import printable
from ..errors import UnserializableContentError, UnserializableValueError

MAX_DEPTH: Final = 500
"""The deepest nesting of lists and dictionaries in a value, which every supported Python can decode."""

MAX_DIGITS: Final = 4300
"""The most digits of an integer: what Python reads unless ``sys.set_int_max_str_digits`` was called."""

_SHOWN_CHARACTERS: Final = 200
_TOO_BIG: Final = 10**MAX_DIGITS


def plain_key(key: Any) -> Any:
    """Return a key of a ``str`` subclass as a plain ``str``, and any other key unchanged, for lookup."""
    return str.__str__(key) if isinstance(key, str) else key


def is_key(key: object) -> bool:
    """Whether this can be the key of a JSON object."""
    return isinstance(key, str) and (str.isascii(key) or not _has_lone_surrogate(key))


def check_key(key: object) -> str:
    """Return the key as a plain ``str``.

    Raises:
        UnserializableValueError: it cannot be the key of a JSON object.
    """
    if not isinstance(key, str):
        raise UnserializableValueError(_shown(key), f"a key must be a str, not {type_name(type(key))}")
    if not is_key(key):
        raise UnserializableContentError(printable(ascii(str.__str__(key))), "a key with a lone surrogate")
    return str.__str__(key)


def place(path: Iterable[str]) -> str:
    """Return a place within objects as Python would index it, safe to print."""
    return "".join(f"[{_quoted(name)}]" for name in path)


def explain(value: object, key: str) -> UnserializableValueError:
    """Find the first place in a refused value that JSON cannot hold."""
    try:
        found = first_fault(value, key)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - from methods of the caller's classes
        return UnserializableValueError(
            f"[{_quoted(key)}]", f"{type_name(type(value))}: cannot be inspected: it raises {type_name(type(error))}"
        )
    return found or UnserializableValueError(
        f"[{_quoted(key)}]", f"{type_name(type(value))}: does not compare equal after a round trip through JSON"
    )


def first_fault(value: object, key: str) -> UnserializableValueError | None:
    """Return an error for the first place that JSON cannot hold, or None if there is none."""
    stack: list[tuple[object, str, frozenset[int]]] = [(value, f"[{_quoted(key)}]", frozenset())]
    while stack:
        item, place, above = stack.pop()
        if id(item) in above:
            return UnserializableContentError(place, "a cycle: it contains itself")
        if len(above) >= MAX_DEPTH and isinstance(item, dict | list):
            return UnserializableContentError(place[:200], f"nested more than {MAX_DEPTH} levels deep")
        inside = above | {id(item)}
        if isinstance(item, dict):
            for name in item:
                if not isinstance(name, str):
                    return UnserializableValueError(
                        place, f"the key {_shown(name)} must be a str, not {type_name(type(name))}"
                    )
                if not is_key(name):
                    return UnserializableContentError(place, f"the key {printable(ascii(name))} has a lone surrogate")
            stack.extend((part, f"{place}[{_quoted(name)}]", inside) for name, part in reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((part, f"{place}[{index}]", inside) for index, part in reversed(list(enumerate(item))))
        elif (reason := _scalar_fault(item)) is not None:
            kind = UnserializableContentError if isinstance(item, str | int | float) else UnserializableValueError
            return kind(place, reason)
    return None


def _scalar_fault(item: object) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return "a str with a lone surrogate" if _has_lone_surrogate(item) else None
    if isinstance(item, float):
        return None if math.isfinite(item) else f"float {float.__repr__(item)} is not finite"
    return _int_fault(int.__int__(item)) if isinstance(item, int) else type_name(type(item))


def _int_fault(number: int) -> str | None:
    if abs(number) >= _TOO_BIG:
        return f"int with more than {MAX_DIGITS:,} digits, the most that Python reads by default"
    try:
        str(number)
    except ValueError:
        return "int with more digits than this process can convert (see sys.set_int_max_str_digits)"
    return None


def type_name(kind: type) -> str:
    """Return the name of a type, with its module, as ``bool`` alone could be ambiguous."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(key: object) -> str:
    try:
        return printable(repr(key))[:_SHOWN_CHARACTERS]
    except Exception:  # noqa: BLE001 - an int with too many digits, or an exception from the caller's class
        return f"<{type_name(type(key))}>"


def _quoted(key: str) -> str:
    return '"' + printable(key.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
