"""What both faces share: options, the dictionary in memory, and the making of operations."""

from __future__ import annotations

import builtins
import inspect
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict

from . import _operations as operations
from ._document import Document
from ._errors import PersistentContextError
from ._group import CommitQueue, queue_of
from ._memory import LiveDict, Memory, Reading
from ._merge import OnConflict, Unsaved, check_policy
from ._operations import Reload, Save, Update, Write
from ._parse import CorruptDocumentError
from ._request import Request
from ._transaction import Transaction
from ._types import Statistics
from ._values import MISSING, MaybeText, check_key
from ._watch import Observer

TRY_ONLY_SECONDS: Final = 0.01
"""A shorter timeout is over before the lock could be tried; it means one try, which a free lock always passes."""


class Options(TypedDict, total=False):
    """The options of a context."""

    durable: bool
    lock_timeout: float
    on_conflict: OnConflict


class Arrival(NamedTuple):
    """What a cycle made known to a context."""

    document: Document
    final: dict[str, MaybeText]
    writes: Sequence[Write]
    save: Save | None
    """The last save among the calls, after which memory has seen the whole document."""
    written: int
    """The mark of the last own write."""


class BaseContext(MutableMapping[str, Any]):
    """A dictionary bound to one plain JSON file; see the two faces for how it is loaded and saved.

    Args:
        filepath: the JSON file: a ``str`` or path object. A relative one is taken from the current directory now.
        durable: whether what is acknowledged is to survive a power loss, and not only the death of processes.
        lock_timeout: how long a call waits for its turn, in seconds; 0 (or less than 0.01) only tries, ``math.inf``
            waits for ever.
        on_conflict: what to do with a key that another writer changed as well: ``"mine"`` (the last writer wins),
            ``"theirs"``, ``"raise"`` (:class:`ConflictError`), or ``fn(key, base, mine, theirs) -> value``, in which
            ``MISSING`` stands for absence. The callable runs under the lock, in another thread: keep it pure and quick.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a timeout that is negative or NaN, or a policy that does not exist.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        *,
        durable: bool = True,
        lock_timeout: float = 30.0,
        on_conflict: OnConflict = "mine",
    ) -> None:
        path = os.fspath(filepath)
        if not isinstance(path, str):
            msg = f"filepath is a str or a path object, not {type(path).__name__}"
            raise TypeError(msg)
        if not path or "\0" in path:
            msg = f"filepath is no path of a file: {path!r}"
            raise ValueError(msg)
        self._given_path: Final = path
        self._path: Final = os.path.abspath(path)
        self._durable: Final = durable
        self._lock_timeout: Final = check_timeout(lock_timeout, "lock_timeout")
        self._on_conflict: Final = check_policy(on_conflict)
        self._memory = Memory()
        self._guard = (os.getpid(), threading.RLock())
        self._queue: CommitQueue | None = None
        self._prepare()

    def _guarded(self) -> AbstractContextManager[object]:
        """Return the lock of memory; a thread of the parent may have held the one that a forked child inherited."""
        if self._guard[0] != os.getpid():
            self._guard = (os.getpid(), threading.RLock())
        return self._guard[1]

    def _prepare(self) -> None:
        """Make what one face has and the other has not."""

    @property
    def filepath(self) -> Path:
        """The path as it was given."""
        return Path(self._given_path)

    @property
    def _data(self) -> LiveDict:
        """The live dictionary."""
        return self._memory.data

    def get(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, or the default. Does not suspend.

        What is done to a list or dictionary in place is a change like any other, which ``save()`` saves.
        """
        with self._guarded():
            return self._memory.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set the value of a key in memory; ``save()`` makes it persistent. Does not suspend.

        Raises:
            UnserializableValueError: the key is no ``str``. The value is checked when it is saved.
        """
        try:
            with self._guarded():
                self._memory.data[key] = value
        except PersistentContextError as error:
            raise error.about(self._path) from None

    def get_all_data(self) -> dict[str, Any]:
        """Return a copy of memory that shares nothing mutable with it. Does not suspend."""
        with self._guarded():
            return self._memory.copy()

    def unsaved_keys(self) -> builtins.set[str]:
        """Return the keys set, changed in place or deleted since they were last loaded or saved. Does not suspend."""
        with self._guarded():
            return self._memory.unsaved_keys()

    def statistics(self) -> Statistics:
        """Return what this process has done to the file so far, through all contexts on it. Does not suspend."""
        return Statistics() if self._queue is None else self._queue.store.statistics()

    def __getitem__(self, key: str) -> Any:
        with self._guarded():
            return self._memory.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        with self._guarded():
            del self._memory.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._memory.data

    def __iter__(self) -> Iterator[str]:
        return iter(self._memory.data)

    def __len__(self) -> int:
        return len(self._memory.data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._given_path!r}: {len(self)} keys in memory>"

    def clear(self) -> None:
        """Delete all keys in memory. Does not suspend."""
        with self._guarded():
            self._memory.data.clear()

    def _attach(self) -> CommitQueue:
        """Find the queue of the file; follows symlinks, so it belongs in a worker thread."""
        self._queue = queue_of(self._path)
        return self._queue

    def _queue_here(self) -> CommitQueue | None:
        """Return the queue, if it is known and of this process."""
        return self._queue if self._queue is not None and self._queue.pid == os.getpid() else None

    def _read(self) -> tuple[Document, LiveDict] | None:
        """Read the file without a lock; None stands for a corrupt one, which wants a look under the lock."""
        try:
            document = self._attach().store.read()
        except CorruptDocumentError:
            return None
        return document, LiveDict.of(document)

    def _save(self) -> Save:
        with self._guarded(), self._about_file():
            return self._memory.save(self._on_conflict)

    def _incr(self, key: str, delta: float, default: float) -> Update:
        return self._update("incr", key, operations.incr, delta, default)

    def _add(self, key: str, value: object) -> Update:
        return self._update("add", key, operations.compare_and_set, MISSING, value)

    def _compare_and_set(self, key: str, expected: object, new: object) -> Update:
        return self._update("compare_and_set", key, operations.compare_and_set, expected, new)

    def _mutate(self, key: str, fn: Callable[[Any], Any], default: object) -> Update:
        return self._update("mutate", key, operations.mutate, fn, default)

    def _update(self, purpose: str, key: str, make: Callable[..., operations.Function], *args: Any) -> Update:
        try:
            function = make(check_key(key), *args)
            with self._guarded():
                change = self._memory.send(key)
                origin = self._memory.origin()
        except PersistentContextError as error:
            error.about(self._path)
            raise
        unsaved = {key: change} if change else {}
        return Update(purpose, key, function, unsaved=unsaved, policy=self._on_conflict, origin=origin)

    def _transaction(self, document: Document) -> Transaction:
        return Transaction(document, self._send, self._on_conflict, self._memory.origin(), self._path)

    def _send(self, key: str) -> Unsaved | None:
        with self._guarded():
            return self._memory.send(key)

    def _observer(self, keys: Iterable[str]) -> Observer:
        with self._guarded(), self._about_file():
            return Observer(self._path, keys, self._memory.known(), self._memory.origin().writes)

    def _about_file(self) -> AbstractContextManager[None]:
        return _AboutFile(self._path)

    def _work_out(self, requests: Sequence[Request]) -> Arrival | None:
        """Work out what calls that are over made known; runs in the thread of the cycle, and fails only these calls."""
        try:
            for request in requests:
                if isinstance(request.operation, Reload) and request.document is not None:
                    request.result = LiveDict.of(request.document)
            return self._arrival(requests)
        except Exception as error:  # noqa: BLE001 - MemoryError, for one
            for request in requests:
                request.error = request.error or error
            return None

    def _arrival(self, requests: Sequence[Request]) -> Arrival | None:
        """Work out, in the thread of the cycle, what its calls made known."""
        document: Document | None = None
        written = 0
        writes: list[Write] = []
        keys: dict[str, None] = {}
        save: Save | None = None
        for request in requests:
            operation = request.operation
            if request.document is not None and isinstance(operation, Write):
                document, written = request.document, request.written
                writes.append(operation)
                keys.update(dict.fromkeys(operation.keys))
                if isinstance(operation, Save):
                    save = operation
        if document is None:
            return None
        found = document.find(keys)
        final: dict[str, MaybeText] = {key: found.get(key, MISSING) for key in keys}
        if save:
            final = {**document.differences(save.seen), **final}
        return Arrival(document, final, writes, save, written)

    def _absorb(self, arrival: Arrival | None, requests: Sequence[Request]) -> None:
        """Take over what became known."""
        with self._guarded():
            sent = self._memory.texts_sent(arrival.writes) if arrival else {}
            if arrival and arrival.save:
                self._memory.absorb_save(arrival.save.seen, arrival.document, arrival.final, sent)
            elif arrival:
                self._memory.absorb(arrival.final, sent)
            if arrival:
                self._memory.knows_writes(arrival.written)
            for request in requests:
                if request.operation.unsaved:
                    self._memory.is_over(request.operation.unsaved)
                if isinstance(request.operation, Reload) and request.document is not None:
                    self._memory.load(self._memory.begin_reading(), request.document, request.result)

    def _take_over(self, reading: Reading, loaded: tuple[Document, LiveDict]) -> bool:
        with self._guarded():
            return self._memory.load(reading, *loaded)


class _AboutFile(AbstractContextManager[None]):
    """Names the file in errors that were raised where it was not known."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, PersistentContextError):
            error.about(self._path)


def describe(face: str) -> str:
    """Return the docstring of a face: its own words, and then the arguments, which both have in common."""
    _, _, arguments = inspect.cleandoc(BaseContext.__doc__ or "").partition("\n\n")
    return f"{inspect.cleandoc(face)}\n\n{arguments}"


def check_timeout(timeout: float, name: str) -> float:
    """Return a timeout in seconds if it is one, else raise TypeError or ValueError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"{name} is a number of seconds, not {type(timeout).__name__}"
        raise TypeError(msg)
    if math.isnan(timeout) or timeout < 0:
        msg = f"{name} is a number of seconds from 0 (only try) to math.inf (wait for ever), not {timeout!r}"
        raise ValueError(msg)
    return timeout
