"""How values become JSON text and back, and when two texts mean the same: the one module that imports msgspec."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw as Raw  # noqa: PLC0414 - exported from here

from ._errors import UnserializableContentError, UnserializableValueError
from ._printable import printable


class Missing(enum.Enum):
    """The type of :data:`MISSING`."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING
"""Stands for the absence of a key, as an argument and as a result."""

Text: TypeAlias = bytes
"""The JSON text of one value, on one line."""

MaybeText: TypeAlias = Text | Missing

MAX_DEPTH: Final = 500
"""The deepest nesting of lists and dictionaries in a value: what every supported Python can decode."""

_SCALARS: Final = frozenset({str, int, bool, type(None), float})


def _plain(value: object) -> object:
    """Return the plain value of a subclass of JSON's types, for msgspec, which knows them exactly."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    msg = f"no JSON type: {type(value).__name__}"
    raise TypeError(msg)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_encode_lines = msgspec.json.Encoder().encode_lines
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode
_split = msgspec.json.Decoder(dict[str, Raw]).decode

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPENING: Final = ord("[")
_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789E", b"000000000e")


def is_scalar(value: object) -> bool:
    """Whether a value can never change in place."""
    return type(value) in _SCALARS


def check_key(key: object) -> str:
    """Return the key if it can be the key of a JSON object, else raise UnserializableValueError."""
    if not isinstance(key, str):
        raise UnserializableValueError(printable(repr(key)), f"a key is a str, not {type(key).__name__}")
    if not key.isascii() and _has_lone_surrogate(key):
        raise UnserializableContentError(printable(ascii(key)), "a key with a lone surrogate")
    return key


def encode(value: object, key: str) -> Text:
    """Return the value as one line of JSON, non-ASCII unescaped.

    A value is accepted if it comes back equal, which is asked of the decoder itself: msgspec would write tuples, sets,
    dates, dataclasses and NaN as something else without a word.

    Raises:
        UnserializableValueError: it names the place within ``key`` that JSON cannot hold.
    """
    try:
        text: bytes = _encode(value)
        if type(value) in _SCALARS:
            if text != b"null" or value is None:
                return text
        elif not deeper_than(MAX_DEPTH, text) and decode(text) == value:
            return msgspec.json.format(text, indent=0)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        pass  # named exactly by what follows
    raise _explain(value, key)


def decode(text: Text | Raw) -> Any:
    """Return a new value for a text."""
    try:
        return _decode(text)
    except msgspec.ValidationError:  # it counts the sign of an int among the digits that Python allows
        return json.loads(bytes(text), parse_float=_finite)


def same(one: MaybeText, other: MaybeText) -> bool:
    """Whether two texts mean the same value: ``1``, ``1.0`` and ``true`` differ; the order of keys does not matter."""
    if one is MISSING or other is MISSING:
        return one is other
    return one == other or _canonical(one) == _canonical(other)


def _canonical(text: Text) -> bytes:
    return _encode_sorted(decode(text))


def split(text: bytes) -> dict[str, Raw] | None:
    """Split a JSON object by key without decoding its values; the texts share memory with the argument.

    Returns None for whatever is not a valid object of decodable values. msgspec does not look into values that it
    skips as closely as into those it decodes: invalid UTF-8, numbers out of range and too deep nesting are looked for
    here.
    """
    try:
        entries: dict[str, Raw] = _split(text)
        if not text.isascii():
            text.decode()
        alike = text.translate(_DIGITS_ALIKE, b"+-")
        if b"0e000" in alike or b"0" * 300 in alike:
            decode(text)
        long = map(bytes, entries.values()) if _has_longer_line(2 * MAX_DEPTH, text) else ()
        too_deep = any(len(value) > 2 * MAX_DEPTH and deeper_than(MAX_DEPTH, value) for value in long)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return None if too_deep else entries


def split_any_layout(body: bytes) -> dict[str, Text] | None:
    """Split the entries of a JSON object into texts on one line each, or return None as :func:`split` does."""
    entries = split(b"{" + body + b"}")
    if entries is None:
        return None
    return {key: msgspec.json.format(_encode(decode(text)), indent=0) for key, text in entries.items()}


def key_texts(keys: Iterable[str]) -> list[bytes]:
    """Return the JSON text of every key, with the colon and the space behind it, in one call."""
    lines: bytes = _encode_lines(list(keys))
    return lines.replace(b"\n", b": \n").split(b"\n")[:-1]


def deeper_than(limit: int, text: bytes) -> bool:
    """Whether lists and objects in a JSON text nest more than ``limit`` levels deep, without recursion."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", text).translate(_ONE_BRACKET, _NOT_BRACKETS)
    depth = 0
    for _ in range(8):  # each turn takes the innermost pairs away, which are nearly all of them
        brackets = brackets.replace(b"[]", b"")
        depth += bool(brackets)
    for bracket in brackets:
        depth += 1 if bracket == _OPENING else -1
        if depth > limit:
            return True
    return False


def _has_longer_line(length: int, text: bytes) -> bool:
    start = 0
    while len(text) - start > length:
        end = text.rfind(b"\n", start, start + length + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        msg = f"{digits} is out of the range of floats"
        raise ValueError(msg)
    return number


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _explain(value: object, key: str) -> UnserializableValueError:
    """Find the first place in a refused value that JSON cannot hold."""
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
                        place, f"the key {printable(repr(name))} is a {type(name).__name__}, not a str"
                    )
                if _has_lone_surrogate(name):
                    return UnserializableContentError(place, f"the key {printable(ascii(name))} has a lone surrogate")
            stack.extend((part, f"{place}[{_quoted(name)}]", inside) for name, part in reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((part, f"{place}[{index}]", inside) for index, part in reversed(list(enumerate(item))))
        elif (reason := _scalar_fault(item)) is not None:
            kind = UnserializableContentError if isinstance(item, str | int | float) else UnserializableValueError
            return kind(place, reason)
    return UnserializableValueError(f"[{_quoted(key)}]", f"{type(value).__name__}: does not come back equal from JSON")


def _scalar_fault(item: object) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return "a str with a lone surrogate" if _has_lone_surrogate(item) else None
    if isinstance(item, float):
        return None if math.isfinite(item) else f"float {item!r} is not finite"
    if isinstance(item, int):
        try:
            str(int(item))
        except ValueError:
            return "int with more digits than Python converts (sys.set_int_max_str_digits)"
        return None
    return type(item).__name__


def _quoted(key: str) -> str:
    return '"' + printable(key.replace("\\", "\\\\").replace('"', '\\"')) + '"'
