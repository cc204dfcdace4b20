"""The command line: ``python -m stress.bench [--quick] [--only NAME ...]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from . import members
from .bigfile import BIGFILE
from .etcd import ETCD
from .journal import JOURNALS
from .model import Settings, Table
from .report import publish, show
from .saving import SAVING
from .sharing import SHARING
from .startup import STARTUP
from .throughput import THROUGHPUT
from .watch import WATCH

WORKS = {work.name: work for work in (*THROUGHPUT, SAVING, *BIGFILE, STARTUP, WATCH, SHARING, *JOURNALS, *ETCD)}
NEED_ETCD = {work.name for work in ETCD}
QUICK = {"seconds": 0.5, "repeat": 1}
PIPED_WIDTH = 120
"""Columns of the tables if there is no terminal to ask."""


def chosen(name: str) -> list[str]:
    """Return the work of this name; if there is none, all works of this group.

    Raises:
        ArgumentTypeError: there are none.
    """
    found = [name] if name in WORKS else [work for work in WORKS if work.startswith(f"{name}-")]
    if not found:
        msg = f"no work is called {name!r}; there are {', '.join(WORKS)}"
        raise argparse.ArgumentTypeError(msg)
    return found


def possible(names: Iterable[str], console: Console) -> tuple[list[str], list[str]]:
    """Return the works that this machine can do, and those that it cannot, about which it says so."""
    names = list(names)
    if members.PROGRAM is not None:
        return names, []
    skipped = [name for name in names if name in NEED_ETCD]
    if skipped:
        console.print(f"SKIPPED: {', '.join(skipped)}: {members.MISSING}", style="bold red")
    return [name for name in names if name not in skipped], skipped


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stress.bench", description="Compare this project with its peers.")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each timed cell (default: %(default)s)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="rounds; the report has their medians (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", type=chosen, metavar="NAME", help=f"of {', '.join(WORKS)}; etcd: all that begin with etcd-"
    )
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
    """Run the works and publish the results; a wrong counter raises an exception, a missed figure does not.

    Returns:
        The exit code: 1 if this machine can do none of the works.
    """
    options = parse_arguments(arguments)
    console = Console(emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    names, skipped = possible(chain.from_iterable(options.only) if options.only else WORKS, console)
    if not names:
        return 1
    tables = {name: Table(WORKS[name]) for name in names}
    load = os.getloadavg()[0]
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="scratch-", dir=(options.dir or options.out).resolve()) as scratch:
        settings = Settings(options.seconds, Path(scratch))
        for table in tables.values():
            measure(table, settings, options.repeat, console)
            show(table, console)
    facts: dict[str, float | str] = {"seconds": options.seconds, "repeat": options.repeat, "load average before": load}
    if skipped:
        facts["SKIPPED"] = f"{', '.join(skipped)}: {members.MISSING}"
    publish(tables, facts, options.out, console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
