"""Logged operations for tests of the stress run's checkers, and what a checker says of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the stress run is not installed

from stress.checking.evidence import Evidence
from stress.logs.history import Operation, Outcome


def logged(name, key, span, *, by="0.0.0", outcome=Outcome.OK, **more):
    """Make an operation of the task `by`, from the first to the second moment of `span`."""
    invoked, finished = span
    return Operation(
        id=f"{by}.{invoked}",
        workload="any",
        name=name,
        key=key,
        invoked=invoked,
        finished=finished,
        outcome=outcome,
        **more,
    )


def kinds(checker, operations, final, reads=()):
    """Return the kinds of the violations that a checker finds."""
    return [violation.kind for violation in checker(Evidence(operations, final, reads))]
