"""The store in one plain JSON file, and the lock file beside it."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..._printable import printable
from ...types import Holder
from ..protocol import Traffic
from .document import Document
from .events import FileSubscription
from .file import JsonFile
from .lease import FileLease, Leases
from .lock import FileLock
from .names import remove_leftovers
from .session import JsonFileSession

_logger = logging.getLogger("persistent_context")


class JsonFileStore:
    """One plain JSON file, and the lock file beside it; see :class:`Store`.

    Args:
        path: the real path of the file: absolute, without symlinks.
        also: other files that are replaced under the same lock.
    """

    def __init__(self, path: str, *, also: Sequence[str] = ()) -> None:
        self.path: Final = path
        self.file: Final = JsonFile(path)
        self._replaced: Final = (path, *also)
        self._lock: Final = FileLock(f"{path}.lock", path)
        self._leases: Final = Leases(path)
        self._looked_for_leftovers = False

    def snapshot(self, *, whole: bool = False) -> Document:  # noqa: ARG002 - a document is never read in part
        """Return the document in the file; see :meth:`JsonFile.document`."""
        return self.file.document()

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> JsonFileSession | None:  # noqa: ARG002 - always
        """Take the lock; see :meth:`Store.begin`."""
        began = time.monotonic()
        held = self._lock.acquire(purpose, wait=wait)
        if held is None:
            return None
        session = JsonFileSession(self.file, held, time.monotonic() - began if held.waited else 0.0)
        try:
            if held.holder_crashed or not self._looked_for_leftovers:
                for leftover in itertools.chain.from_iterable(map(remove_leftovers, self._replaced)):
                    _logger.info("removed a temporary file left by a crashed writer: %s", printable(leftover))
                self._looked_for_leftovers = True
        except BaseException:
            session.close()
            raise
        return session

    def is_waiting(self) -> bool:
        """Whether a thread waits for the lock; see :meth:`Store.is_waiting`."""
        return self._lock.is_waiting()

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
        return self.file.traffic()

    def close(self) -> None:
        """Close the lock file, unless it is locked."""
        self._lock.close()

    def after_fork_in_child(self) -> None:
        """Close the lock file in a forked child; the lock stays with the parent."""
        self._lock.after_fork_in_child()
