"""Work 7: what `import persistent_context` costs, beside `import asyncio`, which its users pay anyway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from .model import PROJECT, Column, Metrics, Settings, Unit, Work

ASYNCIO = "asyncio"
RUNS = 15
TIME = Column("time", "median time", Unit.SECONDS)


def import_time(module: str) -> float:
    """Return how many seconds a fresh interpreter takes to import a module."""
    program = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    answer = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    return float(answer.stdout)


def _round(_settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Import each by turns; the first turn only warms the disk's cache and writes the bytecode."""
    times: dict[str, list[float]] = {PROJECT: [], ASYNCIO: []}
    for _ in range(1 + RUNS):
        for module, found in times.items():
            found.append(import_time(module))
    for module, (_warm_up, *found) in times.items():
        yield module, {TIME.metric: median(found)}


STARTUP = Work("import", "Import in a fresh interpreter", (TIME,), _round)
