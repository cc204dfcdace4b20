"""The state that results from a JSON file and the records of its journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..._model.snapshot import Snapshot
from ..._model.values import MISSING, MaybeText, Raw, Text
from ..jsonfile.document import Document
from ..jsonfile.page import let_others_run
from .overlay import Overlay

_PART_ENTRIES: Final = 4096
_revisions: Final = itertools.count(-1, -1)  # those of documents are positive


class JournalSnapshot:
    """An immutable state: a document, overlaid with the changes of records.

    Args:
        document: the content of the JSON file.
        overlay: the changes of the records since.
        generation: the generation of the journal.
        number: the number of its last line.
        exists: whether anything is stored at all.
    """

    __slots__ = ("document", "exists", "generation", "number", "overlay", "revision")

    def __init__(self, document: Document, overlay: Overlay, generation: str, number: int, *, exists: bool) -> None:
        self.revision: Final = next(_revisions)
        self.generation: Final = generation
        self.document: Final = document
        self.overlay: Final = overlay
        self.number: Final = number
        self.exists: Final = exists

    def get(self, keys: Iterable[str]) -> dict[str, Text]:
        """Return the texts of those keys that are present."""
        found: dict[str, Text] = {}
        unchanged = []
        for key in keys:
            entry = self.overlay.get(key)
            if entry is None:
                unchanged.append(key)
            elif entry.text is not MISSING:
                found[key] = entry.text
        if unchanged:
            found.update(self.document.get(unchanged))
        return found

    def keys(self) -> Iterator[str]:
        """Yield all keys, in order."""
        return itertools.chain.from_iterable(self.parts())

    def parts(self) -> Iterator[Mapping[str, Raw]]:
        """Yield the texts by key, a bounded number at a time."""
        entries = dict(self.overlay.entries())
        for page in self.document.parts():
            if entries.keys().isdisjoint(page):
                yield page
                continue
            part = {}
            for key, text in page.items():
                entry = entries.get(key)
                if entry is None:
                    part[key] = text
                elif not entry.moved:
                    del entries[key]
                    if entry.text is not MISSING:
                        part[key] = Raw(entry.text)
            yield part
        last = sorted((entry.place, key, entry.text) for key, entry in entries.items() if entry.text is not MISSING)
        for start in range(0, len(last), _PART_ENTRIES):
            yield {key: Raw(text) for _, key, text in last[start : start + _PART_ENTRIES]}
            let_others_run()

    def changes_since(self, older: Snapshot) -> dict[str, MaybeText]:
        """Return the changes that turn an older state into this one."""
        if not isinstance(older, JournalSnapshot):
            return self._compared(older, self.document.changes_since(older))
        if older.document is self.document and older.generation == self.generation:
            if older.number <= self.number:
                newer = self.overlay.newer_than(older.overlay, older.number)
                return {key: entry.text for key, entry in newer}
            return self._compared(older, [key for key, _ in older.overlay.newer_than(self.overlay, self.number)])
        changes = self.document.changes_since(older.document)
        return self._compared(older, changes.keys() | older.overlay.entries().keys())

    def _compared(self, older: Snapshot, keys: Iterable[str]) -> dict[str, MaybeText]:
        """Return the changes among some keys and those in the overlay."""
        compared = {*keys, *self.overlay.entries()}
        before, now = older.get(compared), self.get(compared)
        return {key: now.get(key, MISSING) for key in compared if before.get(key) != now.get(key)}

    @property
    def is_ahead(self) -> bool:
        """Whether the JSON file lacks something of it: a change, or its very existence."""
        return bool(self.overlay) or self.exists != self.document.exists

    def folded(self) -> Document:
        """Return the document that the JSON file has to hold for the records to be no longer needed."""
        entries = self.overlay.entries()
        if not entries:
            return Document() if self.exists and not self.document.exists else self.document
        order = sorted(entries, key=lambda key: entries[key].place)
        return self.document.changed(
            {key: entries[key].text for key in order}, [key for key in order if entries[key].moved]
        )
