"""The command line: ``python -m stress.bench [--quick] [--only NAME ...]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from .bigfile import BIGFILE
from .journal import JOURNALS
from .model import Settings, Table
from .report import publish, show
from .saving import SAVING
from .sharing import SHARING
from .startup import STARTUP
from .throughput import THROUGHPUT
from .watch import WATCH

WORKS = {work.name: work for work in (*THROUGHPUT, SAVING, *BIGFILE, STARTUP, WATCH, SHARING, *JOURNALS)}
QUICK = {"seconds": 0.5, "repeat": 1}
PIPED_WIDTH = 120
"""Columns of the tables if there is no terminal to ask."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stress.bench", description="Compare this project with its peers.")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each timed cell (default: %(default)s)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="rounds; the report has their medians (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=WORKS, metavar="NAME", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--quick", action="store_true", help="one round of 0.5 s: does it run?")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-report"), help="where to write the results (default: %(default)s)"
    )
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure, not tmpfs (default: that of --out)")
    options = parser.parse_args(arguments)
    if options.quick:
        parser.set_defaults(**QUICK)
        options = parser.parse_args(arguments)
    return options


def measure(table: Table, settings: Settings, rounds: int, console: Console) -> None:
    """Let the competitors of one work take turns for this number of rounds."""
    with console.status("") as status:
        for number in range(1, rounds + 1):
            progress = f"{table.work.name}: round {number} of {rounds}"
            status.update(progress)
            for competitor, metrics in table.work.round(settings):
                table.runs[competitor].append(metrics)
                status.update(f"{progress}, after {competitor}")


def main(arguments: list[str]) -> int:
    """Run the works and publish the results; a wrong counter raises an exception, a missed figure does not."""
    options = parse_arguments(arguments)
    console = Console(emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    tables = {name: Table(WORKS[name]) for name in options.only or WORKS}
    load = os.getloadavg()[0]
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="scratch-", dir=(options.dir or options.out).resolve()) as scratch:
        settings = Settings(options.seconds, Path(scratch))
        for table in tables.values():
            measure(table, settings, options.repeat, console)
            show(table, console)
    facts = {"seconds": options.seconds, "repeat": options.repeat, "load average before": load}
    publish(tables, facts, options.out, console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
