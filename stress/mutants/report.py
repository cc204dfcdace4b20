"""The gate's report: a table, a file for machines, and the exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stress.mutants.gate import Result, Verdict
from stress.mutants.model import Mutant

STYLES = {
    Verdict.CAUGHT: "green",
    Verdict.SURVIVED: "bold red",
    Verdict.NOT_SHOWN: "yellow",
    Verdict.NO_PROOF: "bold red",
}


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 if all were caught, 1 if one survived or proves nothing, 2 if this machine could not show them all.

    A mutant with several catchers, of which some cannot run on this machine, is caught if one of the others catches it.
    """
    if not results or any(result.verdict in {Verdict.SURVIVED, Verdict.NO_PROOF} for result in results):
        return 1
    caught = {result.mutant.name for result in results if result.verdict is Verdict.CAUGHT}
    return 0 if all(result.mutant.name in caught for result in results) else 2


def show(console: Console, results: Sequence[Result], seconds: float) -> None:
    """Print one row for each mutant and catcher, and the totals."""
    table = Table("mutant", "the promise that falls", "verdict", "by what")
    table.add_column("seconds", justify="right")
    for result in results:
        style = STYLES[result.verdict]
        table.add_row(
            result.mutant.name,
            result.mutant.promise.value,
            Text(result.verdict.value, style),
            Text(result.words),
            f"{result.seconds:.1f}",
        )
    console.print(table)
    for result in results:
        if result.verdict is not Verdict.CAUGHT:
            told = f"{result.mutant.name}: {result.verdict.value}: {result.words}"
            told = f"{told}\n    {result.mutant.breaks}\n    {result.catcher}"
            console.print(told, style=STYLES[result.verdict], markup=False, highlight=False, soft_wrap=True)
    counts = Counter(result.verdict for result in results)
    sums = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    mutants = len({result.mutant.name for result in results})
    console.print(f"{mutants} broken builds in {seconds:.0f} s: {sums or 'none was run'}", highlight=False)


def write(file: Path, results: Sequence[Result], seconds: float) -> None:
    """Write the content of the table, and more, as JSON."""
    rows = [
        {
            "mutant": result.mutant.name,
            "breaks": result.mutant.breaks,
            "promise": result.mutant.promise.value,
            "catcher": str(result.catcher),
            "verdict": result.verdict.name.lower(),
            "words": result.words,
            "seconds": round(result.seconds, 2),
        }
        for result in results
    ]
    content = {"exit_code": exit_code(results), "seconds": round(seconds, 1), "results": rows}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show_list(console: Console, mutants: Sequence[Mutant]) -> None:
    """Print what each mutant breaks, and its catchers."""
    table = Table("mutant", "what it breaks", "the promise that falls", "caught by", show_lines=True)
    for mutant in mutants:
        table.add_row(
            mutant.name, mutant.breaks, mutant.promise.value, Text("\n".join(str(one) for one in mutant.catchers))
        )
    console.print(table)
