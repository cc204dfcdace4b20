"""Memory as a dictionary: the part of a context that neither reads nor writes the file."""

from __future__ import annotations

import builtins
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, NoReturn, Self

from .._engine.holds import open_transactions
from .._model.faults import check_key
from .._model.live import LiveDict
from .._model.views import Items, Keys, Values
from ..errors import ContextUsageError, PersistentContextError, UnserializableValueError
from .guarded import GuardedMemory
from .inside import warn_if_inside
from .link import Link

_REQUIRED: Final = object()
_ALL_KEYS: Final = object()


class MemoryMapping(MutableMapping[str, Any]):
    """A dictionary in memory. Until it is loaded, only keys that were set here, or are known from calls, can be read.

    Args:
        memory: the memory.
        link: leads to the file.
    """

    _LOADING: ClassVar[str]
    """How it is loaded, for errors."""

    def __init__(self, memory: GuardedMemory, link: Link) -> None:
        self._memory: Final = memory
        self._link: Final = link
        self._path: Final = link.place

    @property
    def _data(self) -> LiveDict:
        """The live dictionary, loaded or not."""
        return self._memory.data

    def _known(self, key: object = _ALL_KEYS) -> LiveDict:
        """Return the live dictionary if it knows a key, or all of them.

        Raises:
            ContextUsageError: it does not, as it was never loaded or saved.
        """
        if not self._memory.is_loaded and (key is _ALL_KEYS or not self._memory.data.knows(key)):
            what = "reading" if key is _ALL_KEYS else f"reading {key!r}"
            msg = f"not loaded: use {self._LOADING} before {what}; until then, only keys that were set here are known"
            raise ContextUsageError(msg).about(self._path)
        return self._memory.data

    def get(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, or the default. Does not suspend.

        A list or dictionary may be changed in place: ``save()`` saves that like any other change.

        Raises:
            ContextUsageError: the context was never loaded or saved, and this key was neither set here nor returned by
                an atomic operation or transaction, so its value is unknown. All methods that read raise this.
        """
        with self._memory.locked():
            return self._known(key).get(key, default)

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
        """Return a deep copy of memory. Does not suspend.

        Raises:
            ContextUsageError: the context was never loaded or saved.
        """
        with self._memory.locked():
            self._known()
            return self._memory.copy()

    def unsaved_keys(self) -> builtins.set[str]:
        """Return the keys that were set, changed in place or deleted since the last load or save. Does not suspend."""
        with self._memory.locked():
            return self._memory.unsaved_keys()

    def __getitem__(self, key: str) -> Any:
        with self._memory.locked():
            return self._known(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if open_transactions and key in self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            del self._known(key)[key]

    def __contains__(self, key: object) -> bool:
        return key in self._known(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over a snapshot of the keys, unaffected by later changes."""
        with self._memory.locked():
            return iter(list(self._known()))

    def __reversed__(self) -> Iterator[str]:
        with self._memory.locked():
            return iter(list(reversed(self._known())))

    def __len__(self) -> int:
        return len(self._known())

    def __copy__(self) -> NoReturn:
        msg = f"a {type(self).__name__} cannot be copied; get_all_data() copies its values"
        raise TypeError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def keys(self) -> KeysView[str]:
        """Return a view of the keys."""
        self._known()
        return Keys(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the keys and values; iteration skips keys that another thread has deleted."""
        self._known()
        return Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; iteration skips keys that another thread has deleted."""
        self._known()
        return Values(self)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        """Delete a key in memory and return its value, or the default. Does not suspend.

        Raises:
            KeyError: the key is missing, and no default was given.
        """
        if open_transactions and key in self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            return self._known(key).pop(key, *(() if default is _REQUIRED else (default,)))

    def popitem(self) -> tuple[str, Any]:
        """Delete the last key in memory, and return it and its value. Does not suspend.

        Raises:
            KeyError: there are no keys.
        """
        if open_transactions and self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            return self._known().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the live value of a key in memory, setting it to the default if it is missing. Does not suspend."""
        if open_transactions and key not in self._memory.data:
            warn_if_inside(self._link)
        with about_file(self._path), self._memory.locked():
            return self._known(key).setdefault(key, default)

    def update(self, *others: Any, **more: Any) -> None:
        """Set keys in memory, as :meth:`dict.update` does: all of them, or none if one is refused. Does not suspend.

        Like :meth:`set`, this works before the context is loaded.
        """
        changes = dict(*others, **more)
        if open_transactions and changes:
            warn_if_inside(self._link)
        with about_file(self._path), self._memory.locked():
            for key in changes:
                check_key(key)
            self._memory.data.update(changes)

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        """Set keys in memory, as :meth:`update` does."""
        self.update(other)
        return self

    def clear(self) -> None:
        """Delete all keys in memory. Does not suspend."""
        if open_transactions and self._memory.data:
            warn_if_inside(self._link)
        with self._memory.locked():
            self._known().clear()


class about_file(AbstractContextManager[None]):  # noqa: N801 - used as a function
    """Adds the file to errors of code that does not know it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, PersistentContextError):
            error.about(self._path)
