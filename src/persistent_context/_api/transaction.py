"""The mapping inside a transaction: the file's committed state, plus the unsaved changes of the keys it touches."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any

from .._model.faults import check_key, is_key, plain_key
from .._model.live import Items, LiveDict, Values
from .._model.merge import OnConflict, Unsaved
from .._model.operations import Commit
from .._model.snapshot import Snapshot
from .._model.values import MISSING, MaybeText, same
from ..errors import ContextUsageError


class Transaction(MutableMapping[str, Any]):
    """Exclusive access to the file: all changes made here are committed together when the ``with`` block ends.

    An unsaved change in the context is included when its key is first touched: read, set or deleted. Iteration is over
    the keys in the file and those touched. Values are live: changing one in place is a change.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        commit: Commit,
        touch: Callable[[Commit, str], Unsaved | None],
        policy: OnConflict,
        filepath: str,
    ) -> None:
        self._snapshot = snapshot
        self._operation = commit
        self._touch_memory = touch
        self._policy = policy
        self._filepath = filepath
        self._values = LiveDict()
        self._committed: LiveDict | None = None
        self._keys: dict[str, None] | None = None
        self._pid = os.getpid()
        self._is_over = False

    def __getitem__(self, key: str) -> Any:
        return self._values[self._touch(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        key = self._touch(check_key(key))
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

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known_keys()))

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._known_keys()))

    def __len__(self) -> int:
        return len(self._known_keys())

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the keys and values; iteration touches each key, and skips those found to be absent."""
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; iteration touches each key, and skips those found to be absent."""
        return Values(self)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, and return it and its value.

        Raises:
            KeyError: there are no keys.
        """
        keys = self._known_keys()
        while keys:
            key = next(reversed(keys))
            if key in self:
                return key, self.pop(key)
        msg = "popitem(): the transaction has no keys"
        raise KeyError(msg)

    def clear(self) -> None:
        """Delete all keys."""
        for key in self:
            self.pop(key, None)

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open"
        return f"<{type(self).__name__} on {self._filepath!r}, {state}>"

    def _commit(self) -> Commit:
        """Return the operation that writes the changes; the context ends the transaction with it.

        Raises:
            UnserializableValueError: JSON cannot hold a value.
            ContextUsageError: in a forked child.
        """
        self._check()
        self._operation.has_set = any(touched.moment for touched in self._values.touched.values())
        for key, base in self._operation.looked_at.items():
            text = self._values.text(key)
            if not same(text, base):
                self._operation.changes[key] = text
        return self._operation

    def _finish(self) -> Commit:
        """Forbid further use, and return the finished operation."""
        self._is_over = True
        return self._operation

    def _check(self) -> None:
        if self._is_over:
            raise ContextUsageError("this transaction is over: its with block has ended").about(self._filepath)
        if os.getpid() != self._pid:
            msg = f"this transaction belongs to process {self._pid}, and cannot be used in a process forked from it"
            raise ContextUsageError(msg).about(self._filepath)

    def _known_keys(self) -> dict[str, None]:
        """Return the keys in the file and those touched, in order; built on first use, then kept up to date."""
        self._check()
        if self._keys is None:
            self._committed = LiveDict.of(self._snapshot)
            touched = self._operation.looked_at
            self._keys = {key: None for key in self._committed if key not in touched or key in self._values}
            self._keys |= dict.fromkeys(self._values)
        return self._keys

    def _touch(self, key: Any) -> Any:
        """Include a valid key in the transaction, and return it as a plain ``str``."""
        self._check()
        key = plain_key(key)
        if key in self._operation.looked_at or not is_key(key):
            return key
        theirs = self._theirs(key)
        text = self._operation.touch(key, self._touch_memory(self._operation, key), theirs, self._policy)
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
