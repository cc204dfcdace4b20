"""Counts a history in one pass and little memory: outcomes, latencies, slices of time, operations hit by faults."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stress.logs.history import Operation, Outcome

OUTSIDE = "read"
"""The workload of reads without the library. It does not count for the throughput, and neither do other children's."""
SLICES = 160
"""The greatest number of slices that a run is cut into."""
SLICE = 100_000_000
"""The shortest slice, in nanoseconds."""
BITS = 7
"""Latencies are counted in classes of the same first binary digits: to 1.6 %."""


@dataclass(slots=True)
class Latencies:
    """Any number of latencies in nanoseconds, as counts of classes."""

    classes: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    """This figure is exact."""

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
    """The outcomes of the operations of one name."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    """Latencies of those that were acknowledged."""


@dataclass(slots=True)
class Tally:
    """The figures of a run."""

    began: int
    ended: int
    """Both as `time.monotonic_ns()`: the period that the plots show."""
    faults: Mapping[str, Sequence[int]]
    """When each kind of fault struck, in order."""
    lines: dict[tuple[str, str], Line] = field(default_factory=lambda: defaultdict(Line))
    """By workload and name."""
    slices: list[Latencies] = field(default_factory=list)
    """Latencies of the workers' acknowledged operations in each slice of time."""
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
        """Return the outcomes of the operations of a workload."""
        return sum((line.outcomes for (of, _), line in self.lines.items() if of == workload), Counter())

    @property
    def acknowledged(self) -> int:
        """The operations that were acknowledged to workers."""
        return self.seats.total()

    @property
    def invoked(self) -> int:
        """All operations, including those of the reader."""
        return sum(line.outcomes.total() for line in self.lines.values())


def tally(operations: Iterable[Operation], span: tuple[int, int], faults: Mapping[str, Sequence[int]]) -> Tally:
    """Count operations, which can be any iterable and are not kept."""
    whole = Tally(*span, faults)
    for operation in operations:
        whole.add(operation)
    return whole
