"""Work 5: an uncontended durable save of one changed key, compared with the least that the same bytes can cost."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from persistent_context import PersistentContext

from .model import PROJECT, Column, Metrics, Settings, Unit, Work
from .peers import BY_HAND, COUNTER, FLOOR, ByHand, Floor, small_values
from .workers import in_fresh_process

HOP = "one executor hop"
FLOOR_AND_HOP = f"{FLOOR} + {HOP}"
TIME = Column("time", "median time", Unit.SECONDS)


def _noop() -> None:
    """Do nothing, in another thread."""


def _folder(scratch: Path, name: str) -> Path:
    """Return a new folder, so that each competitor has its own directory."""
    folder = scratch / name
    folder.mkdir()
    return folder


async def _alternate(scratch: Path, seconds: float) -> dict[str, Sequence[float]]:
    """Time them in turns, so that a disk that is slow for a while is slow for all of them."""
    floor, by_hand = Floor(_folder(scratch, "floor")), ByHand(_folder(scratch, "hand"), durable=True)
    path = _folder(scratch, "project") / "store.json"
    for store in (floor, by_hand):
        store.seed(small_values())
    path.write_bytes(floor.path.read_bytes())
    context = await PersistentContext.create(path)
    loop = asyncio.get_running_loop()
    times = defaultdict[str, list[float]](list)

    deadline = time.monotonic() + seconds
    for number in count(1):
        begin = time.perf_counter()
        context.set(COUNTER, number)
        await context.save()
        saved = time.perf_counter()
        floor.incr(COUNTER)
        rewritten = time.perf_counter()
        await loop.run_in_executor(None, _noop)
        hopped = time.perf_counter()
        await asyncio.to_thread(by_hand.incr, COUNTER)
        end = time.perf_counter()
        times[PROJECT].append(saved - begin)
        times[FLOOR].append(rewritten - saved)
        times[HOP].append(hopped - rewritten)
        times[BY_HAND].append(end - hopped)
        if time.monotonic() >= deadline:
            break
    floor.close()
    return dict(times)


def _measure(scratch: Path, seconds: float) -> dict[str, float]:
    """Return the median time of each in seconds; runs in a fresh process."""
    return {name: median(times) for name, times in asyncio.run(_alternate(scratch, seconds)).items()}


def _round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Measure all of them once."""
    with TemporaryDirectory(dir=settings.scratch) as folder:
        times = in_fresh_process(_measure, Path(folder), settings.seconds)
    times[FLOOR_AND_HOP] = times[FLOOR] + times[HOP]
    for name in (PROJECT, FLOOR, HOP, FLOOR_AND_HOP, BY_HAND):
        yield name, {TIME.metric: times[name]}


SAVING = Work("save", "Uncontended durable save of 1 changed key of 201", (TIME,), _round)
