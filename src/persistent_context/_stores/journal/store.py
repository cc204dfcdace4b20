"""The store in a JSON file, with or without a journal beside it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ..._model.snapshot import Changes, Snapshot
from ..._printable import printable
from ...errors import ContextUsageError
from ...types import Holder
from ..jsonfile.events import FileSubscription
from ..jsonfile.lease import FileLease
from ..jsonfile.store import JsonFileStore
from ..protocol import CorruptStateError, Session, Traffic
from .file import journal_exists
from .idle import QUIET_SECONDS, Idle
from .journal import Journal
from .session import JournalSession
from .state import Fault, State

_READINGS: Final = 10
_logger = logging.getLogger("persistent_context")


class JournalStore:
    """A JSON file, and the journal beside it if there is one; see :class:`Store`.

    Args:
        path: the real path of the JSON file: absolute, without symlinks.
    """

    def __init__(self, path: str) -> None:
        self._plain: Final = JsonFileStore(path, also=(f"{path}.journal",))
        self._journal: Final = Journal(path, self._plain.file.expect)
        self._idle: Final = Idle()
        self._deleted = ""
        """The generation of the last journal that a reader has found to be deleted."""

    def want(self, *, journal: bool | None) -> None:
        """Make the next session that writes begin a journal, or end it; see :meth:`Store.want`."""
        if journal and os.name == "nt":
            msg = "journal=True does not work on Windows, which does not replace a file that others have open"
            raise ContextUsageError(msg).about(self._journal.data_path)
        if journal is not None:
            self._journal.wanted = journal

    def snapshot(self, *, whole: bool = False) -> Snapshot:
        """Return the state of the JSON file and of its journal.

        Args:
            whole: whether a journal that is damaged in part is an error; otherwise its intact lines count.

        Raises:
            CorruptStateError: the JSON file is not a JSON object, or was replaced each time it was read.
            OSError: it or its journal cannot be read.
        """
        for number in range(_READINGS):
            state = self._journal.read(self._plain.snapshot)
            if state is None:
                return self._plain.snapshot()
            if state.is_deleted:
                self._save_deleted(state)
                return state.snapshot
            if not state.file.is_at_path():  # the JSON file may be that of the next journal
                continue
            if not state.is_damaged:
                self._journal.known = state
                return state.snapshot
            if number and whole:
                raise CorruptStateError(state.damage)
            if number:  # the first time, an append in progress may look like damage
                return state.snapshot
        msg = "it was replaced each time it was read"
        raise CorruptStateError(msg)

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> Session | None:  # noqa: ARG002 - always
        """Take the lock; see :meth:`Store.begin`."""
        plain = self._plain.begin(purpose, wait=wait)
        if plain is None:
            return None
        try:
            if not self._journal.is_needed():
                return plain
            return JournalSession(self._journal, plain, partial(self._idle.touch, self._fold_if_idle))
        except BaseException:
            plain.close()
            raise

    def is_waiting(self) -> bool:
        """Whether a thread waits for the lock; see :meth:`Store.is_waiting`."""
        return self._plain.is_waiting()

    def abandon_vain_wait(self) -> bool:
        """End a wait for a lock file that was deleted; see :meth:`Store.abandon_vain_wait`."""
        return self._plain.abandon_vain_wait()

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> FileSubscription:
        """Call a function when one of the files may have changed; see :meth:`Store.subscribe`."""
        return FileSubscription(self._journal.data_path, notify, fail, also=(self._journal.path,))

    def lease(self, name: str, *, lasting: bool) -> FileLease:
        """Return the lease of a name; see :meth:`Store.lease`."""
        return self._plain.lease(name, lasting=lasting)

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the lock; see :meth:`Store.holder`."""
        return self._plain.holder(probe=probe)

    def traffic(self) -> Traffic:
        """Return how much this process has read and written."""
        return self._journal.added_to(self._plain.traffic())

    def close(self) -> None:
        """Close the files that are open, unless they are in use."""
        self._plain.close()
        self._journal.known = None

    def after_fork_in_child(self) -> None:
        """Close, in a forked child, the files that are open in its parent."""
        self._plain.after_fork_in_child()
        self._journal.known = None

    def _fold_if_idle(self, *, at_exit: bool = False) -> bool:
        known = self._journal.known
        if known is not None and not known.file.has_its_descriptor():  # the program has closed it by mistake
            self.snapshot()
            known = self._journal.known
        if known is None or not (known.file.is_at_path() or self._was_deleted(known)):
            return True
        is_urgent = at_exit or self._journal.is_distrusted(known)
        if not is_urgent and not known.file.is_idle_since(time.time() - QUIET_SECONDS / 2):
            return False
        session = self.begin("checkpoint", wait=False)
        if session is None:
            return False
        try:
            session.commit(Changes(folds=True), durable=False)
        finally:
            session.close()
        return True

    def _save_deleted(self, state: State) -> None:
        """Have the changes in a deleted journal written into the JSON file, even if this process only reads it."""
        if self._deleted == state.generation or not state.snapshot.is_ahead:
            return
        self._deleted = state.generation
        if state.file.writable:
            self._idle.touch(self._fold_if_idle)
        else:
            _logger.warning(
                "%s: %s; this process has its changes, but may not write them into the file",
                printable(self._journal.data_path), Fault.DELETED.value,
            )  # fmt: skip

    def _was_deleted(self, known: State) -> bool:
        """Whether a journal that is gone was deleted, so that its changes are to be written into the JSON file.

        Otherwise another process has folded it, or the JSON file is gone or was replaced as well: a reset.
        """
        if not os.path.lexists(self._journal.data_path):
            return False
        if known.extended().is_announced and journal_exists(self._journal.path):  # by far the most frequent case
            return False
        state = self._journal.read(self._plain.snapshot)
        return state is not None and state.is_deleted
