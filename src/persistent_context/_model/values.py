"""Conversion between values and JSON text, and equality of texts: the only module that imports msgspec."""

from __future__ import annotations

import enum
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Raw as Raw  # noqa: PLC0414 - exported from here

from ..errors import TooManyDigitsError
from .faults import MAX_DEPTH, MAX_DIGITS, explain, first_fault, type_name


class Frozen(msgspec.Struct, frozen=True):
    """The base of immutable records, for what is not public: each costs an import far less than a ``NamedTuple``."""


F = TypeVar("F", bound=Frozen)

Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A whole number in a record that is read."""


class Missing(enum.Enum):
    """The type of :data:`MISSING`."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING
"""Means that a key is absent, as an argument and as a result."""

Text: TypeAlias = bytes
"""The JSON text of one value, on one line."""

MaybeText: TypeAlias = Text | Missing

_RECORD_DEPTH: Final = 2
"""The depth, within a record, of the values of its objects."""
_ATTEMPTS: Final = 100
"""How often to retry encoding a value that another thread is changing."""
_SCALARS: Final = frozenset({str, int, bool, type(None), float})


class _NotJsonError(TypeError):
    """A value inside the one to encode has a type that JSON does not have."""


def _plain(value: object) -> object:
    """Return an instance of a subclass of a JSON type as the plain type, since msgspec only accepts exact types.

    None of the subclass's own methods is called: its ``__str__`` might return something else.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    msg = f"not a JSON type: {type_name(type(value))}"
    raise _NotJsonError(msg)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_encode_lines = msgspec.json.Encoder(enc_hook=_plain).encode_lines
_encode_sorted = msgspec.json.Encoder(enc_hook=_plain, order="sorted").encode
_decode = msgspec.json.Decoder().decode
_split = msgspec.json.Decoder(dict[str, Raw]).decode
_elements = msgspec.json.Decoder(list[Raw]).decode

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPENING: Final = ord("[")
_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBER: Final = b"0" * 200  # with a two-digit exponent it can be out of range for a float
_LONG_EXPONENT: Final = b"0e000"


def is_scalar(value: object) -> bool:
    """Whether a value is immutable."""
    return type(value) in _SCALARS


def encode(value: object, key: str) -> Text:
    """Return the value as one line of JSON, with non-ASCII characters unescaped.

    A value is accepted only if decoding its text gives an equal value: msgspec would silently convert tuples, sets,
    dates, dataclasses and NaN.

    Raises:
        UnserializableValueError: JSON cannot hold the value; the error names the place within ``key``.
    """
    try:
        for _ in range(_ATTEMPTS):
            try:
                text, is_whole = _written(value)
                if is_whole:
                    return text if type(value) in _SCALARS else msgspec.json.format(text, indent=0)
                if _encode(value) == text:
                    break  # not being changed: it really does not survive the round trip
            except _NotJsonError:
                if not _is_sound(value, key):
                    break
                # otherwise another thread has removed it
    except MemoryError:
        raise
    except Exception:  # from methods of the caller's classes, explained below, or from a signal handler
        if _is_sound(value, key):
            raise
    raise explain(value, key)


def _written(value: object) -> tuple[Text, bool]:
    """Return the text of a value, and whether decoding it gives an equal value."""
    text: bytes = _encode(value)
    kind = type(value)
    if kind in _SCALARS and (kind is str or len(text) <= MAX_DIGITS):  # a longer int may be too long to read
        return text, text != b"null" or value is None
    return text, not deeper_than(MAX_DEPTH, text) and decode(text) == value


def _is_sound(value: object, key: str) -> bool:
    try:
        return first_fault(value, key) is None and _written(value)[1]
    except Exception:  # noqa: BLE001 - as before
        return False


def decode(text: Text | Raw) -> Any:
    """Return a new value for a text.

    Raises:
        TooManyDigitsError: it has an integer with more digits than this process allows.
    """
    try:
        return _decode(text)
    except msgspec.ValidationError:  # more than 4,300 digits, regardless of Python's limit, and counting the sign
        return json.loads(bytes(text), parse_float=_finite, parse_int=parse_int)


def parse_int(digits: str) -> int:
    """Return the integer for these digits.

    Raises:
        TooManyDigitsError: there are more than may be written, or than this process can read.
    """
    count = len(digits.removeprefix("-"))
    limit = sys.get_int_max_str_digits()
    if count > MAX_DIGITS or 0 < limit < count:
        raise TooManyDigitsError(count, min(limit or MAX_DIGITS, MAX_DIGITS))
    return int(digits)


def same(one: MaybeText, other: MaybeText) -> bool:
    """Whether two texts mean the same value: ``1``, ``1.0`` and ``true`` differ; the order of keys does not matter."""
    if one is MISSING or other is MISSING:
        return one is other
    if one == other:
        return True
    if appended(one, other) is not None or appended(other, one) is not None:
        return False
    return canonical(decode(one)) == canonical(decode(other))


def appended(base: Text, text: Text) -> Text | None:
    """Return the text of the items that were appended to a list, by comparing bytes; None if they do not tell."""
    if not (base.startswith(b"[") and text.startswith(b"[")):
        return None
    if base == b"[]":
        return text[1:-1].strip() or None
    start = len(base) - 1
    return text[start + 2 : -1] if text.startswith(base[:-1]) and text[start : start + 2] == b", " else None


def canonical(value: object) -> bytes:
    """Return a text that is the same for equal values only."""
    text: bytes = _encode_sorted(value)
    return text


def split(text: bytes) -> dict[str, Raw] | None:
    """Split a JSON object by key without decoding its values; the texts share memory with the argument.

    Returns None unless it is a valid object of decodable values, each on one line. msgspec checks values that it skips
    less strictly than those it decodes, so invalid UTF-8, numbers out of range and too deep nesting are detected here.

    Raises:
        TooManyDigitsError: it is valid, but has an integer that cannot be read.
    """
    entries = split_any_depth(text)
    if entries is None or not _has_longer_line(2 * MAX_DEPTH, text):
        return entries
    return None if any(map(_too_deep, map(bytes, entries.values()))) else entries


def split_any_layout(body: bytes) -> dict[str, Text] | None:
    """Split the entries of a JSON object, in any layout, into texts on one line each; otherwise like :func:`split`."""
    entries = split_any_depth(b"{" + body + b"}")
    if entries is None or any(map(_too_deep, map(bytes, entries.values()))):
        return None
    return {key: msgspec.json.format(_encode(decode(text)), indent=0) for key, text in entries.items()}


def one_line(text: bytes) -> Text | None:
    """Return the text of a JSON value, in any layout, on one line; None if it is not one that can be read."""
    try:
        if len(_elements(b"[" + text + b"]")) != 1:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    entries = split_any_layout(b'"":' + text)
    return None if entries is None else entries.get("")


def split_any_depth(text: bytes) -> dict[str, Raw] | None:
    """Split an object in any layout, whatever the depth of its values; otherwise like :func:`split`."""
    try:
        entries: dict[str, Raw] = _split(text)
        _check_skipped(text)
    except TooManyDigitsError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return entries


def reader_of(kind: type[F]) -> Callable[[bytes], F | None]:
    """Return a function that reads an object on one line into a record.

    It returns None unless the object is valid, and has what the record needs. Fields of type ``Raw`` are checked as by
    :func:`split`.
    """
    read_record: Callable[[bytes], F] = msgspec.json.Decoder(kind).decode

    def read(text: bytes) -> F | None:
        try:
            record = read_record(text)
            _check_skipped(text)
        except TooManyDigitsError:
            raise
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return None if len(text) > 2 * MAX_DEPTH and deeper_than(_RECORD_DEPTH + MAX_DEPTH, text) else record

    return read


def _check_skipped(text: bytes) -> None:
    """Raise ValueError if values that msgspec has skipped in a valid text cannot be decoded."""
    if not text.isascii():
        text.decode()
    alike = text.translate(_DIGITS_ALIKE, b"+-")
    if _LONG_EXPONENT in alike or _LONG_NUMBER in alike:
        decode(text)


def _too_deep(text: bytes) -> bool:
    return len(text) > 2 * MAX_DEPTH and deeper_than(MAX_DEPTH, text)


def members(text: Text) -> dict[str, Text]:
    """Return the texts of an object's members, without decoding them."""
    return {name: bytes(member) for name, member in _split(text).items()}


def elements(text: Text) -> list[Text]:
    """Return the texts of an array's elements, without decoding them."""
    return [bytes(element) for element in _elements(text)]


def compose(parts: Mapping[str, Text] | Sequence[Text]) -> Text:
    """Return the text of an object with these members, or of an array with these elements."""
    whole = {name: Raw(part) for name, part in parts.items()} if isinstance(parts, Mapping) else list(map(Raw, parts))
    return msgspec.json.format(_encode(whole), indent=0)


def key_texts(keys: Iterable[str]) -> list[bytes]:
    """Return the JSON text of every key, followed by a colon and a space, in one call."""
    lines: bytes = _encode_lines(list(keys))
    return lines.replace(b"\n", b": \n").split(b"\n")[:-1]


def deeper_than(limit: int, text: bytes) -> bool:
    """Whether lists and objects in a JSON text nest more than ``limit`` levels deep, without recursion."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", text).translate(_ONE_BRACKET, _NOT_BRACKETS)
    depth = 0
    for _ in range(8):  # each pass removes the innermost pairs, which are nearly all of them
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
        msg = f"{digits} is out of range for a float"
        raise ValueError(msg)
    return number
