"""Writes the report of a stress run as one self-contained HTML page, or later: `python -m stress.page DIRECTORY`."""

from __future__ import annotations

import argparse
from pathlib import Path
from string import Template

from stress.page import numbers, sections
from stress.page.html import Html, join
from stress.page.record import Record
from stress.run.report import Report
from stress.run.supervisor import Run

TEMPLATE = Path(__file__).with_name("page.html")
PAGE = "report.html"
"""The name of the page in the run's directory."""


def write_page(run: Run, report: Report, path: Path) -> None:
    """Write the page of a run that has ended; store in the run's directory what a later page needs."""
    record = Record.of(run, report)
    record.store()
    path.write_text(page(record), encoding="utf-8")


def page(record: Record) -> Html:
    """Return the page."""
    body = join(
        [
            sections.header(record),
            sections.told_findings(record),
            sections.setting(record),
            numbers.matrix(record),
            numbers.operations(record),
            numbers.course(record),
            numbers.latency(record),
            numbers.shares(record),
            numbers.commits(record),
            sections.proofs(record),
            sections.limits(),
        ],
        "\n",
    )
    title = f"{record.verdict.name} · stress run, seed {record.plan.seed}"
    return Html(Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=title, body=body))


def main() -> int:
    """Write the page of a stored run."""
    parser = argparse.ArgumentParser(prog="python -m stress.page", description=__doc__)
    parser.add_argument("directory", type=Path, help="the directory of a run that was kept")
    parser.add_argument("--output", type=Path, help=f"where to write the page (default: {PAGE} in the directory)")
    options = parser.parse_args()
    path = options.output or options.directory / PAGE
    try:
        path.write_text(page(Record.stored(options.directory)), encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(path)
    return 0
