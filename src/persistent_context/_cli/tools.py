"""The commands around a state: journal, checkpoint, doctor and demo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from .._printable import printable
from .._stores.factory import identify, is_url
from .arguments import AsJson, File, OnlyFile, Timeout
from .demo import run as run_demo
from .doctor import examine
from .findings import Finding, Level, by_severity
from .journal import fold as fold_journal
from .journal import show as show_journal
from .streams import FAILED, INTERRUPTED, as_json, say

_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def journal(
    file: OnlyFile,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with lines appended later.")] = False,
    json_: AsJson = False,
) -> None:
    """Show which process changed what, and when, since the last checkpoint."""
    try:
        show_journal(file, identify(file), follow=follow, json=json_)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def checkpoint(file: OnlyFile, timeout: Timeout = 30.0) -> None:
    """Fold the journal into the JSON file, for programs that read only that."""
    fold_journal(file, identify(file), timeout)


def doctor(file: File, json_: AsJson = False) -> None:
    """Examine the file, its directory, lock and journal; exit with 1 if there is a problem. Changes nothing.

    With a URL, it examines each endpoint of the etcd cluster, whether they have a majority, the state and its lock.
    """
    findings = by_severity(_findings(file))
    if json_:
        say(as_json([finding._asdict() for finding in findings]))
    else:
        console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        for finding in findings:
            console.print(
                Text(f"{finding.level:8}", style=_COLOURS[finding.level]),
                f"{finding.subject}: {printable(finding.text)}",
            )
            if finding.advice:
                console.print(f"         {printable(finding.advice)}")
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)


def _findings(file: str) -> Iterable[Finding]:
    if not is_url(file):
        return examine(file)
    from .doctor_etcd import examine as examine_etcd  # noqa: PLC0415 - needs urllib3, which FILE has made sure of

    return examine_etcd(file)


def demo(
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Number of processes that count.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long they count.")] = 5.0,
) -> None:
    """Hammer one file from several processes, kill some with SIGKILL, and check that no count was lost."""
    if (kept := run_demo(processes, seconds, Console())) is None:
        raise typer.Exit(INTERRUPTED)
    if not kept:
        raise typer.Exit(FAILED)
