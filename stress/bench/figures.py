"""The figures to reach: the speed that this project promises, as ratios within one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import bigfile, etcd, journal, saving, startup, throughput, watch
from .model import PROJECT, Table, Unit
from .peers import BY_HAND, DISKCACHE, FLOOR, JOURNAL, SQLITE_IN_THREAD


@dataclass(frozen=True)
class Figure:
    """One promise and its measurement."""

    claim: str
    measured: float
    target: float
    at_least: bool = True
    unit: Unit = Unit.RATIO

    @property
    def met(self) -> bool:
        """Whether the promise was kept."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    @property
    def target_text(self) -> str:
        """Return the target in a readable form."""
        return f"{'≥' if self.at_least else '≤'} {self.unit.show(self.target)}"


def _at_most(claim: str, measured: float, target: float, unit: Unit = Unit.RATIO) -> Figure:
    """Return a figure that should be small."""
    return Figure(claim, measured, target, at_least=False, unit=unit)


def _advantage(table: Table, competitor: str) -> float:
    """Return the project's rate divided by the competitor's."""
    rate = throughput.RATE.metric
    return table.value(PROJECT, rate) / table.value(competitor, rate)


def _many_tasks(table: Table) -> Iterator[Figure]:
    yield Figure("1 process x 100 tasks: rate ÷ diskcache FULL", _advantage(table, DISKCACHE), 10)
    yield Figure("1 process x 100 tasks: rate ÷ filelock + json", _advantage(table, BY_HAND), 30)
    yield Figure("1 process x 100 tasks, journal: rate ÷ without", 1 / _advantage(table, JOURNAL), 1)


def _many_processes_and_tasks(table: Table) -> Iterator[Figure]:
    yield Figure("8 processes x 100 tasks: rate ÷ diskcache FULL", _advantage(table, DISKCACHE), 15)
    yield Figure("8 processes x 100 tasks, journal: rate ÷ without", 1 / _advantage(table, JOURNAL), 1)


def _eight_processes(table: Table) -> Iterator[Figure]:
    turn = 8 * table.value(PROJECT, throughput.CYCLE.metric)
    longest = table.value(PROJECT, throughput.LONGEST_WAIT.metric)
    yield Figure("8 processes x 1 task: rate ÷ bare floor", _advantage(table, FLOOR), 0.9)
    yield Figure("8 processes x 1 task: rate ÷ filelock + json", _advantage(table, BY_HAND), 1.3)
    yield Figure("8 processes x 1 task: least ÷ most", table.value(PROJECT, throughput.FAIRNESS.metric), 0.7)
    yield _at_most("8 processes x 1 task: longest wait ÷ 8 median cycles", longest / turn, 5)
    yield from _with_journal(table, "8 processes x 1 task", 0.7)
    yield Figure("8 processes x 1 task, journal: rate ÷ without", 1 / _advantage(table, JOURNAL), 4)


def _with_journal(table: Table, title: str, fairness: float) -> Iterator[Figure]:
    rate = throughput.RATE.metric
    ratio = table.value(JOURNAL, rate) / table.value(SQLITE_IN_THREAD, rate)
    yield Figure(f"{title}, journal: rate ÷ sqlite3 FULL, to_thread", ratio, 1.5)
    yield Figure(f"{title}, journal: least ÷ most", table.value(JOURNAL, throughput.FAIRNESS.metric), fairness)


def _many_processes(table: Table) -> Iterator[Figure]:
    yield Figure("32 processes x 1 task: least ÷ most", table.value(PROJECT, throughput.FAIRNESS.metric), 0.6)
    yield from _with_journal(table, "32 processes x 1 task", 0.6)


def _save(table: Table) -> Iterator[Figure]:
    time = saving.TIME.metric
    ratio = table.value(PROJECT, time) / table.value(saving.FLOOR_AND_HOP, time)
    yield _at_most("uncontended durable save: time ÷ (bare floor + one executor hop)", ratio, 1.3)


def _big_stalls(table: Table) -> Iterator[Figure]:
    for column in (bigfile.LOAD_STALL, bigfile.SAVE_STALL):
        yield _at_most(f"16 MB: longest {column.heading}", table.value(PROJECT, column.metric), 0.025, Unit.SECONDS)


