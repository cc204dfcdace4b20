"""Checks programs that are ended in the middle of their work, and calls that are hit by signals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from stress.checking.counters import check_counters
from stress.checking.evidence import Evidence, Violation
from stress.checking.owned import check_owned
from stress.logs.history import Operation, Outcome

SHOWN = 10
"""How many of those calls are listed that took too long."""


def check_endings(evidence: Evidence) -> Iterator[Violation]:
    """Each program ends by itself in time, and what its last save acknowledged is in the file."""
    programs = [one for one in evidence.operations if _is_program(one)]
    calls = [one for one in evidence.operations if not _is_program(one)]
    for program in programs:
        if program.outcome is Outcome.FAIL:
            left = [one for one in calls if one.process == program.process and one.outcome is Outcome.UNKNOWN]
            yield Violation("hung", f"{program.name}: {program.error}", [program, *left])
    yield from _check_calls(replace(evidence, operations=calls))


def check_signals(evidence: Evidence) -> Iterator[Violation]:
    """An interrupted call has its whole effect or none, and none if it was still waiting; it holds up no other call."""
    yield from _check_calls(evidence)


def check_waits(operations: Iterable[Operation], patience: float) -> Iterator[Violation]:
    """Check that no call took too long: one that did was waiting for something that hung."""
    late = [one for one in operations if patience * 1e9 < one.finished - one.invoked < math.inf]
    if late:
        late.sort(key=lambda one: one.invoked)
        yield Violation("hung", f"{len(late)} calls took more than {patience:g} s; these are the first", late[:SHOWN])


def _check_calls(evidence: Evidence) -> Iterator[Violation]:
    """Check counters against the increments, and the keys that only one task writes against its saves."""
    counts = [one for one in evidence.operations if one.name.startswith("incr")]
    saves = [one for one in evidence.operations if not one.name.startswith("incr")]
    yield from check_counters(replace(evidence, operations=counts))
    yield from check_owned(replace(evidence, operations=saves))
    yield from check_waits(evidence.operations, evidence.patience)


def _is_program(operation: Operation) -> bool:
    """Return whether the operation is the run of a whole program."""
    return operation.id.endswith(".end.0")
