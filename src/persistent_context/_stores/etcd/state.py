"""A namespace at one revision: what is read of it, how it is brought up to date, and what a commit changes.

The keys of a namespace ``ns``::

    ns/k/<key>    the JSON text of a key's value
    ns/m          the marker: the last commit; every commit compares and replaces it
    ns/o/<key>    the number of a key among those that came last in one commit, where this is not the order of the keys
    ns/q/...      who is in line for the state, and ns/l/<name>/... for a lease

The first three are read in one transaction. Keys are in the order of their creation, or of the commit that has moved
them. What a namespace may not contain (``address.RESERVED``) keeps one from being taken for the keys of another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..._model.snapshot import Changes
from ..._model.values import MISSING, Frozen, MaybeText, Text, one_line
from ..jsonfile.document import EMPTY, Document
from ..protocol import CorruptStateError
from .client import Found, Item, Json, delete, end_of, get, put


class Names(Frozen, frozen=True):
    """The names of the keys in a namespace."""

    namespace: bytes

    @classmethod
    def of(cls, namespace: str) -> Names:
        """Return those of a namespace."""
        return cls(namespace.encode())

    @property
    def marker(self) -> bytes:
        """The key of the marker."""
        return self.namespace + b"/m"

    @property
    def values(self) -> bytes:
        """The start of the keys of values."""
        return self.namespace + b"/k/"

    @property
    def orders(self) -> bytes:
        """The start of the keys of numbers."""
        return self.namespace + b"/o/"

    @property
    def queue(self) -> bytes:
        """The start of the keys of those that are in line for the state."""
        return self.namespace + b"/q/"

    @property
    def leases(self) -> bytes:
        """The start of the keys of those that are in line for leases."""
        return self.namespace + b"/l/"

    def lease(self, name: str) -> bytes:
        """Return the start of the keys of those that are in line for one lease, whose name has no slash."""
        return self.leases + name.encode() + b"/"

    def value(self, key: str) -> bytes:
        """Return the etcd key of a value."""
        return self.values + key.encode()

    def order(self, key: str) -> bytes:
        """Return the etcd key of a key's number."""
        return self.orders + key.encode()


class Marker(Frozen, frozen=True):
    """The last commit."""

    identity: str = ""
    exists: bool = False
    modified: int = 0
    """The revision of the commit; 0 if there was none."""

    @classmethod
    def of(cls, item: Item) -> Marker:
        """Parse the marker.

        Raises:
            CorruptStateError: it is not one.
        """
        try:
            content = json.loads(item.value)
            return cls(str(content["commit"]), bool(content["exists"]), item.modified)
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _corrupt(item, "is not a marker of this library") from None

    def text(self) -> bytes:
        """Return its value."""
        return json.dumps({"commit": self.identity, "exists": self.exists}).encode()


