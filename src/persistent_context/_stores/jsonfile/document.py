"""The JSON object as pages of text, split by key and never decoded: lookup, changes, comparison, output.

A page holds about 64 kB of lines, one entry per line. A document is immutable; a changed one shares its unchanged pages
with the original. So re-reading an unchanged part costs a comparison of bytes, a change costs one page, and no step
holds the interpreter for longer than one page takes.

Threads share documents without a lock. What a document or page caches about itself (how it splits, where its keys are)
is computed separately and set by a single assignment, so that other threads always see it complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from ..._model.snapshot import Snapshot
from ..._model.values import MISSING, MaybeText, Raw, Text
from .page import BETWEEN, PAGE_BYTES, Page, let_others_run, pages_of

_PASSES_BEFORE_INDEX: Final = 16
OPEN: Final = b"{\n"
CLOSE: Final = b"\n}\n"
_revisions: Final = itertools.count(1)


class Document:
    """An immutable JSON object, from key to text, in order."""

    __slots__ = ("_index", "_passes", "exists", "pages", "repeats", "revision")

    def __init__(self, pages: Iterable[Page] = (), *, exists: bool = True, repeats: bool = False) -> None:
        self.revision: Final = next(_revisions)
        self.pages: Final = tuple(_gathered(pages))
        self.exists: Final = exists
        """Whether it was read from a file; False if the file is missing or was moved aside."""
        self.repeats: Final = repeats
        """Whether the file had duplicate keys, so that writing this document would lose data."""
        self._index: Mapping[str, int] | None = None  # the page number of every key; never changed once set
        self._passes = 0  # how often all pages were searched for some keys
        for page in self.pages:
            page.keep_entries(keep=len(self.pages) == 1)

    def keys(self) -> Iterator[str]:
        """Yield all keys, in order."""
        return itertools.chain.from_iterable(self.parts())

    def parts(self) -> Iterator[dict[str, Raw]]:
        """Yield the texts by key, a page at a time."""
        for page in self.pages:
            yield page.entries()
            self._let_others_run()

    def get(self, keys: Iterable[str]) -> dict[str, Text]:
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

    def changes_since(self, older: Snapshot) -> dict[str, MaybeText]:
        """Return the changes that turn an older state into this one."""
        pages = older.pages if isinstance(older, Document) else tuple(map(Page.of, older.parts()))
        shared = {id(page) for page in self.pages} & {id(page) for page in pages}
        before: dict[str, Raw] = {}
        after: dict[str, Raw] = {}
        for entries, some in ((before, pages), (after, self.pages)):
            for page in some:
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
        """Index the pages of all keys; this takes no longer than a few passes."""
        index: dict[str, int] = {}
        for number, entries in enumerate(self.parts()):
            index.update(dict.fromkeys(entries, number))
        return index

    def _let_others_run(self) -> None:
        if len(self.pages) > 1:
            let_others_run()


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


EMPTY: Final = Document(exists=False)
