"""Everything that counts against a run, each finding with the smallest piece of history that shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from stress.page.html import Html, shortened, tag
from stress.page.record import Record
from stress.page.timeline import timeline

SHOWN = 3
"""Findings of one kind, or of one workload, that are shown in full."""
OPEN = 2
"""Tracebacks that are shown unfolded: they are long, and often have the same cause."""
WORDS = 4_000
"""Characters of a traceback or of last output that are shown."""


def findings(record: Record) -> list[Html]:
    """Return an article for each finding against the run."""
    return [*_violations(record), *_crashes(record), *_hung(record), *_died(record)]


def _article(headline: str, *content: object) -> Html:
    return tag("article", tag("h3", shortened(headline, 400)), *content, class_="finding")


def _words(words: str) -> Html:
    """Return the end of what a process printed, which has the cause."""
    return tag("pre", "… " + words[-WORDS:] if len(words) > WORDS else words)


def _more(count: int, what: str) -> Iterator[Html]:
    """Yield how many are not shown."""
    if count > SHOWN:
        yield tag("p", f"And {count - SHOWN:,} more {what}.", class_="more")


def _crashes(record: Record) -> Iterator[Html]:
    for number, crash in enumerate(record.history.crashes[:SHOWN]):
        where, _, traceback = crash.partition("\n")
        words = _words(traceback)
        cause = tag("summary", shortened(traceback.rstrip().rpartition("\n")[2], 200))
        shown = words if number < OPEN else tag("details", cause, words)
        yield _article(f"An exception that the contract does not allow: {where}", shown)
    yield from _more(len(record.history.crashes), "such exceptions")


def _hung(record: Record) -> Iterator[Html]:
    for name, stacks in list(record.course.hung.items())[:SHOWN]:
        pending = [one for one in record.history.operations if one.process == name and one.finished == math.inf]
        parts = [timeline(pending, record.history.began), _words(_text(stacks))]
        yield _article(f"Process {name} did not stop when asked to: where its threads were", *parts)
    yield from _more(len(record.course.hung), "processes that did not stop")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return str(error)


def _violations(record: Record) -> Iterator[Html]:
    for workload, violations in record.violations.items():
        for one in violations[:SHOWN]:
            yield _article(
                f"{workload}: {one.kind}: {one.message}", timeline(one.operations, record.history.began, one.message)
            )
        yield from _more(len(violations), f"findings in {workload}")


def _died(record: Record) -> Iterator[Html]:
    for name, words in list(record.course.died.items())[:SHOWN]:
        yield _article(f"Process {name} ended although it had not been killed or stopped", _words(words))
    yield from _more(len(record.course.died), "processes that ended by themselves")


def count(record: Record) -> int:
    """Return how many findings there are, shown or not."""
    return sum(
        map(len, (record.history.crashes, record.course.hung, record.course.died, *record.violations.values())),
    )
