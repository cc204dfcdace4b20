"""The store: a document in one plain JSON file, read freely and changed in exclusive sessions.

Its interface is small, so that another store can replace it: ``read`` a snapshot, ``begin`` a session, and ``commit``
and ``close`` of the session.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections import Counter, deque
from typing import Final, Protocol

from ..._printable import printable
from ...errors import TooManyDigitsError
from ...metrics import Cycle, report
from ...types import Holder, Statistics
from .document import EMPTY, Document
from .files import make_durable, move_aside, open_to_read, read_at, remove_leftovers, replace
from .lock import FileLock
from .parse import CorruptDocumentError, parse

_logger = logging.getLogger("persistent_context")
_SECOND_LOOKS: Final = 5
_SECOND_LOOK_SECONDS: Final = 0.02


class Session(Protocol):
    """An exclusive session: no one else changes the document until it is closed."""

    def read(self) -> Document:
        """Return the document; a corrupt file is moved aside."""

    def commit(self, document: Document, *, durable: bool) -> None:
        """Replace the document, durably or not.

        If it is the same object that was read, nothing is written; if durable, the existing file is synced.
        """

    def close(self, operations: int) -> None:
        """End the session, in which this many operations completed; uncommitted changes are discarded."""


class Store(Protocol):
    """Where documents are kept."""

    had_to_wait: bool
    """Whether another process had a session when the last one was begun."""

    def read(self) -> Document:
        """Return the last committed document; takes no lock."""

    def begin(self, purpose: str, *, wait: bool) -> Session | None:
        """Begin a session; return None if another process has one and ``wait`` is false, or the wait was abandoned."""

    def is_waiting_in_vain(self) -> bool:
        """Whether a ``begin`` in another thread waits for a lock that can no longer be acquired."""

    def abandon_wait(self) -> bool:
        """Make a waiting ``begin`` return None eventually, and allow another one immediately.

        Returns False if there is none, or its session has just begun.
        """

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of a session; with ``probe``, without trusting what it says about itself."""

    def statistics(self) -> Statistics:
        """Return what was done so far."""

    def forget_after_fork(self) -> None:
        """Release, in a forked child, what belongs to its parent."""


