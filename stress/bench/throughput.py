"""Works 1 to 4: `incr` of one counter by many tasks, many processes, or both, and how fairly they get their turns.

With many tasks, peers whose calls block are called through `asyncio.to_thread`. With one task, they are called in a
plain loop without asyncio, which is the best that they can do; this project is awaited even then, and so are those
that say `to_thread`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .model import PROJECT, Column, Metrics, Settings, Unit, Work, check_counter
from .peers import (
    ALL_PEERS,
    BY_HAND,
    COUNTER,
    FLOOR,
    IN_THREADS,
    JOURNAL,
    PEERS,
    Store,
    small_values,
)
from .workers import Tally, Window, run_crew

RATE = Column("rate", "increments", Unit.RATE)
FAIRNESS = Column("fairness", "least ÷ most", Unit.RATIO)
MEDIAN_WAIT = Column("median_wait", "median wait", Unit.SECONDS)
LONGEST_WAIT = Column("longest_wait", "longest wait", Unit.SECONDS)
CYCLE = Column("cycle", "median cycle", Unit.SECONDS)


def summarise(window: Window, tallies: list[Tally]) -> Metrics:
    """Return the figures of one run.

    Rates and fairness count the operations acknowledged before the deadline; waits include the last ones of the
    stragglers. A cycle is the time from one acknowledgement, of whichever process, to the next.
    """
    done = [sum(end <= window.deadline for end in tally.ends) for tally in tallies]
    waits = list(chain.from_iterable(tally.waits() for tally in tallies))
    ends = sorted(chain.from_iterable(tally.ends for tally in tallies))
    return {
        RATE.metric: sum(done) / (window.deadline - window.start),
        FAIRNESS.metric: min(done) / max(done) if any(done) else 0.0,
        MEDIAN_WAIT.metric: median(waits),
        LONGEST_WAIT.metric: max(waits),
        CYCLE.metric: median(later - earlier for earlier, later in pairwise(ends)),
    }


def contend(peer: str, settings: Settings, *, processes: int, tasks: int) -> Metrics:
    """Run one competitor in a new folder; see :func:`compete`."""
    with TemporaryDirectory(dir=settings.scratch) as folder:
        open_store = partial(ALL_PEERS[peer].open, Path(folder))
        return compete(peer, open_store, settings, processes=processes, tasks=tasks)


def compete(peer: str, open_store: Callable[[], Store], settings: Settings, *, processes: int, tasks: int) -> Metrics:
    """Run one competitor on a new store, check its counter, and return its figures.

    Raises:
        WrongCounterError: the stored counter is not the number of acknowledged increments.
    """
    store = open_store()
    store.seed(small_values())
    store.close()
    window, tallies = run_crew(open_store, processes=processes, tasks=tasks, seconds=settings.seconds)
    store = open_store()
    stored = store.read(COUNTER)
    store.close()
    check_counter(peer, acknowledged=sum(len(tally.ends) for tally in tallies), stored=stored)
    return summarise(window, tallies)


def contest(name: str, processes: int, tasks: int, columns: Iterable[Column], peers: Iterable[str]) -> Work:
    """Return the work for this number of processes and tasks."""

    def play_round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
        for peer in peers:
            yield peer, contend(peer, settings, processes=processes, tasks=tasks)

    crowd = f"{processes} process{'es' * (processes > 1)} x {tasks} task{'s' * (tasks > 1)}"
    return Work(name, f"{crowd}: incr of one counter", tuple(columns), play_round)


THROUGHPUT = [
    contest("1x100", 1, 100, (RATE, MEDIAN_WAIT, LONGEST_WAIT), PEERS),
    contest("8x100", 8, 100, (RATE, FAIRNESS, MEDIAN_WAIT, LONGEST_WAIT), PEERS),
    contest("8x1", 8, 1, (RATE, FAIRNESS, LONGEST_WAIT, CYCLE), ALL_PEERS),
    contest("32x1", 32, 1, (RATE, FAIRNESS, LONGEST_WAIT, CYCLE), (PROJECT, JOURNAL, FLOOR, BY_HAND, *IN_THREADS)),
]
