"""Work 10: the effect of a journal, by the size of the file and by the number of processes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from persistent_context import PersistentContext

from .model import PROJECT, Column, Metrics, Settings, Unit, Work
from .peers import COUNTER, JOURNAL, LOCK_TIMEOUT, SQLITE_IN_THREAD
from .stall import timed
from .throughput import FAIRNESS, RATE, contend
from .workers import SPAWN, in_fresh_process

P = ParamSpec("P")
T = TypeVar("T")

SIZES = {"16 kB": 200, "256 kB": 3_200, "1 MB": 12_500, "4 MB": 50_000, "16 MB": 200_000}
"""How many keys a file of that size has."""
SMALLEST, LARGEST = "16 kB", "16 MB"
KINDS = {PROJECT: None, JOURNAL: True}
"""The competitors, with the journal option of their contexts."""
CALLS = 31
OTHERS = 1_000
FEW = 2
"""Changes by another process. Without a journal, their number makes no difference to the next call."""
SINGLE = 10_000
CROWDS = (1, 2, 4, 8, 16, 32)
CROWD_PEERS = (PROJECT, JOURNAL, SQLITE_IN_THREAD)

INCR = Column("incr", "incr (median)", Unit.SECONDS)
SAVE = Column("save", "save of 1 key (median)", Unit.SECONDS)
STALL = Column("stall", "longest loop stall", Unit.SECONDS)
CHECKPOINT_STALL = Column("checkpoint_stall", "in a checkpoint", Unit.SECONDS)
TAKEOVER = Column("takeover", f"incr after {OTHERS:,} changes by another process", Unit.SECONDS)
WRITTEN = Column("written", "written", Unit.BYTES)
CHANGED = Column("changed", "changed", Unit.BYTES)
AMPLIFICATION = Column("amplification", "written ÷ changed", Unit.RATIO)
WITH_LAST = Column("with_last", "with a checkpoint at the end", Unit.RATIO)


def sized(kind: str, size: str) -> str:
    """Return the name of a competitor on a file of a size."""
    return f"{kind}, {size}"


def crowd(peer: str, processes: int) -> str:
    """Return the name of a competitor with this number of processes."""
    return f"{peer}, {processes} process{'es' * (processes > 1)}"


def _value(number: int) -> dict[str, object]:
    return {"id": number, "tag": "ö", "ok": True, "load": number / 7}


def _key(number: int) -> str:
    return f"key-{number:06}"


def _constant(value: object) -> Callable[[object], object]:
    """Return a function for `mutate` that replaces any value by this one."""
    return lambda _: value


def _write(path: Path, keys: int) -> None:
    values = {COUNTER: 0} | {_key(number): _value(number) for number in range(keys)}
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


async def _opened(path: Path, kind: str) -> PersistentContext:
    """Return a context that has read and written the file once, the cost of which is measured elsewhere."""
    context = await PersistentContext.create(path, journal=KINDS[kind], lock_timeout=LOCK_TIMEOUT)
    await context.incr(COUNTER)
    await context.incr(COUNTER)
    return context


async def _by_size(path: Path, kind: str) -> Metrics:
    """Time single calls, and how long the loop stalls in them and in a checkpoint."""
    context = await _opened(path, kind)
    increments = [await timed(partial(context.incr, COUNTER)) for _ in range(CALLS)]
    saves = []
    for number in range(CALLS):
        context[_key(number)] = number
        saves.append(await timed(context.save))
    _, checkpoint_stall = await timed(context.checkpoint)
    return {
        INCR.metric: median(took for took, _ in increments),
        SAVE.metric: median(took for took, _ in saves),
        STALL.metric: max(stall for _, stall in increments + saves),
        CHECKPOINT_STALL.metric: checkpoint_stall,
    }


async def _wait_and_call(path: Path, kind: str, pipe: Connection) -> None:
    """Be the other process: open the file, wait until it was changed, and time one call."""
    context = await _opened(path, kind)
    pipe.send(None)
    pipe.recv()
    took, _ = await timed(partial(context.incr, COUNTER))
    pipe.send(took)


async def _takeover(path: Path, kind: str) -> float:
    """Time the first call of another process after a thousand calls of this one."""
    context = await _opened(path, kind)
    ours, theirs = SPAWN.Pipe()
    other = SPAWN.Process(target=_run, args=(_wait_and_call, path, kind, theirs))
    other.start()
    await asyncio.to_thread(ours.recv)
    for number in range(OTHERS if KINDS[kind] else FEW):
        await context.mutate(_key(number % 100), _constant(_value(number)))
    ours.send(None)
    took: float = await asyncio.to_thread(ours.recv)
    other.join()
    return took


async def _amplification(path: Path, kind: str) -> Metrics:
    """Count the bytes written for single changes all over the file, with all checkpoints in between."""
    context = await _opened(path, kind)
    before = context.statistics().bytes_written
    changed = 0
    for number in range(SINGLE):
        key, value = _key(number * 17 % SIZES[LARGEST]), _value(-number)
        changed += len(json.dumps({key: value}, ensure_ascii=False).encode())
        await context.mutate(key, _constant(value))
    written = context.statistics().bytes_written - before
    await context.checkpoint()
    total = context.statistics().bytes_written - before
    return {
        AMPLIFICATION.metric: written / changed,
        WITH_LAST.metric: total / changed,
        WRITTEN.metric: written,
        CHANGED.metric: changed,
    }


def _run(function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a measurement, in a fresh process."""
    return asyncio.run(function(*args, **kwargs))


def _sizes(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    for size, keys in SIZES.items():
        for kind in KINDS:
            with TemporaryDirectory(dir=settings.scratch) as folder:
                path = Path(folder) / "store.json"
                _write(path, keys)
                metrics = in_fresh_process(_run, _by_size, path, kind)
                _write(path, keys)
                took = in_fresh_process(_run, _takeover, path, kind)
                yield sized(kind, size), {**metrics, TAKEOVER.metric: took}


def _bytes(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    with TemporaryDirectory(dir=settings.scratch) as folder:
        path = Path(folder) / "store.json"
        _write(path, SIZES[LARGEST])
        size = os.path.getsize(path)
        yield JOURNAL, in_fresh_process(_run, _amplification, path, JOURNAL)
        yield f"{PROJECT}, computed", {AMPLIFICATION.metric: SINGLE * size / _changed_bytes()}


def _changed_bytes() -> int:
    return sum(
        len(json.dumps({_key(n * 17 % SIZES[LARGEST]): _value(-n)}, ensure_ascii=False).encode()) for n in range(SINGLE)
    )


def _crowds(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    for processes in CROWDS:
        for peer in CROWD_PEERS:
            yield crowd(peer, processes), contend(peer, settings, processes=processes, tasks=1)


JOURNALS: Sequence[Work] = (
    Work(
        "journal-sizes",
        "One process, by the size of the file",
        (INCR, SAVE, STALL, CHECKPOINT_STALL, TAKEOVER),
        _sizes,
    ),
    Work(
        "journal-bytes",
        f"{SINGLE:,} single changes of a file of 16 MB",
        (AMPLIFICATION, WITH_LAST, WRITTEN, CHANGED),
        _bytes,
    ),
    Work("journal-processes", "incr of one counter, by the number of processes", (RATE, FAIRNESS), _crowds),
)
