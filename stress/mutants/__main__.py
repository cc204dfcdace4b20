"""The mutation gate: `python -m stress.mutants`. Exits with 0 if every broken build is caught, 1 if not.

2 means that everything this machine could show was caught, and that it lacks something to show the rest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from stress.mutants.gate import Gate
from stress.mutants.report import exit_code, show, show_list, write
from stress.mutants.table import AREAS, MUTANTS

PIPED_WIDTH = 150
"""Columns of the tables if there is no terminal to ask."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m stress.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MUTANTS, metavar="NAME", help="see --list")
    parser.add_argument(
        "--area", nargs="+", choices=AREAS, help="only those of these areas: %(choices)s", metavar="AREA"
    )
    parser.add_argument("--list", action="store_true", help="list the broken builds, and run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parallel runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--keep", action="store_true", help="keep the builds and the outputs of the catchers")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def main() -> int:
    """Run the gate, report, and return the exit code."""
    options = parse()
    console = Console(emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    of_areas = [mutant.name for area in options.area or () for mutant in AREAS[area]]
    mutants = [MUTANTS[name] for name in dict.fromkeys([*(options.only or ()), *of_areas] or MUTANTS)]
    if options.list:
        show_list(console, mutants)
        return 0
    directory = Path(tempfile.mkdtemp(prefix="mutants-")).resolve()
    directory.chmod(0o755)  # some tests import the builds as another user
    began = time.monotonic()
    try:
        with console.status("the unbroken build") as status:
            results = Gate(directory, jobs=options.jobs, keep=options.keep).run(mutants, status.update)
    finally:
        if options.keep:
            console.print(f"the builds and the outputs: {directory}", highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    seconds = time.monotonic() - began
    show(console, results, seconds)
    if options.json:
        write(options.json, results, seconds)
    return exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
