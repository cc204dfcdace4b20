"""What both public classes share: their options, and the operations that their calls carry out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from .._model import updates
from .._model.faults import check_key
from .._model.live import LiveDict
from .._model.merge import OnConflict, check_policy
from .._model.operations import Checkpoint, Refresh, Reload, Save, Update
from .._model.snapshot import Snapshot
from .._printable import printable
from .._stores.factory import is_url, locate
from .._stores.protocol import CorruptStateError, SessionLostError
from ..errors import ContextUsageError
from ..types import Statistics
from .guarded import GuardedMemory
from .link import Link
from .mapping import MemoryMapping, about_file
from .options import OnCorrupt, Options, check_durable, check_journal, check_on_corrupt, check_timeout
from .watch import Observer
from .workspace import Workspace

_LOCK_FREE_READINGS: Final = 3
_SHOWN_KEYS: Final = 10
_logger = logging.getLogger("persistent_context")


class Reading(NamedTuple):
    """A state read without the lock, the position of the cycle before it, and the moment when reading began."""

    position: int
    snapshot: Snapshot
    began: int
    live: LiveDict | None = None
    """All of the state, to be loaded."""


class BaseContext(MemoryMapping):
    """A dictionary bound to one plain JSON file; its two subclasses load and save it."""

    _DRAINS: ClassVar[bool] = True
    """Whether outcomes of calls may change memory between two accesses of it."""

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
        path = os.fspath(filepath)
        if not isinstance(path, str):
            msg = f"filepath must be a str or a path object, not {type(path).__name__}"
            raise TypeError(msg)
        self._given_path: Final = path
        if is_url(path) and (on_corrupt != "aside" or journal is not None):
            msg = "on_corrupt and journal are options of files, and have no meaning for etcd"
            raise ValueError(msg)
        self._options: Final[Options] = {
            "durable": check_durable(durable),
            "lock_timeout": check_timeout(lock_timeout, "lock_timeout"),
            "on_conflict": check_policy(on_conflict),
            "on_corrupt": check_on_corrupt(on_corrupt),
            "journal": check_journal(journal),
        }
        self._durable: Final = durable
        self._lock_timeout: Final = lock_timeout
        self._on_conflict: Final = on_conflict
        self._raises_if_corrupt: Final = on_corrupt == "raise"
        super().__init__(GuardedMemory(drains=self._DRAINS), Link(locate(path), journal=journal))

    @property
    def place(self) -> str:
        """Where the state is: the absolute path of the file, or the URL in etcd, without user and password."""
        return self._path

    @property
    def filepath(self) -> Path:
        """The path as given.

        Raises:
            ContextUsageError: the state is in etcd, and not in a file.
        """
        if is_url(self._path):
            raise ContextUsageError("the state is not in a file: use the attribute place").about(self._path)
        return Path(self._given_path)

    def statistics(self) -> Statistics:
        """Return what this process has done to the file so far, through all contexts on it. Does not suspend."""
        queue = self._link.here()
        return Statistics() if queue is None else queue.statistics()

    @property
    def _shown(self) -> str:
        return self._path if is_url(self._path) else self._given_path

    def __repr__(self) -> str:
        number = len(self._memory.data)
        count = f"{number} key{'' if number == 1 else 's'} in memory"
        state = count if self._memory.is_loaded else f"not loaded, {count}"
        return f"<{type(self).__name__} on {self._shown!r}: {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the class, the absolute path (or the URL as given) and the options: the copy is not loaded."""
        place = self._given_path if is_url(self._path) else self._path
        return partial(type(self), place, **self._options), ()

    def _read(self, *, whole: bool = True) -> Reading | None:
        """Read the file without the lock; return None if it has to be read under the lock.

        This is so if the file is corrupt, if the store cannot be reached at present, or if calls of this context keep
        changing it, so that it is unknown whether the reading is older or newer than their outcome.
        """
        began = self._memory.now()
        store = self._link.find().store
        try:
            read = partial(store.snapshot, whole=self._raises_if_corrupt)
            reading = self._memory.tracker.read_between(_LOCK_FREE_READINGS, read)
        except (CorruptStateError, SessionLostError):
            return None
        if reading is None:
            return None
        position, snapshot = reading
        return Reading(position, snapshot, began, LiveDict.of(snapshot) if whole else None)

    def _take_over(self, reading: Reading | None) -> bool:
        """Replace memory with all of what was read, or bring it up to date; return whether this was possible."""
        if reading is None:
            return False
        with self._memory.locked():
            if reading.live is None:
                return self._memory.catch_up(reading.position, reading.snapshot, reading.began)
            return self._memory.load(reading.position, reading.snapshot, reading.live, reading.began)

    def _warn_of_dropped_changes(self) -> None:
        """Log a warning if entering the context's block, which loads, drops unsaved changes."""
        if dropped := self.unsaved_keys():
            names = ", ".join(printable(repr(key)) for key in sorted(dropped)[:_SHOWN_KEYS])
            more = f" and {len(dropped) - _SHOWN_KEYS} more" if len(dropped) > _SHOWN_KEYS else ""
            _logger.warning(
                "%s: the with block loads the file, which drops unsaved changes of %s%s; save() or refresh() first",
                printable(self._path),
                names,
                more,
            )

    def _reload(self) -> Reload:
        with self._memory.locked():
            return self._memory.reload()

    def _save(self) -> Save:
        with self._memory.locked(), about_file(self._path):
            return self._memory.save(self._on_conflict)

    def _refresh(self) -> Refresh:
        with self._memory.locked():
            return self._memory.refresh()

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint()

    def _incr(self, key: str, delta: float, default: float) -> Update:
        return self._update("incr", key, updates.incr, delta, default)

    def _add(self, key: str, value: object) -> Update:
        return self._update("add", key, updates.add, value)

    def _compare_and_set(self, key: str, expected: object, new: object) -> Update:
        return self._update("compare_and_set", key, updates.compare_and_set, expected, new)

    def _mutate(self, key: str, fn: Callable[[Any], Any], default: object) -> Update:
        return self._update("mutate", key, updates.mutate, fn, default)

    def _delete(self, key: str) -> Update:
        return self._update("delete", key, updates.delete)

    def _take(self, key: str, default: object) -> Update:
        return self._update("take", key, updates.take, default)

    def _extend(self, purpose: str, key: str, items: Iterable[Any]) -> Update:
        return self._update(purpose, key, updates.extend, items)

    def _update(self, purpose: str, key: str, make: Callable[..., updates.Function], *args: Any) -> Update:
        with about_file(self._path):
            key = check_key(key)
            function = make(key, *args)
            with self._memory.locked():
                return self._memory.update(purpose, key, function, self._on_conflict)

    def _workspace(self, snapshot: Snapshot) -> Workspace:
        return Workspace(snapshot, self._memory, self._on_conflict, self._path)

    def _observer(self, keys: Iterable[str]) -> Observer:
        with self._memory.locked(), about_file(self._path):
            memory = self._memory
            return Observer(
                self._path, keys, memory.seen, memory.known_since(), tracker=memory.tracker, position=memory.position
            )
