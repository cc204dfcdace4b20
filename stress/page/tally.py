"""Counts a history in one pass and little memory: outcomes, latencies, slices of time, what faults found under way."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stress.logs.history import Operation, Outcome

OUTSIDE = "read"
"""The workload of who opens the file without the library. It is no part of the throughput; nor is what others do."""
SLICES = 160
"""Into how many slices of time a run is cut at most."""
SLICE = 100_000_000
"""The shortest slice, in nanoseconds."""
BITS = 7
"""Latencies are counted in classes, which are told apart by their first binary digits: to 1.6 %."""


@dataclass(slots=True)
class Latencies:
    """Any number of latencies in nanoseconds, as counts of classes."""

    classes: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    """This one is exact."""

    def add(self, latency: int) -> None:
        """Count one."""
        shift = max(latency.bit_length() - BITS, 0)
        self.classes[shift << BITS | latency >> shift] += 1
        self.longest = max(self.longest, latency)

    def percentile(self, percent: float) -> float:
        """Return a number that so many percent do not exceed, at most 1.6 % too high; NaN if there are none."""
        rank = max(math.ceil(self.classes.total() * percent / 100), 1)
        for number in sorted(self.classes):
            rank -= self.classes[number]
            if rank <= 0:
                shift, digits = divmod(number, 1 << BITS)
                return min(((digits + 1) << shift) - 1, self.longest)
        return math.nan


@dataclass(slots=True)
class Line:
    """What became of the operations of one name."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    """Of those that were acknowledged."""


@dataclass(slots=True)
class Tally:
    """The figures of a run."""

    began: int
    ended: int
    """Both as `time.monotonic_ns()`: the stretch of time that the plots show."""
    faults: Mapping[str, Sequence[int]]
    """When each kind of fault struck, in order."""
    lines: dict[tuple[str, str], Line] = field(default_factory=lambda: defaultdict(Line))
    """By workload and name."""
    slices: list[Latencies] = field(default_factory=list)
    """Latencies of what workers were told in each slice of time."""
    seats: Counter[str] = field(default_factory=Counter)
    """Acknowledged operations by `worker.task`: the same for all incarnations of a worker."""
    under_way: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By workload and kind of fault: operations during which at least one struck."""

    def __post_init__(self) -> None:
        """Cut the time into slices."""
        self.slices = [Latencies() for _ in range(min(max((self.ended - self.began) // SLICE, 1), SLICES))]

    @property
    def width(self) -> float:
        """The length of a slice in seconds."""
        return max(self.ended - self.began, 1) / 1e9 / len(self.slices)

    def add(self, operation: Operation) -> None:
        """Count one operation."""
        workload, outcome = operation.workload, operation.outcome
        line = self.lines[workload, operation.name]
        line.outcomes[outcome] += 1
        for kind, times in self.faults.items():
            if bisect_left(times, operation.invoked) < bisect_right(times, operation.finished):
                self.under_way[workload, kind] += 1
        if outcome is not Outcome.OK:
            return
        latency = int(operation.finished) - operation.invoked
        line.latencies.add(latency)
        worker, _, task, _ = operation.id.split(".")
        if workload != OUTSIDE and worker.isdecimal():
            place = (operation.finished - self.began) * len(self.slices) // max(self.ended - self.began, 1)
            self.slices[int(min(max(place, 0), len(self.slices) - 1))].add(latency)
            self.seats[f"{worker}.{task}"] += 1

    def outcomes(self, workload: str) -> Counter[Outcome]:
        """Return what became of the operations of a workload."""
        return sum((line.outcomes for (of, _), line in self.lines.items() if of == workload), Counter())

    @property
    def acknowledged(self) -> int:
        """What workers were told to have happened."""
        return self.seats.total()

    @property
    def invoked(self) -> int:
        """All operations, the reader's among them."""
        return sum(line.outcomes.total() for line in self.lines.values())


def tally(operations: Iterable[Operation], span: tuple[int, int], faults: Mapping[str, Sequence[int]]) -> Tally:
    """Count operations, which may come from anywhere and are not kept."""
    whole = Tally(*span, faults)
    for operation in operations:
        whole.add(operation)
    return whole
