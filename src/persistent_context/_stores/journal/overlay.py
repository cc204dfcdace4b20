"""The changes of a journal's records as an immutable overlay of the JSON file: a commit costs only what it changes.

An overlay is a stack of dictionaries that never change, as in a log-structured merge tree (O'Neil et al., Acta
Informatica 33, 1996). A commit puts one on top; when the top has grown to half the size of the one below it, the two
are merged. So every key is copied and looked up in a logarithmic number of steps, and an older overlay, which other
threads may still use, shares all layers that have not been merged since.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from ..._model.values import MISSING, MaybeText

_GROWTH: Final = 2


class Entry(NamedTuple):
    """The latest text of a key."""

    text: MaybeText
    number: int
    """The number of the record that has it."""
    place: tuple[int, int]
    """Its position among the keys that follow those of the JSON file: the record that added it, and the index there."""
    moved: bool
    """Whether it comes there even if the JSON file has the key, because it was deleted and set again."""


Layer: TypeAlias = Mapping[str, Entry]


class Overlay:
    """The latest texts of the keys that records have changed. Immutable."""

    __slots__ = ("_layers",)

    def __init__(self, layers: tuple[Layer, ...] = ()) -> None:
        self._layers: Final = layers  # the newest one is the last

    def __bool__(self) -> bool:
        return bool(self._layers)

    def get(self, key: str) -> Entry | None:
        """Return the entry of a key, or None if no record has changed it."""
        for layer in reversed(self._layers):
            if (entry := layer.get(key)) is not None:
                return entry
        return None

    def covered(self, layer: Layer) -> Overlay:
        """Return the overlay with newer entries on top."""
        layers = list(self._layers)
        while layers and _GROWTH * len(layer) > len(layers[-1]):
            layer = {**layers.pop(), **layer}
        return Overlay((*layers, layer))

    def entries(self) -> Layer:
        """Return all entries."""
        return dict(itertools.chain.from_iterable(layer.items() for layer in self._layers))

    def after(self, number: int) -> Overlay:
        """Return the overlay of the records after the one with this number."""
        layer = {key: entry for key, entry in self.entries().items() if entry.number > number}
        return Overlay((layer,)) if layer else Overlay()

    def newer_than(self, older: Overlay, number: int) -> Iterator[tuple[str, Entry]]:
        """Yield the entries added since an older overlay of the same journal, whose last record has this number."""
        shared = set(map(id, older._layers))
        for layer in self._layers:
            if id(layer) not in shared:
                yield from ((key, entry) for key, entry in layer.items() if entry.number > number)


class Changing:
    """Collects the changes of one record after another, on top of an overlay.

    Args:
        overlay: the overlay.
    """

    def __init__(self, overlay: Overlay) -> None:
        self._overlay: Final = overlay
        self._layer: dict[str, Entry] = {}

    def apply(self, number: int, texts: Mapping[str, MaybeText], moved: Collection[str] = ()) -> None:
        """Apply a record.

        Args:
            number: its number, greater than those of all earlier records.
            texts: the new texts, or MISSING, in the order in which new keys are added.
            moved: keys that go to the end even if they are present.
        """
        going = frozenset(moved)
        for index, (key, text) in enumerate(texts.items()):
            before = self._layer.get(key) or self._overlay.get(key)
            was_absent = before is not None and before.text is MISSING
            if before is None or was_absent or key in going:
                self._layer[key] = Entry(text, number, (number, index), was_absent or key in going)
            else:
                self._layer[key] = Entry(text, number, before.place, before.moved)

    def result(self) -> Overlay:
        """Return the overlay with all changes."""
        return self._overlay.covered(self._layer) if self._layer else self._overlay
