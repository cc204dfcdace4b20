"""The journal of a JSON file, as one process knows it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Final

from ..._printable import printable
from ..jsonfile.access import Access
from ..jsonfile.atomic import replace
from ..jsonfile.document import Document
from ..jsonfile.session import JsonFileSession
from ..jsonfile.syncing import durability_unknown, sync_directory
from ..protocol import SessionLostError, Traffic
from ..tally import Tally
from .base import Base, Identity, look
from .file import journal_exists, open_journal
from .record import Author, Fingerprint, fold_line, header_line
from .state import State

_logger = logging.getLogger("persistent_context")
_distrusted: Final[set[str]] = set()
"""The generations of journals that a sync has failed for: the kernel may have dropped what was appended, and reports it
only once. So this outlives the objects that know a journal, and a forked child has it as well."""


class Journal:
    """The journal beside a JSON file, if there is one.

    Args:
        data_path: the real path of the JSON file.
        expect: called with the document that the JSON file may hold next, so that reading it is only a comparison.
    """

    def __init__(self, data_path: str, expect: Callable[[Document], None]) -> None:
        self.data_path: Final = data_path
        self.path: Final = f"{data_path}.journal"
        self._expect: Final = expect
        self.known: State | None = None
        """The state last read or written; any thread may replace it."""
        self.wanted: bool | None = None
        """Whether the next session that writes is to begin a journal (True) or end it (False)."""
        self._bytes_read: Final = Tally()
        self._shared_for: Identity | None = None
        self.appends = self.bytes_written = self.folds = 0  # counted by the holder of the lock

    def is_needed(self) -> bool:
        """Whether there is a journal, or is to be one, or was one when this process last looked.

        Raises:
            OSError: the check failed.
        """
        known = self.known
        if known is not None and not known.file.writable:  # it may have become writable
            known = self.known = None
        if known is not None and self.wanted is None:
            return True
        is_there = journal_exists(self.path)
        if self.wanted == is_there and (is_there or known is None):  # else the known state has yet to be written
            self.wanted = None
        return is_there or bool(self.wanted) or known is not None

    def is_distrusted(self, state: State) -> bool:
        """Whether a sync of its journal has failed in this process, even if it was reopened since."""
        return state.generation in _distrusted

    def distrust(self, generation: str) -> None:
        """Note that a sync of the journal has failed."""
        _distrusted.add(generation)

    def added_to(self, traffic: Traffic) -> Traffic:
        """Return the traffic of the JSON file plus that of the journal."""
        known = self.known
        return traffic._replace(
            commits=traffic.commits + self.appends,
            bytes_read=traffic.bytes_read + self._bytes_read.total(),
            bytes_written=traffic.bytes_written + self.bytes_written,
            journal_bytes=known.end if known else 0,
            checkpoints=self.folds,
        )

    def read(self, read_document: Callable[[], Document]) -> State | None:
        """Return the current state, or None if there is no journal; reads only what was appended since the last time.

        Args:
            read_document: reads the JSON file.

        Raises:
            CorruptStateError: from reading the JSON file.
            OSError: one of the files cannot be read.
        """
        state = self._read(read_document)
        if state is not None:
            known = self.known
            self._bytes_read.add(state.end - (known.end if known and known.file is state.file else 0))
        return state

    def _read(self, read_document: Callable[[], Document]) -> State | None:
        known = self.known
        if known is not None and not known.file.has_its_descriptor():
            known.file.forget()
            known = self.known = None
        file = known.file if known and known.file.is_at_path() else open_journal(self.path, self.data_path)
        if known is None:
            return None if file is None else State.of(file, look(self.data_path, None, read_document))
        if known.file is file:
            return known.on(look(self.data_path, known.base, read_document)).extended()
        known = known.extended()
        self._expect(known.snapshot.folded())
        base = look(self.data_path, known.base, read_document)
        is_left = known.is_left_at(base)
        if file is None and is_left:
            return known.without_its_journal()
        # A fold replaces or removes the journal only after announcing itself there and replacing the JSON file.
        self._drop(known, is_folded=(known.is_announced and not is_left) or known.is_contained_in(base.document))
        return None if file is None else State.of(file, base)

    def _drop(self, known: State, *, is_folded: bool) -> None:
        """Forget a journal that is gone: from now on, the files that exist count."""
        self.known = None
        if known.snapshot.overlay and not is_folded:
            _logger.warning(
                "%s: the journal was deleted while it was in use; its changes since the last checkpoint are lost",
                printable(self.data_path),
            )

    def share(self, state: State, plain: JsonFileSession) -> None:
        """Give the journal and the lock file the permissions of the JSON file, if that has changed since last time."""
        if state.base.identity != self._shared_for:
            if access := plain.share(durable=False):
                state.file.give(access)
            self._shared_for = state.base.identity

    def note_append(self, state: State, length: int) -> None:
        """Note the state after an append."""
        self.known = state
        self.appends += 1
        self.bytes_written += length

    def announce_fold(self, state: State, author: Author, becomes: Fingerprint, *, ends: bool) -> bool:
        """Write into the journal what the JSON file is about to become; return whether that survives a power loss."""
        line = fold_line(state.generation, state.last + 1, author, becomes, ends=ends)
        state.file.append(line, state.end)
        self.bytes_written += len(line)
        if self.is_distrusted(state):
            return False
        try:
            state.file.sync()
        except BaseException:
            self.distrust(state.generation)
            raise
        return True

    def renew(
        self, find_base: Callable[[], Base], author: Author, check: Callable[[], None], *, announced: bool
    ) -> State | None:
        """Begin a new journal on a JSON file that already survives a power loss; return the state of both.

        If this fails, return None, and leave it to the next session: the old journal records that the JSON file has
        everything.

        Args:
            find_base: returns the JSON file as just written.
            author: the process that begins it, and when.
            check: raises SessionLostError if the lock was lost.
            announced: whether the old journal records that.

        Raises:
            DurabilityUnknownError: this failed, and the old journal does not record it.
        """
        with self._succeeding(announced=announced):
            check()
            self.known = state = self._begin(find_base(), author, check)
            return state
        return None

    def end(self, check: Callable[[], None], *, announced: bool) -> bool:
        """Remove the journal; return whether this succeeded. For the rest, see :meth:`renew`."""
        with self._succeeding(announced=announced):
            check()
            self._remove()
            return True
        return False

    @contextlib.contextmanager
    def _succeeding(self, *, announced: bool) -> Iterator[None]:
        """Log an error of the block; raise it if the old journal does not announce the new JSON file."""
        self.known = None
        self.folds += 1
        try:
            yield
        except (OSError, SessionLostError) as error:
            if not announced:
                cause = error if isinstance(error, OSError) else OSError(errno.EIO, str(error))
                raise durability_unknown(self.data_path, "the file was replaced, but not its journal", cause) from error
            _logger.warning(
                "%s: could not renew the journal; the next writer will try again: %s",
                printable(self.data_path),
                str(error),
            )

    def _begin(self, base: Base, author: Author, check: Callable[[], None]) -> State | None:
        generation = os.urandom(8).hex()
        header = header_line(generation, base.fingerprint, author)
        self.bytes_written += replace(self.path, [header], Access.of(self.data_path), durable=True, check=check)
        try:
            sync_directory(os.path.dirname(self.path))
        except BaseException:
            self.distrust(generation)  # it may not survive
            raise
        file = open_journal(self.path, self.data_path)
        if file is None:
            return None
        file.name_is_durable = True
        return State.of(file, base)

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        sync_directory(os.path.dirname(self.path))
