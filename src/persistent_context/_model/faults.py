"""Which values and keys JSON cannot hold, where they are, and what to use instead."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from types import UnionType
from typing import Any, Final, NoReturn

from .._printable import printable
from ..errors import UnserializableContentError, UnserializableValueError

MAX_DEPTH: Final = 500
"""The deepest nesting of lists and dictionaries in a value, which every supported Python can decode."""

MAX_DIGITS: Final = 4300
"""The most digits of an integer: what Python reads unless ``sys.set_int_max_str_digits`` was called."""

_REMEDIES: Final[tuple[tuple[type | UnionType | str, str], ...]] = (
    (tuple | set | frozenset, "use a list"),
    (bytes | bytearray, "convert it, for example with .decode() or .hex()"),
    ("isoformat", "convert it, for example with .isoformat()"),  # datetime, date, time
    ("tolist", "convert it, for example with .tolist()"),  # the arrays and scalars of numpy
    ("__fspath__", "convert it, for example with str()"),  # Path
    ("as_integer_ratio", "convert it, for example with str() or float()"),  # Decimal, Fraction
    ("__dataclass_fields__", "convert it, for example with dataclasses.asdict()"),
    ("MISSING", "it stands for an absent key: delete the key instead"),
)
"""By type, or by the name of an attribute of the type: what to use instead of such a value."""
_ANY_REMEDY: Final = "convert it to a dict, list, str, number, bool or None"

_STRING_OR_CONSTANT: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(NaN|-?Infinity)')
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
        raise UnserializableValueError(_shown(key), f"cannot be a key: {_key_fault(key)}")
    if not is_key(key):
        raise UnserializableContentError(printable(ascii(str.__str__(key))), "cannot be a key: it has a lone surrogate")
    return str.__str__(key)


def refuse_constant(text: str, name: str) -> NoReturn:
    """Raise JSONDecodeError for a constant such as ``NaN``, which Python would read, at its first place in a text."""
    at = next(found.start(1) for found in _STRING_OR_CONSTANT.finditer(text) if found[1])
    msg = f"{name} is not a JSON value"
    raise json.JSONDecodeError(msg, text, at)


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
            f"[{_quoted(key)}]",
            f"is {_a(type(value))}, which cannot be inspected: it raises {type_name(type(error))}",
        )
    return found or UnserializableValueError(
        f"[{_quoted(key)}]", f"is {_a(type(value))}, which does not compare equal after a round trip through JSON"
    )


def first_fault(value: object, key: str) -> UnserializableValueError | None:
    """Return an error for the first place that JSON cannot hold, or None if there is none."""
    stack: list[tuple[object, str, frozenset[int]]] = [(value, f"[{_quoted(key)}]", frozenset())]
    while stack:
        item, place, above = stack.pop()
        if id(item) in above:
            return UnserializableContentError(place, "contains itself")
        if len(above) >= MAX_DEPTH and isinstance(item, dict | list):
            return UnserializableContentError(place[:200], f"is nested more than {MAX_DEPTH} levels deep")
        inside = above | {id(item)}
        if isinstance(item, dict):
            for name in item:
                if not isinstance(name, str):
                    return UnserializableValueError(place, f"has the key {_shown(name)}: {_key_fault(name)}")
                if not is_key(name):
                    return UnserializableContentError(
                        place, f"has the key {printable(ascii(name))}, which has a lone surrogate"
                    )
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
        return "is a str with a lone surrogate, which UTF-8 cannot hold" if _has_lone_surrogate(item) else None
    if isinstance(item, float):
        return None if math.isfinite(item) else f"is {float.__repr__(item)}, which JSON cannot hold; use None"
    if isinstance(item, int):
        return _int_fault(int.__int__(item))
    return f"is {_a(type(item))}, which JSON cannot hold; {_remedy(type(item))}"


def _int_fault(number: int) -> str | None:
    if abs(number) >= _TOO_BIG:
        return f"is an int with more than {MAX_DIGITS:,} digits, the most that Python reads by default; use a str"
    try:
        str(number)
    except ValueError:
        return "is an int with more digits than this process can convert (see sys.set_int_max_str_digits)"
    return None


def _key_fault(key: object) -> str:
    how = ".decode()" if isinstance(key, bytes) else "str()"
    return f"a key must be a str, not {type_name(type(key))}; convert it, for example with {how}"


def _remedy(kind: type) -> str:
    """Return what to use instead of a value of a type that JSON does not have."""
    for known, remedy in _REMEDIES:
        if hasattr(kind, known) if isinstance(known, str) else issubclass(kind, known):
            return remedy
    return _ANY_REMEDY


def _a(kind: type) -> str:
    """Return the name of a type after its article."""
    name = type_name(kind)
    return f"an {name}" if name[:1] in "aeioAEIO" else f"a {name}"  # a UUID


def type_name(kind: type) -> str:
    """Return the name of a type, with its module unless Python has it: ``bool``, ``Decimal``, ``numpy.bool``."""
    is_pythons = str(kind.__module__).partition(".")[0] in sys.stdlib_module_names
    return kind.__qualname__ if is_pythons else f"{kind.__module__}.{kind.__qualname__}"


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
