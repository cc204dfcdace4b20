"""Work 9: a value that pytest-xdist workers share, by `compute_once` and by the recipe in its documentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .model import PROJECT, Column, Metrics, Settings, Unit, Work

RECIPE = "pytest-xdist's recipe, filelock + json"
WORKERS = 8
DELAY = Column("delay", "median delay of waiting workers", Unit.SECONDS)
LONGEST = Column("longest", "longest delay", Unit.SECONDS)
RUN = Column("run", "whole run", Unit.SECONDS)

BY_RECIPE = """
@pytest.fixture(scope="session")
def ready(tmp_path_factory, together):
    file = tmp_path_factory.getbasetemp().parent / "ready.json"
    with FileLock(f"{file}.lock"):
        if file.is_file():
            return json.loads(file.read_text())
        value = compute()
        file.write_text(json.dumps(value))
        return value
"""
BY_PLUGIN = """
@pytest.fixture(scope="session")
def ready(compute_once, together):
    return compute_once("ready", compute)
"""
SUITE = """
import json, os, time
from pathlib import Path
import pytest
from filelock import FileLock

PLACE = Path(os.environ["PLACE"])

def compute():
    time.sleep(1)
    return time.monotonic()

@pytest.fixture(scope="session")
def together(worker_id):
    (PLACE / f"{{worker_id}}.here").touch()
    while len(list(PLACE.glob("*.here"))) < {workers}:
        time.sleep(0.001)

{fixture}

@pytest.mark.parametrize("number", range({workers}))
def test_it(number, ready, worker_id):
    told = PLACE / f"{{worker_id}}.delay"
    if not told.exists():
        told.write_text(json.dumps(time.monotonic() - ready))
    time.sleep(0.2)
"""


def _run(folder: Path, fixture: str) -> Metrics:
    """Run a suite with as many tests as workers, which all ask for the value at the same moment."""
    suite = folder / "test_sharing.py"
    suite.write_text(SUITE.format(fixture=fixture, workers=WORKERS), encoding="utf-8")
    (folder / "pytest.ini").touch()  # so that the settings of a project above the folder do not apply
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(WORKERS), str(suite)]
    begin = time.perf_counter()
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | {"PLACE": str(folder)}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        msg = f"the suite failed with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        raise RuntimeError(msg)
    took = time.perf_counter() - begin
    delays = sorted(json.loads(told.read_text(encoding="utf-8")) for told in folder.glob("*.delay"))
    waiting = delays[1:]  # the first one computed it
    return {DELAY.metric: median(waiting), LONGEST.metric: max(waiting), RUN.metric: took}


def _round(settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Run it with both."""
    for name, fixture in ((PROJECT, BY_PLUGIN), (RECIPE, BY_RECIPE)):
        with TemporaryDirectory(dir=settings.scratch) as folder:
            yield name, _run(Path(folder), fixture)


SHARING = Work(
    "sharing", f"A value for {WORKERS} workers of pytest-xdist, computed in 1 s", (DELAY, LONGEST, RUN), _round
)
