"""What is shown and kept when a run has ended."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stress.run.report import Report, Verdict
from stress.run.supervisor import Run


def conclude(console: Console, run: Run, report: Report, *, page: Path | None, keep: bool) -> bool:
    """Show the report, write the page if asked to, and return whether the directory is kept."""
    report.show(console)
    kept = keep or report.verdict is not Verdict.PASS
    if page is not None or kept:
        _write_page(console, run, report, page or run.directory / "report.html")
    if kept:
        console.print(f"the file and the logs: {run.directory}", highlight=False, soft_wrap=True)
    return kept


def tell_interrupted(console: Console, directory: Path, what: str) -> None:
    """Say what an interrupted run leaves on disk, and where; all of its processes are dead."""
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    text = f"interrupted: {what} in {directory} ({size / 1e6:.1f} MB)"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _write_page(console: Console, run: Run, report: Report, path: Path) -> None:
    """Write the page, unless the library that it describes cannot be imported."""
    try:
        from stress.page.write import write_page  # noqa: PLC0415 (a library that is broken is to be told of all the same)
    except ImportError as error:
        console.print(f"no page: {error}", highlight=False, soft_wrap=True)
        return
    write_page(run, report, path)
    console.print(f"the page: {path}", highlight=False, soft_wrap=True)
