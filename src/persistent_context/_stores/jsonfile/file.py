"""The JSON file as this process knows it: reading it, and what it was seen to hold last."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import time
from collections.abc import Iterator
from typing import Final

from ..._printable import printable
from ...errors import NotARegularFileError, TooManyDigitsError
from ..protocol import CorruptStateError, SessionLostError, Traffic
from ..tally import Tally
from .access import Access
from .document import EMPTY, Document
from .opening import Opened, open_to_read, read_at
from .parse import parse

_logger = logging.getLogger("persistent_context")
_LOOKS: Final = 5
_LOOK_SECONDS: Final = 0.02
_unsynced: Final[set[str]] = set()
"""The files for which a sync has failed since this process last replaced them. The kernel reports it only once, so this
outlives the objects that know such a file, and a forked child has it as well."""


class JsonFile:
    """One JSON file.

    Args:
        path: its real path.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self.former: Access | None = None
        """The access of the file whose place the next one takes, if there is none by then: it was moved aside."""
        self._known = EMPTY
        self._warned_of: int | None = None
        self._bytes_read: Final = Tally()
        self._commits = self._bytes_written = 0  # counted by the holder of the lock

    def document(self) -> Document:
        """Return the document in the file, or EMPTY if there is none.

        Raises:
            CorruptStateError: the file is not a JSON object.
            TooManyDigitsError: it holds an integer that cannot be read.
            SessionLostError: its path leads to another file by now.
            OSError: it cannot be read.
        """
        try:
            document, opened = self.read()
            if opened is not None and not document.exists:
                os.close(opened.fd)
                document, opened = self.read_finished()
        except NotARegularFileError as error:
            self.check_place(error)
            raise
        if opened is not None:
            os.close(opened.fd)
        return document

    def read_finished(self) -> tuple[Document, Opened | None]:
        """Return what :meth:`read` does, but look again if a program may be writing the file in place."""
        for _ in several_looks():
            with contextlib.suppress(CorruptStateError):
                document, opened = self.read()
                if document.exists or opened is None:
                    return document, opened
                os.close(opened.fd)  # it is empty
        return self.read()

    def read(self) -> tuple[Document, Opened | None]:
        """Return what :meth:`document` does, and the file that it was read from, for the caller to close."""
        try:
            opened = open_to_read(self.path)
        except FileNotFoundError:
            return EMPTY, None
        fd, size = opened.fd, opened.status.st_size
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
        return document, opened

    def check_place(self, error: NotARegularFileError) -> None:
        """Raise SessionLostError if it cannot be read since its path leads to another file by now."""
        if error.errno != errno.ELOOP and os.path.realpath(self.path) != self.path:
            message = "a symbolic link has taken the place of the file"
            raise SessionLostError(message) from error

    @property
    def sync_failed(self) -> bool:
        """Whether a sync of it or of its directory has failed since this process last replaced it.

        Another one could falsely succeed.
        """
        return self.path in _unsynced

    @sync_failed.setter
    def sync_failed(self, failed: bool) -> None:
        (_unsynced.add if failed else _unsynced.discard)(self.path)

    def expect(self, document: Document) -> None:
        """Set what the file may hold next: if it does, reading it is only a comparison."""
        self._known = document

    def note_commit(self, document: Document, written: int) -> None:
        """Note what a session has written to the file."""
        self._known = document
        self._commits += 1
        self._bytes_written += written

    def traffic(self) -> Traffic:
        """Return how much this process has read and written."""
        return Traffic(self._commits, self._bytes_read.total(), self._bytes_written)

    def _warn_of_repeats(self, content: int) -> None:
        """Warn once about the same content: a watcher reads it many times a second."""
        if content != self._warned_of:
            _logger.warning("%s contains duplicate keys; the last value of each is used", printable(self.path))
            self._warned_of = content


def several_looks() -> Iterator[None]:
    """Yield a few times, a moment apart: what another program has begun may be finished by then."""
    for _ in range(_LOOKS):
        yield
        time.sleep(_LOOK_SECONDS)
