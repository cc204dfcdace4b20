"""Checks the file of many pages: registers of one key and of several, and values that never change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stress.checking.evidence import Evidence, Violation
from stress.checking.register import check_registers
from stress.documents.paged import ALL, OPENING_TOKENS, opening_paged
from stress.logs.history import Operation, Outcome


def check_pages(evidence: Evidence) -> Iterator[Violation]:
    """Each register behaves like one, the keys of a bundle change together, and the rest is unchanged."""
    if not evidence.operations:
        return  # the run had no such processes
    written = {key for register in ALL for key in register.keys}
    for key, value in opening_paged().items():
        if key not in written and evidence.final.get(key) != value:
            yield Violation(
                "lost", f"{key}, which no operation changes, has {str(evidence.final.get(key))[:100]!r} at the end"
            )
    final = {register.name: register.held(evidence.final.get) for register in ALL}
    operations = [*map(_opening, final), *(one for one in evidence.operations if one.key in final)]
    for survey in evidence.having(Outcome.OK, "survey"):
        operations += [
            replace(survey, name="read_register", key=name, result=token) for name, token in survey.result.items()
        ]
    yield from check_registers(replace(evidence, operations=operations, final=final))


def _opening(name: str) -> Operation:
    """Return an operation that writes the initial value of a register."""
    return Operation(
        id=OPENING_TOKENS[name],
        workload="pages",
        name="write",
        key=name,
        invoked=-2,
        finished=-1,
        outcome=Outcome.OK,
    )
