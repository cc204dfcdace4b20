"""A page: an immutable run of about 64 kB of lines, one entry per line, split by key and never decoded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from ..._model.faults import is_key
from ..._model.values import Raw, Text, key_texts, split

PAGE_BYTES: Final = 64 * 1024
_SPLIT_INSTEAD_OF_SEARCH: Final = 16
_SPLICED_SHARE: Final = 20
_OFFER_SECONDS: Final = 0.002
_PAGE_ENTRIES: Final = 4096
_NEAR: Final = 16
BETWEEN: Final = b",\n"


class Page:
    """An immutable run of entries."""

    __slots__ = ("_entries", "text")

    def __init__(self, text: bytes, entries: dict[str, Raw] | None = None) -> None:
        self.text: Final = text
        """The entries as a JSON object: ``{"a": 1,\\n"b": 2}``."""
        self._entries = entries

    @classmethod
    def of(cls, entries: Mapping[str, Text | Raw]) -> Page:
        """Return entries as a page."""
        raw = {key: text if isinstance(text, Raw) else Raw(text) for key, text in entries.items()}
        return cls(b"{" + _lines(entries) + b"}", raw)

    @classmethod
    def parse(cls, body: bytes) -> Page | None:
        """Return the page of these lines, or None if they are invalid or not exactly as this module writes them."""
        text = b"{" + body + b"}"
        entries = split(text)
        if not entries or _lines(entries) != body or body.count(b"\n") != len(entries) - 1:
            return None  # even if only a value spans lines: a page is split at line ends without parsing
        return cls(text, entries)

    def edited(self, body: bytes) -> Page | None:
        """Return the page of these lines, parsing only the changed ones; None if the keys are not the same."""
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
        """Trade memory for speed: set whether the page caches how it splits."""
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
        """Return the pages that replace this one after some of its texts are changed and some keys are removed."""
        entries = self.entries()
        if not removed and _SPLICED_SHARE * len(texts) <= len(entries):
            page = self._spliced(texts, entries)
            if len(page.text) <= 2 * PAGE_BYTES:
                return [page]
        return pages_of({**{key: text for key, text in entries.items() if key not in removed}, **texts})

    def _spliced(self, texts: Mapping[str, Text], entries: dict[str, Raw]) -> Page:
        """Return the page with new texts for some keys; much cheaper than writing all of it again."""
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


def pages_of(entries: Mapping[str, Text | Raw]) -> list[Page]:
    """Return entries as one page, or as several if one would be too long."""
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
