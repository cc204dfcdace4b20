"""A process that constantly opens the file with plain `json.load`. `python -m stress.children.reader ASSIGNMENT`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from stress.children.assignment import Assignment, prepare
from stress.documents.hammered import snapshot
from stress.logs.history import Kind, Log

SAME_EVERY = 50_000_000
"""Nanoseconds in which of many reads that show the same only the first and the last are logged."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read of the file."""

    id: str
    invoked: int
    finished: int
    kind: Kind
    told: dict[str, Any]


def read(state: Path, token: str) -> Read:
    """Read the file once."""
    invoked = time.monotonic_ns()
    try:
        with state.open(encoding="utf-8") as file:
            document = json.load(file)
        finished = time.monotonic_ns()
        return Read(token, invoked, finished, Kind.OK, {"result": snapshot(document)})
    except (OSError, ValueError, AttributeError, TypeError) as error:  # missing, torn, or no object
        told = {"error": f"{type(error).__name__}: {error}"}
        return Read(token, invoked, time.monotonic_ns(), Kind.FAIL, told)


def main() -> None:
    """Read as the command line says, until told to stop."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    logged: Read | None = None
    skipped: Read | None = None
    for serial in count():
        if stop.is_set():
            return
        present = read(assignment.state, f"{assignment.name}.0.{serial}")
        if logged and present.told == logged.told and present.invoked - logged.invoked < SAME_EVERY:
            skipped = present
            continue
        for one in filter(None, (skipped, present)):
            log.write(Kind.INVOKE, at=one.invoked, id=one.id, workload="read", name="read", key=assignment.state.name)
            log.write(one.kind, at=one.finished, id=one.id, **one.told)
        logged, skipped = present, None


if __name__ == "__main__":
    main()
