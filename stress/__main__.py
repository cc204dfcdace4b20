"""The stress run: `python -m stress`. Exits with 0 if nothing was lost, 1 if something was, 2 if nothing was shown."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from stress.run.conclude import conclude, tell_interrupted
from stress.run.display import Display
from stress.run.options import Options, parse
from stress.run.report import Report
from stress.run.soak import Soak
from stress.run.supervisor import Run

INTERRUPTED = 130


def main() -> int:
    """Run, report, and return the exit code."""
    options = parse()
    console = Console(emoji=False)
    try:
        if options.resume is not None:
            return Soak.resume(options.resume).go_on(console, options)
        directory = Path(tempfile.mkdtemp(prefix="stress-", dir=options.directory)).resolve()
        if options.hours is not None:
            return Soak.begin(directory, options.plan).go_on(console, options)
        return run_once(console, options, directory)
    except KeyboardInterrupt:  # the code that was interrupted has already printed what is left on disk
        return INTERRUPTED


def run_once(console: Console, options: Options, directory: Path) -> int:
    """Do one run; return the exit code."""
    try:
        run = Run(options.plan, directory)
        with Display(console, run, shown=console.is_terminal and not options.quiet) as display:
            run.execute(display.update)
        report = Report(run)
        if not conclude(console, run, report, page=options.report, keep=options.keep):
            shutil.rmtree(directory)
    except KeyboardInterrupt:
        tell_interrupted(console, directory, "nothing was shown; the files and the logs of the run are kept")
        raise
    return report.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
