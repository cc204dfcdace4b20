"""The points that are tried and their results: series, points, results, and what a machine lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Series:
    """The points 1, 2, 3 ... of one kind of fault, in one scenario."""

    fault: str
    """The call that is hit, and how: `rename`, `fsync=EIO`, `write=ENOSPC+` (that one and all later ones)."""
    expected: int
    """The number of points that a run without faults suggests. A quick run relies on it, a full one goes on."""
    once: bool = False
    """Whether there is exactly one point."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one point."""

    scenario: str
    fault: str
    number: int
    hit: bool
    """Whether the fault took place. If not, the operation has no such call any more, and the series ends."""
    seen: str
    """What was observed, in a few words."""
    problems: tuple[str, ...] = ()
    """The broken promises; empty if there are none."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems

    @property
    def point(self) -> str:
        """The name of the point."""
        return f"{self.fault}:{self.number}"

    @property
    def command(self) -> str:
        """The command that tries this point alone."""
        return f"python -m stress.faults --only {self.scenario} --point {self.point}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A scenario, or the rest of one, that was not tried, and why."""

    scenario: str
    why: str
    remedy: str
    """How to get what is missing."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The points of one scenario that hit the same call."""

    scenario: str
    fault: str
    seen: str
    """What was observed, and how often."""
    tried: int
    failures: tuple[Result, ...]
    """The smallest number first."""


@dataclass(slots=True)
class Findings:
    """All results of a run."""

    results: list[Result] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each scenario took."""

    @property
    def passed(self) -> bool:
        """Whether something was tried, and no promise was broken."""
        return any(result.hit for result in self.results) and all(result.passed for result in self.results)

    def tallies(self) -> Sequence[Tally]:
        """Return the results by scenario and fault, in the order in which they came."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.scenario, result.fault), []).append(result)
        return [_tally(scenario, fault, group) for (scenario, fault), group in groups.items()]


def _tally(scenario: str, fault: str, group: Sequence[Result]) -> Tally:
    tried = [result for result in group if result.hit or not result.passed]  # the end of a series counts if it fails
    failures = sorted((result for result in group if not result.passed), key=lambda result: result.number)
    seen = Counter(result.seen for result in tried)
    words = ", ".join(f"{times} {what}" for what, times in sorted(seen.items()))
    return Tally(scenario, fault, words, len(tried), tuple(failures))
