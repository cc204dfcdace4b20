"""The JSON object as pages of text, split by key and never decoded: looked up, changed, compared, written.

A page holds about 64 kB of lines, one entry a line. A document is immutable; a changed one shares the pages that did
not change with the one it came from. So a re-read of an unchanged part costs a comparison of bytes, a change costs one
page, and no step holds the interpreter for longer than a page takes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from ._values import MISSING, MaybeText, Raw, Text, key_texts, split

PAGE_BYTES: Final = 64 * 1024
_SPLIT_INSTEAD_OF_SEARCH: Final = 16
_SPLICED_SHARE: Final = 20
_OFFER_SECONDS: Final = 0.002
_PAGE_ENTRIES: Final = 4096
_NEAR: Final = 16
OPEN: Final = b"{\n"
BETWEEN: Final = b",\n"
CLOSE: Final = b"\n}\n"


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

    def edited(self, body: bytes) -> Page | None:
        """Return the page of these lines if it only has other texts of the same keys, or None; parses those alone."""
        old, new = self.text, b"{" + body + b"}"
        front = _common_start(old, new)
        back = _common_end(old, new, min(len(old), len(new)) - front)
        start = old.rfind(b"\n", 0, front) + 1 or 1  # every line of a page is an entry
        end = new.find(BETWEEN, len(new) - back)
        end = len(new) - 1 if end < 0 else end
        before, after = Page.parse(old[start : end + len(old) - len(new)]), Page.parse(new[start:end])
        if before is None or after is None or [*before.entries()] != [*after.entries()]:
            return None
        return Page(new, self.entries() | after.entries())

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

    def changed(self, changes: Mapping[str, MaybeText], moved: Collection[str] = ()) -> Document:
        """Return the document with texts replaced, appended or (MISSING) removed; ``moved`` keys go to the end."""
        pages = [[page] for page in self.pages]
        new = {key: text for key, text in changes.items() if text is not MISSING}
        for index, known in self._pages_with(set(changes)):
            here = {key: new[key] for key in changes.keys() & known.keys() if key in new and key not in moved}
            if len(here) == len(changes.keys() & known.keys()) and _SPLICED_SHARE * len(here) <= len(known):
                pages[index] = [self.pages[index].spliced(here, known)]
                for key in here:
                    del new[key]
                continue
            entries: dict[str, Text | Raw] = dict(known)
            for key in changes.keys() & known.keys():
                if key in here:
                    entries[key] = new.pop(key)
                else:
                    del entries[key]
            pages[index] = pages_of(entries)
        added = bool(new)
        if new:
            last = pages.pop() if pages else []
            tail = last.pop() if last else None
            # In the order of the changes, behind all that is there.
            pages += [last, pages_of({**(tail.entries() if tail else {}), **{k: new[k] for k in changes if k in new}})]
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
        before = OPEN
        for page in self.pages:
            yield before
            yield page.body
            before = BETWEEN
        yield CLOSE

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
            let_others_run()


EMPTY: Final = Document(present=False)


def pages_of(entries: Mapping[str, Text | Raw]) -> list[Page]:
    """Write entries down as one page, or as several if that is too long."""
    if not entries:
        return []
    share = _PAGE_ENTRIES
    if len(entries) <= share:
        page = Page.of(entries)
        if len(page.text) <= 2 * PAGE_BYTES or len(entries) == 1:
            return [page]
        share = -(-len(entries) // 2)
    pages = []
    items = iter(entries.items())
    while some := dict(itertools.islice(items, share)):
        pages += pages_of(some)
        let_others_run()
    return pages


def _common_start(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts have in common at their start, or a few less."""
    low, high = 0, min(len(one), len(other)) + 1
    while high - low > _NEAR:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _common_end(one: bytes, other: bytes, longest: int) -> int:
    """Return how many of the ``longest`` last bytes two texts have in common, or a few less."""
    low, high = 0, longest + 1
    while high - low > _NEAR:
        middle = (low + high) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle
    return low


def _lines(entries: Mapping[str, Text | Raw]) -> bytes:
    parts: list[Any] = [BETWEEN] * (3 * len(entries))  # filled and joined without a loop: it is in every cycle
    parts[0::3] = key_texts(entries)
    parts[1::3] = entries.values()
    return b"".join(parts[:-1])


def let_others_run() -> None:
    """Offer the interpreter to the event loop's thread, which would else wait out the switch interval every time."""
    global _offered  # noqa: PLW0603 - threads that race for it offer once more or less
    if time.monotonic() - _offered > _OFFER_SECONDS:
        time.sleep(0)
        _offered = time.monotonic()


_offered = 0.0
