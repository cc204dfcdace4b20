"""The states of a run in a cluster of etcd, read and written without the library, by the JSON gateway of its members.

A run has a cluster of its own, in which each file of `OPENINGS` is a namespace. What the library adds there, such as
the marker of the last commit and the queue, is known to this module only as far as its name.
"""

from __future__ import annotations

import http.client
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

PATIENCE = 30.0
"""Seconds for which a member is sought that answers: longer than a run keeps a majority from working."""
AT_A_TIME = 100
"""Keys in one transaction: members refuse more than 128."""
ANSWER_SECONDS = 2.0
RETRY_SECONDS = 0.1


class UnavailableError(OSError):
    """No member has answered."""


def location(endpoints: Sequence[str], name: str) -> str:
    """Return the URL of a state, as the library takes it."""
    return f"etcd://{','.join(endpoints)}/{_namespace(name)}"


def ask(endpoint: str, path: str, body: Mapping[str, Any], *, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Send a request to one member.

    Raises:
        UnavailableError: there was no answer, or another one than was asked for.
    """
    connection = http.client.HTTPConnection(endpoint, timeout=seconds)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        content = response.read()
        answer: dict[str, Any] = json.loads(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"{endpoint} did not answer to {path}: {type(error).__name__}: {error}"
        raise UnavailableError(message) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        message = f"{endpoint} answered {response.status} to {path}: {answer.get('error')}"
        raise UnavailableError(message)
    return answer


def ask_any(endpoints: Sequence[str], path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request, which may be carried out more than once, to one member after another until one answers.

    Raises:
        UnavailableError: none did, for long.
    """
    deadline = time.monotonic() + PATIENCE
    for number in count():
        try:
            return ask(endpoints[number % len(endpoints)], path, body)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            if number % len(endpoints) == len(endpoints) - 1:
                time.sleep(RETRY_SECONDS)
    raise AssertionError


def write(endpoints: Sequence[str], name: str, document: Mapping[str, Any]) -> None:
    """Write the keys of a state that nobody uses yet, as a program without the library would."""
    items = [(_text(_key(name, key)), _text(json.dumps(value))) for key, value in document.items()]
    for start in range(0, len(items), AT_A_TIME):
        puts = [{"request_put": {"key": key, "value": value}} for key, value in items[start : start + AT_A_TIME]]
        ask_any(endpoints, "/v3/kv/txn", {"success": puts})


def read(endpoints: Sequence[str], name: str) -> dict[str, Any]:
    """Return a state at one moment, read linearizably, which is also as new as all that was acknowledged before.

    Raises:
        UnavailableError: no member answers.
        ValueError: a value is not valid JSON.
    """
    return _document(ask_any(endpoints, "/v3/kv/range", _range(_key(name, ""))), name)


def holder(endpoints: Sequence[str], name: str) -> int | None:
    """Return the process whose turn it is to change a state, as far as it says so and a member answers at once."""
    first = _range(f"{_namespace(name)}/q/") | {"limit": "1", "sort_order": "ASCEND", "sort_target": "CREATE"}
    for endpoint in endpoints:
        try:
            found = ask(endpoint, "/v3/kv/range", first | {"serializable": True}, seconds=0.2).get("kvs", ())
            return next((int(json.loads(b64decode(one["value"]))["pid"]) for one in found), None)
        except (UnavailableError, ValueError, LookupError, TypeError):
            continue
    return None


def compact(endpoint: str) -> int:
    """Compact the history up to the present revision, and return it.

    Raises:
        UnavailableError: the member does not answer, or has compacted it already.
    """
    revision = int(ask(endpoint, "/v3/kv/range", _range(""))["header"]["revision"])
    ask(endpoint, "/v3/kv/compaction", {"revision": str(revision)})
    return revision


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys at which two states differ, in order."""
    for key in sorted(one.keys() | other.keys()):
        if key not in one or key not in other or one[key] != other[key]:
            yield key


def _document(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the keys of a state and their values."""
    start = len(_key(name, "").encode())
    items = answer.get("kvs", ())
    return {b64decode(item["key"])[start:].decode(): json.loads(b64decode(item["value"])) for item in items}


def _namespace(name: str) -> str:
    return f"stress/{name}"


def _key(name: str, key: str) -> str:
    return f"{_namespace(name)}/k/{key}"


def _range(prefix: str) -> dict[str, Any]:
    """Return a request for all keys with a prefix that ends with a slash, or for one key that does not exist."""
    end = f"{prefix[:-1]}0" if prefix else ""  # 0 follows the slash
    return {"key": _text(prefix or "\0"), "range_end": _text(end)}


def _text(content: str) -> str:
    """Return a text as the gateway takes bytes."""
    return b64encode(content.encode()).decode("ascii")
