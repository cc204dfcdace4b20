"""The file of many pages, `pages.json`: a megabyte of values, of which some change, come and go on every page."""

from __future__ import annotations

from hashlib import blake2b
from random import Random

from stress.documents.registers import Register

FILLERS = 300
"""Values that never change."""
FILLER = 1_000
"""Characters of each of them."""
SINGLES = 150
"""Registers of one key."""
BUNDLES = 6
PARTS = 5
"""Keys of each bundle, far from each other at the beginning."""
OPENING = "opening.0.0"
"""The beginning of the tokens that are there from the start."""
LENGTHS = (40, 200, 1_500, 4_000, 9_000, 70_000, 130_000)
"""Characters of a value. A page of the library has about 64 kB, and often another value has exactly the same length."""
CELL = 30
"""Characters of the token in a value, padded with dots."""
WEIGHTS = (8, 12, 45, 25, 8, 1, 1)


def padded(token: str) -> str:
    """Return the value that an operation writes: its token, and a text that depends on the token.

    The text contains what separates the lines of the file, so a page must not be cut there. Values of the same length
    take the same number of bytes in the file.
    """
    (length,) = Random(blake2b(token.encode()).digest()).choices(LENGTHS, WEIGHTS)
    cell = token.ljust(CELL, ".")
    line = f'{cell} "é",\n"{cell}": {{}}'
    return f"{cell} {line * ((length - CELL) // len(line))}".ljust(length, ".")


REGISTERS = tuple(Register(name, (name,), padded) for name in (f"pages/single/{number}" for number in range(SINGLES)))
BOUND = tuple(
    Register(name, tuple(f"{name}/{part}" for part in range(PARTS)), padded)
    for name in (f"pages/bundle/{number}" for number in range(BUNDLES))
)
"""Registers whose keys only transactions and saves of all of them change."""
ALL = (*REGISTERS, *BOUND)
OPENING_TOKENS = {register.name: f"{OPENING}.{number}" for number, register in enumerate(ALL)}


def filler(number: int) -> str:
    """Return the key of a value that never changes."""
    return f"pages/filler/{number:03}"


def opening_paged() -> dict[str, str]:
    """Return the content of the file before the run: the keys of each bundle are on pages far from each other."""
    parts: list[dict[str, str]] = [{} for _ in range(PARTS)]
    for number, register in enumerate(ALL):
        for place, key in enumerate(register.keys, number):
            parts[place % PARTS][key] = padded(OPENING_TOKENS[register.name])
    for number in range(FILLERS):
        parts[number % PARTS][filler(number)] = "-" * FILLER
    return {key: value for part in parts for key, value in part.items()}
