"""The result of a run: the verdict, and the table and the findings that explain it."""

from __future__ import annotations

import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum

from rich.console import Console
from rich.table import Table

from stress.checking.checkers import CHECKERS, check
from stress.checking.evidence import Violation
from stress.logs.history import Operation, Outcome
from stress.run.gaps import gaps_after_kills
from stress.run.plan import ETCD, LAST
from stress.run.supervisor import Run

_FAULTS = {
    "cancel": "calls cancelled",
    "delete_lock": "lock files deleted",
    "fork": "forks",
    "stop": "processes stopped",
    "long_stop": "processes stopped for longer than a lease lives",
    "kill_member": "members killed",
    "stop_member": "members stopped",
    "restart_member": "members restarted",
    "cut_off": "members cut off",
    "compact": "compactions",
    "cut_answer": "answers lost",
    "delay_request": "requests delayed",
    "lose_request": "requests lost",
}
"""How the report counts faults, beside the processes killed."""
UNDECIDED = "undecided"
"""The kind of finding that means that a checker gave up."""
SHOWN_LINES = 40
"""How many operations of a finding are shown."""
SHOWN = 10
"""How many findings of a workload are shown in full."""

LEGEND = """\
invoked  calls that were started
acked    returned: the change must be in the file
failed   raised an error that promises that nothing was changed
unknown  ended without an answer: the change may be there or not
slowest  the longest time from a call to its acknowledgement
lost     acknowledged changes that are missing
wrong    other findings of the checkers

Calls take long here because dozens of processes take turns at one lock, most turns wait for the disk, and stopped \
processes keep the lock until they are continued. Calls end unknown because their process was killed or they were \
cancelled or interrupted: the checkers accept both outcomes, but never a part of one.
"""
"""What the columns of the table mean, and why their figures differ from those of everyday use."""
LEGEND_OF_ETCD = """\
Here the lock is a queue in the cluster, members of which are killed, stopped and cut off one at a time, and some \
requests and answers get lost or arrive late. A process that is stopped for more than ten seconds loses its turn.
"""


class Verdict(Enum):
    """The result of the whole run."""

    PASS = "PASS: nothing was lost"  # noqa: S105 (no password)
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED: nothing wrong was found, but a check gave up"
    BROKEN = "BROKEN SET-UP: this run shows nothing"

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1}.get(self, 2)


