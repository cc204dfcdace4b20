"""The operations that show a finding: a small timeline, and a table of their exact figures below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from stress.logs.history import Operation, Outcome
from stress.page.html import Html, join, shortened, table, tag
from stress.page.plots import LEFT, RIGHT, duration, figure, label, line, svg

SHOWN = 10
"""Operations of one finding that are drawn."""
ROW = 24
DETAIL = 120
"""Characters of a result or a note that are shown."""
START = LEFT + 60

CAPTION = "What shows it, in true order; distances only distinguish short from long, and the table has the exact times."
GUIDE = (
    "Each finding is shown by the few operations that prove it. A bar lasts from the invocation of an operation to its"
    " end; a dashed one has an unknown outcome, a grey one failed."
)


def told(operation: Operation, about: str) -> str:
    """Return the result and the note of an operation in one line; of a whole document, what the finding is about."""
    result = operation.result
    if isinstance(result, dict):
        result = {key: value for key, value in result.items() if key in about} or result
    parts = [f"{name} {value!r}" for name, value in (("→", result), ("noted", operation.note)) if value is not None]
    return shortened(", ".join([*parts, operation.error] if operation.error else parts), DETAIL)


def timeline(operations: Sequence[Operation], began: int, about: str = "") -> Html:
    """Return the drawing and the table."""
    shown = sorted(operations, key=lambda one: one.invoked)[:SHOWN]
    if not shown:
        return Html()
    caption = CAPTION
    if len(operations) > SHOWN:
        caption += f" The first {SHOWN} of {len(operations):,} operations are shown."
    return join([figure(_drawing(shown, about), caption), _table(shown, began, about)])


def _places(operations: Sequence[Operation]) -> dict[float, float]:
    """Return where each moment is drawn. The distance between two of them is logarithmic."""
    moments = sorted({moment for one in operations for moment in (one.invoked, one.finished) if moment < math.inf})
    widths = [1 + math.log10(1 + (later - earlier) / 1e3) for earlier, later in pairwise(moments)]
    unit = (RIGHT - 60 - START) / (sum(widths) or 1)
    places, at = {}, float(START)
    for moment, width in zip(moments, [*widths, 0.0], strict=True):
        places[moment] = at
        at += width * unit
    return places


def _drawing(operations: Sequence[Operation], about: str) -> Html:
    """Return one bar for each operation, grouped by process."""
    places = _places(operations)
    bottom = 10 + ROW * len(operations)
    parts = [line(place, 6, place, bottom, "grid") for place in places.values()]
    first = {one.process: one.invoked for one in reversed(operations)}
    rows = sorted(operations, key=lambda one: (first[one.process], one.process, one.invoked))
    for number, one in enumerate(rows):
        y = 10.0 + ROW * number
        left, right = places[one.invoked], places.get(one.finished, float(RIGHT))
        if not number or rows[number - 1].process != one.process:
            parts += [line(0, y - 1, RIGHT, y - 1, "grid"), label(0, y + 14, f"process {one.process}", "small")]
        class_ = {Outcome.OK: "ok", Outcome.FAIL: "fail", Outcome.UNKNOWN: "unknown"}[one.outcome]
        parts.append(
            tag("rect", x=left, y=y + 2, width=max(right - left, 3.0), height=ROW - 6.0, rx=2, class_=f"span {class_}")
        )
        name = shortened(f"{one.name} {told(one, about)}", 60)
        inside = left < (START + RIGHT) / 2
        parts.append(label(left + 5 if inside else right - 5, y + 14, name, "small on", None if inside else "end"))
    words = "time, in order →"
    return svg("Operations that show the finding", bottom + 24, *parts, label(RIGHT, bottom + 16, words, "axis", "end"))


def _table(operations: Sequence[Operation], began: int, about: str) -> Html:
    """Return the exact figures."""
    rows = (
        (
            one.id,
            f"{one.name}({one.key})",
            f"{(one.invoked - began) / 1e9:.6f}",
            duration(one.finished - one.invoked),
            one.outcome.value,
            told(one, about),
        )
        for one in operations
    )
    return table(("operation", "what", "invoked at, s", "took", "outcome", "was told"), rows, "operations")