def _big_incr(table: Table) -> Iterator[Figure]:
    for column in (bigfile.COLD, bigfile.WARM):
        ratio = table.value(PROJECT, column.metric) / table.value(bigfile.IN_THREAD, column.metric)
        yield _at_most(f"16 MB: incr, {column.heading}: time ÷ by hand", ratio, 0.2)


def _big_memory(table: Table) -> Iterator[Figure]:
    yield _at_most("16 MB: peak memory ÷ file size", table.value(PROJECT, bigfile.PEAK_RATIO.metric), 4)


def _import(table: Table) -> Iterator[Figure]:
    time = startup.TIME.metric
    ratio = table.value(PROJECT, time) / table.value(startup.ASYNCIO, time)
    yield _at_most("import ÷ import asyncio", ratio, 1.6)


def _watch(table: Table) -> Iterator[Figure]:
    longest = table.value(PROJECT, watch.LONGEST.metric)
    yield _at_most("watch: longest delay of another process's change", longest, 0.1, Unit.SECONDS)


def _journal_sizes(table: Table) -> Iterator[Figure]:
    large, small = (journal.sized(JOURNAL, size) for size in (journal.LARGEST, journal.SMALLEST))
    for column, most in ((journal.INCR, 3), (journal.SAVE, 3), (journal.TAKEOVER, 5)):
        ratio = table.value(large, column.metric) / table.value(small, column.metric)
        yield _at_most(f"journal, {column.heading}: time on 16 MB ÷ on 16 kB", ratio, most)
    for column in (journal.STALL, journal.CHECKPOINT_STALL):
        stall = table.value(large, column.metric)
        yield _at_most(f"journal, 16 MB: loop stall, {column.heading}", stall, 0.025, Unit.SECONDS)


def _journal_bytes(table: Table) -> Iterator[Figure]:
    ratio = table.value(JOURNAL, journal.AMPLIFICATION.metric)
    yield _at_most("journal, 16 MB: bytes written ÷ bytes changed, for 10,000 changes", ratio, 20)


def _etcd_calls(table: Table) -> Iterator[Figure]:
    yield Figure("etcd, 3 members: rate of incr ÷ bare put", _advantage(table, etcd.BARE_PUT), 0.6)
    rate = throughput.RATE.metric
    ratio = table.value(etcd.TASKS, rate) / table.value(etcd.BARE_PUT, rate)
    yield Figure("etcd, 3 members, 100 tasks: rate of incr ÷ bare put", ratio, 10)


def _etcd_processes(table: Table) -> Iterator[Figure]:
    title = "etcd, 3 members, 8 processes x 1 task"
    yield Figure(f"{title}: least ÷ most", table.value(PROJECT, throughput.FAIRNESS.metric), 0.5)
    yield Figure(f"{title}: rate ÷ etcd3gw's lock", _advantage(table, etcd.USUAL_WAY), 2)


def _etcd_watch(table: Table) -> Iterator[Figure]:
    ratio = table.value(PROJECT, watch.MEDIAN.metric) / table.value(etcd.BARE_PUT, watch.MEDIAN.metric)
    yield _at_most("etcd, 3 members, watch: median delay ÷ bare put", ratio, 3)


def _etcd_killed(table: Table) -> Iterator[Figure]:
    worst = max(run[etcd.WORST.metric] for run in table.runs[PROJECT])
    yield _at_most("etcd, 3 members, leader killed: longest time to write again", worst, 3, Unit.SECONDS)


FIGURES = {
    etcd.work_name("calls", 3): _etcd_calls,
    etcd.work_name("processes", 3): _etcd_processes,
    etcd.work_name("watch", 3): _etcd_watch,
    etcd.work_name("killed", 3): _etcd_killed,
    "journal-sizes": _journal_sizes,
    "journal-bytes": _journal_bytes,
    "1x100": _many_tasks,
    "8x100": _many_processes_and_tasks,
    "8x1": _eight_processes,
    "32x1": _many_processes,
    "save": _save,
    "big": _big_stalls,
    "big-incr": _big_incr,
    "big-memory": _big_memory,
    "import": _import,
    "watch": _watch,
}


def figures(tables: Mapping[str, Table]) -> list[Figure]:
    """Return the figures of the works that were measured and have any."""
    return [figure for name, table in tables.items() if name in FIGURES for figure in FIGURES[name](table)]
