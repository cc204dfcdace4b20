"""The store in one plain JSON file, and its sessions, which hold the lock, read the file under it and replace it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..._model.snapshot import Changes
from ..._printable import printable
from ...errors import DurabilityUnknownError, TooManyDigitsError
from ...types import Holder
from ..protocol import CorruptStateError, Traffic
from .access import Access, check_writable
from .atomic import replace
from .document import EMPTY, Document
from .events import FileSubscription
from .lease import FileLease, Leases
from .lock import FileLock, HeldLock
from .names import move_aside, remove_leftovers
from .opening import open_to_read, read_at
from .parse import parse
from .syncing import make_durable, make_name_durable
from .tally import Tally

_logger = logging.getLogger("persistent_context")
_SECOND_LOOKS: Final = 5
_SECOND_LOOK_SECONDS: Final = 0.02


class JsonFileStore:
    """One plain JSON file, and the lock file beside it; see :class:`Store`.

    Args:
        path: the real path of the file: absolute, without symlinks.
        also: other files that are replaced under the same lock.
    """

    def __init__(self, path: str, *, also: Sequence[str] = ()) -> None:
        self.path: Final = path
        self._replaced: Final = (path, *also)
        self._lock: Final = FileLock(f"{path}.lock", path)
        self._leases: Final = Leases(path)
        self._known = EMPTY
        self._looked_for_leftovers = False
        self._warned_of: int | None = None
        self._bytes_read: Final = Tally()
        self._commits = self._bytes_written = 0  # counted by the holder of the lock

    def snapshot(self, *, whole: bool = False) -> Document:  # noqa: ARG002 - a document is never read in part
        """Return the document in the file, or EMPTY if there is none.

        Raises:
            CorruptStateError: the file is not a JSON object.
            TooManyDigitsError: it holds an integer that cannot be read.
            OSError: it cannot be read.
        """
        document, fd = self.read()
        if fd is not None and not document.exists:
            os.close(fd)
            document, fd = self.read_finished()
        if fd is not None:
            os.close(fd)
        return document

    def read_finished(self) -> tuple[Document, int | None]:
        """Return what :meth:`read` does, but look again if a program may be writing the file in place."""
        for _ in range(_SECOND_LOOKS):
            with contextlib.suppress(CorruptStateError):
                document, fd = self.read()
                if document.exists or fd is None:
                    return document, fd
                os.close(fd)  # it is empty
            time.sleep(_SECOND_LOOK_SECONDS)
        return self.read()

    def read(self) -> tuple[Document, int | None]:
        """Return what :meth:`snapshot` does, and the descriptor that it was read through, for the caller to close."""
        try:
            fd, size = open_to_read(self.path)
        except FileNotFoundError:
            return EMPTY, None
        try:
            document = parse(functools.partial(read_at, fd), size, self._known)
            if document.repeats:
                self._warn_of_repeats(hash(read_at(fd, 0, size)))
        except BaseException as error:
            os.close(fd)
            if isinstance(error, TooManyDigitsError):
                error.about(self.path)
            raise
        self._bytes_read.add(size)
        self._known = document
        return document, fd

    def begin(self, purpose: str, *, wait: bool) -> JsonFileSession | None:
        """Take the lock; see :meth:`Store.begin`."""
        began = time.monotonic()
        held = self._lock.acquire(purpose, wait=wait)
        if held is None:
            return None
        session = JsonFileSession(self, held, time.monotonic() - began if held.waited else 0.0)
        try:
            if held.holder_crashed or not self._looked_for_leftovers:
                for leftover in itertools.chain.from_iterable(map(remove_leftovers, self._replaced)):
                    _logger.info("removed a temporary file left by a crashed writer: %s", printable(leftover))
                self._looked_for_leftovers = True
        except BaseException:
            session.close()
            raise
        return session

    def abandon_vain_wait(self) -> bool:
        """End a wait for a lock file that was deleted; see :meth:`Store.abandon_vain_wait`."""
        return self._lock.abandon_vain_wait()

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> FileSubscription:
        """Call a function when the file may have changed; see :meth:`Store.subscribe`."""
        return FileSubscription(self.path, notify, fail)

    def lease(self, name: str, *, lasting: bool) -> FileLease:
        """Return the lease of a name; see :meth:`Store.lease`."""
        return self._leases.lease(name, lasting=lasting)

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the lock; with ``probe``, without trusting what it says about itself."""
        return self._lock.holder(probe=probe)

    def traffic(self) -> Traffic:
        """Return how much this process has read and written."""
        return Traffic(self._commits, self._bytes_read.total(), self._bytes_written)

    def close(self) -> None:
        """Close the lock file, unless it is locked."""
        self._lock.close()

    def after_fork_in_child(self) -> None:
        """Close the lock file in a forked child; the lock stays with the parent."""
        self._lock.after_fork_in_child()

    def expect(self, document: Document) -> None:
        """Set what the file may hold next: if it does, reading it is only a comparison."""
        self._known = document

    def note_commit(self, document: Document, written: int) -> None:
        """Note what a session has written to the file."""
        self._known = document
        self._commits += 1
        self._bytes_written += written

    def _warn_of_repeats(self, content: int) -> None:
        """Warn once about the same content: a watcher reads it many times a second."""
        if content != self._warned_of:
            _logger.warning("%s contains duplicate keys; the last value of each is used", printable(self.path))
            self._warned_of = content


