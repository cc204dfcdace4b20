"""A session on a JSON file: it holds the lock, reads the file under it, and replaces it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from ..._model.snapshot import Changes
from ..._printable import printable
from ...errors import DurabilityUnknownError, NotARegularFileError
from ..protocol import CorruptStateError
from .access import Access, check_writable
from .atomic import replace
from .copies import keep_copy
from .document import EMPTY, Document
from .file import JsonFile, several_looks
from .lock import HeldLock
from .names import move_aside
from .opening import Opened, check_regular
from .syncing import durability_unknown, make_durable, make_name_durable

_logger = logging.getLogger("persistent_context")


class JsonFileSession:
    """A held lock, and the document read under it; see :class:`Session`.

    Args:
        file: the file.
        lock: its lock.
        waited: how long acquiring it had to wait, in seconds.
    """

    is_exclusive = True

    def __init__(self, file: JsonFile, lock: HeldLock, waited: float) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self._file: Final = file
        self.lock: Final = lock
        self._since: Final = time.monotonic()
        self._document: Document | None = None
        self._old: Opened | None = None
        """The file that the document was read from. While it is open, a replaced file is not freed: on ext4, freeing
        takes seven times as long as replacing, and so waits until the lock is released."""
        self._is_open = True
        self._complete: Callable[..., None] | None = None  # left to do after the lock is released

    @property
    def snapshot(self) -> Document:
        """The document in the file.

        Raises:
            CorruptStateError: the file is not a JSON object.
        """
        return self.read() if self._document is None else self._document

    def set_aside(self) -> None:
        """Move a corrupt file aside, unless it was repaired or removed in between."""
        path = self._file.path
        self._close_old()
        try:
            self._document, self._old = self._file.read()
        except CorruptStateError as error:
            check_writable(path)
            self.succeed(Access.of(path))
            with contextlib.suppress(FileNotFoundError):  # it was removed in between, maybe with its directory
                aside = move_aside(path, durable=True)
                _logger.warning(
                    "%s is not a JSON object (%s): moved aside to %s", printable(path), str(error), printable(aside)
                )
            self._document = EMPTY

    def commit(self, changes: Changes, *, durable: bool) -> Document:
        """Replace the file if there are changes, or if those in it can no longer be made durable."""
        old = self.snapshot
        access = self.share(durable=durable)
        if changes:
            self._replace(old.changed(changes.texts, changes.moved), access, durable=durable)
        elif durable and self.replaces(old):
            self._replace(old, access, durable=True)
        elif durable and old.exists:  # it may have been written without a sync
            self._complete = make_durable
        return self.snapshot

    def share(self, *, durable: bool) -> Access | None:
        """Give the lock file the permissions of the file, and note whether this session promises durability."""
        access = Access.of(self._file.path, self._old) or self._file.former
        self.lock.share(access)
        if durable:
            self.lock.promise()
        return access

    def succeed(self, former: Access | None) -> None:
        """Set whose access the file gets if there is none: a private file does not become public by being made anew.

        Raises:
            NotARegularFileError: that is not a regular file.
        """
        if former is not None:
            check_regular(self._file.path, former.status)
        self._file.former = former

    def assume(self, document: Document) -> None:
        """Set the content of the file, so that the session need not read it."""
        self._document = document

    def read(self) -> Document:
        """Read the file, even if it was already read.

        Raises:
            CorruptStateError: the file is not a JSON object.
            SessionLostError: its path leads to another file by now.
        """
        self._close_old()
        try:
            self._document, self._old = self._file.read_finished()
        except NotARegularFileError as error:
            self._file.check_place(error)
            raise
        return self._document

    def replaces(self, new: Document) -> bool:
        """Whether the file has to be replaced for it to hold a document durably."""
        return new is not self.snapshot or (new.exists and self._file.sync_failed)

    def fold(self, new: Document, *, replaces: bool) -> None:
        """Make the file hold the content of both it and its journal, and survive a power loss at once.

        Args:
            new: the content.
            replaces: whether to replace the file.

        Raises:
            SessionLostError: nothing was written.
            DurabilityUnknownError: it was replaced, but may not survive a power loss.
            OSError: nothing was written.
        """
        access = self.share(durable=True)
        if replaces:
            self._replace(new, access, durable=True)
        elif new.exists:
            self._complete = make_durable
        self._complete_now()

    def close(self) -> None:
        """Release the lock, and then sync the directory: nothing is acknowledged until this returns.

        Others may already build on the new file; they, too, sync the directory before they acknowledge anything.
        """
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.lock.release()
        finally:
            self.held = time.monotonic() - self._since
            try:
                self._complete_now()  # even after an error: what was committed is acknowledged
            finally:
                self._close_old()

    def _complete_now(self) -> None:
        complete, self._complete = self._complete, None
        if complete is None:
            return
        try:
            complete(self._file.path, new_directory=self.lock.in_new_directory)
        except BaseException:
            self._file.sync_failed = True
            raise
        if self._file.sync_failed:  # in another thread since the commit: the kernel reports it only once
            error = OSError(errno.EIO, os.strerror(errno.EIO))
            raise durability_unknown(self._file.path, "the change is in the file", error)
        self.lock.note_durable_directory()

    def _replace(self, new: Document, access: Access | None, *, durable: bool) -> None:
        path = self._file.path
        check_writable(path)
        try:
            if self.snapshot.repeats:
                self._keep(durable=durable)
            if sys.platform == "win32":  # Windows does not replace an open file
                self._close_old()
            written = replace(path, new.pieces(), access, durable=self.lock.promised, check=self.lock.check)
        except DurabilityUnknownError:
            self._document, self._file.sync_failed = new, True
            raise
        except FileNotFoundError:
            self._wait_for_the_lock_file_to_go()
            raise
        self._document, self.bytes_written = new, written
        self._file.sync_failed, self._file.former = False, None
        self._file.note_commit(new, written)
        if durable:
            self._complete = make_name_durable

    def _close_old(self) -> None:
        old, self._old = self._old, None
        if old is not None:
            os.close(old.fd)

    def _keep(self, *, durable: bool) -> None:
        path = self._file.path
        aside = keep_copy(path, durable=durable)
        _logger.warning("%s contained duplicate keys; the original is kept in %s", printable(path), printable(aside))

    def _wait_for_the_lock_file_to_go(self) -> None:
        """Raise SessionLostError if the directory is being removed: its files, and the lock file, go one by one."""
        for _ in several_looks():
            self.lock.check()
