"""What both public classes share: options, the dictionary in memory, and the creation of operations."""

from __future__ import annotations

import builtins
import inspect
import math
import os
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, MutableMapping, Sequence, ValuesView
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypedDict

from .._engine.guard import new_guard
from .._engine.queue import CommitQueue
from .._engine.registry import queue_of
from .._engine.request import Request
from .._model import updates
from .._model.faults import check_key
from .._model.live import Items, LiveDict, Values
from .._model.memory import Arrival, Differences, Memory
from .._model.merge import OnConflict, Unsaved, check_policy
from .._model.operations import Commit, Operation, Reload, Save, Update, Write
from .._model.snapshot import Snapshot
from .._model.values import MISSING, MaybeText
from .._stores.factory import locate
from .._stores.protocol import CorruptStateError
from ..errors import PersistentContextError
from ..types import Statistics
from .transaction import Transaction
from .watch import Observer

_LOCK_FREE_READINGS: Final = 3
_REQUIRED: Final = object()
TRY_ONLY_SECONDS: Final = 0.01
"""A shorter timeout could expire before the lock is tried; it means one try, which succeeds if the lock is free."""


class Options(TypedDict, total=False):
    """The options of a context."""

    durable: bool
    lock_timeout: float
    on_conflict: OnConflict


class Reading(NamedTuple):
    """A state read without the lock, the cycle it follows, and the moment when reading began."""

    position: int
    snapshot: Snapshot
    live: LiveDict
    began: int


