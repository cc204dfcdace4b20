"""The state of a store at one moment, and the changes that lead to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from .values import MISSING, MaybeText, Raw, Text


class Snapshot(Protocol):
    """An immutable state: JSON texts by key, in order. Threads may share it."""

    @property
    def revision(self) -> int:
        """Identifies the state: the same revisions of one store are the same state."""

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
        """Return the texts that turn an older state of the same store into this one; MISSING for a key that is gone.

        A key that was changed and changed back may be among them, with the text that it has.
        """


class Changes(NamedTuple):
    """Changes to commit; there is nothing to write if they are false."""

    texts: Mapping[str, MaybeText] = MappingProxyType({})
    """The new texts; MISSING removes a key. A new key comes last."""
    moved: Collection[str] = ()
    """Changed keys that come last, in the order of the texts, even if they are present."""
    creates: bool = False
    """Whether to create the store, even without keys."""
    folds: bool = False
    """Whether to update, too, what other programs read of the state, if that may lag behind."""

    def __bool__(self) -> bool:
        return bool(self.texts) or self.creates


class Nothing:
    """The snapshot of a store about which nothing is known yet; no store returns it."""

    revision = 0
    exists = False

    def get(self, keys: Iterable[str]) -> dict[str, Text]:  # noqa: ARG002 - as in Snapshot
        return {}

    def keys(self) -> Iterator[str]:
        return iter(())

    def parts(self) -> Iterator[Mapping[str, Raw]]:
        return iter(())

    def changes_since(self, older: Snapshot) -> dict[str, MaybeText]:
        return dict.fromkeys(older.keys(), MISSING)


NOTHING: Final = Nothing()
