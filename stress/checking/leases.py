"""Checks leases, and values that are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from stress.checking.evidence import Evidence, Violation
from stress.logs.history import Outcome


def check_leases(evidence: Evidence) -> Iterator[Violation]:
    """A lease has one holder at a time, and each holder has a greater token than all before it."""
    for key, operations in evidence.by_key().items():
        held = [operation for operation in operations if operation.outcome is Outcome.OK]
        for earlier, later in pairwise(sorted(held, key=lambda operation: operation.result[0])):
            (token, _, until), (next_token, since, _) = earlier.result, later.result
            if token == next_token:
                yield Violation("duplicated", f"{key} was held twice with token {token}", [earlier, later])
            elif since < until:
                message = f"{key} was held with token {next_token} before its holder with token {token} had finished"
                yield Violation("reordered", message, [earlier, later])


def check_computed(evidence: Evidence) -> Iterator[Violation]:
    """A value is computed once, unless the computation is killed or cancelled, and every caller gets that value."""
    for key, operations in evidence.by_key().items():
        final = evidence.final.get(key)
        given = [operation for operation in operations if operation.outcome is Outcome.OK]
        computed = [operation for operation in given if operation.note is not None]
        if len(computed) > 1:
            yield Violation("duplicated", f"{key} was computed {len(computed)} times", computed)
        others = [operation for operation in given if operation.result != final]
        if others:
            yield Violation("lost", f"{key} has {final!r}, not what callers got", others)
        if final is not None and not any(
            operation.id == final and operation.note is not None for operation in operations
        ):
            yield Violation("foreign", f"{key} has {final!r}, which no call computed", given)
