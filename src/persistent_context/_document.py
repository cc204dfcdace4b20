"""The JSON object as pages of text, split by key and never decoded: parsed, looked up, changed, compared.

A page holds about 64 kB of lines, one entry a line. A document is immutable; a changed one shares the pages that did
not change with the one it came from. So a re-read of an unchanged part costs a comparison of bytes, a change costs one
page, and no step holds the interpreter for longer than a page takes.
"""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ._errors import UnserializableValueError
from ._values import MAX_DEPTH, MISSING, MaybeText, Raw, Text, check_key, deeper_than, encode, key_texts, split

PAGE_BYTES: Final = 64 * 1024
_SPLIT_INSTEAD_OF_SEARCH: Final = 16
_SPLICED_SHARE: Final = 20
_OFFER_SECONDS: Final = 0.002
_OPEN: Final = b"{\n"
_BETWEEN: Final = b",\n"
_CLOSE: Final = b"\n}\n"
_SPACE: Final = re.compile(r"[ \t\r\n]*")

Read: TypeAlias = Callable[[int, int], bytes]
"""Reads from a file: ``read(offset, length)``."""


class CorruptDocumentError(ValueError):
    """The text is no JSON object that this project could write back."""


class Page:
    """An immutable run of entries."""

    __slots__ = ("_entries", "text")

    def __init__(self, text: bytes, entries: dict[str, Raw] | None = None) -> None:
        self.text: Final = text
        """The entries as an object of their own: ``{"a": 1,\\n"b": 2}``."""
        self._entries = entries

    @classmethod
    def of(cls, entries: Mapping[str, Text | Raw]) -> Page:
        """Write entries down as a page."""
        raw = {key: text if isinstance(text, Raw) else Raw(text) for key, text in entries.items()}
        return cls(b"{" + _lines(entries) + b"}", raw)

    @classmethod
    def parse(cls, body: bytes) -> Page | None:
        """Return the page of these lines, or None if they are not valid or not as this module would write them."""
        text = b"{" + body + b"}"
        entries = split(text)
        if not entries or _lines(entries) != body or body.count(b"\n") != len(entries) - 1:
            return None  # also if a value stands on several lines: a page is split at line ends without parsing
        return cls(text, entries)

    @property
    def body(self) -> memoryview:
        """The lines of the page, as they stand in the file."""
        return memoryview(self.text)[1:-1]

    def entries(self) -> dict[str, Raw]:
        """Return the texts by key (do not change it)."""
        if self._entries is None:
            entries = split(self.text)
            assert entries is not None, "a page is valid from its making"
            return entries
        return self._entries

    def keep_entries(self, *, keep: bool) -> None:
        """Decide between speed and memory: whether the page remembers how it splits."""
        self._entries = self.entries() if keep else None

    def spliced(self, changes: Mapping[str, Text], entries: dict[str, Raw]) -> Page:
        """Return the page with other texts of some of its keys; much cheaper than writing all of it down again."""
        text = self.text
        for key, key_text in zip(changes, key_texts(changes), strict=True):
            begin = 1 if text.startswith(key_text, 1) else text.index(b"\n" + key_text) + 1
            start = begin + len(key_text)
            text = text[:start] + changes[key] + text[start + len(bytes(entries[key])) :]
        return Page(text, entries | {key: Raw(new) for key, new in changes.items()})

    def has(self, needle: bytes) -> bool:
        """Whether an entry begins with this text."""
        return self.text.startswith(needle, 1) or b"\n" + needle in self.text