class BaseContext(MutableMapping[str, Any]):
    """A dictionary bound to one plain JSON file; its two subclasses load and save it.

    Args:
        filepath: the JSON file, a ``str`` or path object. A relative path is resolved against the current directory
            now; a leading ``~`` is the user's home directory (``./~`` is a directory of that name).
        durable: whether acknowledged changes survive a power loss, and not only the death of processes.
        lock_timeout: how long a call waits for its turn, in seconds; 0 (or less than 0.01) tries once, ``math.inf``
            waits forever.
        on_conflict: what to do with a key that another writer changed as well: ``"mine"`` (the last writer wins),
            ``"theirs"``, ``"raise"`` (:class:`ConflictError`), or ``fn(key, base, mine, theirs) -> value``, where
            ``MISSING`` means absent. The callable runs under the lock, in another thread: keep it pure and quick.

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
    ) -> None:
        path = os.fspath(filepath)
        if not isinstance(path, str):
            msg = f"filepath must be a str or a path object, not {type(path).__name__}"
            raise TypeError(msg)
        self._given_path: Final = path
        self._path: Final = locate(path)
        self._durable: Final = durable
        self._lock_timeout: Final = check_timeout(lock_timeout, "lock_timeout")
        self._on_conflict: Final = check_policy(on_conflict)
        self._memory = Memory()
        self._guard = (os.getpid(), new_guard())
        self._inbox: deque[Arrival] = deque()  # outcomes of cycles that memory has not taken over yet
        self._is_draining = False
        self._queue: CommitQueue | None = None
        self._prepare()

    def _guarded(self) -> AbstractContextManager[object]:
        """Return the lock of memory. Cycles never take it: an interrupted holder may wait for their thread."""
        if self._guard[0] != os.getpid():
            self._start_anew_after_fork()
        guard: AbstractContextManager[object] = self._guard[1]
        return guard

    def _start_anew_after_fork(self) -> None:
        """Reset in a forked child: forget the calls of the parent's threads, one of which may have held the lock."""
        self._guard = (os.getpid(), new_guard())
        self._inbox.clear()
        self._is_draining = False
        self._memory.forget_calls()

    def _prepare(self) -> None:
        """Set up the attributes of a subclass."""

    @property
    def filepath(self) -> Path:
        """The path as given."""
        return Path(self._given_path)

    @property
    def _data(self) -> LiveDict:
        """The live dictionary."""
        return self._memory.data

    def get(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, or the default. Does not suspend.

        Changing a list or dictionary in place is a change like any other: ``save()`` saves it.
        """
        with self._guarded():
            return self._memory.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set the value of a key in memory; ``save()`` makes it persistent. Does not suspend.

        Raises:
            UnserializableValueError: the key is not a ``str``. The value is checked when it is saved.
        """
        try:
            with self._guarded():
                self._memory.data[key] = value
        except PersistentContextError as error:
            raise error.about(self._path) from None

    def get_all_data(self) -> dict[str, Any]:
        """Return a deep copy of memory. Does not suspend."""
        with self._guarded():
            return self._memory.copy()

    def unsaved_keys(self) -> builtins.set[str]:
        """Return the keys that were set, changed in place or deleted since the last load or save. Does not suspend."""
        with self._guarded():
            return self._memory.unsaved_keys()

    def statistics(self) -> Statistics:
        """Return what this process has done to the file so far, through all contexts on it. Does not suspend."""
        queue = self._queue_here()
        return Statistics() if queue is None else queue.statistics()

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
        """Iterate over a snapshot of the keys, unaffected by later changes."""
        with self._guarded():
            return iter(list(self._memory.data))

    def __reversed__(self) -> Iterator[str]:
        with self._guarded():
            return iter(list(reversed(self._memory.data)))

    def __len__(self) -> int:
        return len(self._memory.data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._given_path!r}: {len(self)} keys in memory>"

    def __copy__(self) -> NoReturn:
        msg = f"a {type(self).__name__} cannot be copied; get_all_data() copies its values"
        raise TypeError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the keys and values; iteration skips what another thread deletes meanwhile."""
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; iteration skips what another thread deletes meanwhile."""
        return Values(self)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        """Delete a key in memory and return its value, or the default. Does not suspend.

        Raises:
            KeyError: the key is missing, and no default was given.
        """
        with self._guarded():
            return self._memory.data.pop(key, *(() if default is _REQUIRED else (default,)))

    def popitem(self) -> tuple[str, Any]:
        """Delete the last key in memory, and return it and its value. Does not suspend.

        Raises:
            KeyError: there are no keys.
        """
        with self._guarded():
            return self._memory.data.popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, setting it to the default if it is missing. Does not suspend."""
        with self._about_file(), self._guarded():
            return self._memory.data.setdefault(key, default)

    def update(self, *others: Any, **more: Any) -> None:
        """Set keys in memory, as :meth:`dict.update` does: all of them, or none if one is refused. Does not suspend."""
        changes = dict(*others, **more)
        with self._about_file(), self._guarded():
            for key in changes:
                check_key(key)
            self._memory.data.update(changes)

    def clear(self) -> None:
        """Delete all keys in memory. Does not suspend."""
        with self._guarded():
            self._memory.data.clear()

    def _attach(self) -> CommitQueue:
        """Find the queue of the file. This follows symlinks, so call it in a worker thread."""
        self._queue = queue_of(self._path)
        return self._queue

    def _queue_here(self) -> CommitQueue | None:
        """Return the queue, if it is known and belongs to this process."""
        return self._queue if self._queue is not None and self._queue.pid == os.getpid() else None

    def _read(self) -> Reading | None:
        """Read the file without the lock; return None if it has to be read under the lock.

        This is so if the file is corrupt, or if calls of this context keep changing it, so that it is unknown whether
        the reading is older or newer than their outcome.
        """
        began = self._memory.now()
        store = self._attach().store
        try:
            reading = self._memory.tracker.read_between(_LOCK_FREE_READINGS, store.snapshot)
        except CorruptStateError:
            return None
        if reading is None:
            return None
        position, snapshot = reading
        return Reading(position, snapshot, LiveDict.of(snapshot), began)

    def _take_over(self, reading: Reading | None) -> bool:
        """Replace memory with what was read; return whether this was possible."""
        if reading is None:
            return False
        with self._guarded():
            return self._memory.load(*reading)

    def _reload(self) -> Reload:
        with self._guarded():
            return self._memory.reload()

    def _save(self) -> Save:
        with self._guarded(), self._about_file():
            return self._memory.save(self._on_conflict)

    def _incr(self, key: str, delta: float, default: float) -> Update:
        return self._update("incr", key, updates.incr, delta, default)

    def _add(self, key: str, value: object) -> Update:
        return self._update("add", key, updates.compare_and_set, MISSING, value)

    def _compare_and_set(self, key: str, expected: object, new: object) -> Update:
        return self._update("compare_and_set", key, updates.compare_and_set, expected, new)

    def _mutate(self, key: str, fn: Callable[[Any], Any], default: object) -> Update:
        return self._update("mutate", key, updates.mutate, fn, default)

    def _update(self, purpose: str, key: str, make: Callable[..., updates.Function], *args: Any) -> Update:
        with self._about_file():
            key = check_key(key)
            function = make(key, *args)
            with self._guarded():
                return self._memory.update(purpose, key, function, self._on_conflict)

    def _transaction(self, snapshot: Snapshot) -> Transaction:
        with self._guarded():
            commit = self._memory.transaction()
        return Transaction(snapshot, commit, self._touch, self._on_conflict, self._path)

    def _touch(self, commit: Commit, key: str) -> Unsaved | None:
        with self._guarded():
            return self._memory.touch(commit, key)

    def _over(self, operation: Operation) -> None:
        """Note that a call has ended, whatever its outcome."""
        if isinstance(operation, Write) and self._memory.is_under_way(operation):
            with self._guarded():
                self._memory.is_over(operation)

    def _observer(self, keys: Iterable[str]) -> Observer:
        with self._guarded(), self._about_file():
            memory = self._memory
            return Observer(
                self._path, keys, memory.seen, memory.known_since(), tracker=memory.tracker, position=memory.position
            )

    def _about_file(self) -> AbstractContextManager[None]:
        return _AboutFile(self._path)

    def _receive(self, requests: Sequence[Request]) -> None:
        """Queue the outcome of completed calls for memory; runs in the thread of the cycle, and never waits.

        If this fails, these calls fail, and no others.
        """
        try:
            arrival = self._arrival(requests)
        except Exception as error:  # noqa: BLE001 - MemoryError, for one
            for request in requests:
                request.error = request.error or error
            return
        if arrival is not None:
            self._inbox.append(arrival)

    def _arrival(self, requests: Sequence[Request]) -> Arrival | None:
        """Compute the outcome of a cycle's calls, for memory."""
        over = [request for request in requests if request.snapshot is not None and request.operation.origin]
        if not over:
            return None
        snapshot, position = over[-1].snapshot, over[-1].position
        assert snapshot is not None, "of a completed call"
        calls: dict[str, Write] = {}
        save: Save | None = None
        live: LiveDict | None = None
        for request in over:
            operation = request.operation
            if isinstance(operation, Write):
                calls.update(dict.fromkeys(operation.keys, operation))
            else:
                live = live or LiveDict.of(snapshot)
            if isinstance(operation, Save):
                save = operation
        found = snapshot.get(calls)
        texts: dict[str, MaybeText] = {key: found.get(key, MISSING) for key in calls}
        differences = Differences.between(save.seen, snapshot) if save else Differences()
        writes = [request.operation for request in requests if isinstance(request.operation, Write)]
        return Arrival(position, snapshot, calls, texts, save, differences, live, writes)

    def _drain(self) -> None:
        """Take over queued outcomes in order, unless this call interrupts an update of memory in the same thread."""
        guard = BaseContext._guarded(self)
        if not self._inbox or self._is_draining or self._is_interrupted():
            return
        with guard:
            self._is_draining = True
            try:
                while self._inbox:
                    self._memory.absorb(self._inbox[0])
                    self._inbox.popleft()
            finally:
                self._is_draining = False

    def _is_interrupted(self) -> bool:
        """Whether a signal handler or finalizer has interrupted an update of memory in this thread."""
        return bool(self._guard[1]._is_owned())  # noqa: SLF001 - as threading.Condition


class _AboutFile(AbstractContextManager[None]):
    """Adds the file to errors raised where it was not known."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, PersistentContextError):
            error.about(self._path)


def describe(face: str) -> str:
    """Return the docstring of a public class: its own text, followed by the arguments that both classes share."""
    _, _, arguments = inspect.cleandoc(BaseContext.__doc__ or "").partition("\n\n")
    return f"{inspect.cleandoc(face)}\n\n{arguments}"


def check_timeout(timeout: float, name: str) -> float:
    """Return a valid timeout in seconds; raise TypeError or ValueError otherwise."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"{name} must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(msg)
    if math.isnan(timeout) or timeout < 0:
        msg = f"{name} must be from 0 (try once) to math.inf (wait forever) seconds, not {timeout!r}"
        raise ValueError(msg)
    return timeout
