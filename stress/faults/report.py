"""The result of a run, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stress.faults.model import Findings, Result


def show(findings: Findings, console: Console) -> None:
    """Print the table, what was skipped, what failed, and the verdict."""
    console.print(_table(findings))
    for why, remedy in dict.fromkeys((skipped.why, skipped.remedy) for skipped in findings.skipped):
        names = [skipped.scenario for skipped in findings.skipped if skipped.why == why]
        line = f"SKIPPED {', '.join(names)}: {why}; to run it: {remedy}"
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    for tally in findings.tallies():
        if tally.failures:
            _show_failure(tally.failures[0], len(tally.failures), console)
    tried = sum(tally.tried for tally in findings.tallies())
    failed = sum(len(tally.failures) for tally in findings.tallies())
    style = "bold green" if findings.passed else "bold red"
    verdict = "PASS" if findings.passed else "FAIL" if failed else "NOTHING WAS TRIED"
    seconds = sum(findings.seconds.values())
    skipped_count = f", {len(findings.skipped)} scenarios skipped" if findings.skipped else ""
    console.print(f"\n{verdict}: {tried:,} points, {failed:,} failed{skipped_count}, {seconds:.0f} s", style=style)


def save(findings: Findings, file: Path) -> None:
    """Write all results as JSON."""
    content = {
        "passed": findings.passed,
        "seconds": findings.seconds,
        "results": [{**asdict(one), "passed": one.passed, "command": one.command} for one in findings.results],
        "skipped": [asdict(one) for one in findings.skipped],
    }
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _show_failure(result: Result, number: int, console: Console) -> None:
    more = f" (and {number - 1} more of {result.fault})" if number > 1 else ""
    console.print(f"\nFAILED {result.scenario} {result.point}{more}", style="bold red", markup=False, soft_wrap=True)
    for problem in result.problems:
        console.print(f"    {problem}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"    to repeat: {result.command}", markup=False, highlight=False, soft_wrap=True)


def _table(findings: Findings) -> Table:
    """Return one row for each call in each scenario."""
    table = Table("scenario", "fault", "seen")
    for heading in ("tried", "passed", "failed"):
        table.add_column(heading, justify="right")
    before = None
    for tally in findings.tallies():
        if before not in {None, tally.scenario}:
            table.add_section()
        scenario = "" if before == tally.scenario else tally.scenario
        failed = len(tally.failures)
        table.add_row(scenario, tally.fault, tally.seen, str(tally.tried), str(tally.tried - failed), str(failed))
        before = tally.scenario
    return table
