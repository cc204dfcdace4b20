"""Faults at every step of a write: `python -m stress.faults`. Exits with 0 if every promise was kept, else with 1."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from stress.faults import report
from stress.faults.run import Choice, explore

PIPED_WIDTH = 140
"""Columns of the table if there is no terminal to ask."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m stress.faults", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="SCENARIO", help="one scenario or several: kill, kill:save, kill:save:async"
    )
    parser.add_argument(
        "--point", default="", help="one point, like rename:1 or fsync=EIO:2; needs --only with one scenario"
    )
    parser.add_argument("--quick", action="store_true", help="a sample, in about 20 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--list", action="store_true", help="list the scenarios, and what this machine lacks for them")
    options = parser.parse_args(arguments)
    chosen = Choice(only=options.only).scenarios()
    if not chosen:
        parser.error(f"no such scenario: {options.only}")
    if options.point and (len(chosen) > 1 or not options.point.rpartition(":")[2].isdecimal()):
        parser.error("--point needs --only with one scenario, and looks like rename:1")
    return options


def main(arguments: list[str]) -> int:
    """Run, report, and return the exit code."""
    options = parse(arguments)
    console = Console(emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    choice = Choice(only=options.only, point=options.point, sample=options.quick)
    if options.list:
        for scenario in choice.scenarios():
            lacks = scenario.missing()
            note = f"  (cannot run here: {lacks[0]}; {lacks[1]})" if lacks else ""
            console.print(f"{scenario.name:36}{scenario.about}{note}", markup=False, highlight=False, soft_wrap=True)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is unmounted
    try:
        with console.status("") as status:
            findings = explore(choice, status.update)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    report.show(findings, console)
    if options.json:
        report.save(findings, options.json)
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
