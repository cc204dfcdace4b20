"""Measures the memory of a process by its Python objects: the resident size would include freed memory."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

SIZED = (str, bytes, int, float, tuple, list, dict, set, deque)
"""The types that fill memory. Some extension types report absurd sizes."""


@dataclass(frozen=True, slots=True)
class Size:
    """The content of memory at one moment."""

    objects: int
    """Objects that the garbage collector tracks, and those they refer to."""
    bytes: int
    """Bytes of those whose type is in `SIZED`."""
    longest: int
    """Entries of the longest table, list or queue, where objects that are never forgotten usually are."""

    def told(self) -> dict[str, int]:
        """Return the size as a dictionary."""
        return asdict(self)


def measure() -> Size:
    """Measure, after collecting all garbage."""
    gc.collect()
    sizes: dict[int, int] = {}
    longest = 0
    known = gc.get_objects()
    for one in chain(known, _unknown(known)):
        sizes[id(one)] = sys.getsizeof(one) if type(one) in SIZED else 0
        if isinstance(one, dict | list | set | deque):
            longest = max(longest, len(one))
    return Size(len(sizes), sum(sizes.values()), longest)


def _unknown(known: list[Any]) -> Iterator[Any]:
    """Yield the objects that the collector does not track: strings, numbers, and containers of these alone."""
    for one in known:
        for leaf in _referents(one):
            yield leaf
            if not gc.is_tracked(leaf):
                yield from _referents(leaf)


def _referents(one: Any) -> list[Any]:
    """Return what an object refers to. The collector leaves out keys that are strings."""
    keys = list(dict.keys(one)) if isinstance(one, dict) else []
    return [*gc.get_referents(one), *keys]