class JsonFileStore:
    """One plain JSON file, and the lock file beside it.

    Args:
        path: the real path of the file: absolute, without symlinks.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self._lock = FileLock(f"{path}.lock", path)
        self._known = EMPTY
        self._looked_for_leftovers = False
        self._warned_of: int | None = None
        self.had_to_wait = False
        """Whether another process held the lock when it was last taken."""
        self._counts: Counter[str] = Counter()
        self._uncounted: deque[dict[str, float]] = deque()
        self._counting = threading.Lock()  # never waited for: a signal handler may have interrupted its holder

    def read(self) -> Document:
        """Return the document in the file, or EMPTY if there is none.

        Raises:
            CorruptDocumentError: the file is not a JSON object.
            TooManyDigitsError: it holds an integer that cannot be read.
            OSError: it cannot be read.
        """
        try:
            fd = open_to_read(self.path)
        except FileNotFoundError:
            return EMPTY
        try:
            size = os.fstat(fd).st_size
            document = parse(functools.partial(read_at, fd), size, self._known)
            if document.repeats:
                self._warn_of_repeats(hash(read_at(fd, 0, size)))
        except TooManyDigitsError as error:
            raise error.about(self.path) from None
        finally:
            os.close(fd)
        self._count(bytes_read=size)
        self._known = document
        return document

    def begin(self, purpose: str, *, wait: bool) -> JsonFileSession | None:
        """Take the lock.

        Args:
            purpose: what the lock is held for.
            wait: whether to wait for it, without a limit.

        Returns:
            The session; None if another process holds the lock and ``wait`` is false, or the wait was abandoned.

        Raises:
            OSError: the lock could not be acquired.
        """
        began = time.monotonic()
        if not self._lock.acquire(purpose, wait=wait):
            return None
        self.had_to_wait = self._lock.waited
        session = JsonFileSession(self, purpose, time.monotonic() - began if self.had_to_wait else 0.0)
        try:
            if self._lock.holder_crashed or not self._looked_for_leftovers:
                for leftover in remove_leftovers(self.path):
                    _logger.info("removed a temporary file left by a crashed writer: %s", printable(leftover))
                self._looked_for_leftovers = True
        except BaseException:
            self._lock.release()
            raise
        return session

    def is_waiting_in_vain(self) -> bool:
        """Whether a thread waits for a lock file that was deleted, while others may lock its successor."""
        return self._lock.is_waiting_in_vain()

    def abandon_wait(self) -> bool:
        """Abandon the wait of another thread, whose ``begin`` returns None when it wakes.

        Another thread may begin immediately.

        Returns:
            False if no thread waits, or the lock has just been granted.
        """
        return self._lock.abandon_wait()

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the lock."""
        return self._lock.holder(probe=probe)

    def statistics(self) -> Statistics:
        """Return what this process has done to the file."""
        self._count()
        return Statistics(**self._counts.copy())

    def forget_after_fork(self) -> None:
        """Close the lock file's descriptor in a forked child, which leaves the lock with its parent."""
        self._lock.forget_after_fork()

    def read_or_move_aside(self) -> Document:
        """Read the file, within a session; a corrupt file is moved aside."""
        for _ in range(_SECOND_LOOKS):
            try:
                return self.read()
            except CorruptDocumentError:
                time.sleep(_SECOND_LOOK_SECONDS)  # a writer without the lock may be about to finish it
        try:
            return self.read()
        except CorruptDocumentError as error:
            try:
                aside = move_aside(self.path, durable=True)
            except FileNotFoundError:  # it was removed meanwhile, maybe with its directory
                return EMPTY
            _logger.warning(
                "%s is not a JSON object (%s): moved aside to %s", printable(self.path), error, printable(aside)
            )
            return EMPTY

    def commit(self, document: Document, old: Document, *, durable: bool) -> int:
        """Replace the file, within a session, and return its new size."""
        try:
            if old.repeats:
                self._keep(durable=durable)
            written = replace(
                self.path,
                document.pieces(),
                durable=durable,
                new_directory=self._lock.in_new_directory,
                check=self._lock.check,
            )
        except FileNotFoundError:
            self._wait_for_the_lock_file_to_go()
            raise
        self._known = document
        self._lock.in_new_directory &= not durable
        self._count(commits=1, bytes_written=written)
        return written

    def make_durable(self) -> None:
        """Make sure that the existing file survives a power loss."""
        make_durable(self.path, new_directory=self._lock.in_new_directory)
        self._lock.in_new_directory = False

    def release(self) -> None:
        """Release the lock, at the end of a session."""
        self._lock.release()

    def note(self, cycle: Cycle) -> None:
        """Count an ended session, and report it."""
        self._count(
            cycles=1,
            operations=cycle.operations,
            waits=cycle.waited > 0,
            wait_seconds=cycle.waited,
            hold_seconds=cycle.held,
        )
        report(cycle)

    def _warn_of_repeats(self, content: int) -> None:
        """Warn once about the same content: a watcher reads it many times a second."""
        if content != self._warned_of:
            _logger.warning("%s contains duplicate keys; the last value of each is used", printable(self.path))
            self._warned_of = content

    def _keep(self, *, durable: bool) -> None:
        aside = move_aside(self.path, durable=durable, keep=True)
        _logger.warning(
            "%s contained duplicate keys; the original is kept in %s", printable(self.path), printable(aside)
        )

    def _wait_for_the_lock_file_to_go(self) -> None:
        """Raise LockLostError if the directory is being removed: its files go one by one, the lock file among them."""
        for _ in range(_SECOND_LOOKS):
            self._lock.check()
            time.sleep(_SECOND_LOOK_SECONDS)

    def _count(self, **more: float) -> None:
        self._uncounted.append(more)
        while self._uncounted and self._counting.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):  # another thread was faster
                    for name, number in self._uncounted.popleft().items():
                        self._counts[name] += number  # type: ignore[assignment]
            finally:
                self._counting.release()


class JsonFileSession:
    """The lock held, and the document read under it."""

    def __init__(self, store: JsonFileStore, purpose: str, waited: float) -> None:
        self._store = store
        self._purpose = purpose
        self._waited = waited
        self._since = time.monotonic()
        self._document: Document | None = None
        self._bytes_written = 0

    def read(self) -> Document:
        """Return the document; a corrupt file is moved aside first.

        Raises:
            OSError: the file cannot be read or moved.
        """
        if self._document is None:
            self._document = self._store.read_or_move_aside()
        return self._document

    def commit(self, document: Document, *, durable: bool) -> None:
        """Replace the file if there is a change; otherwise, if durable, sync the existing file.

        The existing file may have been written by someone who did not sync it, and is acknowledged to the caller now.

        Raises:
            LockLostError: the lock file was deleted; nothing was written.
            DurabilityUnknownError: the file holds the document, but syncing failed.
            OSError: nothing was written.
        """
        old = self.read()
        if document is not old:
            self._bytes_written = self._store.commit(document, old, durable=durable)
        elif durable and document.present:
            self._store.make_durable()

    def close(self, operations: int) -> None:
        """Release the lock, and report the cycle."""
        self._store.release()
        held = time.monotonic() - self._since
        self._store.note(Cycle(self._store.path, self._purpose, operations, self._waited, held, self._bytes_written))
