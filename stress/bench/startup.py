"""Work 7: the cost of `import persistent_context`, compared with `import asyncio`, which its users need anyway."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from .model import PROJECT, Column, Metrics, Settings, Unit, Work

ASYNCIO = "asyncio"
MODULES = (PROJECT, ASYNCIO, *(f"{PROJECT}.{name}" for name in ("runtime", "metrics", "_cli")))
"""The last one needs the packages of the extra `cli`; those of the other extras are imported when they are used."""
RUNS = 15
TIME = Column("time", "median time", Unit.SECONDS)


def import_time(module: str, bytecode: Path) -> float:
    """Return how many seconds a fresh interpreter takes to import a module whose bytecode is in this folder."""
    program = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else a checkout would be compiled anew each time
    answer = subprocess.run([sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE)
    return float(answer.stdout)


def _round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Import each in turn; the first turn only warms the disk cache and writes the bytecode."""
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(1 + RUNS):
        for module, found in times.items():
            found.append(import_time(module, settings.scratch / "bytecode"))
    for module, (_warm_up, *found) in times.items():
        yield module, {TIME.metric: median(found)}


STARTUP = Work("import", "Import in a fresh interpreter", (TIME,), _round)
