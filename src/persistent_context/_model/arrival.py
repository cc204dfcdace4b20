"""The outcome of a cycle, on its way to the memory of a context."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from .live import LiveDict
from .operations import Refresh, Write
from .snapshot import Snapshot
from .values import MISSING, Frozen, MaybeText, Raw


class Differences(Frozen, frozen=True):
    """The changes that turn one snapshot into another."""

    texts: Mapping[str, Raw] = MappingProxyType({})
    gone: Collection[str] = ()

    @classmethod
    def between(cls, older: Snapshot, newer: Snapshot) -> Self:
        """Compare two snapshots."""
        changes = newer.changes_since(older)
        texts = {key: Raw(text) for key, text in changes.items() if text is not MISSING}
        return cls(texts, changes.keys() - texts.keys())


class Arrival(Frozen, frozen=True):
    """The outcome of a cycle for one context."""

    position: int
    snapshot: Snapshot
    calls: Mapping[str, Write]
    """By key, the last call that changed it, or may have."""
    texts: Mapping[str, MaybeText]
    """The texts of these keys in the file."""
    whole: Refresh | None = None
    """The last refresh or save among the calls, after which memory has seen the whole snapshot."""
    differences: Differences = Differences()
    """Between the snapshot that memory had seen when that was called, and this one."""
    live: LiveDict | None = None
    """All of the snapshot, if it was loaded."""
    over: Sequence[Write] = ()
    """The completed calls, including those that failed."""
