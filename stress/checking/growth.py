"""Checks numbers that only grow, by one: each value is made once, and no operation sees an outdated value."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from stress.checking.evidence import Violation
from stress.logs.history import Operation


@dataclass(frozen=True, slots=True)
class Growth:
    """An acknowledged operation that made a number grow to a value, or one that saw the value (a sighting)."""

    operation: Operation
    value: int
    sighting: bool = False


def seen_in(key: str, reads: Iterable[Operation]) -> list[Growth]:
    """Return the values of a number that reads saw."""
    return [Growth(read, read.result.get(key, 0), sighting=True) for read in reads]


def check_growth(key: str, growths: Sequence[Growth], sightings: Sequence[Growth], final: int) -> Iterator[Violation]:
    """Check one number: no value is made twice, none is above the final one, and none is stale."""
    makers: dict[int, Operation] = {}
    for growth in growths:
        if growth.value in makers:
            message = f"two operations both made {key} {growth.value}: one of them is lost"
            yield Violation("lost", message, [makers[growth.value], growth.operation])
        elif growth.value > final:
            yield Violation("lost", f"{key} was made {growth.value}, and is {final} at the end", [growth.operation])
        makers[growth.value] = growth.operation
    yield from _check_real_time(key, [*growths, *sightings])


def check_gaps(
    key: str, growths: Sequence[Growth], sightings: Sequence[Growth], unknown: Iterable[Operation], final: int
) -> Iterator[Violation]:
    """Check that each value without a known maker can be the work of an unknown operation that was pending at the time.

    A value was made after the lower ones were made or seen, and before the higher ones were. The time windows of the
    missing values are therefore in order, and each value is best given to the fitting operation that ended first.
    """
    made = {growth.value for growth in growths}
    not_before: defaultdict[int, float] = defaultdict(float)
    not_after: defaultdict[int, float] = defaultdict(lambda: math.inf)
    for growth in (*growths, *sightings):
        # A value that was only seen may have been made long before, but the next one was not.
        not_before[growth.value] = max(not_before[growth.value], growth.operation.invoked)
        not_after[growth.value] = min(not_after[growth.value], growth.operation.finished)
    latest: dict[int, float] = {}
    end = math.inf
    for value in range(final, 0, -1):
        end = latest[value] = min(end, not_after[value])

    candidates = deque(sorted(unknown, key=lambda operation: operation.invoked))
    last_chances: list[float] = []
    earliest = not_before[0]
    for value in range(1, final + 1):
        if value not in made:
            while candidates and candidates[0].invoked <= latest[value]:
                heappush(last_chances, candidates.popleft().finished)
            while last_chances and last_chances[0] < earliest:
                heappop(last_chances)
            if last_chances:
                heappop(last_chances)
            else:
                message = f"{key} became {value}, and no operation can have made it so between these"
                yield Violation("duplicated", message, _bounds(value, [*growths, *sightings]))
        earliest = max(earliest, not_before[value])


def _bounds(value: int, growths: Iterable[Growth]) -> list[Operation]:
    """Return the tightest bounds on when a value was made: the last to begin with a lower one, the first to know it."""
    before = max((one for one in growths if one.value < value), key=lambda one: one.operation.invoked, default=None)
    after = min((one for one in growths if one.value >= value), key=lambda one: one.operation.finished, default=None)
    return [one.operation for one in (before, after) if one is not None]


def _check_real_time(key: str, growths: Sequence[Growth]) -> Iterator[Violation]:
    """Check that an operation that began after another had ended saw at least its value, or made a higher one."""
    ended = iter(sorted(growths, key=lambda growth: growth.operation.finished))
    earlier = next(ended, None)
    highest: Growth | None = None
    for later in sorted(growths, key=lambda growth: growth.operation.invoked):
        while earlier is not None and earlier.operation.finished < later.operation.invoked:
            if highest is None or earlier.value > highest.value:
                highest = earlier
            earlier = next(ended, None)
        if highest is not None and later.value < highest.value + (not later.sighting):
            message = f"{key} was {later.value} to an operation that began after {highest.value} had been seen"
            yield Violation("stale", message, [highest.operation, later.operation])
            highest = None  # reported once, or everything that follows would be reported as well
