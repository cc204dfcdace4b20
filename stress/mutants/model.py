"""The parts of a broken build: a few replaced lines, the promise that they break, and the catchers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parents[2]


class Promise(Enum):
    """The promises of the README, and what the documentation says about memory and pytest."""

    LOST = "1. Nothing acknowledged is lost"
    TORN = "2. Nothing is torn"
    CLOBBERED = "3. Nothing is clobbered"
    LOOP = "4. Nothing blocks the loop"
    STARVES = "5. Nobody starves"
    FAILURE = "6. Every failure is loud and exact"
    CANCELLING = "7. Cancelling is safe"
    ACCESS = "8. Nobody gets in"
    MEMORY = "Memory and the file agree"
    ONCE = "Values are computed once"
    LEASE = "One at a time holds a lease"


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement of a text that occurs exactly once in a module."""

    module: str
    """The name of the module, without ``.py``."""
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of this project, by their pytest names; one of them has to fail."""

    nodes: tuple[str, ...]
    limit: int
    """Seconds after which pytest-timeout fails a test, which catches a build that hangs."""

    def __str__(self) -> str:
        """Return their names."""
        return " ".join(self.nodes)


@dataclass(frozen=True, slots=True)
class Program:
    """A module that is run with arguments, and ends with 1 if it found something, and with 0 if not."""

    module: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return the command."""
        return " ".join(("python -m", self.module, *self.arguments))


Catcher: TypeAlias = Suite | Program


@cache
def modules() -> dict[str, list[str]]:
    """Return the test modules, anywhere below ``tests/``, by their names without ``test_``."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        found.setdefault(file.stem.removeprefix("test_"), []).append(file.relative_to(ROOT).as_posix())
    return found


def suite(*nodes: str, limit: int = 40) -> Suite:
    """Return the catcher for these tests; each begins with the name of its module, without ``test_``."""
    return Suite(tuple(map(_find, nodes)), limit)


def _find(node: str) -> str:
    """Return the pytest name of a test."""
    module, _, test = node.partition("::")
    file, *_ = modules().get(module, [f"tests/test_{module}.py"])
    return f"{file}::{test}"


def stress(arguments: str) -> Program:
    """Return the catcher for a stress run."""
    return Program("stress", tuple(arguments.split()))


def stress_of(kinds: str) -> Program:
    """Return the catcher for a short run of some kinds of children, beside one worker without faults."""
    return stress(
        "--processes 1 --tasks 1 --kill-every 0 --stop-every 0 --cancel-every 0 --fork-every 0 --foreign 0 --ending 0"
        f" --signals 0 --watching 0 --jobs 0 --pages 0 --threads 0 --observing 0 --seconds 8 --seed 1 --quiet {kinds}"
    )


def faults(arguments: str) -> Program:
    """Return the catcher for a run of faults."""
    return Program("stress.faults", tuple(arguments.split()))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A build of the library that breaks a promise."""

    name: str
    breaks: str
    """One sentence about what the build does wrong."""
    promise: Promise
    edits: tuple[Edit, ...]
    catchers: tuple[Catcher, ...]
    """Each of them has to catch the build, if it can run."""
