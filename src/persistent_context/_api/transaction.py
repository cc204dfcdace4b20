"""The mapping inside a transaction."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, Self

from .._model.updates import listed, not_a_list
from .._model.values import MISSING
from .._model.views import Items, Keys, Values
from .workspace import Workspace


class Transaction(MutableMapping[str, Any]):
    """Exclusive access to the file: all changes made here are committed together when the ``with`` block ends.

    An unsaved change in the context is included when its key is first touched: read, set or deleted. Iteration is over
    the keys in the file and those touched, and touches only those that the context has deleted. Values are live: one
    that is changed in place is committed.
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
        return filter(self._workspace.still_has, list(self._workspace.keys()))

    def __reversed__(self) -> Iterator[str]:
        return filter(self._workspace.still_has, list(self._workspace.keys())[::-1])

    def __len__(self) -> int:
        return len(self._workspace.keys())

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        """Set keys, as :meth:`update` does."""
        self.update(other)
        return self

    def keys(self) -> KeysView[str]:
        """Return a view of the keys."""
        return Keys(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the keys and values; iteration touches each key, and skips those found to be absent."""
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; iteration touches each key, and skips those found to be absent."""
        return Values(self)

    def delete(self, key: str) -> bool:
        """Delete a key, and return whether it was present."""
        return self.pop(key, MISSING) is not MISSING

    def take(self, key: str, default: Any = None) -> Any:
        """Delete a key, and return its value, or the default if it is missing."""
        return self.pop(key, default)

    def append(self, key: str, item: Any) -> int:
        """Append an item to a list, which is empty if the key is missing, and return its length.

        Raises:
            TypeError: the value is not a list.
        """
        return self.extend(key, [item])

    def extend(self, key: str, items: Iterable[Any]) -> int:
        """Append items to a list; otherwise like :meth:`append`.

        Raises:
            TypeError: the value is not a list, or the items are a ``str``, ``bytes`` or mapping.
        """
        added = listed(items)
        known = self.get(key, [])
        if not isinstance(known, list):
            raise not_a_list(key, known)
        known.extend(added)
        if added:
            self[key] = known
        return len(known)

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
