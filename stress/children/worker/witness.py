"""Looks at the file just after a call was cancelled: its effect is there by then, or never will be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from stress.children.assignment import Assignment
from stress.documents.hammered import snapshot
from stress.logs.history import Kind, Log


def witness(log: Log, assignment: Assignment, tokens: Iterator[str], workload: str, key: str) -> None:
    """Read the file, and log the value of the cancelled operation's key."""
    invoked = time.monotonic_ns()
    try:
        document = assignment.document()
    except (OSError, ValueError):
        return  # the cluster is not at work; or else the reader process finds and reports such things
    finished = time.monotonic_ns()
    looks: list[tuple[str, str, str, Any]] = [("read", "read", assignment.state.name, snapshot(document))]
    if workload == "register":
        looks.append((workload, "read_register", key, document.get(key)))
    elif workload == "prefix":
        looks.append((workload, "see", key, document.get(key, [0, []])))
    for (of, name, what, result), token in zip(looks, tokens, strict=False):
        log.write(Kind.INVOKE, at=invoked, id=token, workload=of, name=name, key=what)
        log.write(Kind.OK, at=finished, id=token, result=result)
