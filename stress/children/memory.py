"""How much a process keeps in memory, as Python's own objects: the resident size would tell of freed memory as well."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

SIZED = (str, bytes, int, float, tuple, list, dict, set, deque)
"""The types of what fills memory. Some types of extensions tell absurd sizes."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is in memory at one moment."""

    objects: int
    """Those that the garbage collector knows, and what those refer to."""
    bytes: int
    """Of those whose type is in `SIZED`."""
    longest: int
    """The number of entries of the longest table, list or queue: where what is never forgotten is mostly kept."""

    def told(self) -> dict[str, int]:
        """Return it as a dictionary."""
        return asdict(self)


def measure() -> Size:
    """Count, after everything that nobody refers to has been collected."""
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
    """Yield what the collector does not know: strings and numbers, and dictionaries and tuples of these alone."""
    for one in known:
        for leaf in _referents(one):
            yield leaf
            if not gc.is_tracked(leaf):
                yield from _referents(leaf)


def _referents(one: Any) -> list[Any]:
    """Return what an object refers to. The collector leaves out keys that are strings."""
    keys = list(dict.keys(one)) if isinstance(one, dict) else []
    return [*gc.get_referents(one), *keys]