class Document:
    """An immutable JSON object, from key to text, in order."""

    __slots__ = ("_places", "pages", "present", "repeats")

    def __init__(self, pages: Iterable[Page] = (), *, present: bool = True, repeats: bool = False) -> None:
        self.pages: Final = tuple(pages)
        self.present: Final = present
        """Whether it was read from a file; False stands for a file that is missing or was moved aside."""
        self.repeats: Final = repeats
        """Whether a key stood in the file more than once, so that writing this document would lose something."""
        self._places: dict[str, int | None] = {}  # in which page keys were found
        for page in self.pages:
            page.keep_entries(keep=len(self.pages) == 1)

    def entries(self) -> Iterator[dict[str, Raw]]:
        """Yield the texts by key, a page at a time."""
        for page in self.pages:
            yield page.entries()
            self._let_others_run()

    def find(self, keys: Iterable[str]) -> dict[str, Text]:
        """Return the texts of those of the keys that are here."""
        if len(self.pages) == 1:
            entries = self.pages[0].entries()
            return {key: bytes(entries[key]) for key in keys if key in entries}
        wanted = set(keys)
        found: dict[str, Text] = {}
        for _, entries in self._pages_with(wanted):
            found.update((key, bytes(entries[key])) for key in wanted & entries.keys())
        return found

    def changed(self, changes: Mapping[str, MaybeText]) -> Document:
        """Return the document with texts replaced, appended or (MISSING) removed."""
        pages = [[page] for page in self.pages]
        new = {key: text for key, text in changes.items() if text is not MISSING}
        for index, known in self._pages_with(set(changes)):
            here = {key: new[key] for key in changes.keys() & known.keys() if key in new}
            if len(here) == len(changes.keys() & known.keys()) and _SPLICED_SHARE * len(here) <= len(known):
                pages[index] = [self.pages[index].spliced(here, known)]
                for key in here:
                    del new[key]
                continue
            entries: dict[str, Text | Raw] = dict(known)
            for key in changes.keys() & known.keys():
                if key in new:
                    entries[key] = new.pop(key)
                else:
                    del entries[key]
            pages[index] = _pages_of(entries)
        added = bool(new)
        if new:
            last = pages.pop() if pages else []
            tail = last.pop() if last else None
            # In the order of the changes, behind all that is there.
            pages += [last, _pages_of({**(tail.entries() if tail else {}), **{k: new[k] for k in changes if k in new}})]
        changed = Document(page for group in pages for page in group)
        if not added and all(len(group) == 1 for group in pages):
            removed = {key for key, text in changes.items() if text is MISSING}
            changed._places.update((key, place) for key, place in self._places.items() if key not in removed)
        return changed

    def differences(self, older: Document) -> dict[str, MaybeText]:
        """Return what must be changed in the older document to have this one."""
        shared = {id(page) for page in self.pages} & {id(page) for page in older.pages}
        before: dict[str, Raw] = {}
        after: dict[str, Raw] = {}
        for pages, entries in ((older.pages, before), (self.pages, after)):
            for page in pages:
                if id(page) not in shared:
                    entries.update(page.entries())
        changes: dict[str, MaybeText] = {key: bytes(text) for key, text in after.items() if before.get(key) != text}
        changes.update((key, MISSING) for key in before if key not in after)
        return changes

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the whole text of the file."""
        if not self.pages:
            yield b"{}\n"
            return
        before = _OPEN
        for page in self.pages:
            yield before
            yield page.body
            before = _BETWEEN
        yield _CLOSE

    def _pages_with(self, keys: set[str]) -> Iterator[tuple[int, dict[str, Raw]]]:
        """Yield the number and the entries of every page that may hold one of the keys."""
        if not keys:
            return
        if len(keys) > _SPLIT_INSTEAD_OF_SEARCH or len(self.pages) == 1:
            candidates: Iterable[int] = range(len(self.pages))
        else:
            self._search(keys - self._places.keys())
            candidates = sorted({place for key in keys if (place := self._places[key]) is not None})
        for index in candidates:
            entries = self.pages[index].entries()
            if not keys.isdisjoint(entries):
                yield index, entries
            self._let_others_run()

    def _search(self, keys: set[str]) -> None:
        """Find out in which pages keys are."""
        self._places.update(dict.fromkeys(keys))
        needles = key_texts(keys)
        for index, page in enumerate(self.pages if keys else ()):
            if any(map(page.has, needles)):
                self._places.update(dict.fromkeys(keys & page.entries().keys(), index))
            self._let_others_run()

    def _let_others_run(self) -> None:
        if len(self.pages) > 1:
            _let_others_run()


EMPTY: Final = Document(present=False)


def parse(read: Read, size: int, known: Document = EMPTY) -> Document:
    """Return the document in a file; what is as in the ``known`` one is shared with it.

    Raises:
        CorruptDocumentError: it is no JSON object, or one that cannot be written back.
    """
    if size <= PAGE_BYTES:
        text = read(0, size)
        if known.present and not known.repeats and text == b"".join(known.pieces()):
            return known
        page = Page.parse(text[2:-3]) if text.startswith(_OPEN) and text.endswith(_CLOSE) else None
        return Document([page]) if page else _parse_any_layout(text)
    return _parse_pages(read, size, known) or _parse_any_layout(read(0, size))


def _parse_pages(read: Read, size: int, known: Document) -> Document | None:
    """Parse a long text in our own layout, or return None if it is in another, or repeats a key."""
    start, end = len(_OPEN), size - len(_CLOSE)
    if read(0, start) != _OPEN or read(end, len(_CLOSE)) != _CLOSE:
        return None
    front, start = _same_at_front(read, start, end, known.pages)
    back, end = _same_at_back(read, start, end, known.pages[len(front) :])
    gone = known.pages[len(front) : len(known.pages) - len(back)]
    middle: list[Page] = []
    keys: set[str] = set()
    count = 0
    while start < end:
        body = _read_lines(read, start, end)
        page = Page.parse(body)
        if page is None:
            return None
        keys.update(page.entries())
        count += len(page.entries())
        page.keep_entries(keep=False)
        middle.append(page)
        start += len(body) + len(_BETWEEN)
        _let_others_run()
    if not middle and not gone:
        return known
    repeats = len(keys) < count
    for page in gone:
        keys.difference_update(page.entries())
    if repeats or ((front or back) and Document(front + back).find(keys)):
        return None
    return Document(front + middle + back)


def _same_at_front(read: Read, start: int, end: int, pages: Sequence[Page]) -> tuple[list[Page], int]:
    """Return the first pages, as far as they stand at the start of a text, and where they end in it."""
    same: list[Page] = []
    for page in pages:
        behind = start + len(page.body)
        if behind > end or read(start, len(page.body)) != page.body:
            break
        if behind < end and read(behind, len(_BETWEEN)) != _BETWEEN:
            break
        same.append(page)
        start = behind + len(_BETWEEN)
        _let_others_run()
    return same, start


def _same_at_back(read: Read, start: int, end: int, pages: Sequence[Page]) -> tuple[list[Page], int]:
    """Return the last pages, as far as they stand at the end of a text, and where they begin in it."""
    same: list[Page] = []
    for page in reversed(pages):
        before = end - len(page.body)
        if before < start or read(before, len(page.body)) != page.body:
            break
        if before > start and (
            before < start + len(_BETWEEN) or read(before - len(_BETWEEN), len(_BETWEEN)) != _BETWEEN
        ):
            break
        same.insert(0, page)
        end = before - len(_BETWEEN)
        _let_others_run()
    return same, end


def _read_lines(read: Read, start: int, end: int) -> bytes:
    """Read about a page, up to where an entry may end."""
    length = PAGE_BYTES
    while start + length < end:
        text = read(start, length)
        cut = text.rfind(b',\n"')
        if cut > 0:
            return text[:cut]
        length *= 2
    return read(start, end - start)


def _parse_any_layout(text: bytes) -> Document:
    """Parse an object in any layout, value by value, so that no step takes longer than one value does."""
    repeats = False

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeats
        entries = dict(pairs)
        repeats = repeats or len(entries) < len(pairs)
        return entries

    def refuse(constant: str) -> None:
        msg = f"{constant} is no JSON"
        raise CorruptDocumentError(msg)

    scan = json.JSONDecoder(object_pairs_hook=unique, parse_constant=refuse).raw_decode
    entries: dict[str, Text] = {}
    try:
        source = text.removeprefix(codecs.BOM_UTF8).decode()
        at = _expect(source, 0, "{")
        while source[at : at + 1] != "}" or entries:
            key, at = scan(source, at)
            if not isinstance(key, str):
                msg = f"a key that is no string before character {at}"
                raise CorruptDocumentError(msg)
            value, at = scan(source, _expect(source, at, ":"))
            repeats = repeats or key in entries
            entries[check_key(key)] = encode(value, key)
            at = _SPACE.match(source, at).end()  # type: ignore[union-attr]
            if source[at : at + 1] == "}":
                break
            at = _expect(source, at, ",")
        if _SPACE.fullmatch(source, at + 1) is None:
            msg = f"more text behind the object, at character {at + 1}"
            raise CorruptDocumentError(msg)
    except (ValueError, UnserializableValueError) as error:
        raise CorruptDocumentError(str(error)) from error
    except RecursionError:
        if deeper_than(MAX_DEPTH, text):
            msg = f"nested more than {MAX_DEPTH} levels deep"
            raise CorruptDocumentError(msg) from None
        raise  # the caller's own stack is the deep one
    return Document(_pages_of(entries), repeats=repeats)


def _expect(source: str, at: int, mark: str) -> int:
    """Return the place behind ``mark`` and the white space around it."""
    at = _SPACE.match(source, at).end()  # type: ignore[union-attr]
    if source[at : at + 1] != mark:
        msg = f"no {mark!r} at character {at}" if source.strip("\0 \t\r\n") else "it is empty"
        raise CorruptDocumentError(msg)
    return _SPACE.match(source, at + 1).end()  # type: ignore[union-attr]


def _pages_of(entries: Mapping[str, Text | Raw]) -> list[Page]:
    """Write entries down as one page, or as several if that is too long."""
    if not entries:
        return []
    page = Page.of(entries)
    if len(page.text) <= 2 * PAGE_BYTES or len(entries) == 1:
        return [page]
    _let_others_run()
    middle = len(entries) // 2
    items = list(entries.items())
    return _pages_of(dict(items[:middle])) + _pages_of(dict(items[middle:]))


def _lines(entries: Mapping[str, Text | Raw]) -> bytes:
    parts: list[Any] = [_BETWEEN] * (3 * len(entries))  # filled and joined without a loop: it is in every cycle
    parts[0::3] = key_texts(entries)
    parts[1::3] = entries.values()
    return b"".join(parts[:-1])


def _let_others_run() -> None:
    """Offer the interpreter to the event loop's thread, which would else wait out the switch interval every time."""
    global _offered  # noqa: PLW0603 - threads that race for it offer once more or less
    if time.monotonic() - _offered > _OFFER_SECONDS:
        time.sleep(0)
        _offered = time.monotonic()


_offered = 0.0
