"""Checks counters."""

from __future__ import annotations

from collections.abc import Iterator

from stress.checking.evidence import Evidence, Violation
from stress.checking.growth import Growth, check_gaps, check_growth, seen_in
from stress.logs.history import Outcome


def check_counters(evidence: Evidence) -> Iterator[Violation]:
    """Every increment is in the final value exactly once, all returned different values, and none went back in time."""
    for key, operations in evidence.by_key().items():
        final = evidence.final.get(key, 0)
        growths = [Growth(made, made.result) for made in operations if made.result is not None]
        unknown = [operation for operation in operations if operation.outcome is Outcome.UNKNOWN]
        sightings = seen_in(key, evidence.reads)
        yield from check_growth(key, growths, sightings, final)
        yield from check_gaps(key, growths, sightings, unknown, final)
