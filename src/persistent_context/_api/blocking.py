"""The blocking interface: SyncPersistentContext."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final, Self, Unpack

from .._engine.request import Begin
from .._model.merge import OnConflict
from .._model.operations import Operation
from ..types import Holder
from .blocking_atomic import SyncAtomic
from .blocking_calls import BlockingCalls
from .blocking_coordination import SyncCoordination
from .blocking_transaction import SyncTransaction
from .blocking_watch import SyncWatch
from .mapping import about_file
from .options import OnCorrupt, Options, check_timeout


class SyncPersistentContext(SyncAtomic, SyncCoordination):
    """A dictionary bound to one plain JSON file, for programs without an event loop.

    The same as :class:`PersistentContext`, except that calls block the thread instead of suspending a task. Threads may
    share a context. It can be pickled for another process, where the copy has to be loaded.

    Args:
        filepath: the JSON file, a ``str`` or path object. A relative path is resolved against the current directory
            now; a leading ``~`` is the user's home directory (``./~`` is a directory of that name).
        durable: whether acknowledged changes survive a power loss, and not only the death of processes.
        lock_timeout: how long a call waits for its turn, in seconds; 0 (or less than 0.01) tries once, ``math.inf``
            waits forever.
        on_conflict: what to do about a place that another writer changed as well: ``"mine"`` (the last writer wins),
            ``"theirs"``, ``"raise"`` (:class:`ConflictError`), or ``fn(key, base, mine, theirs) -> value``, where
            ``MISSING`` means absent. The callable runs under the lock, in another thread: keep it pure and quick.
        on_corrupt: what to do if the file is not a JSON object, or a part of its journal is damaged: ``"aside"`` keeps
            it under another name, logs a warning, and continues with the rest; ``"raise"`` leaves it unchanged and
            raises :class:`CorruptFileError`. An empty file counts as new.
        journal: whether changes are appended to a journal beside the file, so that their cost depends on the size of
            the change instead of the file. This is a property of the file: the next call that writes sets it, and all
            contexts on the file follow it. ``None`` leaves it unchanged.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the timeout is negative or NaN, or a policy does not exist.
    """

    _LOADING = 'create() or load(), or "with",'

    def __init__(  # noqa: PLR0913 - options are given by name
        self,
        filepath: str | os.PathLike[str],
        *,
        durable: bool = True,
        lock_timeout: float = 30.0,
        on_conflict: OnConflict = "mine",
        on_corrupt: OnCorrupt = "aside",
        journal: bool | None = None,
    ) -> None:
        super().__init__(
            filepath,
            durable=durable,
            lock_timeout=lock_timeout,
            on_conflict=on_conflict,
            on_corrupt=on_corrupt,
            journal=journal,
        )
        self._calls: Final = BlockingCalls(
            self._link, self._memory, durable=durable, raises_if_corrupt=self._raises_if_corrupt
        )

    @classmethod
    def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Create a context and load it; this is the recommended constructor. Blocks.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout``, ``on_conflict``, ``on_corrupt`` and ``journal``; see the class.
        """
        context = cls(filepath, **options)
        context.load()
        return context

    def __enter__(self) -> Self:
        """Load, with a warning if that drops unsaved changes. Blocks."""
        self._warn_of_dropped_changes()
        self.load()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Save, unless the block raised an exception. Blocks."""
        if error is None:
            self.save()

    def load(self) -> None:
        """Replace memory with the content of the file; see :meth:`PersistentContext.load`. Blocks."""
        if not self._take_over(self._read()):
            self._perform(self._reload())

    def save(self) -> None:
        """Merge unsaved changes into the file; see :meth:`PersistentContext.save`. Blocks."""
        self._perform(self._save())

    def refresh(self) -> None:
        """Take over what others changed, and keep what is unsaved; see :meth:`PersistentContext.refresh`. Blocks."""
        if not self._take_over(self._read(whole=False)):
            self._perform(self._refresh())

    def checkpoint(self) -> None:
        """Fold the journal into the JSON file; see :meth:`PersistentContext.checkpoint`. Blocks."""
        self._perform(self._checkpoint())

    def transaction(self, timeout: float | None = None) -> SyncTransaction:
        """Return a context manager for exclusive access to the file; see :meth:`PersistentContext.transaction`."""
        patience = self._lock_timeout if timeout is None else check_timeout(timeout, "timeout")
        begin = partial(self._calls.perform, Operation("transaction"), patience, kind=Begin)
        return SyncTransaction(begin, self._workspace, self._calls.end)

    def watch(self, *keys: str) -> SyncWatch:
        """Return an iterator over changes by other writers; see :meth:`PersistentContext.watch`. Each step blocks."""
        return SyncWatch(self._path, self._observer(keys))

    def lock_holder(self) -> Holder | None:
        """Return the current holder of the file's lock, or None. Blocks."""
        with about_file(self._path):
            return self._link.here_or_found().store.holder()

    def _perform(self, operation: Operation) -> Any:
        return self._calls.perform(operation, self._lock_timeout)
