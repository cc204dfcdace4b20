"""The mapping inside a transaction."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any

from .._model.live import Items, Values
from .workspace import Workspace


class Transaction(MutableMapping[str, Any]):
    """Exclusive access to the file: all changes made here are committed together when the ``with`` block ends.

    An unsaved change in the context is included when its key is first touched: read, set or deleted. Iteration is over
    the keys in the file and those touched. Values are live: changing one in place is a change.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __getitem__(self, key: str) -> Any:
        return self._workspace[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._workspace[key] = value

    def __delitem__(self, key: str) -> None:
        del self._workspace[key]

    def __contains__(self, key: object) -> bool:
        return key in self._workspace

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._workspace.keys()))

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._workspace.keys()))

    def __len__(self) -> int:
        return len(self._workspace.keys())

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
        keys = self._workspace.keys()
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
        return f"<{type(self).__name__} {self._workspace.describe()}>"
