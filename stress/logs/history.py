"""The events that workers log, one JSON line each, and the history of operations that is read from them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any


class Kind(StrEnum):
    """The meaning of an event."""

    INVOKE = "invoke"
    """An operation is about to start."""
    NOTE = "note"
    """What a transaction saw and will do, logged while it holds the lock: it shows later what an unknown one did."""
    OK = "ok"
    """The operation was acknowledged."""
    FAIL = "fail"
    """The operation raised an error that promises that nothing happened."""
    INFO = "info"
    """The operation raised an error that leaves its outcome unknown. If it is `pending`, it may still take effect."""
    KILLED = "killed"
    """A process is dead. The supervisor logs this once it has seen the process end."""
    CRASH = "crash"
    """The library raised what its contract does not allow."""
    STATISTICS = "statistics"
    """How many commits the worker has made so far."""
    FAULT = "fault"
    """A process, a call or the file was hurt on purpose."""


class Outcome(StrEnum):
    """What is known about an operation."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of one task, from its invocation to its outcome."""

    id: str
    """Unique in a run: `worker.incarnation.task.serial`. It is also the token that the operation writes."""
    workload: str
    name: str
    key: str
    invoked: int
    """`time.monotonic_ns()` just before it started."""
    finished: float = math.inf
    """`time.monotonic_ns()` just after it ended, or after its process was dead: it happened by then or never."""
    outcome: Outcome = Outcome.UNKNOWN
    result: Any = None
    note: Any = None
    noted: int = 0
    """`time.monotonic_ns()` of the note."""
    error: str = ""

    @property
    def process(self) -> str:
        """The process that performed it: `worker.incarnation`."""
        return self.id.rsplit(".", 2)[0]

    def __str__(self) -> str:
        """Describe the operation in one line, for a report."""
        told = {"result": self.result, "note": self.note}
        details = "".join(f" {name}={value!r}" for name, value in told.items() if value is not None)
        return f"{self.id} {self.name}({self.key}){details}: {self.outcome}, {self.invoked} to {self.finished:.0f}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that was injected."""

    name: str
    """The kind: kill, stop, cancel, delete_lock, fork; or one of those of a cluster of etcd."""
    target: str
    """The process, operation, file or member that was hit."""
    at: int
    """`time.monotonic_ns()` just after it."""


@dataclass(slots=True)
class History:
    """Everything that the processes of a run logged."""

    operations: list[Operation] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    """Exceptions that the contract does not allow: the operation and the traceback of each."""
    deaths: dict[str, int] = field(default_factory=dict)
    """`time.monotonic_ns()` when each killed process was dead, and its last request too, by `worker.incarnation`."""
    commits: int = 0
    """Commits that the workers counted, without those just before a worker was killed."""
    faults: list[Fault] = field(default_factory=list)
    """In the order of their times."""
    began: int = 0
    """`time.monotonic_ns()` of the first event; 0 if there is none."""
    ended: int = 0
    """`time.monotonic_ns()` of the last one."""

    def of(self, workload: str) -> list[Operation]:
        """Return the operations of one workload."""
        return [operation for operation in self.operations if operation.workload == workload]


_OUTCOMES = {Kind.OK: Outcome.OK, Kind.FAIL: Outcome.FAIL, Kind.INFO: Outcome.UNKNOWN}


class Log:
    """An append-only log of one process. Each event is one `write`, so a kill loses no earlier event."""

    def __init__(self, path: Path) -> None:
        """Create the file; it must not exist."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, kind: Kind, **fields: object) -> None:
        """Append one event with the present time."""
        event = {"kind": kind, "at": time.monotonic_ns(), **fields}
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        if os.write(self._descriptor, line) != len(line):
            message = "the log could not be written in full"
            raise OSError(message)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_logs(paths: Iterable[Path], *, lag: float = 0.0) -> History:
    """Read the logs of all processes of a run.

    Args:
        paths: the logs.
        lag: how many seconds after the death of a process its last requests may take effect, at the latest.
    """
    whole = History()
    for path in paths:
        part = parse(path.read_bytes())
        whole.operations += part.operations
        whole.crashes += part.crashes
        whole.deaths |= {name: at + int(lag * 1e9) for name, at in part.deaths.items()}
        whole.commits += part.commits
        whole.faults += part.faults
        if part.ended:
            whole.began = min(whole.began or part.began, part.began)
            whole.ended = max(whole.ended, part.ended)
    whole.faults.sort(key=lambda fault: fault.at)
    whole.operations = [_ended(operation, whole.deaths) for operation in whole.operations]
    return whole


def _ended(operation: Operation, deaths: Mapping[str, int]) -> Operation:
    """Return the operation; if it was pending when its process was killed, it ended at that moment."""
    if operation.finished < math.inf:
        return operation
    return replace(operation, finished=deaths.get(operation.process, math.inf))


def parse(log: bytes) -> History:
    """Turn the log of one process into its history.

    An operation without an outcome was pending when the process ended. A last line that a kill cut short is ignored:
    its event had not yet been reported to anyone.
    """
    history = History()
    operations: dict[str, dict[str, Any]] = {}
    for line in log[: log.rfind(b"\n") + 1].splitlines():
        event = json.loads(line)
        history.began = history.began or event["at"]
        history.ended = event["at"]
        if event["kind"] in _OUTCOMES or event["kind"] in (Kind.INVOKE, Kind.NOTE):
            _tell_operation(event, operations)
        else:
            _tell_process(event, operations, history)
    history.operations = [Operation(**fields) for fields in operations.values()]
    return history


def _tell_operation(event: Mapping[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    """Add what an event says about an operation."""
    match event["kind"]:
        case Kind.INVOKE:
            known = {name: event[name] for name in ("id", "workload", "name", "key")}
            operations[event["id"]] = {**known, "invoked": event["at"]}
        case Kind.NOTE:
            operations[event["id"]] |= {"note": event["note"], "noted": event["at"]}
        case kind:
            told = {name: event[name] for name in ("result", "error") if name in event}
            finished = math.inf if event.get("pending") else event["at"]
            operations[event["id"]] |= {"finished": finished, "outcome": _OUTCOMES[kind], **told}


def _tell_process(event: Mapping[str, Any], operations: Mapping[str, Mapping[str, Any]], history: History) -> None:
    """Add what an event says about a process, or about a fault."""
    match event["kind"]:
        case Kind.CRASH:
            operation = operations.get(event["id"], {"name": "worker", "key": ""})
            history.crashes.append(f"{event['id']} {operation['name']}({operation['key']})\n{event['error']}")
        case Kind.KILLED:
            history.deaths[event["id"]] = event["at"]
        case Kind.STATISTICS:
            history.commits = event["commits"]
        case Kind.FAULT:
            history.faults.append(Fault(event["name"], event["target"], event["at"]))
