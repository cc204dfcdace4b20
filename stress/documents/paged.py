"""The file of many pages, `pages.json`: a megabyte of values, of which some change and come and go on every page."""

from __future__ import annotations

from hashlib import blake2b
from random import Random

from stress.documents.registers import Register

FILLERS = 300
"""Values that nobody ever changes."""
FILLER = 1_000
"""Characters of each of them."""
SINGLES = 150
"""Registers of one key."""
BUNDLES = 6
PARTS = 5
"""Keys of each bundle, far from each other at the beginning."""
OPENING = "opening.0.0"
"""How the tokens begin of what is there from the beginning."""
LENGTHS = ((0, 10), (10, 200), (200, 3_000), (3_000, 10_000), (64_000, 140_000))
"""Characters of a value. A page of the library holds about 64 kB."""
WEIGHTS = (8, 12, 60, 18, 2)


def padded(token: str) -> str:
    """Return the value that an operation writes: its token, and a text that only this token has.

    The text has what separates the lines of the file, so that whoever cuts pages has to tell the one from the other.
    """
    random = Random(blake2b(token.encode()).digest())
    (bounds,) = random.choices(LENGTHS, WEIGHTS)
    line = f'{token} "é",\n"{token}": {{}}'
    return f"{token} {line * (random.randint(*bounds) // len(line))}"


REGISTERS = tuple(Register(name, (name,), padded) for name in (f"pages/single/{number}" for number in range(SINGLES)))
BOUND = tuple(
    Register(name, tuple(f"{name}/{part}" for part in range(PARTS)), padded)
    for name in (f"pages/bundle/{number}" for number in range(BUNDLES))
)
"""Registers whose keys only transactions and saves of all of them change."""
ALL = (*REGISTERS, *BOUND)
OPENING_TOKENS = {register.name: f"{OPENING}.{number}" for number, register in enumerate(ALL)}


def filler(number: int) -> str:
    """Return the key of a value that nobody ever changes."""
    return f"pages/filler/{number:03}"


def opening_paged() -> dict[str, str]:
    """Return what the file holds before the run: the keys of each bundle are on pages far from each other."""
    parts: list[dict[str, str]] = [{} for _ in range(PARTS)]
    for number, register in enumerate(ALL):
        for place, key in enumerate(register.keys, number):
            parts[place % PARTS][key] = padded(OPENING_TOKENS[register.name])
    for number in range(FILLERS):
        parts[number % PARTS][filler(number)] = "-" * FILLER
    return {key: value for part in parts for key, value in part.items()}
