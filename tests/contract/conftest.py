"""The places at which each test of the contract runs."""

from __future__ import annotations

import ast
import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this package, and others beside it

from contract.places import PLACES, ContractPlace

ELSEWHERE = """
import os, sys
from persistent_context._model.snapshot import Changes

def increment(store):
    session = store.begin("increment", wait=True)
    number = int(session.snapshot.get(["n"]).get("n", b"0"))
    session.commit(Changes({"n": b"%d" % (number + 1)}), durable=False)
    session.close()

for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""


class Elsewhere:
    """Another process, with a store at the same place."""

    def __init__(self, child) -> None:
        self.child = child
        self.pid = child.pid

    def start(self, expression: str) -> None:
        """Let it evaluate an expression, in which ``store`` is its store."""
        self.child.say(expression)

    def result(self) -> Any:
        """Wait for the value, which has to be a literal."""
        return ast.literal_eval(self.child.hear())

    def do(self, expression: str) -> Any:
        """Let it evaluate an expression, and return the value."""
        self.start(expression)
        return self.result()


@pytest.fixture(autouse=True)
def nobody_else(nobody_folds):
    """Let nothing but the test begin sessions."""


def make(name: str, directory: Path) -> ContractPlace:
    """Return an empty place."""
    directory.mkdir()
    return PLACES[name](directory)


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """An empty place of each kind."""
    return make(request.param, tmp_path / "place")


@pytest.fixture(params=[name for name, kind in PLACES.items() if kind.opens_elsewhere])
def shared_place(request, tmp_path):
    """An empty place of each kind that processes can share."""
    return make(request.param, tmp_path / "place")


@pytest.fixture
def elsewhere(shared_place, spawn):
    """Start another process that has a store at the shared place."""
    return lambda: Elsewhere(spawn(f"import sys; {shared_place.opens_elsewhere}{ELSEWHERE}", shared_place.path))


@pytest.fixture
def listen():
    """Subscribe listeners until the test is over."""
    with contextlib.ExitStack() as open_ones:
        yield lambda listener: open_ones.enter_context(
            contextlib.closing(listener.store.subscribe(listener.notify, listener.fail))
        )
