"""Checks the keys that only one task writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stress.checking.evidence import Evidence, Violation
from stress.logs.history import Operation, Outcome

_Writers = Mapping[str | None, Operation | None]


def check_owned(evidence: Evidence) -> Iterator[Violation]:
    """Each key that only one task writes has the last acknowledged value, or a later one whose outcome is not known."""
    for key, operations in evidence.by_key().items():
        possible: dict[str | None, Operation | None] = {None: None}
        for operation in operations:
            if operation.name != "read_back":
                if operation.outcome is Outcome.OK:
                    possible.clear()
                # A failed one is possible too: its change stays unsaved, and the context's next save includes it.
                possible[None if operation.name == "delete" else operation.id] = operation
            elif operation.outcome is Outcome.OK and operation.result not in possible:
                yield _impossible(key, operation.result, possible, operation)
        values = evidence.final.get(key, [None])
        final = values[0] if len(values) == 1 else str(values)  # which no writer has written
        if final not in possible:
            yield _impossible(key, final, possible)


def _impossible(key: str, seen: str | None, possible: _Writers, *readers: Operation) -> Violation:
    """Return the violation that a key has an impossible value."""
    writers = [operation for operation in possible.values() if operation is not None]
    expected = " or ".join(repr(value) for value in possible)
    return Violation("lost", f"{key} has {seen!r} instead of {expected}", [*writers, *readers])