class JsonFileSession:
    """A held lock, and the document read under it; see :class:`Session`.

    Args:
        store: the file.
        lock: its lock.
        waited: how long acquiring it had to wait, in seconds.
    """

    def __init__(self, store: JsonFileStore, lock: HeldLock, waited: float) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self._store: Final = store
        self.lock: Final = lock
        self._since: Final = time.monotonic()
        self._document: Document | None = None
        self._old_fd: int | None = None
        """The descriptor that the document was read through. While it is open, a replaced file is not freed: on ext4,
        freeing takes seven times as long as replacing, and so waits until the lock is released."""
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
        path = self._store.path
        self._close_old()
        try:
            self._document, self._old_fd = self._store.read()
        except CorruptStateError as error:
            check_writable(path)
            with contextlib.suppress(FileNotFoundError):  # it was removed in between, maybe with its directory
                aside = move_aside(path, durable=True)
                _logger.warning(
                    "%s is not a JSON object (%s): moved aside to %s", printable(path), str(error), printable(aside)
                )
            self._document = EMPTY

    def commit(self, changes: Changes, *, durable: bool) -> Document:
        """Replace the file if there are changes."""
        old = self.snapshot
        access = self.share(durable=durable)
        if changes:
            self._replace(old.changed(changes.texts, changes.moved), access, durable=durable)
        elif durable and old.exists:  # it may have been written without a sync
            self._complete = make_durable
        return self.snapshot

    def share(self, *, durable: bool) -> Access | None:
        """Give the lock file the permissions of the file, and note whether this session promises durability."""
        access = Access.of(self._store.path)
        self.lock.share(access)
        self.lock.promised = self.lock.promised or durable
        return access

    def assume(self, document: Document) -> None:
        """Set the content of the file, so that the session need not read it."""
        self._document = document

    def read(self) -> Document:
        """Read the file, even if it was already read.

        Raises:
            CorruptStateError: the file is not a JSON object.
        """
        self._close_old()
        self._document, self._old_fd = self._store.read_finished()
        return self._document

    def fold(self, new: Document) -> None:
        """Replace the file by the content of both it and its journal, and make it survive a power loss at once.

        Raises:
            SessionLostError: nothing was written.
            DurabilityUnknownError: it was replaced, but may not survive a power loss.
            OSError: nothing was written.
        """
        access = self.share(durable=True)
        if new is not self.snapshot:
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
        if complete is not None:
            complete(self._store.path, new_directory=self.lock.in_new_directory)
            self.lock.note_durable_directory()

    def _replace(self, new: Document, access: Access | None, *, durable: bool) -> None:
        path = self._store.path
        check_writable(path)
        try:
            if self.snapshot.repeats:
                self._keep(durable=durable)
            if sys.platform == "win32":  # Windows does not replace an open file
                self._close_old()
            written = replace(path, new.pieces(), access, durable=self.lock.promised, check=self.lock.check)
        except DurabilityUnknownError:
            self._document = new
            raise
        except FileNotFoundError:
            self._wait_for_the_lock_file_to_go()
            raise
        self._document, self.bytes_written = new, written
        self._store.note_commit(new, written)
        if durable:
            self._complete = make_name_durable

    def _close_old(self) -> None:
        fd, self._old_fd = self._old_fd, None
        if fd is not None:
            os.close(fd)

    def _keep(self, *, durable: bool) -> None:
        path = self._store.path
        aside = move_aside(path, durable=durable, keep=True)
        _logger.warning("%s contained duplicate keys; the original is kept in %s", printable(path), printable(aside))

    def _wait_for_the_lock_file_to_go(self) -> None:
        """Raise SessionLostError if the directory is being removed: its files, and the lock file, go one by one."""
        for _ in range(_SECOND_LOOKS):
            self.lock.check()
            time.sleep(_SECOND_LOOK_SECONDS)