class State(Frozen, frozen=True):
    """A namespace at one revision; threads share it."""

    names: Names
    revision: int = 0
    """The revision of the cluster at which it was the latest state."""
    marker: Marker = Marker()
    document: Document = EMPTY
    modified: Mapping[str, int] = {}
    """The revision at which each key was last changed."""
    numbered: frozenset[str] = frozenset()
    """The keys that have a number."""
    read_at: int = 0
    """The revision of the last reading: what other programs have written since may be unknown."""

    def is_same_as(self, other: State) -> bool:
        """Whether the content is the same; the marker may be another one."""
        same = self.modified == other.modified and self.numbered == other.numbered
        return self.document is other.document or (same and self.document.exists == other.document.exists)

    def read(self) -> list[Json]:
        """Return the ranges that bring the state up to date."""
        names, since = self.names, self.read_at + 1 if self.read_at else 0
        return [
            get(names.values, end_of(names.values), since=since),
            get(names.marker, since=since),
            get(names.orders, end_of(names.orders), since=since),
        ]

    def after_reading(self, found: Sequence[Found], revision: int) -> State | None:
        """Return the state that :meth:`read` has found, or None if keys were removed, so that all has to be read.

        Raises:
            CorruptStateError: something there is not what this library writes.
        """
        values = {_key_of(item, self.names.values): item for item in found[0].items}
        unknown = {key: item for key, item in values.items() if item.modified != self.modified.get(key)}
        numbers = {_key_of(item, self.names.orders): item for item in found[2].items}
        renumbered = {key for key, item in numbers.items() if item.modified > self.revision}
        if (
            found[0].count != len(self.modified.keys() | values.keys())
            or found[2].count != len(self.numbered | numbers.keys())
            or found[1].count < bool(self.marker.modified)
        ):
            return None
        marker = Marker.of(found[1].items[0]) if found[1].items else self.marker
        changes: dict[str, MaybeText] = {}
        last: dict[str, tuple[tuple[int, int, bytes], Text]] = {}
        for key, item in unknown.items():
            text = _text_of(item)
            if key in self.modified and item.created <= self.revision and key not in renumbered:
                changes[key] = text
            else:
                last[key] = _position(item, numbers.get(key)), text
        changes.update((key, text) for key, (_, text) in sorted(last.items(), key=lambda entry: entry[1][0]))
        modified = {**self.modified, **{key: item.modified for key, item in unknown.items()}}
        document = self.document
        if changes or (not document.exists and marker.exists):
            document = document.changed(changes, last.keys() & self.modified.keys())
        numbered = self.numbered | numbers.keys()
        return State(self.names, revision, marker, document, modified, numbered, read_at=revision)

    def writes(self, changes: Changes, identity: str) -> list[Json]:
        """Return the operations that commit changes."""
        written: list[Json] = []
        for key, text in changes.texts.items():
            if text is not MISSING:
                written.append(put(self.names.value(key), text))
            elif key in self.modified:
                written.append(delete(self.names.value(key)))
                if key in self.numbered:
                    written.append(delete(self.names.order(key)))
        numbered = enumerate(self._numbered(changes), 1)
        written += [put(self.names.order(key), b"%d" % number) for number, key in numbered]
        return [*written, put(self.names.marker, Marker(identity, exists=True).text())]

    def after_commit(self, changes: Changes, identity: str, revision: int) -> State:
        """Return the state that a commit has made."""
        gone = {key for key, text in changes.texts.items() if text is MISSING}
        modified = {key: known for key, known in self.modified.items() if key not in gone}
        modified.update((key, revision) for key in changes.texts if key not in gone)
        numbered = self.numbered - gone | frozenset(self._numbered(changes))
        document = self.document.changed(changes.texts, changes.moved)
        marker = Marker(identity, exists=True, modified=revision)
        return State(self.names, revision, marker, document, modified, numbered, self.read_at)

    def _numbered(self, changes: Changes) -> list[str]:
        """Return the keys that changes put last, if they need numbers to keep this order."""
        present = [key for key, text in changes.texts.items() if text is not MISSING]
        last = [key for key in present if key not in self.modified or key in changes.moved]
        needs_numbers = last != sorted(last, key=str.encode) or not self.modified.keys().isdisjoint(last)
        return last if needs_numbers else []


def _key_of(item: Item, prefix: bytes) -> str:
    try:
        return item.key[len(prefix) :].decode()
    except UnicodeDecodeError:
        raise _corrupt(item, "has a name that is not valid UTF-8") from None


def _text_of(item: Item) -> Text:
    text = one_line(item.value)
    if text is None:
        raise _corrupt(item, "does not have a JSON value")
    return text


def _corrupt(item: Item, reason: str) -> CorruptStateError:
    name = repr(item.key.decode(errors="backslashreplace"))
    return CorruptStateError(f"the etcd key {name} {reason}", "correct or delete this key with etcdctl")


def _position(item: Item, number: Item | None) -> tuple[int, int, bytes]:
    """Return what a key is sorted by: the revision of the commit in which it came last, and its number there."""
    if number is not None and number.modified >= item.created and number.value.isdigit():
        return number.modified, int(number.value), item.key
    return item.created, 0, item.key
