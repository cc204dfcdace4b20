"""Views of the keys and values of a mapping."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Final

_GONE: Final = object()


class Keys(KeysView[str]):
    """The keys of a mapping, in either order."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        super().__init__(mapping)
        self._of: Final = mapping

    def __reversed__(self) -> Iterator[str]:
        return iter(list(self._of)[::-1])


class Items(ItemsView[str, Any]):
    """The items of a mapping; iteration skips keys that have been deleted."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        super().__init__(mapping)
        self._of: Final = mapping

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key in self._of:
            value = self._of.get(key, _GONE)
            if value is not _GONE:
                yield key, value

    def __reversed__(self) -> Iterator[tuple[str, Any]]:
        return iter(list(self)[::-1])


class Values(ValuesView[Any]):
    """The values of a mapping; iteration skips keys that have been deleted."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        super().__init__(mapping)
        self._of: Final = mapping

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in Items(self._of))

    def __contains__(self, value: object) -> bool:
        return any(one is value or one == value for one in self)

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])
