"""The parts of a benchmark: works, the columns that show them, and the tables that collect their runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from statistics import median

PROJECT = "persistent_context"

Metrics = Mapping[str, float]
"""The measurements of one run of one competitor: rates per second, durations in seconds, sizes in bytes."""


class WrongCounterError(Exception):
    """A store does not hold what it acknowledged, so its figures are worthless."""


class Unit(Enum):
    """The unit of a number, which determines its format."""

    RATE = "a second"
    SECONDS = "seconds"
    BYTES = "bytes"
    RATIO = "times"

    def show(self, value: float) -> str:
        """Return the value in a readable form."""
        match self:
            case Unit.RATE:
                return f"{value:,.0f}/s"
            case Unit.SECONDS:
                return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
            case Unit.BYTES:
                return f"{value / 1e6:,.1f} MB"
            case Unit.RATIO:
                return f"{value:,.2f}"


@dataclass(frozen=True)
class Column:
    """One metric in a table."""

    metric: str
    heading: str
    unit: Unit


@dataclass(frozen=True)
class Settings:
    """The options of the command line that all works use."""

    seconds: float
    scratch: Path


@dataclass(frozen=True)
class Work:
    """One piece of work that several competitors do; each round yields every competitor once.

    The project and its peers are compared by the first column.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    round: Callable[[Settings], Iterator[tuple[str, Metrics]]]


@dataclass(frozen=True)
class Table:
    """All runs of one work, by competitor."""

    work: Work
    runs: dict[str, list[Metrics]] = field(default_factory=lambda: defaultdict(list))

    def median(self, competitor: str, metric: str) -> float | None:
        """Return the median over a competitor's runs, or `None` if it has no such metric."""
        values = [run[metric] for run in self.runs.get(competitor, ()) if metric in run]
        return median(values) if values else None

    def value(self, competitor: str, metric: str) -> float:
        """Return the median of a metric that was measured.

        Raises:
            LookupError: the metric was not measured.
        """
        found = self.median(competitor, metric)
        if found is None:
            msg = f"{self.work.name} has no {metric!r} of {competitor!r}"
            raise LookupError(msg)
        return found

    def advantage(self, competitor: str) -> float | None:
        """Return how many times better the project is than this competitor, by the first column."""
        column = self.work.columns[0]
        ours, theirs = self.median(PROJECT, column.metric), self.median(competitor, column.metric)
        if not ours or not theirs:
            return None
        return ours / theirs if column.unit is Unit.RATE else theirs / ours


def check_counter(competitor: str, *, acknowledged: int, stored: int) -> None:
    """Compare what a store holds with what it acknowledged.

    Raises:
        WrongCounterError: they differ.
    """
    if stored != acknowledged:
        msg = f"{competitor}: {acknowledged:,} increments were acknowledged, the counter is {stored:,}"
        raise WrongCounterError(msg)
