"""The calls of etcd's API that are needed here, typed: range, transaction, lease, status.

In its JSON form keys and values are in base64, 64-bit integers are strings, and what is 0, empty or false is left out.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ..._model.values import Frozen
from .gateway import Gateway

Json: TypeAlias = dict[str, Any]


class Item(Frozen, frozen=True):
    """A key of etcd and its value."""

    key: bytes
    value: bytes
    created: int
    """The revision at which it was created."""
    modified: int
    """The revision at which it was last changed."""

    @classmethod
    def of(cls, kv: Json) -> Item:
        """Parse an item."""
        return cls(
            b64decode(kv["key"]),
            b64decode(kv.get("value", "")),
            int(kv.get("create_revision", 0)),
            int(kv.get("mod_revision", 0)),
        )


class Found(Frozen, frozen=True):
    """What a range has found."""

    items: tuple[Item, ...]
    count: int
    """The number of all keys in the range, including those that were filtered out."""


class Outcome(Frozen, frozen=True):
    """The outcome of a transaction."""

    succeeded: bool
    """Whether all comparisons were true."""
    revision: int
    """The revision of the cluster after it."""
    found: tuple[Found, ...]
    """What its ranges have found, in order."""


class Status(Frozen, frozen=True):
    """What one member says about itself and its cluster."""

    cluster: int
    """The number of the cluster."""
    member: int
    """The number of the member."""
    leader: int
    """The number of the leader that the member follows, or its own; 0 if it knows none."""
    version: str
    size: int
    """The size of its database, in bytes."""
    errors: tuple[str, ...]
    """What it reports, such as ``alarm:NOSPACE``."""


NOTHING_FOUND: Final = Found((), 0)


def text(content: bytes) -> str:
    """Return bytes as JSON holds them."""
    return b64encode(content).decode("ascii")


def end_of(prefix: bytes) -> bytes:
    """Return the end of the range of keys that start with a prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def put(key: bytes, value: bytes, *, lease: int = 0) -> Json:
    """Set a key; with a lease, until the lease ends."""
    return {"request_put": {"key": text(key), "value": text(value), "lease": str(lease)}}


def delete(key: bytes) -> Json:
    """Delete a key."""
    return {"request_delete_range": {"key": text(key)}}


def get(key: bytes, end: bytes = b"", *, since: int = 0, **options: object) -> Json:
    """Read a key, or a range up to ``end``; with ``since``, only what was changed at this revision or later."""
    newer = {"min_mod_revision": str(since)} if since else {}
    return {"request_range": {"key": text(key), "range_end": text(end), **newer, **options}}


def counted(key: bytes, end: bytes) -> Json:
    """Count the keys of a range."""
    return get(key, end, count_only=True)


def first_created(prefix: bytes, *, limit: int = 0) -> Json:
    """Read the keys with a prefix, earliest created first."""
    return get(prefix, end_of(prefix), sort_order="ASCEND", sort_target="CREATE", limit=str(limit))


def is_modified_at(key: bytes, revision: int) -> Json:
    """Compare the revision at which a key was last changed; 0 if it does not exist."""
    return {"key": text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def is_created_at(key: bytes, revision: int) -> Json:
    """Compare the revision at which a key was created."""
    return {"key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(revision)}


def is_empty(prefix: bytes) -> Json:
    """Compare every key with a prefix with one that does not exist: true if there is none."""
    return {**is_created_at(prefix, 0), "range_end": text(end_of(prefix))}


def are_modified_before(prefix: bytes, revision: int) -> Json:
    """Compare the revision at which every key with a prefix was last changed; the cluster looks at each of them."""
    end = text(end_of(prefix))
    return {"key": text(prefix), "range_end": end, "target": "MOD", "result": "LESS", "mod_revision": str(revision)}


class Client:
    """The calls. Usable from any thread; for their errors see :meth:`Gateway.call`.

    Args:
        gateway: sends them.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway: Final = gateway

    def transact(
        self,
        then: Sequence[Json],
        *,
        when: Sequence[Json] = (),
        otherwise: Sequence[Json] = (),
        repeatable: bool = False,
    ) -> Outcome:
        """Carry out operations in one step if all comparisons are true, and others if one is not."""
        body = {"compare": list(when), "success": list(then), "failure": list(otherwise)}
        return _outcome(self.gateway.call("/v3/kv/txn", body, repeatable=repeatable))

    def read(self, *ranges: Json) -> Outcome:
        """Read ranges in one step: linearizably, as all reads without the option ``serializable``."""
        return self.transact(ranges, repeatable=True)

    def read_at(self, key: bytes, revision: int) -> tuple[Item, ...]:
        """Read a key as it was at a revision: not in a transaction, where members may diverge (etcd-io/etcd#18667)."""
        body = {"key": text(key), "revision": str(revision)}
        return _found(self.gateway.call("/v3/kv/range", body, repeatable=True)).items

    def grant(self, seconds: int) -> int:
        """Begin a lease that ends after this time unless it is kept alive; return its number."""
        return int(self.gateway.call("/v3/lease/grant", {"TTL": str(seconds)}, repeatable=True)["ID"])

    def keep_alive(self, lease: int) -> bool:
        """Prolong a lease; return whether it has not ended."""
        answer = self.gateway.call("/v3/lease/keepalive", {"ID": str(lease)}, repeatable=True)
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        """End a lease; its keys are deleted. It may have ended before."""
        self.gateway.call("/v3/lease/revoke", {"ID": str(lease)}, repeatable=True)

    def status(self, endpoint: str) -> Status:
        """Return what the member at one endpoint says about itself; it answers without the others, too."""
        answer = self.gateway.ask(endpoint, "/v3/maintenance/status", {})
        header = answer.get("header", {})
        return Status(
            cluster=int(header.get("cluster_id", 0)),
            member=int(header.get("member_id", 0)),
            leader=int(answer.get("leader", 0)),
            version=str(answer.get("version", "")),
            size=int(answer.get("dbSize", 0)),
            errors=tuple(error.strip() for error in answer.get("errors", ())),
        )


def _outcome(answer: Json) -> Outcome:
    responses: Sequence[Mapping[str, Any]] = answer.get("responses", ())
    return Outcome(
        bool(answer.get("succeeded", False)),
        int(answer["header"]["revision"]),
        tuple(_found(one["response_range"]) for one in responses if "response_range" in one),
    )


def _found(answer: Json) -> Found:
    return Found(tuple(map(Item.of, answer.get("kvs", ()))), int(answer.get("count", 0)))
