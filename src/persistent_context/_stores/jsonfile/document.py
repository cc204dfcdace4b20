"""The JSON object as pages of text, split by key and never decoded: lookup, changes, comparison, output.

A page holds about 64 kB of lines, one entry per line. A document is immutable; a changed one shares its unchanged pages
with the original. So re-reading an unchanged part costs a comparison of bytes, a change costs one page, and no step
holds the interpreter for longer than one page takes.

Threads share documents without a lock. What a document or page caches about itself (how it splits, where its keys are)
is computed separately and set by a single assignment, so that other threads always see it complete.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from ..._model.values import MISSING, MaybeText, Raw, Text, is_key, key_texts, split

PAGE_BYTES: Final = 64 * 1024
_SPLIT_INSTEAD_OF_SEARCH: Final = 16
_PASSES_BEFORE_INDEX: Final = 16
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
        """The entries as a JSON object: ``{"a": 1,\\n"b": 2}``."""
        self._entries = entries

    @classmethod
    def of(cls, entries: Mapping[str, Text | Raw]) -> Page:
        """Write entries as a page."""
        raw = {key: text if isinstance(text, Raw) else Raw(text) for key, text in entries.items()}
        return cls(b"{" + _lines(entries) + b"}", raw)

    @classmethod
    def parse(cls, body: bytes) -> Page | None:
        """Return the page of these lines, or None if they are invalid or not as this module would write them."""
        text = b"{" + body + b"}"
        entries = split(text)
        if not entries or _lines(entries) != body or body.count(b"\n") != len(entries) - 1:
            return None  # even if only a value spans lines: a page is split at line ends without parsing
        return cls(text, entries)

    def edited(self, body: bytes) -> Page | None:
        """Return the page of these lines if it has the same keys with other texts, else None; parses only those."""
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
        """The lines of the page, as in the file."""
        return memoryview(self.text)[1:-1]

    def entries(self) -> dict[str, Raw]:
        """Return the texts by key (do not change it)."""
        entries = self._entries  # read once: another thread may make the page forget them
        if entries is None:
            entries = split(self.text)
            assert entries is not None, "a page is valid once created"
        return entries

    def keep_entries(self, *, keep: bool) -> None:
        """Trade memory for speed: set whether the page remembers how it splits."""
        self._entries = self.entries() if keep else None

    def find(self, keys: AbstractSet[str]) -> dict[str, Text]:
        """Return the texts of those keys that are present."""
        entries = self._entries
        if entries is None and len(keys) > _SPLIT_INSTEAD_OF_SEARCH:
            entries = self.entries()
        if entries is not None:
            return {key: bytes(entries[key]) for key in entries.keys() & keys}
        wanted = [key for key in keys if is_key(key)]
        texts = zip(wanted, map(self._line, key_texts(wanted)), strict=True)
        return {key: text for key, text in texts if text is not None}

    def changed(self, texts: Mapping[str, Text], removed: Collection[str]) -> list[Page]:
        """Return the pages that replace this one when some of its texts are changed and some keys are removed."""
        entries = self.entries()
        if not removed and _SPLICED_SHARE * len(texts) <= len(entries):
            page = self._spliced(texts, entries)
            if len(page.text) <= 2 * PAGE_BYTES:
                return [page]
        return pages_of({**{key: text for key, text in entries.items() if key not in removed}, **texts})

    def _spliced(self, texts: Mapping[str, Text], entries: dict[str, Raw]) -> Page:
        """Return the page with other texts of some keys; much cheaper than writing all of it again."""
        text = self.text
        for key, key_text in zip(texts, key_texts(texts), strict=True):
            start = self._start(text, key_text)
            text = text[:start] + texts[key] + text[start + len(bytes(entries[key])) :]
        return Page(text, entries | {key: Raw(new) for key, new in texts.items()})

    def _line(self, key_text: bytes) -> Text | None:
        """Return the text after a key, up to the end of its line."""
        start = self._start(self.text, key_text)
        if start < 0:
            return None
        end = self.text.find(BETWEEN, start)
        return self.text[start:end]  # the last line ends with the brace

    @staticmethod
    def _start(text: bytes, key_text: bytes) -> int:
        """Return where the text after a key starts, or a negative number: entries begin only at line starts."""
        if text.startswith(key_text, 1):
            return 1 + len(key_text)
        found = text.find(b"\n" + key_text)
        return found if found < 0 else found + 1 + len(key_text)


class Document:
    """An immutable JSON object, from key to text, in order."""

    __slots__ = ("_index", "_passes", "pages", "present", "repeats")

    def __init__(self, pages: Iterable[Page] = (), *, present: bool = True, repeats: bool = False) -> None:
        self.pages: Final = tuple(_gathered(pages))
        self.present: Final = present
        """Whether it was read from a file; False if the file is missing or was moved aside."""
        self.repeats: Final = repeats
        """Whether the file had duplicate keys, so that writing this document would lose data."""
        self._index: Mapping[str, int] | None = None  # the page number of every key; never changed once set
        self._passes = 0  # how often all pages were searched for some keys
        for page in self.pages:
            page.keep_entries(keep=len(self.pages) == 1)

    def entries(self) -> Iterator[dict[str, Raw]]:
        """Yield the texts by key, a page at a time."""
        for page in self.pages:
            yield page.entries()
            self._let_others_run()

    def find(self, keys: Iterable[str]) -> dict[str, Text]:
        """Return the texts of those keys that are present; looking up keys one by one is no slower."""
        found: dict[str, Text] = {}
        for _, texts in self._find(keys):
            found.update(texts)
        return found

    def changed(self, changes: Mapping[str, MaybeText], moved: Collection[str] = ()) -> Document:
        """Return the document with texts replaced, appended or (MISSING) removed.

        Args:
            changes: the new texts.
            moved: changed keys that go to the end, in the order of the changes, even if they are present.
        """
        going = frozenset(moved)
        groups = [[page] for page in self.pages]
        new = {key: text for key, text in changes.items() if text is not MISSING}
        same_keys = True
        for number, here in self._find(changes):
            stay = {key: new.pop(key) for key in here if key in new and key not in going}
            leave = here.keys() - stay
            groups[number] = self.pages[number].changed(stay, leave)
            same_keys = same_keys and not leave
        pages = [page for group in groups for page in group]
        if new:
            tail = pages.pop().entries() if pages else {}
            pages += pages_of({**tail, **new})
        changed = Document(pages)
        if same_keys and not new and all(len(group) == 1 for group in groups) and len(changed.pages) == len(groups):
            changed._index = self._index
        return changed

    def differences(self, older: Document) -> dict[str, MaybeText]:
        """Return the changes that turn the older document into this one."""
        shared = {id(page) for page in self.pages} & {id(page) for page in older.pages}
        before: dict[str, Raw] = {}
        after: dict[str, Raw] = {}
        for pages, entries in ((older.pages, before), (self.pages, after)):
            for page in pages:
                if id(page) not in shared:
                    entries.update(page.entries())
        changes: dict[str, MaybeText] = {
            key: bytes(text) for key, text in after.items() if (old := before.get(key)) is not text and old != text
        }
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

    def _find(self, keys: Iterable[str]) -> Iterator[tuple[int, dict[str, Text]]]:
        """Yield the number of every page that holds some of the keys, and their texts."""
        missing = set(keys)
        for number, wanted in self._pages_for(missing):
            if texts := self.pages[number].find(wanted):
                missing.difference_update(texts)
                yield number, texts
            if not missing:
                break
            self._let_others_run()

    def _pages_for(self, keys: AbstractSet[str]) -> Iterable[tuple[int, AbstractSet[str]]]:
        """Return the numbers of the pages to search for some keys, in order, and the keys to search for in each."""
        if self._index is None and len(self.pages) > 1 and keys:
            self._passes += 1
            if self._passes > _PASSES_BEFORE_INDEX:
                self._index = self._make_index()
        index = self._index
        if index is None:
            return ((number, keys) for number in range(len(self.pages)))
        wanted: dict[int, set[str]] = {}
        for key in keys & index.keys():
            wanted.setdefault(index[key], set()).add(key)
        return sorted(wanted.items())

    def _make_index(self) -> Mapping[str, int]:
        """Index the pages of all keys, in no more time than a few passes take."""
        index: dict[str, int] = {}
        for number, entries in enumerate(self.entries()):
            index.update(dict.fromkeys(entries, number))
        return index

    def _let_others_run(self) -> None:
        if len(self.pages) > 1:
            let_others_run()


def pages_of(entries: Mapping[str, Text | Raw]) -> list[Page]:
    """Write entries as one page, or as several if one would be too long."""
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


def _gathered(pages: Iterable[Page]) -> Iterator[Page]:
    """Join neighbours that fit on one page, so that pages that shrank or started small do not stay small."""
    some: list[Page] = []
    length = 0
    for page in pages:
        if some and length + len(page.text) > PAGE_BYTES:
            yield _joined(some)
            some, length = [], 0
        some.append(page)
        length += len(page.text)
    if some:
        yield _joined(some)


def _joined(pages: list[Page]) -> Page:
    return pages[0] if len(pages) == 1 else Page(b"{" + BETWEEN.join(page.body for page in pages) + b"}")


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
    parts: list[Any] = [BETWEEN] * (3 * len(entries))  # filled and joined without a loop, as every cycle does this
    parts[0::3] = key_texts(entries)
    parts[1::3] = entries.values()
    return b"".join(parts[:-1])


def let_others_run() -> None:
    """Yield the interpreter to the event loop's thread, which would otherwise wait for the switch interval."""
    global _offered  # noqa: PLW0603 - a race only yields once more or less
    if time.monotonic() - _offered > _OFFER_SECONDS:
        time.sleep(0)
        _offered = time.monotonic()


_offered = 0.0

EMPTY: Final = Document(present=False)
