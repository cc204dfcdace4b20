"""Memory as a dictionary: the part of a context that neither reads nor writes the file."""

from __future__ import annotations

import builtins
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from contextlib import AbstractContextManager
from typing import Any, Final, NoReturn

from .._engine.holds import open_transactions
from .._model.faults import check_key
from .._model.live import Items, LiveDict, Values
from ..errors import PersistentContextError, UnserializableValueError
from .guarded import GuardedMemory
from .inside import warn_if_inside
from .link import Link

_REQUIRED: Final = object()


class MemoryMapping(MutableMapping[str, Any]):
    """A dictionary in memory.

    Args:
        memory: the memory.
        link: leads to the file.
    """

    def __init__(self, memory: GuardedMemory, link: Link) -> None:
        self._memory: Final = memory
        self._link: Final = link
        self._path: Final = link.place

    @property
    def _data(self) -> LiveDict:
        """The live dictionary."""
        return self._memory.data

    def get(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, or the default. Does not suspend.

        Changing a list or dictionary in place is a change like any other: ``save()`` saves it.
        """
        with self._memory.locked():
            return self._memory.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set the value of a key in memory; ``save()`` makes it persistent. Does not suspend.

        Raises:
            UnserializableValueError: the key is not a ``str``. The value is checked when it is saved.
        """
        if open_transactions:
            warn_if_inside(self._link)
        try:
            with self._memory.locked():
                self._memory.data[key] = value
        except UnserializableValueError as error:
            raise error.about(self._path) from None

    def get_all_data(self) -> dict[str, Any]:
        """Return a deep copy of memory. Does not suspend."""
        with self._memory.locked():
            return self._memory.copy()

    def unsaved_keys(self) -> builtins.set[str]:
        """Return the keys that were set, changed in place or deleted since the last load or save. Does not suspend."""
        with self._memory.locked():
            return self._memory.unsaved_keys()

    def __getitem__(self, key: str) -> Any:
        with self._memory.locked():
            return self._memory.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if open_transactions and key in self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            del self._memory.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._memory.data

    def __iter__(self) -> Iterator[str]:
        """Iterate over a snapshot of the keys, unaffected by later changes."""
        with self._memory.locked():
            return iter(list(self._memory.data))

    def __reversed__(self) -> Iterator[str]:
        with self._memory.locked():
            return iter(list(reversed(self._memory.data)))

    def __len__(self) -> int:
        return len(self._memory.data)

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
        if open_transactions and key in self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            return self._memory.data.pop(key, *(() if default is _REQUIRED else (default,)))

    def popitem(self) -> tuple[str, Any]:
        """Delete the last key in memory, and return it and its value. Does not suspend.

        Raises:
            KeyError: there are no keys.
        """
        if open_transactions and self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            return self._memory.data.popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, setting it to the default if it is missing. Does not suspend."""
        if open_transactions and key not in self._memory.data:
            warn_if_inside(self._link)
        with about_file(self._path), self._memory.locked():
            return self._memory.data.setdefault(key, default)

    def update(self, *others: Any, **more: Any) -> None:
        """Set keys in memory, as :meth:`dict.update` does: all of them, or none if one is refused. Does not suspend."""
        changes = dict(*others, **more)
        if open_transactions and changes:
            warn_if_inside(self._link)
        with about_file(self._path), self._memory.locked():
            for key in changes:
                check_key(key)
            self._memory.data.update(changes)

    def clear(self) -> None:
        """Delete all keys in memory. Does not suspend."""
        if open_transactions and self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            self._memory.data.clear()


class about_file(AbstractContextManager[None]):  # noqa: N801 - used as a function
    """Adds the file to errors raised where it was not known."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, PersistentContextError):
            error.about(self._path)
