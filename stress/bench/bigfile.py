"""Work 6: a file of 16 MB with 200,000 keys: time, longest stall of the event loop, and peak memory."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from persistent_context import PersistentContext

from .model import PROJECT, Column, Metrics, Settings, Unit, Work, check_counter
from .peers import COUNTER, LOCK_TIMEOUT, ByHand, write_file
from .stall import timed
from .workers import in_fresh_process

KEYS = 200_000
CHANGED = "key-100000"
WARM_RUNS = 5

IN_THREAD = "json in a thread"
ONE_LINE = f"{PROJECT}, file in one line"
IDLE = "idle loop"

SAVE = Column("save", "save of 1 key", Unit.SECONDS)
SAVE_STALL = Column("save_stall", "loop stall in save", Unit.SECONDS)
LOAD = Column("load", "load", Unit.SECONDS)
LOAD_STALL = Column("load_stall", "loop stall in load", Unit.SECONDS)
COLD = Column("cold", "first incr", Unit.SECONDS)
WARM = Column("warm", "next ones (median)", Unit.SECONDS)
COLD_STALL = Column("cold_stall", "loop stall in the first", Unit.SECONDS)
PEAK = Column("peak", "peak over the interpreter's", Unit.BYTES)
PEAK_RATIO = Column("peak_ratio", "÷ the file's size", Unit.RATIO)


class State(Protocol):
    """The methods that both ways of keeping state in a file have."""

    async def load(self) -> None:
        """Read the file into memory."""

    def set(self, key: str, value: Any) -> None:
        """Change a value in memory."""

    async def save(self) -> None:
        """Make the changes in memory durable."""

    async def incr(self, key: str) -> object:
        """Add one to a number in the file, atomically across processes."""


class JsonInThread:
    """What an asyncio program does without this project: `json` and a durable write by hand, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.shared = ByHand(path.parent, durable=True)

    async def load(self) -> None:
        """Read the file into memory."""
        self.values = await asyncio.to_thread(lambda: json.loads(self.path.read_bytes()))

    def set(self, key: str, value: Any) -> None:
        """Change a value in memory."""
        self.values[key] = value

    async def save(self) -> None:
        """Write all of memory, without checking what others wrote in the meantime."""
        await asyncio.to_thread(lambda: write_file(self.path, json.dumps(self.values).encode(), durable=True))

    async def incr(self, key: str) -> int:
        """Add one to a number, under the lock."""
        return await asyncio.to_thread(self.shared.incr, key)


Kind = Callable[[Path], State]
Measurement = Callable[[Kind, Path], Coroutine[Any, Any, Metrics]]

OURS: Kind = partial(PersistentContext, lock_timeout=LOCK_TIMEOUT)


def write_big(path: Path, separator: str) -> None:
    """Write the file, with this separator between its keys."""
    values = {f"key-{n:06}": {"id": n, "tag": "ö", "ok": True, "load": n / 7} for n in range(KEYS)}
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    body = separator.join([f'"{COUNTER}": 0', *lines])
    path.write_text(f"{{\n{body}\n}}\n", encoding="utf-8")


def peak_memory() -> int:
    """Return the greatest resident size of this process so far, in bytes.

    Linux's `ru_maxrss` also includes the peak of the parent before it started this program; `VmHWM` does not.
    """
    if sys.platform == "linux":
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def load_and_save(kind: Kind, path: Path) -> Metrics:
    """Time a load, and a save of one changed key."""
    state = kind(path)
    load, load_stall = await timed(state.load)
    state.set(CHANGED, "changed")
    save, save_stall = await timed(state.save)
    return {
        LOAD.metric: load,
        LOAD_STALL.metric: load_stall,
        SAVE.metric: save,
        SAVE_STALL.metric: save_stall,
    }


def stored_counter(path: Path) -> int:
    """Return the counter as another program reads it."""
    return int(json.loads(path.read_bytes())[COUNTER])


async def incr(kind: Kind, path: Path) -> Metrics:
    """Time increments of one key: the first of a process, and the next ones."""
    state = kind(path)
    cold, stall = await timed(partial(state.incr, COUNTER))
    warm = [(await timed(partial(state.incr, COUNTER)))[0] for _ in range(WARM_RUNS)]
    check_counter(type(state).__name__, acknowledged=1 + WARM_RUNS, stored=stored_counter(path))
    return {COLD.metric: cold, WARM.metric: median(warm), COLD_STALL.metric: stall}


async def memory(kind: Kind, path: Path) -> Metrics:
    """Measure the peak of a process that does everything once."""
    before = peak_memory()
    size = os.path.getsize(path)  # noqa: ASYNC240 - this loop has nothing else to do
    state = kind(path)
    await state.load()
    state.set(CHANGED, "changed")
    await state.save()
    await state.incr(COUNTER)
    peak = peak_memory() - before
    return {PEAK.metric: peak, PEAK_RATIO.metric: peak / size}


async def idle(_kind: Kind, _path: Path) -> Metrics:
    """Measure how long an idle loop stalls: the noise of the machine."""
    _, stall = await timed(partial(asyncio.sleep, 1))
    return {LOAD_STALL.metric: stall, SAVE_STALL.metric: stall}


def _measure(measurement: Measurement, kind: Kind, path: Path) -> Metrics:
    """Run one measurement, in a fresh process."""
    return asyncio.run(measurement(kind, path))


@dataclass(frozen=True)
class Entry:
    """What to measure for one competitor, and what separates the keys in its file."""

    measurement: Measurement
    kind: Kind
    separator: str = ",\n"


def _big(name: str, title: str, columns: tuple[Column, ...], entries: dict[str, Entry]) -> Work:
    """Return a work that gives each entry a new big file and a fresh process."""

    def play_round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
        for competitor, entry in entries.items():
            with TemporaryDirectory(dir=settings.scratch) as folder:
                path = Path(folder) / "store.json"
                write_big(path, entry.separator)
                yield competitor, in_fresh_process(_measure, entry.measurement, entry.kind, path)

    return Work(name, f"File of 16 MB, 200,000 keys: {title}", columns, play_round)


BIGFILE = [
    _big(
        "big",
        "load, and save of one changed key",
        (SAVE, SAVE_STALL, LOAD, LOAD_STALL),
        {
            PROJECT: Entry(load_and_save, OURS),
            IN_THREAD: Entry(load_and_save, JsonInThread),
            ONE_LINE: Entry(load_and_save, OURS, separator=", "),
            IDLE: Entry(idle, OURS),
        },
    ),
    _big(
        "big-incr",
        "incr of one key",
        (COLD, WARM, COLD_STALL),
        {PROJECT: Entry(incr, OURS), IN_THREAD: Entry(incr, JsonInThread)},
    ),
    _big(
        "big-memory",
        "peak memory of load, save and incr",
        (PEAK, PEAK_RATIO),
        {PROJECT: Entry(memory, OURS), IN_THREAD: Entry(memory, JsonInThread)},
    ),
]
