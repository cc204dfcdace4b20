"""The sessions of a JSON file with a journal: a commit is appended to the journal, or folded into the JSON file."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from ..._model.snapshot import Changes, Snapshot
from ..._printable import printable
from ...errors import DurabilityUnknownError
from ..jsonfile.access import Access, check_writable
from ..jsonfile.copies import keep_copy
from ..jsonfile.session import JsonFileSession
from ..jsonfile.syncing import durability_unknown
from ..protocol import CorruptStateError, SessionLostError
from .base import look, written
from .journal import Journal
from .record import Fingerprint, author_now, record_line, size_of
from .state import Fault, State

_LONGEST_RECORD_BYTES: Final = 256 * 1024
"""The size of a change above which it is folded: a reader decodes a record in one step, which stops its other threads.

In the JSON file, it is read page by page.
"""
_logger = logging.getLogger("persistent_context")


class JournalSession:
    """A held lock, and the state read under it; see :class:`Session`.

    Args:
        journal: the journal, which may not exist yet.
        plain: a session of the JSON file alone, which holds the lock.
        changed: called when the journal has something to fold, with ``soon=True`` if the journal is unreliable.
    """

    is_exclusive = True

    def __init__(self, journal: Journal, plain: JsonFileSession, changed: Callable[..., None]) -> None:
        self.waited = plain.waited
        self.held = 0.0
        self.bytes_written = 0
        self._journal: Final = journal
        self._plain: Final = plain
        self._changed: Final = changed
        self._state: State | None = None
        self._snapshot: Snapshot | None = None
        self._unsynced: State | None = None  # to be synced after the lock is released
        self._bears_damage = False

    @property
    def snapshot(self) -> Snapshot:
        """The state of the JSON file and its journal.

        Raises:
            CorruptStateError: the JSON file is not a JSON object, or part of the journal is damaged.
        """
        if self._snapshot is None:
            state = self._state = self._journal.read(self._plain.read)
            if state is not None and state.fault is Fault.DAMAGED and not self._bears_damage:
                raise CorruptStateError(state.damage)
            if state is None:
                self._snapshot = self._plain.snapshot
            else:
                self._snapshot = state.snapshot
                self._plain.assume(state.base.document)
        return self._snapshot

    def set_aside(self) -> None:
        """Move a corrupt JSON file aside; accept the intact lines of a damaged journal, which a commit then folds."""
        self._bears_damage = True
        self._plain.set_aside()

    def commit(self, changes: Changes, *, durable: bool) -> Snapshot:
        """Append the changes to the journal, or fold all of it into the JSON file with them."""
        before, state = self.snapshot, self._state
        if state is None and not self._journal.wanted:
            self._commit_to_plain_file(changes, durable=durable)
        elif state is None:
            if changes or before.exists:
                self._fold(None, changes)
        elif self._must_fold(state, changes, durable=durable):
            self._fold(state, changes)
        else:
            if changes:
                self._append(state, changes)
            if durable:
                self._plain.lock.promise()
                self._unsynced = state
        return self.snapshot

    def close(self) -> None:
        """Release the lock, and then sync the journal: nothing is acknowledged until this returns.

        Others may already build on what was appended; they, too, sync the journal before they acknowledge anything.
        """
        state, self._unsynced = self._unsynced, None
        try:
            self._plain.close()
        finally:
            self.held = self._plain.held
            if state is not None:  # even after an error: what was committed is acknowledged
                self._sync(state)

    def _commit_to_plain_file(self, changes: Changes, *, durable: bool) -> None:
        """Commit without a journal: another process has ended it since this one last looked."""
        try:
            self._plain.commit(changes, durable=durable)
        finally:
            self._snapshot, self.bytes_written = self._plain.snapshot, self._plain.bytes_written

    def _must_fold(self, state: State, changes: Changes, *, durable: bool) -> bool:
        if state.fault is not None or self._journal.is_distrusted(state):
            return bool(changes) or durable or changes.folds
        if changes.folds:
            return state.snapshot.is_ahead or self._journal.wanted is False
        if state.file.is_linked:  # a record would count in a backup, too; there, a fold that is only announced does not
            return bool(changes)
        is_long = state.end > state.most_bytes or size_of(changes.texts) > _LONGEST_RECORD_BYTES
        return bool(changes) and (is_long or self._journal.wanted is False)

    def _append(self, state: State, changes: Changes) -> None:
        check_writable(self._journal.data_path)
        line = record_line(state.generation, state.last + 1, author_now(os.getpid()), changes.texts, changes.moved)
        after = state.appended(len(line), changes)
        self._journal.share(state, self._plain)
        self._plain.lock.check()
        if not state.file.is_at_path():
            message = "the journal was deleted or replaced while it was locked; nothing was written"
            raise SessionLostError(message)
        state.file.append(line, state.end)
        self._state, self._snapshot, self.bytes_written = after, after.snapshot, len(line)
        self._journal.note_append(after, len(line))
        self._changed()

    def _fold(self, state: State | None, changes: Changes) -> None:
        """Replace the JSON file by one that has everything, and replace or remove the journal.

        If this is interrupted in between, the old journal records that the JSON file has everything.
        """
        journal, plain, author = self._journal, self._plain, author_now(os.getpid())
        check_writable(journal.data_path)
        wanted = journal.wanted
        was_ending = state is not None and state.fault is Fault.FOLDED and state.has_ended
        ends = wanted is False or (wanted is None and was_ending)
        announced = state is None or state.fault is Fault.DELETED  # no old journal could be mistaken for newer
        if state is None:
            base = look(journal.data_path, None, plain.read)
            document = base.document.changed(changes.texts, changes.moved) if changes else base.document
        else:
            base = state.base
            document = (state.appended(0, changes) if changes else state).snapshot.folded()
        if state is not None and base.identity is None:
            plain.succeed(Access.of_open(state.file.fd))
        replaces = plain.replaces(document)
        becomes = Fingerprint.of(document.pieces()) if replaces else base.fingerprint
        if state is not None:
            self._keep_what_would_be_lost(state)
            plain.lock.check()
            if state.header is not None and state.fault is not Fault.DELETED:
                announced = journal.announce_fold(state, author, becomes, ends=ends)
        try:
            plain.fold(document, replaces=replaces)
        except DurabilityUnknownError:
            self._snapshot = document
            raise
        self._snapshot, self.bytes_written = document, plain.bytes_written
        if ends:
            is_done = journal.end(plain.lock.check, announced=announced)
        else:
            renewed = partial(written, journal.data_path, document, becomes)
            new = journal.renew(renewed, author, plain.lock.check, announced=announced)
            is_done = new is not None
            if new is not None:
                self._state, self._snapshot = new, new.snapshot
        if is_done and journal.wanted is wanted:  # else it was changed in between
            journal.wanted = None

    def _keep_what_would_be_lost(self, state: State) -> None:
        """Keep whatever would be lost under another name, and log it."""
        path = self._journal.data_path
        if state.fault is Fault.DELETED:
            _logger.warning("%s: %s; its changes will be written into the file", printable(path), state.fault.value)
        elif state.fault is Fault.DAMAGED:
            aside = keep_copy(self._journal.path, durable=True)
            _logger.warning("%s: %s; it is kept in %s", printable(path), state.fault.value, printable(aside))
        if not state.is_replaced or not state.snapshot.overlay:
            return
        if state.base.identity is None:
            _logger.warning("%s was deleted: only the changes in its journal are left", printable(path))
        else:
            aside = keep_copy(path, durable=True, why="replaced")
            _logger.warning(
                "%s: %s; the changes in the journal are merged into it, and a copy from before that is kept in %s",
                printable(path), Fault.FOREIGN.value, printable(aside),
            )  # fmt: skip

    def _sync(self, state: State) -> None:
        what = "the change is in the journal"
        if self._journal.is_distrusted(state):
            error = OSError(errno.EIO, os.strerror(errno.EIO))
            raise durability_unknown(self._journal.data_path, what, error)
        try:
            state.file.sync()
        except BaseException as error:
            self._journal.distrust(state.generation)
            self._changed(soon=True)
            raise durability_unknown(self._journal.data_path, what, error) from error
