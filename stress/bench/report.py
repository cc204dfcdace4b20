"""Results for people and programs: rich tables, Markdown, and JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from . import members
from .figures import Figure, figures
from .model import PROJECT, Table
from .plot import plot, plot_journal
from .throughput import THROUGHPUT

ABSENT = "-"


@dataclass(frozen=True)
class Grid:
    """A table as text, which rich and Markdown both show."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the grid as a section of Markdown."""
        alignment = ["---"] + ["---:"] * (len(self.headings) - 1)
        lines = [f"| {' | '.join(cells)} |" for cells in (self.headings, alignment, *self.lines)]
        return "\n".join([f"## {self.title}", "", *lines, ""])

    def rich(self) -> RichTable:
        """Return the grid for the terminal."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
        for cells in self.lines:
            table.add_row(*cells, style="bold" if cells[0] == PROJECT else "")
        return table


def environment() -> dict[str, str]:
    """Return the environment that the figures depend on."""
    packages = ("filelock", "msgspec", "anyio", "orjson", "diskcache", "tinydb", "lmdb", "urllib3", "etcd3gw")
    return {
        "machine": f"{platform.platform()}, {cpu_count()} CPUs",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "etcd": members.version() or members.MISSING,
    }


def _grid(table: Table) -> Grid:
    """Return the medians of a work, and how the project compares."""
    lines = []
    for competitor in table.runs:
        values = [(table.median(competitor, column.metric), column.unit) for column in table.work.columns]
        advantage = table.advantage(competitor)
        lines.append(
            [
                competitor,
                *(ABSENT if value is None else unit.show(value) for value, unit in values),
                ABSENT if advantage is None else f"{advantage:,.2f} x",
            ]
        )
    return Grid(
        table.work.title,
        ["", *(column.heading for column in table.work.columns), "project is better by"],
        lines,
    )


def _figures_grid(reached: Iterable[Figure]) -> Grid:
    """Return the last table: the promised figures, and whether they were met."""
    return Grid(
        "Figures to reach",
        ["", "target", "measured", "met"],
        [
            [figure.claim, figure.target_text, figure.unit.show(figure.measured), "yes" if figure.met else "no"]
            for figure in reached
        ],
    )


def show(table: Table, console: Console) -> None:
    """Print the medians of one work."""
    console.print(_grid(table).rich())


def publish(tables: Mapping[str, Table], settings: Mapping[str, float | str], folder: Path, console: Console) -> None:
    """Print the figures to reach; write `results.json`, `results.md`, and the plots for the works that have them."""
    reached = figures(tables)
    grids = [_grid(table) for table in tables.values()]
    if reached:
        grids.append(_figures_grid(reached))
        console.print(grids[-1].rich())

    facts = environment()
    heading = ["# Benchmarks", "", *(f"- {name}: {value}" for name, value in {**facts, **settings}.items()), ""]
    (folder / "results.md").write_text("\n".join([*heading, *(grid.markdown() for grid in grids)]), encoding="utf-8")

    record = {
        "environment": facts,
        "settings": dict(settings),
        "works": {name: {"title": table.work.title, "runs": table.runs} for name, table in tables.items()},
        "figures": [{**asdict(figure), "unit": figure.unit.value, "met": figure.met} for figure in reached],
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    drawn = [tables[work.name] for work in THROUGHPUT if work.name in tables]
    if drawn:
        plot(drawn, folder / "results.png")
    if tables.keys() >= {"journal-sizes", "journal-processes"}:
        plot_journal(tables["journal-sizes"], tables["journal-processes"], folder / "journal.png")
