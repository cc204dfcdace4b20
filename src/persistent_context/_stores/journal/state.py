"""The known state of a JSON file and its journal, and how appended lines bring it up to date."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from ..._model.snapshot import Changes
from ..._model.values import MISSING, MaybeText
from ..jsonfile.document import Document
from .base import Base
from .file import JournalFile
from .history import contents
from .overlay import Changing, Overlay
from .record import Fold, Header, Record
from .snapshot import JournalSnapshot

_SHORTEST_TO_FOLD_BYTES: Final = 1024 * 1024


class Fault(enum.Enum):
    """Why a journal has to be folded into the JSON file before anything else is committed."""

    FOLDED = "the JSON file was replaced by a checkpoint that ended before it began a new journal"
    FOREIGN = "the JSON file was replaced by a program that does not use the journal"
    DAMAGED = "part of the journal is damaged"
    DELETED = "the journal was deleted while it was in use"


class State(NamedTuple):
    """A JSON file, its journal up to a point, and the resulting state. Immutable."""

    file: JournalFile
    base: Base
    snapshot: JournalSnapshot
    header: Header | None = None
    """None if it is damaged."""
    end: int = 0
    """The offset after the last valid line."""
    last: int = -1
    """The number of that line; that of the header is 0."""
    folds: tuple[Fold, ...] = ()
    """The folds in it: more than one if no new journal could be begun after the first."""
    is_damaged: bool = False
    """Whether any line before ``end`` is damaged or missing."""
    is_deleted: bool = False
    """Whether the journal is no longer at its path, though no process ended it."""

    @classmethod
    def of(cls, file: JournalFile, base: Base) -> State:
        """Return the state at the end of a journal.

        Raises:
            JournalVersionError: a newer version of this package wrote the journal.
        """
        return cls(file, base, JournalSnapshot(base.document, Overlay(), "", 0, exists=base.document.exists)).extended()

    @property
    def generation(self) -> str:
        """The generation of the journal, which distinguishes its lines from those of others."""
        return self.header.generation if self.header else ""

    @property
    def has_ended(self) -> bool:
        """Whether the last line announces that the journal is removed."""
        return self.is_announced and self.folds[-1].ends

    @property
    def damage(self) -> str:
        """The message for a journal that is damaged in part."""
        return f"{Fault.DAMAGED.value}: {self.file.path}"

    @property
    def fault(self) -> Fault | None:
        """Why the journal has to be folded before the next commit; None if it does not."""
        if self.is_deleted:
            return Fault.DELETED
        if self.is_damaged or self.header is None:
            return Fault.DAMAGED
        if self.base.fingerprint == self.header.follows:
            return None
        return Fault.FOREIGN if self.is_replaced else Fault.FOLDED

    @property
    def is_replaced(self) -> bool:
        """Whether a program that does not use the journal has replaced or deleted the JSON file; False if unknown."""
        if self.header is None or self.base.fingerprint == self.header.follows:
            return False
        return self.folded_number is None

    @property
    def most_bytes(self) -> int:
        """The size above which it is folded: this keeps the cost of a change independent of the JSON file's size."""
        return max(_SHORTEST_TO_FOLD_BYTES, self.base.fingerprint.size)

    @property
    def folded_number(self) -> int | None:
        """The number of the last fold whose result is the current JSON file; None if there is none."""
        numbers = (fold.number for fold in reversed(self.folds) if fold.becomes == self.base.fingerprint)
        return next(numbers, None)

    @property
    def is_announced(self) -> bool:
        """Whether the last line is a fold."""
        return bool(self.folds) and self.folds[-1].number == self.last

    def is_left_at(self, base: Base) -> bool:
        """Whether nobody has replaced the JSON file since the journal was begun, so that the file lacks its records.

        If the last line is a fold, the file may have been replaced several times, until it was as before.
        """
        if not self.is_announced:
            return self.fault is None and self.base.is_still(base)
        is_done = self.folds[-1].becomes == base.fingerprint
        return self.fault is None and not is_done and self.base.is_still(base, unmodified=True)

    def is_contained_in(self, document: Document) -> bool:
        """Whether a document has the latest changes of all records, no matter who has written them there."""
        entries = self.snapshot.overlay.entries()
        found = document.get(entries)
        return all(found.get(key, MISSING) == entry.text for key, entry in entries.items())

    def on(self, base: Base) -> State:
        """Return the state with the JSON file as it is now."""
        state = self._replace(base=base)
        if base.document is self.base.document and base.fingerprint == self.base.fingerprint:
            return state
        if self.folded_number is not None:  # then the overlay lacks what only the old JSON file had
            return State.of(self.file, base)
        overlay = self.snapshot.overlay
        return _over(state, overlay, exists=base.document.exists or bool(overlay))

    def extended(self) -> State:
        """Return the state with everything that was appended since."""
        size = self.file.size()
        if size == self.end:
            return self
        if size < self.end:  # it was truncated, and acknowledged lines with it
            return self._replace(header=None, is_damaged=True)
        changing, folds = Changing(self.snapshot.overlay), list(self.folds)
        header, end, last, exists = self.header, self.end, self.last, self.snapshot.exists
        is_damaged, is_bad = self.is_damaged, False
        for offset, number, line in contents(self.file, self.end, self.generation):
            if line is None or number <= last:  # damaged, unless it is the last: then it was never acknowledged
                is_bad = True
                continue
            is_damaged = is_damaged or is_bad or number != last + 1
            end, last = offset, number
            if isinstance(line, Record):
                changing.apply(number, _changes(line), line.deleted)
                exists = True
            elif isinstance(line, Fold):
                folds.append(line)
            else:
                header = line
        if end == self.end:
            return self
        state = self._replace(header=header, end=end, last=last, folds=tuple(folds), is_damaged=is_damaged)
        return _over(state, changing.result(), exists=exists)

    def appended(self, length: int, changes: Changes) -> State:
        """Return the state with another record, of ``length`` bytes."""
        changing, number = Changing(self.snapshot.overlay), self.last + 1
        changing.apply(number, changes.texts, changes.moved)
        snapshot = JournalSnapshot(self.base.document, changing.result(), self.generation, number, exists=True)
        return self._replace(snapshot=snapshot, end=self.end + length, last=number)

    def without_its_journal(self) -> State:
        """Return the state after the journal was deleted, but the JSON file was not touched."""
        return self._replace(is_deleted=True)


def _over(state: State, overlay: Overlay, *, exists: bool) -> State:
    """Return a state with an overlay, without what the JSON file already has."""
    if (number := state.folded_number) is not None:
        overlay = overlay.after(number)
    return state._replace(
        snapshot=JournalSnapshot(state.base.document, overlay, state.generation, state.last, exists=exists)
    )


def _changes(record: Record) -> dict[str, MaybeText]:
    gone: dict[str, MaybeText] = {key: MISSING for key in record.deleted if key not in record.set}
    return gone | {key: bytes(text) for key, text in record.set.items()}
