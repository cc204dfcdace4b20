"""Checks what the threads of one process do to a file, for all of its kinds of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from stress.checking.counters import check_counters
from stress.checking.evidence import Evidence, Violation
from stress.checking.lists import check_lists
from stress.checking.owned import check_owned
from stress.checking.register import check_registers
from stress.documents.threaded import COUNTERS, LISTS, REGISTERS, own_key

KINDS: tuple[tuple[tuple[str, ...], Callable[[Evidence], Iterable[Violation]]], ...] = (
    (COUNTERS, check_counters),
    (LISTS, check_lists),
    (tuple(register.name for register in REGISTERS), check_registers),
    ((own_key(""),), check_owned),
)
"""How the keys begin, and the checker of each."""


def check_threads(evidence: Evidence) -> Iterator[Violation]:
    """Counters are exact, lists keep what is appended, registers behave like one, and own keys lose nothing."""
    for beginnings, checker in KINDS:
        operations = [one for one in evidence.operations if one.key.startswith(beginnings)]
        yield from checker(replace(evidence, operations=operations, reads=()))
