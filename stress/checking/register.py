"""Compares the operations on registers with what a register may do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from stress.checking.evidence import Evidence, Violation
from stress.checking.linearizability import LIMIT, GaveUpError, No, State, Step, search
from stress.logs.history import Operation, Outcome

FINAL = "final"


def check_registers(evidence: Evidence, *, limit: int = LIMIT) -> Iterator[Violation]:
    """Each register behaves as if its operations had happened one after the other, each while it was in flight.

    The search is that of Wing and Gong (1993) and Lowe (2017); one that takes too long is reported as given up.
    """
    for key, operations in evidence.by_key().items():
        last = max(operation.invoked for operation in operations)
        last = max([last, *(int(one.finished) for one in operations if one.finished < math.inf)]) + 1
        left = Operation(
            id=f"{FINAL}.0.0.0",
            workload="register",
            name="read_register",
            key=key,
            invoked=last,
            finished=last + 1,
            outcome=Outcome.OK,
            result=evidence.final.get(key),
        )
        try:
            found = search([step for one in (*operations, left) for step in steps_of(one)], limit=limit)
        except GaveUpError:
            yield Violation("undecided", f"{key}: the search gave up; {len(operations)} operations were not judged")
            continue
        if found:
            held = " or ".join(repr(state) for state in sorted(found.states, key=str))
            message = f"{key}: {found.culprit.id} fits into no order of these operations, before which it held {held}"
            yield Violation("not linearizable", message, _with_writers(found.window, found.states, operations))


def _with_writers(window: Sequence[Operation], states: Sequence[State], all_: Sequence[Operation]) -> list[Operation]:
    """Put those in front that wrote what the register held before, if they are few."""
    writers = [one for one in all_ if one.id in states and one not in window] if len(states) <= 3 else []  # noqa: PLR2004
    return [*writers, *window]


def steps_of(operation: Operation) -> Iterator[Step]:
    """Yield the possible effects of an operation on its register; nothing, if it cannot have had any.

    Values are the ids of the operations that wrote them.
    """
    certain = operation.outcome is Outcome.OK
    finished: float = operation.finished
    leads: Callable[[State], State | No]
    changes = True
    if operation.name == "write":
        # Memory keeps a change whose save failed, and any later save of the context may include it.
        finished = math.inf if operation.outcome is Outcome.FAIL else finished
        leads = _always(operation.id)
    elif operation.outcome is Outcome.FAIL:
        return
    elif operation.name == "read_register":
        if not certain:
            return
        leads, changes = _when(operation.result, operation.result), False
    elif operation.note is None:  # killed before it had its turn, or before it knew what to replace
        return
    else:
        expected = operation.note["expected"]
        new = None if operation.name == "remove" else operation.id
        if operation.result is False:
            leads, changes = _unless(expected), False
        else:
            leads = _when(expected, new)
    yield Step(operation, leads, operation.invoked, finished, certain, changes)


def _always(new: State) -> Callable[[State], State | No]:
    return lambda _: new


def _when(expected: State, new: State) -> Callable[[State], State | No]:
    return lambda state: new if state == expected else No.NO


def _unless(unexpected: State) -> Callable[[State], State | No]:
    return lambda state: state if state != unexpected else No.NO
