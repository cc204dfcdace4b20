"""The stress run: `python -m stress`. Exits with 0 if nothing was lost, 1 if something was, 2 if nothing was shown."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from stress.display import Display
from stress.report import Report, Verdict
from stress.run import Plan, Run


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("--processes", type=int, default=16, help="worker processes (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=20, help="tasks or threads in each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to hammer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="for all random choices")
    parser.add_argument("--kill-every", type=float, default=0.3, help="mean seconds; 0: never (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="where to make the run's directory (default: where temporaries go)")
    parser.add_argument("--keep", action="store_true", help="keep the run's directory even if nothing was lost")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    if min(options.processes, options.tasks, options.seconds) <= 0 or options.kill_every < 0:
        parser.error("there have to be processes, tasks and seconds")
    if options.dir is not None and not options.dir.is_dir():
        parser.error(f"no directory: {options.dir}")
    return options


def main() -> int:
    """Run, report, and return the exit code."""
    options = parse()
    console = Console()
    plan = Plan(
        processes=options.processes,
        tasks=options.tasks,
        seconds=options.seconds,
        seed=options.seed,
        kill_every=options.kill_every,
    )
    directory = Path(tempfile.mkdtemp(prefix="stress-", dir=options.dir)).resolve()
    run = Run(plan, directory)
    try:
        with Display(console, run, shown=console.is_terminal and not options.quiet) as display:
            run.execute(display.update)
    except KeyboardInterrupt:
        console.print(f"interrupted; the file and the logs: {directory}", highlight=False, soft_wrap=True)
        return 130
    report = Report(run)
    report.show(console)
    if report.verdict is Verdict.PASS and not options.keep:
        shutil.rmtree(directory)
    else:
        console.print(f"the file and the logs: {directory}", highlight=False, soft_wrap=True)
    return report.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
