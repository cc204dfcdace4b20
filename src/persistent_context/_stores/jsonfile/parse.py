"""Parsing of the file into a document: fast for our own layout, exact for any other.

Parts that equal the already known document are compared, not parsed. Everything else is cut into pages without decoding
values, so that no step holds the interpreter for longer than one page takes.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from ..._model.faults import MAX_DEPTH, check_key, refuse_constant
from ..._model.values import Text, deeper_than, encode, parse_int, split_any_layout
from ...errors import TooManyDigitsError, UnserializableValueError
from ..protocol import CorruptStateError
from .document import CLOSE, EMPTY, OPEN, Document
from .page import BETWEEN, PAGE_BYTES, Page, let_others_run, pages_of

_CUTS_TRIED: Final = 50
_CUT_CONTEXT: Final = 64
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SPACES: Final = b" \t\r\n"
_OUTERMOST: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{[ \t\r\n]*")
_ESCAPED_COMMA: Final = re.compile(rb"\\u002[cC]")

Read: TypeAlias = Callable[[int, int], bytes]
"""Reads from a file: ``read(offset, length)``."""


def parse(read: Read, size: int, known: Document = EMPTY) -> Document:
    """Return the document in a file, sharing unchanged pages with the ``known`` one; EMPTY for an empty file.

    Whether a text is accepted depends only on the text, never on its layout or the known document.

    Raises:
        CorruptStateError: it is not a JSON object, or cannot be written back.
        TooManyDigitsError: it holds an integer that cannot be read.
    """
    if size == 0:
        return EMPTY
    if size <= PAGE_BYTES:
        text = read(0, size)
        if known.exists and not known.repeats and text == b"".join(known.pieces()):
            return known
        if not text.startswith(OPEN) or not text.endswith(CLOSE):
            return _parse_any_layout(text)
        body = text[len(OPEN) : -len(CLOSE)]
        page = (known.pages[0].edited(body) if len(known.pages) == 1 else None) or Page.parse(body)
        return Document([page]) if page else _parse_any_layout(text)
    return _parse_pages(read, size, known) or _parse_any_layout(read(0, size))


def _parse_pages(read: Read, size: int, known: Document) -> Document | None:
    """Parse a long text in our own layout, or return None if it is in another, or repeats a key."""
    start, end = len(OPEN), size - len(CLOSE)
    if read(0, start) != OPEN or read(end, len(CLOSE)) != CLOSE:
        return None
    front, start = _same_at_front(read, start, end, known.pages)
    back, end = _same_at_back(read, start, end, known.pages[len(front) :])
    gone = known.pages[len(front) : len(known.pages) - len(back)]
    middle: list[Page] = []
    keys: list[str] = []
    if start < end or not front:
        parsed = _parse_lines(read, start + len(BETWEEN) if front else start, end)
        if parsed is None:
            return None
        middle, keys = parsed
    if not middle and not gone and not known.repeats:
        return known
    new = set(keys)
    if len(new) < len(keys):
        return None
    for page in gone:
        new.difference_update(page.entries())
    if known.get(new):
        return None
    return Document([*front, *middle, *back])


def _same_at_front(read: Read, start: int, end: int, pages: Sequence[Page]) -> tuple[list[Page], int]:
    """Return the leading pages that are at the start of a text, and where the last of them ends in it.

    If anything follows, it is a comma.
    """
    same: list[Page] = []
    begin = start
    for page in pages:
        stop = begin + len(page.body)
        if stop > end or read(begin, len(page.body)) != page.body:
            break
        if stop < end and read(stop, len(BETWEEN)) != BETWEEN:
            break
        same.append(page)
        start, begin = stop, stop + len(BETWEEN)
        let_others_run()
    return same, start


def _same_at_back(read: Read, start: int, end: int, pages: Sequence[Page]) -> tuple[list[Page], int]:
    """Return the trailing pages that are at the end of a text, and where the part before them ends in it.

    That part ends before a comma: a page with nothing before it is not included.
    """
    same: list[Page] = []
    for page in reversed(pages):
        before = end - len(page.body) - len(BETWEEN)
        if before < start or read(before, end - before) != BETWEEN + bytes(page.body):
            break
        same.insert(0, page)
        end = before
        let_others_run()
    return same, end


def _parse_lines(read: Read, start: int, end: int) -> tuple[list[Page], list[str]] | None:
    """Parse lines into pages; return them and all keys, or None if there are no lines or the layout is not ours."""
    pages: list[Page] = []
    keys: list[str] = []
    while start < end:
        body = _read_lines(read, start, end)
        page = None if body is None else Page.parse(body)
        if body is None or page is None:
            return None
        keys += page.entries()
        page.keep_entries(keep=False)
        pages.append(page)
        start += len(body) + len(BETWEEN)
        let_others_run()
    return (pages, keys) if pages else None


def _read_lines(read: Read, start: int, end: int) -> bytes | None:
    """Read about a page, up to a possible end of an entry, or return None if entries end within lines."""
    length = PAGE_BYTES
    while start + length < end:
        text = read(start, length)
        cut = text.rfind(b',\n"')
        if cut > 0:
            return text[:cut]
        if length == PAGE_BYTES and _last_cut(text, 0, length)[1]:
            return None
        length *= 2
    return read(start, end - start)


def _parse_any_layout(text: bytes) -> Document:
    """Parse an object in any layout."""
    return _parse_pieces(text) or _parse_values(text)


def _parse_pieces(text: bytes) -> Document | None:
    """Parse an object in any layout, about a page at a time, or return None if that is not possible.

    It is not for an object with duplicate keys, as the values of all duplicates have to be checked.
    """
    opening, end = _OUTERMOST.match(text), text.rfind(b"}")
    if opening is None or text[end + 1 :].strip(_SPACES) or _ESCAPED_COMMA.search(text):
        return None
    start = opening.end()
    found: dict[str, Text] = {}
    while start < end:
        if start + PAGE_BYTES < end:
            stop, texts = _last_cut(text, start, start + PAGE_BYTES)
        else:
            stop, texts = end, split_any_layout(text[start:end])
        if not texts:
            return None
        # An extra comma means an extra entry, with a duplicate key.
        commas = len(texts) - 1 + "".join(texts).count(",") + b"".join(texts.values()).count(b",")
        if text.count(b",", start, stop) > commas or not found.keys().isdisjoint(texts):
            return None
        found.update(texts)
        start = stop + 1
        let_others_run()
    return Document(pages_of(found))


def _last_cut(text: bytes, start: int, stop: int) -> tuple[int, dict[str, Text] | None]:
    """Find the last comma before ``stop`` that ends an entry; return its place, and the entries from ``start`` to it.

    The text before the right comma is a complete object: at any other, a string, list or object is open.
    """
    for _ in range(_CUTS_TRIED):
        stop = text.rfind(b",", start, stop)
        if stop < 0:
            break
        if text[stop + 1 : stop + _CUT_CONTEXT].lstrip(_SPACES).startswith(b'"'):
            texts = split_any_layout(text[start:stop])
            if texts:
                return stop, texts
    return stop, None


def _parse_values(text: bytes) -> Document:
    """Parse an object value by value, so that no step takes longer than one value."""
    try:
        return _scan_values(text.removeprefix(codecs.BOM_UTF8).decode())
    except TooManyDigitsError:
        raise
    except (ValueError, UnserializableValueError) as error:
        raise CorruptStateError(str(error)) from error
    except RecursionError:
        if deeper_than(1 + MAX_DEPTH, text):  # the object itself is a level, too
            msg = f"nested more than {MAX_DEPTH} levels deep"
            raise CorruptStateError(msg) from None
        raise  # the caller's own stack is too deep


def _scan_values(source: str) -> Document:
    repeats = False

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeats
        entries = dict(pairs)
        repeats = repeats or len(entries) < len(pairs)
        return entries

    refuse = functools.partial(refuse_constant, source)
    scan = json.JSONDecoder(object_pairs_hook=unique, parse_constant=refuse, parse_int=parse_int).raw_decode
    entries: dict[str, Text] = {}
    at = _expect(source, 0, "{")
    while source[at : at + 1] != "}" or entries:
        key, at = scan(source, at)
        if not isinstance(key, str):
            msg = f"a key that is not a string, before character {at}"
            raise CorruptStateError(msg)
        value, at = scan(source, _expect(source, at, ":"))
        repeats = repeats or key in entries
        entries[check_key(key)] = encode(value, key)
        at = _SPACE.match(source, at).end()  # type: ignore[union-attr]
        if source[at : at + 1] == "}":
            break
        at = _expect(source, at, ",")
    if _SPACE.fullmatch(source, at + 1) is None:
        msg = f"extra text after the object, at character {at + 1}"
        raise CorruptStateError(msg)
    return Document(pages_of(entries), repeats=repeats)


def _expect(source: str, at: int, mark: str) -> int:
    """Return the position after ``mark`` and the white space around it."""
    at = _SPACE.match(source, at).end()  # type: ignore[union-attr]
    if source[at : at + 1] != mark:
        is_blank = not source.strip("\0 \t\r\n")
        msg = "nothing but white space or zero bytes" if is_blank else f"expected {mark!r} at character {at}"
        raise CorruptStateError(msg)
    return _SPACE.match(source, at + 1).end()  # type: ignore[union-attr]
