"""All that a page tells of: a run that has just ended, or one that is stored in its directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from stress.checking.evidence import Violation
from stress.logs.history import History, Outcome
from stress.page.machine import describe
from stress.page.tally import Tally, tally
from stress.run.plan import Plan
from stress.run.report import Report, Verdict
from stress.run.supervisor import Course, Run

STORED = "run.json"
"""What a run's directory holds besides the logs: the plan, what became of the processes, the machine."""
STATISTICS = b'{"kind":"statistics"'
"""How a line begins that tells a process's commits so far."""


@dataclass(frozen=True)
class Record:
    """One run, whole."""

    plan: Plan
    course: Course
    verdict: Verdict
    history: History
    violations: Mapping[str, Sequence[Violation]]
    directory: Path
    machine: Mapping[str, str]
    written: str
    """The time of day at which the run was over, in UTC."""

    @classmethod
    def of(cls, run: Run, report: Report) -> Record:
        """Return what is known of a run that has ended."""
        directory = run.directory
        written = datetime.now(UTC).isoformat(" ", "seconds")
        machine = describe(directory)
        return cls(run.plan, run.course, report.verdict, report.history, report.violations, directory, machine, written)

    @classmethod
    def stored(cls, directory: Path) -> Record:
        """Let the checkers judge a run once more, from what is left of it.

        Raises:
            OSError: There is no run in the directory.
            ValueError: What is there was not written by this version.
        """
        told = json.loads((directory / STORED).read_bytes())
        try:
            course = Course(**told["course"])
            course.hung = {name: directory / "logs" / file for name, file in course.hung.items()}
            run = _StoredRun(Plan(**told["plan"]), course, directory)
            return replace(cls.of(run, Report(run)), machine=told["machine"], written=told["written"])
        except (KeyError, TypeError) as error:
            message = f"{directory / STORED} was written by another version: {error}"
            raise ValueError(message) from error

    def store(self) -> None:
        """Leave in the run's directory what the logs do not tell."""
        course = asdict(self.course) | {"hung": {name: Path(file).name for name, file in self.course.hung.items()}}
        told = {"plan": asdict(self.plan), "course": course, "machine": self.machine, "written": self.written}
        (self.directory / STORED).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @cached_property
    def faults(self) -> dict[str, list[int]]:
        """When each kind of fault struck, in order; of the kinds that were asked for, too, if they never did."""
        times: dict[str, list[int]] = {}
        for fault in self.history.faults:
            # A kill is told once the process is dead, and what was under way in it ended with it.
            times.setdefault(fault.name, []).append(min(fault.at, self.history.deaths.get(fault.target, fault.at)))
        for option, mean in asdict(self.plan).items():
            if option.endswith("_every") and mean:
                times.setdefault(option.removesuffix("_every"), [])  # that it never struck is to be seen
        return {name: sorted(moments) for name, moments in sorted(times.items())}

    @cached_property
    def tally(self) -> Tally:
        """The figures."""
        return tally(self.history.operations, (self.history.began, self.history.ended), self.faults)

    @cached_property
    def workloads(self) -> list[str]:
        """The workloads, in the checkers' order, and what else was done or found."""
        done = [workload for workload, _ in self.tally.lines]
        return list(dict.fromkeys([*self.violations, *sorted(done)]))

    @property
    def idle(self) -> list[str]:
        """The workloads that were to be done, of which nothing was acknowledged."""
        return self.plan.idle({name: self.tally.outcomes(name)[Outcome.OK] for name in self.workloads})

    def commits(self) -> list[int]:
        """Return the commits in each slice of time, as far as the logs tell."""
        slices = [0] * len(self.tally.slices)
        for log in sorted((self.directory / "logs").glob("*.jsonl")):
            before = 0
            for at, commits in _statistics(log):
                place = (at - self.tally.began) * len(slices) // max(self.tally.ended - self.tally.began, 1)
                slices[min(max(place, 0), len(slices) - 1)] += commits - before
                before = commits
        return slices


class _StoredRun(Run):
    """A run that is over: it only reads."""

    def __init__(self, plan: Plan, course: Course, directory: Path) -> None:
        self.plan = plan
        self.course = course
        self._directory = directory
        self._began = 0


def _statistics(log: Path) -> Iterator[tuple[int, int]]:
    """Yield when a process counted its commits, and how many they were."""
    with log.open("rb") as lines:
        for line in lines:
            if line.startswith(STATISTICS) and line.endswith(b"\n"):
                event = json.loads(line)
                yield event["at"], event["commits"]
