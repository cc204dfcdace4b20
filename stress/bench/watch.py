"""Work 8: how long after another process's change `watch()` reports it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from persistent_context import SyncPersistentContext

from .model import PROJECT, Column, Metrics, Settings, Unit, Work
from .workers import SPAWN, in_fresh_process

POLLING = "the same, without watchfiles"
CHANGES_PER_SECOND = 333
"""Changes for each second that a timed cell lasts: 999 in three seconds."""
PAUSE_SECONDS = 0.02
MEDIAN = Column("median", "median delay", Unit.SECONDS)
LONGEST = Column("longest", "longest delay", Unit.SECONDS)


def _write(place: str, asked: Connection) -> None:
    """Make a change on each request; its value is the time just before it, on a clock that all processes share."""
    context = SyncPersistentContext.create(place)
    while asked.recv():
        time.sleep(random.uniform(0, PAUSE_SECONDS))  # so that it comes at a random moment between two looks
        context.mutate("time", lambda _: time.monotonic())


def delays(place: str, changes: int, *, events: bool = True) -> list[float]:
    """Watch another process make changes; return the delay of each report in seconds. Runs in a fresh process."""
    if not events:
        sys.modules["watchfiles"] = None  # type: ignore[assignment] # as if it were not installed
    ours, theirs = SPAWN.Pipe()
    writer = SPAWN.Process(target=_write, args=(place, theirs), daemon=True)
    writer.start()
    measured = []
    context = SyncPersistentContext.create(place)
    with context.watch("time") as news:
        for _ in range(changes):
            ours.send("change")
            changed = next(news)["time"].new
            measured.append(time.monotonic() - changed)
    ours.send(None)
    writer.join()
    return measured


def _round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Watch by the file system's events, and by polling."""
    for name, events in ((PROJECT, True), (POLLING, False)):
        with TemporaryDirectory(dir=settings.scratch) as folder:
            changes = round(settings.seconds * CHANGES_PER_SECOND)
            measured = in_fresh_process(delays, str(Path(folder) / "store.json"), changes, events=events)
        yield name, {MEDIAN.metric: median(measured), LONGEST.metric: max(measured)}


WATCH = Work("watch", "Another process's change, reported by watch()", (MEDIAN, LONGEST), _round)
