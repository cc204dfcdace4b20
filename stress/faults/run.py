"""A run: every point of the chosen scenarios, or a sample of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from stress.faults.lab import CannotSetUpError, Lab
from stress.faults.model import Findings, Result, Series, Skipped
from stress.faults.nursery import VictimFailedError
from stress.faults.scenarios import Scenario, scenarios

CORE = (
    *("acknowledged", "write", "fsync", "rename", "openat", "step", "bytes", "tmpfs"),
    *("killed", "continued", "overtaken"),
)
"""Faults that a sample takes first."""
SAMPLE = 3
"""Points of each scenario in a sample."""
SAMPLE_SECONDS = 18.0
"""The time limit of a sample in seconds; the last point, once begun, is finished."""
SCENARIO_SECONDS = 900.0
"""The time limit of one scenario; the points that are left then are reported."""
SERIES_LIMIT = 300
"""Points after which a series counts as endless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which points are tried."""

    only: str = ""
    """A scenario, or the beginning of the names of several, up to a colon."""
    point: str = ""
    """One point, like `rename:1`; if empty, all."""
    sample: bool = False
    """Whether a few points of each scenario are enough."""

    def scenarios(self) -> list[Scenario]:
        """Return the chosen scenarios."""
        return [one for one in scenarios() if f"{one.name}:".startswith(f"{self.only}:" if self.only else "")]

    def points(self, scenario: str, series: Sequence[Series]) -> Iterator[tuple[Series, Iterable[int]]]:
        """Yield the series, and the numbers of their points to try, in order."""
        if self.point:
            fault, _, number = self.point.rpartition(":")
            yield Series(fault, 0), [int(number)]
        elif self.sample:
            core = [one for one in series if one.fault.startswith(CORE)] or series
            known = [(one, number) for one in core for number in range(1, one.expected + 1)]
            drawn = Random(scenario).sample(known, min(SAMPLE, len(known)))  # the same every time
            yield from ((one, [number]) for one, number in sorted(drawn, key=known.index))
        else:
            yield from ((one, [1] if one.once else itertools.count(1)) for one in series)


def in_turns(chosen: Sequence[Scenario]) -> list[Scenario]:
    """Order scenarios so that each kind of fault gets its first one before any gets its second."""
    kinds: dict[str, list[Scenario]] = {}
    for scenario in chosen:
        kinds.setdefault(scenario.about, []).append(scenario)
    return [one for turn in itertools.zip_longest(*kinds.values()) for one in turn if one is not None]


def explore(choice: Choice, tick: Callable[[str], None] = lambda _: None) -> Findings:
    """Try the chosen points and return the results; `tick` is called with each before it is tried."""
    findings = Findings()
    chosen = in_turns(choice.scenarios()) if choice.sample else choice.scenarios()
    began = time.monotonic()
    with Lab(fast=choice.sample) as lab:
        for scenario in chosen:
            started = time.monotonic()
            if choice.sample and started - began > SAMPLE_SECONDS:
                findings.skipped.append(Skipped(scenario.name, "the sample's time was over", "leave --quick away"))
                continue
            if lacks := scenario.missing():
                findings.skipped.append(Skipped(scenario.name, *lacks))
                continue
            try:
                findings.results.extend(results_of(scenario, lab, choice, tick))
            except CannotSetUpError as error:
                findings.skipped.append(Skipped(scenario.name, *error.args))
            finally:
                lab.tidy()
            findings.seconds[scenario.name] = time.monotonic() - started
    return findings


def results_of(scenario: Scenario, lab: Lab, choice: Choice, tick: Callable[[str], None]) -> Iterator[Result]:
    """Try the points of one scenario: N = 1, 2, 3 ... until the fault no longer takes place."""
    deadline = time.monotonic() + SCENARIO_SECONDS
    tick(f"{scenario.name}, without a fault")
    try:
        series = scenario.series(lab)
    except VictimFailedError as error:
        yield _failed(scenario, "none", 0, f"without any fault: {error}")
        return
    for one, numbers in choice.points(scenario.name, series):
        for number in numbers:
            tick(f"{scenario.name} {one.fault}:{number}")
            try:
                result = scenario.attempt(lab, one.fault, number)
            except VictimFailedError as error:
                result = _failed(scenario, one.fault, number, f"before or after the fault: {error}")
            if not result.hit and number <= one.expected:
                result = replace(result, problems=(*result.problems, "the fault did not take place: nothing is shown"))
            yield result
            if not result.hit:
                break
            if number == SERIES_LIMIT or time.monotonic() > deadline:
                yield _failed(
                    scenario, one.fault, number + 1, "out of time, or endless: nothing from here on was tried"
                )
                return


def _failed(scenario: Scenario, fault: str, number: int, problem: str) -> Result:
    return Result(scenario.name, fault, number, hit=False, seen="", problems=(problem,))
