"""Results for people and programs: rich tables, Markdown, JSON and a plot."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table as RichTable

from .figures import Figure, figures
from .model import PROJECT, Table
from .peers import PEERS
from .throughput import RATE, THROUGHPUT

mpl.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

OURS, DURABLE, NOT_DURABLE = "#c2410c", "#475569", "#cbd5e1"
ABSENT = "–"


@dataclass(frozen=True)
class Grid:
    """A table as text: what rich and Markdown both show."""

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
    """Return what the figures depend on."""
    packages = ("filelock", "msgspec", "anyio", "orjson", "diskcache", "tinydb", "lmdb")
    return {
        "machine": f"{platform.platform()}, {cpu_count()} CPUs",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
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
    """Return the last table: what was promised, and whether it was met."""
    return Grid(
        "Figures to reach",
        ["", "target", "measured", "met"],
        [
            [figure.claim, figure.target_text, figure.unit.show(figure.measured), "yes" if figure.met else "no"]
            for figure in reached
        ],
    )


def _bars(axes: plt.Axes, table: Table) -> None:
    """Draw the rates of one work, the best on top."""
    rates = sorted((table.value(competitor, RATE.metric), competitor) for competitor in table.runs)
    colours = [
        OURS if name.startswith(PROJECT) else DURABLE if PEERS[name].durable else NOT_DURABLE for _, name in rates
    ]
    bars = axes.barh([name for _, name in rates], [rate for rate, _ in rates], color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate, _ in rates], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_title(table.work.title, fontsize=10, loc="left")
    axes.set_xlabel("increments a second (log scale)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _plot(tables: Sequence[Table], path: Path) -> None:
    """Draw one panel a work, as high as it has competitors."""
    heights = [1 + len(table.runs) for table in tables]
    figure, panels = plt.subplots(
        len(tables),
        figsize=(9, 0.27 * sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes, table in zip(panels.flat, tables, strict=True):
        _bars(axes, table)
    meanings = {PROJECT: OURS, "durable": DURABLE, "not durable": NOT_DURABLE}
    figure.legend(
        handles=[Patch(color=colour, label=meaning) for meaning, colour in meanings.items()],
        loc="outside upper right",
        ncols=len(meanings),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def show(table: Table, console: Console) -> None:
    """Print the medians of one work."""
    console.print(_grid(table).rich())


def publish(tables: Mapping[str, Table], settings: Mapping[str, float], folder: Path, console: Console) -> None:
    """Print the figures to reach; write `results.json`, `results.md` and, if there are rates to draw, `results.png`."""
    reached = figures(tables)
    grids = [*map(_grid, tables.values()), _figures_grid(reached)]
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
        _plot(drawn, folder / "results.png")
