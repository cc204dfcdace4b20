"""The doctor's checks of a state in etcd: each endpoint by itself, the cluster, the state and its lock."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final, NamedTuple

from .._model.live import LiveDict
from .._stores.etcd.address import Address, recall
from .._stores.etcd.client import Client, Status, is_created_at, put, text
from .._stores.etcd.failures import RefusedError, UnansweredError, UnreachableError
from .._stores.etcd.gateway import Gateway
from .._stores.etcd.lease import LIFETIME_SECONDS
from .._stores.etcd.state import Names
from .._stores.etcd.store import EtcdStore
from .._stores.protocol import CorruptStateError
from ..errors import StoreUnavailableError
from .findings import Finding, Level

_READINGS: Final = 3
_LONG_HOLD_SECONDS: Final = 60
_NEVER: Final = 2**63 - 1
"""A revision that no cluster reaches."""
_MENDED: Final = {(3, 4): 42, (3, 5): 28, (3, 6): 9}
"""The first patch of each version in which a member that was paused never answers with an old state."""
_REMEDIES: Final = {
    "NOSPACE": "it refuses every change: compact the history and defragment the members with etcdctl, then run "
    "etcdctl alarm disarm; --auto-compaction-retention prevents it",
    "CORRUPT": "the data of a member differs from that of the others: replace this member",
}
_GRANT: Final = "grant this user the permission to read and write all keys that begin with the namespace and a slash"


class _Answer(NamedTuple):
    """What one endpoint has answered."""

    endpoint: str
    status: Status | None
    seconds: float | None
    """How long a linearizable read took; None if it failed."""
    trouble: str
    """Why the status or the read is missing."""
    is_refusal: bool
    """Whether the endpoint works, but has refused this user."""


def examine(place: str) -> Iterator[Finding]:
    """Examine a state in etcd, without changing anything. Blocks for some seconds if endpoints do not answer."""
    address = recall(place)
    yield Finding(Level.OK, "installation", f"urllib3 {version('urllib3')} is installed")
    unreadable = [*_certificates(address)]
    yield from unreadable
    if unreadable:
        return
    client, names = Client(Gateway(address)), Names.of(address.namespace)
    answers = [_ask(client, endpoint, names) for endpoint in address.endpoints]
    works = any(answer.seconds is not None for answer in answers)
    for answer in answers:
        yield _endpoint(answer, works=works)
    known = {answer.endpoint: answer.status for answer in answers if answer.status is not None}
    yield from _versions(known)
    yield from _alarms(known)
    yield from _cluster(known)
    if works:
        yield Finding(Level.OK, "majority", "a linearizable read works")
        yield from _contents(client, names, EtcdStore(address))
    elif not all(answer.is_refusal for answer in answers):
        yield Finding(
            Level.PROBLEM,
            "majority",
            "no endpoint carried out a linearizable read, so nothing can be read or saved",
            "start members until a majority of the cluster runs, and check the endpoints of the URL",
        )


def _certificates(address: Address) -> Iterator[Finding]:
    for name in filter(None, (address.ca, address.cert, address.key)):
        try:
            with open(name, "rb"):
                pass
        except OSError as error:
            yield Finding(Level.PROBLEM, "certificates", f"{name} cannot be read: {error.strerror}")


def _ask(client: Client, endpoint: str, names: Names) -> _Answer:
    status = None
    try:
        status = client.status(endpoint)
        seconds = statistics.median(_time_read(client, endpoint, names) for _ in range(_READINGS))
    except UnreachableError as error:
        return _Answer(endpoint, status, None, error.endpoints[endpoint], is_refusal=False)
    except UnansweredError as error:
        return _Answer(endpoint, status, None, error.reason, is_refusal=False)
    except RefusedError as error:
        return _Answer(endpoint, status, None, error.reason, is_refusal=True)
    except (OSError, ValueError) as error:  # unusable certificates, or an answer that is not etcd's
        return _Answer(endpoint, status, None, str(error), is_refusal=False)
    return _Answer(endpoint, status, seconds, "", is_refusal=False)


def _time_read(client: Client, endpoint: str, names: Names) -> float:
    began = time.monotonic()
    client.gateway.ask(endpoint, "/v3/kv/range", {"key": text(names.marker)})
    return time.monotonic() - began


def _endpoint(answer: _Answer, *, works: bool) -> Finding:
    status, endpoint = answer.status, answer.endpoint
    if status is None:
        what = "refuses this user" if answer.is_refusal else "does not answer"
        found = f"{endpoint} {what}: {answer.trouble}"
    else:
        role = {status.member: "the leader", 0: "knows no leader"}.get(status.leader, "a follower")
        found = f"{endpoint}: etcd {status.version}, {role}, database of {status.size} bytes"
        if answer.seconds is not None:
            return Finding(Level.OK, "endpoint", f"{found}; a read took {1000 * answer.seconds:.1f} ms")
        found += f"; a read {'was refused' if answer.is_refusal else 'failed'}: {answer.trouble}"
    if answer.is_refusal:
        return Finding(Level.PROBLEM, "endpoint", found, "check the user, the password and the user's permissions")
    if works:
        return Finding(Level.WARNING, "endpoint", found, "start this member, or see its log; others are used meanwhile")
    return Finding(Level.PROBLEM, "endpoint", found)


def _versions(known: dict[str, Status]) -> Iterator[Finding]:
    for endpoint, status in known.items():
        if _is_faulty(status.version):
            yield Finding(
                Level.WARNING,
                "version",
                f"{endpoint}: etcd {status.version} may answer once with an old state after its machine was paused "
                "(etcd-io/etcd#20418)",
                "use etcd 3.5.28, 3.6.9 or newer; 3.4.42 does not have this fault either",
            )


def _is_faulty(version_: str) -> bool:
    """Whether a version of etcd, or one that is not known, has the fault that a user may notice."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version_)
    if found is None:
        return True
    major, minor, patch = map(int, found.groups())
    return (major, minor) < min(_MENDED) or patch < _MENDED.get((major, minor), 0)


