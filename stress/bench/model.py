"""What a benchmark is made of: works, the columns they are shown in, and the tables that collect their runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from statistics import median

PROJECT = "persistent_context"

Metrics = Mapping[str, float]
"""What one run of one competitor measured: rates a second, durations in seconds, sizes in bytes."""


class WrongCounterError(Exception):
    """A store does not hold what it acknowledged: no figure of it is worth anything."""


class Unit(Enum):
    """How a number is written."""

    RATE = "a second"
    SECONDS = "seconds"
    BYTES = "bytes"
    RATIO = "times"

    def show(self, value: float) -> str:
        """Return the value as a person wants to read it."""
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
    """What the command line decides for every work."""

    seconds: float
    scratch: Path


@dataclass(frozen=True)
class Work:
    """One piece of work that several competitors do; each round yields every competitor once.

    The first column is the one that the project and its peers are compared by.
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
        """Return the median over a competitor's runs, or `None` where it has no such metric."""
        values = [run[metric] for run in self.runs.get(competitor, ()) if metric in run]
        return median(values) if values else None

    def value(self, competitor: str, metric: str) -> float:
        """Return the median of a metric that was measured.

        Raises:
            LookupError: nobody measured it.
        """
        found = self.median(competitor, metric)
        if found is None:
            msg = f"{self.work.name} has no {metric!r} of {competitor!r}"
            raise LookupError(msg)
        return found

    def advantage(self, competitor: str) -> float | None:
        """Return how many times better than this competitor the project is, by the first column."""
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
