"""A soak: rounds of the run, hour after hour. Each is judged and deleted, so memory and disk use stay small.

What is kept is `soak.json`: the plan, the number of rounds that passed, and the totals. A round that fails ends the
soak; its directory stays.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from rich.console import Console

from stress.run.conclude import conclude, tell_interrupted
from stress.run.display import Display
from stress.run.options import Options
from stress.run.plan import Plan
from stress.run.report import Report, Verdict
from stress.run.supervisor import Run

STATE = "soak.json"


@dataclass(slots=True)
class Soak:
    """The state of a soak."""

    directory: Path
    plan: Plan
    """The seed of its plan is that of the first round; each later round uses the next one."""
    rounds: int
    """How many rounds passed."""
    seconds: float
    totals: dict[str, int]
    """Totals over these rounds: acknowledged, failed and unknown operations, and faults by name."""

    @classmethod
    def begin(cls, directory: Path, plan: Plan) -> Self:
        """Begin a soak, in an empty directory."""
        return cls(directory, plan, 0, 0.0, {})

    @classmethod
    def resume(cls, directory: Path) -> Self:
        """Return the soak that left a directory."""
        stored = json.loads((directory / STATE).read_text(encoding="utf-8"))
        return cls(directory, Plan(**stored["plan"]), stored["rounds"], stored["seconds"], stored["totals"])

    def go_on(self, console: Console, options: Options) -> int:
        """Do one round after the other until the time is over or a round fails; return the exit code."""
        deadline = time.monotonic() + (options.hours or 0) * 3600
        console.print(f"to continue after an interruption: --resume {self.directory}", highlight=False, soft_wrap=True)
        while time.monotonic() < deadline:
            self._store()
            try:
                verdict = self._round(console, options)
            except KeyboardInterrupt:
                what = f"rounds passed: {self.rounds}; {STATE} and the unfinished round, which will be redone, are kept"
                tell_interrupted(console, self.directory, what)
                raise
            if verdict is not Verdict.PASS:
                return verdict.exit_code
            totals = ", ".join(f"{number:,} {name}" for name, number in self.totals.items())
            console.print(
                f"{self.rounds} rounds, {self.seconds / 3600:.2f} h: {totals}", highlight=False, soft_wrap=True
            )
        self._store()
        console.print(Verdict.PASS.value, style="bold green", highlight=False)
        return Verdict.PASS.exit_code

    def _round(self, console: Console, options: Options) -> Verdict:
        """Do the next round."""
        plan = replace(self.plan, seed=self.plan.seed + self.rounds)
        directory = self.directory / f"round-{self.rounds}"
        shutil.rmtree(directory, ignore_errors=True)  # left by a round that was interrupted
        directory.mkdir()
        run = Run(plan, directory)
        with Display(console, run, shown=console.is_terminal and not options.quiet) as display:
            run.execute(display.update)
        report = Report(run)
        if report.verdict is not Verdict.PASS:
            conclude(console, run, report, page=options.report, keep=True)
            return report.verdict
        self.rounds += 1
        self.seconds += run.course.seconds
        self.totals = dict(Counter(self.totals) + Counter(report.totals()))
        shutil.rmtree(directory)
        return report.verdict

    def _store(self) -> None:
        """Store what is needed after an interruption."""
        stored = {name: value for name, value in asdict(self).items() if name != "directory"}
        new = self.directory / f"{STATE}.new"
        new.write_text(json.dumps(stored, indent=2), encoding="utf-8")
        os.replace(new, self.directory / STATE)