class Report:
    """The report of a run that has ended."""

    def __init__(self, run: Run) -> None:
        """Read the logs and the file, and let the checkers judge."""
        self._plan = run.plan
        self._course = run.course
        self.history = run.history()
        self._operations = {name: self.history.of(name) for name in CHECKERS}
        self._counts = {name: Counter(one.outcome for one in done) for name, done in self._operations.items()}
        self.violations: dict[str, list[Violation]] = {}
        if not run.course.started:  # there is nothing to judge
            return
        try:
            final = run.final_document()
        except (OSError, ValueError) as error:
            self.violations = {"read": [Violation("torn", f"the final document cannot be read: {error}")]}
        else:
            self.violations = check(self.history, final, patience=run.patience)
            self.violations["read"] += [Violation("torn", message) for message in run.disagreements()]

    @property
    def verdict(self) -> Verdict:
        """What the run proves. A run in which nothing happened proves nothing."""
        kinds = {violation.kind for violations in self.violations.values() for violation in violations}
        if kinds - {UNDECIDED} or self.history.crashes or self._course.hung:
            return Verdict.FAIL
        if self._course.died or self._idle():
            return Verdict.BROKEN
        if kinds:
            return Verdict.UNDECIDED
        return Verdict.PASS

    def totals(self) -> dict[str, int]:
        """Return the number of operations by outcome, and of faults by name."""
        outcomes = sum(self._counts.values(), Counter())
        faults = Counter(fault.name for fault in self.history.faults)
        return {str(name): number for name, number in (outcomes + faults).items()}

    def show(self, console: Console) -> None:
        """Print the table, the findings and the verdict."""
        console.print(self._table())
        console.print(LEGEND, style="dim", highlight=False)
        if self._plan.store == ETCD:
            console.print(LEGEND_OF_ETCD, style="dim", highlight=False)
        console.print(self._figures(), highlight=False, soft_wrap=True)
        for line in gaps_after_kills(self.history):
            console.print(line, highlight=False, soft_wrap=True)
        for remark in self._course.remarks:
            console.print(remark, style="bold yellow", highlight=False, soft_wrap=True)
        for headline, details in self._findings():
            console.print(f"\n{headline}", style="bold red", markup=False, highlight=False, soft_wrap=True)
            if details:
                console.print(details.rstrip(), markup=False, highlight=False, soft_wrap=True)
        style = "bold green" if self.verdict is Verdict.PASS else "bold red"
        console.print(f"\n{self.verdict.value}", style=style, highlight=False)
        console.print(f"seed {self._plan.seed}; to repeat the run:", highlight=False)
        command = f"{shlex.quote(sys.executable)} -m stress {self._plan.options}"
        console.print(command, markup=False, highlight=False, soft_wrap=True)

    def _idle(self) -> list[str]:
        """Return the workloads of which no operation was acknowledged."""
        return self._plan.idle({name: counts[Outcome.OK] for name, counts in self._counts.items()})

    def _table(self) -> Table:
        """Return one row a workload."""
        table = Table("workload")
        for heading in ("invoked", "acked", "failed", "unknown", "slowest", "lost", "wrong"):
            table.add_column(heading, justify="right")
        for name, operations in self._operations.items():
            found = self.violations.get(name, ())
            lost = sum(violation.kind == "lost" for violation in found)
            counts = [self._counts[name][outcome] for outcome in (Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN)]
            slowest = max((one.finished - one.invoked for one in operations if one.outcome is Outcome.OK), default=0)
            columns = [f"{count:,}" for count in (len(operations), *counts)]
            table.add_row(name, *columns, f"{slowest / 1e9:.2f} s", f"{lost:,}", f"{len(found) - lost:,}")
        return table

    def _figures(self) -> str:
        """Return the figures of the whole run, in one line."""
        course, seconds = self._course, self._course.seconds or math.inf
        acknowledged = sum(counts[Outcome.OK] for name, counts in self._counts.items() if name not in ("read", LAST))
        faults = Counter(fault.name for fault in self.history.faults if fault.name != "kill")
        hurt = "".join(f" {number:,} {_FAULTS[name]}," for name, number in sorted(faults.items()))
        return (
            f"{course.seconds:.1f} s, {course.started} processes started, {course.kills} killed,{hurt}"
            f" {acknowledged / seconds:,.0f} acknowledged operations/s,"
            f" at least {self.history.commits / seconds:,.0f} commits/s"
        )

    def _findings(self) -> Iterator[tuple[str, str]]:
        """Yield everything that counts against the run: a headline and the details."""
        for crash in self.history.crashes:
            yield "an exception that the contract does not allow", crash
        for name, stacks in self._course.hung.items():
            own = [operation for operation in self.history.operations if operation.process == name]
            yield f"{name} did not stop, see {stacks}", _lines(one for one in own if one.finished == math.inf)
        for name, violations in self.violations.items():
            for violation in violations[:SHOWN]:
                yield f"{name}: {violation.kind}: {violation.message}", _lines(violation.operations)
            if len(violations) > SHOWN:
                yield f"{name}: and {len(violations) - SHOWN} more", ""
        for name, words in self._course.died.items():
            yield f"{name} died by itself", words
        if not self._course.died:
            for name in self._idle():
                yield f"{name}: no operation was acknowledged", ""


def _lines(operations: Iterable[Operation]) -> str:
    """Describe operations, one a line."""
    lines = [f"    {operation}" for operation in operations]
    more = [f"    and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []
    return "\n".join(lines[:SHOWN_LINES] + more)
