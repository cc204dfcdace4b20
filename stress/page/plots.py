"""The plots of the page, drawn as SVG: throughput and latency over time with the faults, ranges, fairness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from stress.page.html import Html, html, join, tag
from stress.page.tally import Latencies, Tally

WIDTH = 920
LEFT, RIGHT = 74, 908
"""The data is drawn between these."""
COLOURS = 6
"""How many colours the style sheet has for kinds of faults."""
NANOSECONDS = (("µs", 1e3), ("ms", 1e6), ("s", 1e9))
"""Units of time from the smallest, each with its nanoseconds."""

Scale = Callable[[float], float]


def duration(nanoseconds: float) -> str:
    """Format a duration with three digits, in a suitable unit."""
    if not math.isfinite(nanoseconds):
        return "—"
    unit, size = max(
        (one for one in NANOSECONDS if nanoseconds >= one[1]), key=lambda one: one[1], default=NANOSECONDS[0]
    )
    value = nanoseconds / size
    return f"{value:.{max(2 - math.floor(math.log10(max(value, 1))), 0)}f} {unit}"


def linear(low: float, high: float, start: float, stop: float) -> Scale:
    """Return the scale that puts `low` at `start` and `high` at `stop`."""
    return lambda value: start + (value - low) / ((high - low) or 1) * (stop - start)


def logarithmic(low: float, high: float, start: float, stop: float) -> Scale:
    """Return the same for logarithms."""
    scale = linear(math.log(low), math.log(high), start, stop)
    return lambda value: scale(math.log(max(value, low)))


def ticks(high: float, about: int) -> list[float]:
    """Return round numbers from 0 up to the first one that is not below `high`."""
    raw = max(high, 1e-9) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    return [step * number for number in range(math.ceil(high / step - 1e-9) + 1)] if high > 0 else [0.0, 1.0]


def decades(latencies: Iterable[Latencies]) -> list[float]:
    """Return the powers of ten, in nanoseconds, that enclose all the latencies."""
    ends = [(one.percentile(0), one.longest) for one in latencies if one.classes]
    low = math.floor(math.log10(max(min((end[0] for end in ends), default=1e5), 1e3)))
    high = math.ceil(math.log10(max((end[1] for end in ends), default=1e6)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """Return a straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def label(x: float, y: float, content: object, class_: str = "", anchor: str | None = None) -> Html:
    """Return a text in a plot."""
    return tag("text", content, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def svg(title: str, height: float, *content: object) -> Html:
    """Return a drawing that fills the width of the column."""
    return tag("svg", tag("title", title), *content, viewBox=f"0 0 {WIDTH} {math.ceil(height)}", role="img")


def figure(drawing: Html, caption: object) -> Html:
    """Return a drawing above the caption that says what to look at."""
    return tag("figure", tag("div", drawing, class_="wide"), tag("figcaption", caption))


def _grid(y: Scale, marks: Sequence[tuple[float, str]], axis: str, top: float, bottom: float) -> Html:
    """Return the horizontal lines of a panel, their values, and the name of the axis."""
    parts = [html("")]
    for value, told in marks:
        parts += [line(LEFT, y(value), RIGHT, y(value), "grid"), label(LEFT - 8, y(value) + 4, told, anchor="end")]
    middle = (top + bottom) / 2
    turned = tag(
        "text", axis, x=14.0, y=middle, class_="axis", text_anchor="middle", transform=f"rotate(-90 14 {middle:.0f})"
    )
    return join([*parts, turned])


def over_time(tally: Tally) -> Html:
    """Return throughput and latency in each slice of time, above the faults, on a common time axis."""
    seconds = (tally.ended - tally.began) / 1e9
    marks = [mark for mark in ticks(seconds, 10) if mark <= seconds * 1.001]
    x = linear(0, seconds, LEFT, RIGHT)
    lanes_top = 366.0
    bottom = lanes_top + 20 * len(tally.faults)
    parts = [line(x(mark), 20, x(mark), bottom, "grid") for mark in marks]
    parts += [label(x(mark), bottom + 16, f"{mark:g}", anchor="middle") for mark in marks]
    parts.append(label((LEFT + RIGHT) / 2, bottom + 34, "time since the run began, in seconds", "axis", "middle"))
    parts += [_throughput(tally, x), _latency(tally, x), _faults(tally, x, lanes_top)]
    return svg("Throughput, latency and faults over time", bottom + 42, *parts)


def _throughput(tally: Tally, x: Scale) -> Html:
    """Return the panel of acknowledged operations a second."""
    rates = [one.classes.total() / tally.width for one in tally.slices]
    marks = ticks(max(rates), 4)
    y = linear(0, marks[-1], 150, 20)
    outline = "".join(f"V{y(rate):.1f}H{x((place + 1) * tally.width):.1f}" for place, rate in enumerate(rates))
    area = tag("path", d=f"M{LEFT} 150{outline}V150Z", class_="area")
    return join([_grid(y, [(mark, f"{mark:,g}") for mark in marks], "operations / s", 20, 150), area])


def _latency(tally: Tally, x: Scale) -> Html:
    """Return the panel of latencies."""
    marks = decades(tally.slices)
    y = logarithmic(marks[0], marks[-1], 340, 190)
    parts = [
        _grid(y, [(mark, duration(mark).replace(".00", "").replace(".0", "")) for mark in marks], "latency", 190, 340)
    ]
    for place, (percent, class_) in enumerate(((50, "low"), (99, "high"))):
        known = [
            (x((number + 0.5) * tally.width), y(one.percentile(percent))) if one.classes else None
            for number, one in enumerate(tally.slices)
        ]
        stretches = [list(points) for there, points in groupby(known, key=bool) if there]
        path = "".join(
            "M" + "L".join(f"{at[0]:.1f} {at[1]:.1f}" for at in points if at) + "h.1" for points in stretches
        )
        parts.append(tag("path", d=path or "M0 0", class_=f"curve {class_}"))
        at = RIGHT - 150 + 78 * place
        parts += [line(at, 180, at + 22, 180, f"curve {class_}"), label(at + 28, 184, f"p{percent}")]
    return join(parts)


def _faults(tally: Tally, x: Scale, top: float) -> Html:
    """Return a lane of ticks for each kind of fault. Those that fall on the same pixel are one tick."""
    parts = [html("")]
    for number, (kind, times) in enumerate(tally.faults.items()):
        y = top + 20 * number
        places = dict.fromkeys(f"{min(max(x((at - tally.began) / 1e9), LEFT), RIGHT):.0f}" for at in times)
        parts += [
            label(LEFT - 8, y + 14, kind, "small", "end"),
            line(LEFT, y + 18, RIGHT, y + 18, "grid"),
            tag(
                "path",
                d="".join(f"M{at} {y + 4:.0f}v14" for at in places) or "M0 0",
                class_=f"tick kind{number % COLOURS}",
            ),
        ]
    return join(parts)


def grouping(tally: Tally, commits: Sequence[int]) -> Html:
    """Return operations per commit over time, in slices of at least a second: processes log their commits seldom."""
    together = math.ceil(1 / tally.width)
    starts = range(0, len(commits), together)
    done = [sum(one.classes.total() for one in tally.slices[start : start + together]) for start in starts]
    made = [sum(commits[start : start + together]) for start in starts]
    rates = [operations / count if count else 0.0 for operations, count in zip(done, made, strict=True)]
    seconds = (tally.ended - tally.began) / 1e9
    x = linear(0, seconds, LEFT, RIGHT)
    marks = ticks(max(rates, default=0), 4)
    y = linear(0, marks[-1], 150, 20)
    outline = "".join(
        f"V{y(rate):.1f}H{x(min((place + 1) * together * tally.width, seconds)):.1f}"
        for place, rate in enumerate(rates)
    )
    below = [mark for mark in ticks(seconds, 10) if mark <= seconds * 1.001]
    parts = [label(x(mark), 166, f"{mark:g}", anchor="middle") for mark in below]
    parts.append(label((LEFT + RIGHT) / 2, 184, "time since the run began, in seconds", "axis", "middle"))
    grid = _grid(y, [(mark, f"{mark:,g}") for mark in marks], "operations / commit", 20, 150)
    return svg("Operations per commit", 192, grid, tag("path", d=f"M{LEFT} 150{outline}V150Z", class_="area"), *parts)


def fairness(counts: dict[str, int]) -> Html:
    """Return a bar for each worker, and a line at the mean."""
    marks = ticks(max(counts.values(), default=0), 4)
    y = linear(0, marks[-1], 170, 20)
    step = (RIGHT - LEFT) / max(len(counts), 1)
    gap = min(step * 0.25, 8)
    parts = [_grid(y, [(mark, f"{mark:,g}") for mark in marks], "acknowledged", 20, 170)]
    ends = {min(counts.values(), default=0), max(counts.values(), default=0)}
    every = math.ceil(len(counts) / 30)
    for number, (worker, count) in enumerate(counts.items()):
        left = LEFT + number * step
        class_ = "bar end" if count in ends else "bar"
        parts.append(tag("rect", x=left + gap / 2, y=y(count), width=step - gap, height=170 - y(count), class_=class_))
        if number % every == 0:
            parts.append(label(left + step / 2, 186, worker, anchor="middle"))
        if count in ends and len(counts) > 1:
            parts.append(label(left + step / 2, y(count) - 5, f"{count:,}", "small on", "middle"))
    mean = sum(counts.values()) / max(len(counts), 1)
    parts += [line(LEFT, y(mean), RIGHT, y(mean), "mean"), label((LEFT + RIGHT) / 2, 204, "worker", "axis", "middle")]
    return svg("Acknowledged operations by worker", 212, *parts)


def spread(latencies: Latencies, scale: Sequence[float]) -> Html:
    """Return, for a cell of a table, a bar from p50 to p99.9 and a mark at the longest."""
    x = logarithmic(scale[0], scale[-1], 6, 194)
    parts = [line(x(mark), 0, x(mark), 18, "grid") for mark in scale]
    if latencies.classes:
        middle, high, longest = (
            x(value) for value in (latencies.percentile(50), latencies.percentile(99.9), latencies.longest)
        )
        parts += [
            line(middle, 9, longest, 9, "whisker"),
            tag("rect", x=middle, y=6.0, width=max(high - middle, 1.0), height=6.0, class_="bar"),
            tag("circle", cx=middle, cy=9.0, r=4.0, class_="dot"),
            line(longest, 4, longest, 14, "whisker"),
        ]
    return tag("svg", *parts, viewBox="0 0 200 18", class_="cell", role="presentation")


def spread_axis(scale: Sequence[float]) -> Html:
    """Return the heading of the column of such bars: the ends of their scale."""
    low, high = (duration(value).replace(".00", "").replace(".0", "") for value in (scale[0], scale[-1]))
    return tag("span", tag("span", low), tag("span", high), class_="ends")
