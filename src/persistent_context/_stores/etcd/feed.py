"""Streams of what happens to a range of keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from ..._model.values import Frozen
from .client import Client, Item, text
from .connections import Stream
from .failures import RefusedError

_CANCELLED: Final = 1
_OUT_OF_RANGE: Final = 11


class CompactedError(RefusedError):
    """The history was compacted.

    Args:
        revision: what is left is what follows this revision, which itself can be read.
        endpoint: the endpoint that has reported it.
    """

    def __init__(self, revision: int, endpoint: str) -> None:
        super().__init__(_OUT_OF_RANGE, f"the history up to revision {revision} was compacted", endpoint)
        self.revision: Final = revision


class Event(Frozen, frozen=True):
    """A change of a key."""

    item: Item
    is_deletion: bool


Batches: TypeAlias = "Iterator[tuple[int, list[Event]]]"


@contextlib.contextmanager
def watch(client: Client, key: bytes, end: bytes, start: int) -> Iterator[tuple[Stream, Batches]]:
    """Follow a range of keys from a revision on.

    Returns:
        The stream, to interrupt it, and what it brings: changes in order, with the revision of the last one. All
        changes of a revision come together, but so may those of many revisions. It never ends without an error.

    Raises:
        UnreachableError: no endpoint follows it.
        UnansweredError: the connection was lost, or nothing came for long; raised by the iterator, too.
        RefusedError: the revision was compacted, or the user may not read the range; raised by the iterator, too.
    """
    request = {"key": text(key), "range_end": text(end), "start_revision": str(start)}
    with (
        client.gateway.stream("/v3/watch", {"create_request": request}) as stream,
        contextlib.closing(stream.messages()) as messages,
    ):
        yield stream, _batches(messages, stream.endpoint)


def _batches(messages: Iterator[dict[str, Any]], endpoint: str) -> Batches:
    for message in messages:
        if message.get("canceled"):
            if "compact_revision" in message:
                raise CompactedError(int(message["compact_revision"]), endpoint)
            raise RefusedError(_CANCELLED, str(message.get("cancel_reason")), endpoint)
        events = [Event(Item.of(one["kv"]), one.get("type") == "DELETE") for one in message.get("events", ())]
        if events:
            yield max(event.item.modified for event in events), events
