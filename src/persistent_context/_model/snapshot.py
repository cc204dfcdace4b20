"""The state of a store at one moment, and the changes that lead to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from .values import MaybeText, Raw, Text


class Snapshot(Protocol):
    """An immutable state: JSON texts by key, in order. Threads may share it."""

    @property
    def revision(self) -> int:
        """Equal for equal states of one store, and greater for a state that this process saw later."""

    @property
    def exists(self) -> bool:
        """Whether anything is stored at all; otherwise there are no keys."""

    def get(self, keys: Iterable[str]) -> dict[str, Text]:
        """Return the texts of those keys that are present."""

    def keys(self) -> Iterator[str]:
        """Yield all keys, in order."""

    def parts(self) -> Iterator[Mapping[str, Raw]]:
        """Yield all entries in order, a bounded number at a time, and let other threads run in between."""

    def changes_since(self, older: Snapshot) -> dict[str, MaybeText]:
        """Return the texts that turn an older state of the same store into this one; MISSING for a key that is gone."""


class Changes(NamedTuple):
    """Changes to commit."""

    texts: Mapping[str, MaybeText] = MappingProxyType({})
    """The new texts; MISSING removes a key. A new key comes last."""
    moved: Collection[str] = ()
    """Changed keys that come last, in the order of the texts, even if they are present."""
    creates: bool = False
    """Whether to begin to exist, even without keys."""

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.texts) or self.creates
