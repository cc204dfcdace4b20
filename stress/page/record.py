"""The data of a page: a run that has just ended, or one that is stored in its directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from stress.checking.evidence import Violation
from stress.logs.history import History, Outcome
from stress.page.machine import UNKNOWN, describe
from stress.page.tally import Tally, tally
from stress.run.members import version
from stress.run.plan import ETCD, Plan
from stress.run.report import Report, Verdict
from stress.run.supervisor import Course, Run
from stress.run.venue import JsonFiles

STORED = "run.json"
"""The file in a run's directory besides the logs: the plan, how the processes ended, the machine."""
STATISTICS = b'{"kind":"statistics"'
"""The beginning of a line that has a process's number of commits so far."""


@dataclass(frozen=True)
class Record:
    """One complete run."""

    plan: Plan
    course: Course
    verdict: Verdict
    history: History
    violations: Mapping[str, Sequence[Violation]]
    directory: Path
    machine: Mapping[str, str]
    written: str
    """The time of day at which the run ended, in UTC."""

    @classmethod
    def of(cls, run: Run, report: Report) -> Record:
        """Return what is known of a run that has ended."""
        directory = run.directory
        written = datetime.now(UTC).isoformat(" ", "seconds")
        machine = describe(directory)
        if run.plan.store == ETCD:
            machine["etcd"] = version() or UNKNOWN
        return cls(run.plan, run.course, report.verdict, report.history, report.violations, directory, machine, written)

    @classmethod
    def stored(cls, directory: Path) -> Record:
        """Let the checkers judge a stored run again.

        Raises:
            OSError: There is no run in the directory.
            ValueError: The data was not written by this version.
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
        """Store in the run's directory what the logs do not contain."""
        course = asdict(self.course) | {"hung": {name: Path(file).name for name, file in self.course.hung.items()}}
        told = {"plan": asdict(self.plan), "course": course, "machine": self.machine, "written": self.written}
        (self.directory / STORED).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @cached_property
    def faults(self) -> dict[str, list[int]]:
        """The moments at which each kind of fault struck, in order; empty for requested kinds that never struck."""
        times: dict[str, list[int]] = {}
        for fault in self.history.faults:
            # A kill is logged once the process is dead, and the operations in flight ended with it.
            times.setdefault(fault.name, []).append(min(fault.at, self.history.deaths.get(fault.target, fault.at)))
        for option, mean in asdict(self.plan).items():
            if option.endswith("_every") and mean:
                times.setdefault(option.removesuffix("_every"), [])  # the page shows that it never struck
        return {name: sorted(moments) for name, moments in sorted(times.items())}

    @cached_property
    def tally(self) -> Tally:
        """The figures."""
        return tally(self.history.operations, (self.history.began, self.history.ended), self.faults)

    @cached_property
    def workloads(self) -> list[str]:
        """The workloads, in the checkers' order, then others that were logged or have findings."""
        done = [workload for workload, _ in self.tally.lines]
        return list(dict.fromkeys([*self.violations, *sorted(done)]))

    @property
    def idle(self) -> list[str]:
        """The planned workloads of which no operation was acknowledged."""
        return self.plan.idle({name: self.tally.outcomes(name)[Outcome.OK] for name in self.workloads})

    def commits(self) -> list[int]:
        """Return the commits in each slice of time, as far as the logs show."""
        slices = [0] * len(self.tally.slices)
        for log in sorted((self.directory / "logs").glob("*.jsonl")):
            before = 0
            for at, commits in _statistics(log):
                place = (at - self.tally.began) * len(slices) // max(self.tally.ended - self.tally.began, 1)
                slices[min(max(place, 0), len(slices) - 1)] += commits - before
                before = commits
        return slices


class _StoredRun(Run):
    """A run that is over, and is only read."""

    def __init__(self, plan: Plan, course: Course, directory: Path) -> None:
        self.plan = plan
        self.course = course
        self._directory = directory
        self._began = 0
        self._venue = JsonFiles(directory)


def _statistics(log: Path) -> Iterator[tuple[int, int]]:
    """Yield when a process logged its number of commits, and the number."""
    with log.open("rb") as lines:
        for line in lines:
            if line.startswith(STATISTICS) and line.endswith(b"\n"):
                event = json.loads(line)
                yield event["at"], event["commits"]
