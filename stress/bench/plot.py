"""The plot: a panel of rates for each throughput work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from . import journal
from .model import PROJECT, Table
from .peers import ALL_PEERS, JOURNAL, SQLITE_IN_THREAD
from .throughput import RATE

OURS, OURS_NOT_DURABLE, DURABLE, NOT_DURABLE = "#c2410c", "#fdba74", "#475569", "#cbd5e1"
OTHERS = "#0f766e"
MEANINGS = {
    PROJECT: OURS,
    "durable peers": DURABLE,
    f"{PROJECT}, not durable": OURS_NOT_DURABLE,
    "peers, not durable": NOT_DURABLE,
}


def _colour(competitor: str) -> str:
    """Return the colour of a bar, which shows whose it is, and whether it survives a power cut."""
    ours, durable = competitor.startswith(PROJECT), ALL_PEERS[competitor].durable
    if ours:
        return OURS if durable else OURS_NOT_DURABLE
    return DURABLE if durable else NOT_DURABLE


def _bars(axes: Axes, table: Table) -> None:
    """Draw the rates of one work, with the best on top."""
    rates, names = zip(*sorted((table.value(name, RATE.metric), name) for name in table.runs), strict=True)
    bars = axes.barh(names, rates, color=[_colour(name) for name in names])
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(rates[0] / 2)), rates[-1] * 3)  # bars have lengths, labels have room
    axes.set_title(table.work.title, fontsize=10, loc="left")
    axes.set_xlabel("increments a second (log scale)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def plot_journal(sizes: Table, crowds: Table, path: Path) -> None:
    """Draw the effect of a journal: rates by the size of the file, and by the number of processes."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(journal.SIZES)
    for kind, colour in ((JOURNAL, OURS), (PROJECT, DURABLE)):
        times = [sizes.value(journal.sized(kind, size), journal.INCR.metric) for size in names]
        left.plot(names, [1 / time for time in times], color=colour, marker="o", label=kind)
    for peer, colour in ((JOURNAL, OURS), (PROJECT, DURABLE), (SQLITE_IN_THREAD, OTHERS)):
        rates = [crowds.value(journal.crowd(peer, count), RATE.metric) for count in journal.CROWDS]
        right.plot([str(count) for count in journal.CROWDS], rates, color=colour, marker="o", label=peer)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    for axes, title in ((left, "by the size of the file"), (right, "by the number of processes")):
        axes.set_title(f"incr a second, {title}", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def plot(tables: Sequence[Table], path: Path) -> None:
    """Draw one panel per work, with a height for the number of competitors."""
    heights = [1 + len(table.runs) for table in tables]
    figure = Figure(figsize=(9, 0.27 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(tables), height_ratios=heights, squeeze=False)
    for axes, table in zip(panels.flat, tables, strict=True):
        _bars(axes, table)
    handles = [Patch(color=colour, label=meaning) for meaning, colour in MEANINGS.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
