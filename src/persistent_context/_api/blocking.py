"""The blocking interface: SyncPersistentContext."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Self, Unpack

from .._engine.request import Begin
from .._model.merge import OnConflict
from .._model.operations import Operation
from ..types import Holder
from .blocking_calls import BlockingCalls
from .blocking_coordination import SyncCoordination
from .blocking_transaction import SyncTransaction
from .blocking_watch import SyncWatch
from .options import Options, check_timeout


class SyncPersistentContext(SyncCoordination):
    """A dictionary bound to one plain JSON file, for programs without an event loop.

    The same as :class:`PersistentContext`, except that calls block the thread instead of suspending a task. A context
    may be shared by several threads.

    Args:
        filepath: the JSON file, a ``str`` or path object. A relative path is resolved against the current directory
            now; a leading ``~`` is the user's home directory (``./~`` is a directory of that name).
        durable: whether acknowledged changes survive a power loss, and not only the death of processes.
        lock_timeout: how long a call waits for its turn, in seconds; 0 (or less than 0.01) tries once, ``math.inf``
            waits forever.
        on_conflict: what to do with a key that another writer changed as well: ``"mine"`` (the last writer wins),
            ``"theirs"``, ``"raise"`` (:class:`ConflictError`), or ``fn(key, base, mine, theirs) -> value``, where
            ``MISSING`` means absent. The callable runs under the lock, in another thread: keep it pure and quick.
        journal: whether changes are appended to a journal beside the file, which makes them cost what they change, and
            not what the file holds: a property of the file, which the next call that writes sets, and which all
            contexts on the file follow. ``None`` leaves it as it is.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the timeout is negative or NaN, or the policy does not exist.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        *,
        durable: bool = True,
        lock_timeout: float = 30.0,
        on_conflict: OnConflict = "mine",
        journal: bool | None = None,
    ) -> None:
        super().__init__(filepath, durable=durable, lock_timeout=lock_timeout, on_conflict=on_conflict, journal=journal)
        self._calls: Final = BlockingCalls(self._link, self._memory, durable=durable)

    @classmethod
    def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Create a context and load it; this is the recommended constructor. Blocks.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout``, ``on_conflict`` and ``journal``; see the class.
        """
        context = cls(filepath, **options)
        context.load()
        return context

    def __enter__(self) -> Self:
        """Load. Blocks."""
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

    def incr(self, key: str, delta: float = 1, default: float = 0) -> Any:
        """Add to a number and return the result; see :meth:`PersistentContext.incr`. Blocks."""
        return self._perform(self._incr(key, delta, default))

    def add(self, key: str, value: Any) -> bool:
        """Set a key only if it is missing; see :meth:`PersistentContext.add`. Blocks."""
        return bool(self._perform(self._add(key, value)))

    def compare_and_set(self, key: str, expected: Any, new: Any) -> bool:
        """Set a key only if it has the expected value; see :meth:`PersistentContext.compare_and_set`. Blocks."""
        return bool(self._perform(self._compare_and_set(key, expected, new)))

    def mutate(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value with a function of it; see :meth:`PersistentContext.mutate`. Blocks."""
        return self._perform(self._mutate(key, fn, default))

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
        return self._link.here_or_found().store.holder()

    def _perform(self, operation: Operation) -> Any:
        return self._calls.perform(operation, self._lock_timeout)
