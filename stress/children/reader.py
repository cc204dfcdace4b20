"""A process that constantly reads the file, without the lock. `python -m stress.children.reader ASSIGNMENT`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from stress.children.assignment import Assignment, prepare
from stress.documents.etcd import UnavailableError
from stress.documents.hammered import snapshot
from stress.logs.history import Kind, Log

PAUSE = 0.1
"""Seconds between two reads of a cluster, which has other work to do."""
SAME_EVERY = 50_000_000
"""Nanoseconds in which, of many reads with the same result, only the first and the last are logged."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read of the file."""

    id: str
    invoked: int
    finished: int
    kind: Kind
    told: dict[str, Any]


def read(document_of: Callable[[], dict[str, Any]], token: str) -> Read:
    """Read the file once.

    Raises:
        UnavailableError: the cluster that has it is not at work.
    """
    invoked = time.monotonic_ns()
    try:
        document = document_of()
        finished = time.monotonic_ns()
        return Read(token, invoked, finished, Kind.OK, {"result": snapshot(document)})
    except UnavailableError:
        raise
    except (OSError, ValueError, AttributeError, TypeError) as error:  # missing, torn, or not an object
        told = {"error": f"{type(error).__name__}: {error}"}
        return Read(token, invoked, time.monotonic_ns(), Kind.FAIL, told)


def write(log: Log, read: Read, assignment: Assignment) -> None:
    """Log a read."""
    log.write(Kind.INVOKE, at=read.invoked, id=read.id, workload="read", name="read", key=assignment.state.name)
    log.write(read.kind, at=read.finished, id=read.id, **read.told)


def main() -> None:
    """Read as the command line says, until asked to stop."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    logged: Read | None = None
    skipped: Read | None = None
    for serial in count():
        if stop.is_set():
            return
        if assignment.members:
            stop.wait(PAUSE)
        try:
            present = read(assignment.document, f"{assignment.name}.0.{serial}")
        except UnavailableError:
            continue
        if logged and present.told == logged.told and present.invoked - logged.invoked < SAME_EVERY:
            skipped = present
            continue
        for one in filter(None, (skipped, present)):
            write(log, one, assignment)
        logged, skipped = present, None


if __name__ == "__main__":
    main()