def _alarms(known: dict[str, Status]) -> Iterator[Finding]:
    for endpoint, status in known.items():
        for error in status.errors:
            if "no leader" in error:
                continue  # shown with the endpoint
            remedy = next((advice for name, advice in _REMEDIES.items() if name in error), "see the member's log")
            yield Finding(Level.PROBLEM, "alarm", f"{endpoint} reports {error}", remedy)


def _cluster(known: dict[str, Status]) -> Iterator[Finding]:
    """Check that the endpoints are different members of one cluster, which follow one leader."""
    if len({status.cluster for status in known.values()}) > 1:
        names = ", ".join(f"{endpoint} to {status.cluster:x}" for endpoint, status in known.items())
        yield Finding(
            Level.PROBLEM,
            "cluster",
            f"the endpoints belong to different clusters: {names}; each has a state of its own",
            "name the members of one cluster only",
        )
        return
    by_member: dict[int, list[str]] = {}
    for endpoint, status in known.items():
        by_member.setdefault(status.member, []).append(endpoint)
    for endpoints in by_member.values():
        if len(endpoints) > 1:
            yield Finding(
                Level.WARNING,
                "cluster",
                f"{' and '.join(endpoints)} are the same member, so one cannot take over for another",
                "name each member once",
            )
    if len({status.leader for status in known.values()} - {0}) > 1:
        found = "the members follow different leaders: the leader is just changing, or some of them are cut off"
        yield Finding(Level.WARNING, "cluster", found, "run this again after a few seconds")
    if known:
        number = next(iter(known.values())).cluster
        yield Finding(Level.OK, "cluster", f"all endpoints that answer belong to one cluster, {number:x}")


def _contents(client: Client, names: Names, store: EtcdStore) -> Iterator[Finding]:
    """Examine the state, what this user may do with it, and who has the lock."""
    checks: dict[str, Callable[[], Finding]] = {
        "state": lambda: _state(store),
        "access": lambda: _access(client, names),
        "lock": lambda: _lock(store),
    }
    for subject, check in checks.items():
        try:
            yield check()
        except RefusedError as error:
            advice = _REMEDIES["NOSPACE"] if "space exceeded" in error.reason else _GRANT
            yield Finding(Level.PROBLEM, subject, f"a request was refused: {error.reason}", advice)
        except (UnreachableError, UnansweredError, StoreUnavailableError) as error:
            yield Finding(Level.PROBLEM, subject, f"a request failed: {error}", "run this again")


def _state(store: EtcdStore) -> Finding:
    try:
        document = store.snapshot()
    except CorruptStateError as error:
        return Finding(Level.PROBLEM, "state", f"is not valid: {error}", error.remedy or "")
    if not document.exists:
        return Finding(Level.OK, "state", "does not exist; it reads as empty, and the first save creates it")
    size = sum(len(bytes(raw)) for part in document.parts() for raw in part.values())
    return Finding(Level.OK, "state", f"valid; keys: {len(LiveDict.of(document))}, bytes of their values: {size}")


def _access(client: Client, names: Names) -> Finding:
    """Ask for a change on a condition that is never true: etcd checks the permission, and changes nothing."""
    writes = [put(names.marker, b""), put(names.value(""), b""), put(names.queue, b"")]
    client.transact(writes, when=[is_created_at(names.marker, _NEVER)], repeatable=True)
    return Finding(Level.OK, "access", "this user may read and change the state")


def _lock(store: EtcdStore) -> Finding:
    holder = store.holder()
    if holder is None:
        return Finding(Level.OK, "lock", "no process holds it")
    if holder.stopped:
        advice = f"kill -CONT {holder.pid} resumes it; else it loses the lock within {LIFETIME_SECONDS} s"
        return Finding(Level.WARNING, "lock", f"held by {holder}", advice)
    seconds = 0.0 if holder.since is None else time.time() - holder.since
    if seconds > _LONG_HOLD_SECONDS:
        advice = f"released when its transaction ends, or {LIFETIME_SECONDS} s after it died or was cut off"
        return Finding(Level.WARNING, "lock", f"held for {seconds:.0f} s by {holder}", advice)
    return Finding(Level.OK, "lock", f"held by {holder}")
