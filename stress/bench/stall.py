"""Measures how long an event loop stalls while something is awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

PERIOD = 0.001
"""Seconds that the ticker sleeps; the excess of a gap between two ticks is a stall."""


@dataclass
class Stall:
    """The longest stall of the event loop, in seconds."""

    seconds: float = 0.0


@asynccontextmanager
async def watching() -> AsyncIterator[Stall]:
    """Watch the event loop while the body runs."""
    stall = Stall()
    last = time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        stall.seconds = max(stall.seconds, now - last - PERIOD)
        last = now

    async def ticker() -> None:
        while True:
            await asyncio.sleep(PERIOD)
            tick()

    task = asyncio.create_task(ticker())
    try:
        yield stall
    finally:
        tick()  # the gap in which the body ended
        task.cancel()


async def timed(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return how long a call took, and how long the loop stalled during it, both in seconds."""
    async with watching() as stall:
        begin = time.perf_counter()
        await call()
        wall = time.perf_counter() - begin
    return wall, stall.seconds
