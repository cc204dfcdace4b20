"""What a transaction works on: the stored state, the unsaved changes of the keys it touches, and its own changes."""

from __future__ import annotations

import os
from typing import Any

from .._model.faults import check_key, is_key, plain_key
from .._model.live import LiveDict
from .._model.merge import OnConflict
from .._model.operations import Commit, Operation
from .._model.snapshot import Snapshot
from .._model.values import MISSING, MaybeText, same
from ..errors import ContextUsageError
from .guarded import GuardedMemory
from .mapping import about_file


class Workspace:
    """The keys that a transaction has touched, over the state that it began with.

    Args:
        snapshot: the state.
        memory: the memory of the context; an unsaved change of a key is included when the key is touched.
        policy: settles conflicts of these changes.
        filepath: the file, for errors.
    """

    def __init__(self, snapshot: Snapshot, memory: GuardedMemory, policy: OnConflict, filepath: str) -> None:
        self._snapshot = snapshot
        self._memory = memory
        self._policy = policy
        self._filepath = filepath
        self._operation = memory.begin_transaction()
        self._values = LiveDict()
        self._committed: LiveDict | None = None
        self._keys: dict[str, None] | None = None
        self._pid = os.getpid()
        self._is_over = False

    def __getitem__(self, key: str) -> Any:
        return self._values[self._touch(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        with about_file(self._filepath):
            key = check_key(key)
        key = self._touch(key)
        if key not in self._values and self._operation.looked_at[key] is not MISSING:
            self._operation.moved.add(key)
        self._values[key] = value
        if self._keys is not None:
            self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        key = self._touch(key)
        del self._values[key]
        if self._keys is not None:
            del self._keys[key]

    def __contains__(self, key: object) -> bool:
        return self._touch(key) in self._values

    def still_has(self, key: str) -> bool:
        """Return whether a listed key is present; this touches it only if the context has deleted it."""
        return not self._memory.deletes(key) or key in self

    def describe(self) -> str:
        """Return its description for a ``repr``."""
        state = "over" if self._is_over else "open"
        return f"on {self._filepath!r}, {state}"

    def commit(self) -> Commit:
        """Return the operation that writes the changes.

        Raises:
            UnserializableValueError: JSON cannot hold a value.
            ContextUsageError: in a forked child.
        """
        self._check()
        self._operation.has_set = any(touched.moment for touched in self._values.touched.values())
        bases = self._operation.looked_at
        with about_file(self._filepath):
            for key in dict.fromkeys(self._values) | dict.fromkeys(bases):  # in order, and then those deleted
                text = self._values.text(key)
                if not same(text, bases[key]):
                    self._operation.changes[key] = text
        return self._operation

    def close(self, *, left: Operation | None = None) -> None:
        """Forbid further use.

        Args:
            left: an operation whose outcome is yet to come, as its task was discarded.
        """
        self._is_over = True
        if left is not self._operation:
            self._memory.note_end(self._operation)

    def keys(self) -> dict[str, None]:
        """Return the keys in the file and those touched, in order; built on first use, then kept up to date.

        The keys that the context has deleted are touched then: otherwise they would turn out to be absent when read.
        """
        self._check()
        if self._keys is None:
            self._committed = LiveDict.of(self._snapshot)
            touched = self._operation.looked_at
            self._keys = {key: None for key in self._committed if key not in touched or key in self._values}
            self._keys |= dict.fromkeys(self._values)
            for key in [key for key in self._keys if self._memory.deletes(key)]:
                self._touch(key)
        return self._keys

    def _check(self) -> None:
        if self._is_over:
            raise ContextUsageError("this transaction is over: its with block has ended").about(self._filepath)
        if os.getpid() != self._pid:
            msg = f"this transaction belongs to process {self._pid}, and cannot be used in a process forked from it"
            raise ContextUsageError(msg).about(self._filepath)

    def _touch(self, key: Any) -> Any:
        """Include a valid key in the transaction, and return it as a plain ``str``."""
        self._check()
        key = plain_key(key)
        if key in self._operation.looked_at or not is_key(key):
            return key
        theirs = self._theirs(key)
        with about_file(self._filepath):
            text = self._operation.touch(key, self._memory.include(self._operation, key), theirs, self._policy)
        if text is theirs:
            self._values.take_over(key, theirs)
        else:
            self._values.take_along(key, theirs, text)
        if self._keys is not None and key not in self._values:
            self._keys.pop(key, None)
        elif self._keys is not None:
            self._keys[key] = None
        return key

    def _theirs(self, key: str) -> MaybeText:
        if self._committed is None:
            return self._snapshot.get([key]).get(key, MISSING)
        return self._committed.base(key)
