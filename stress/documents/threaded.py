"""The file that the threads of one process hammer, `threads.json`: its keys. The file is missing at first."""

from __future__ import annotations

from stress.documents.registers import Register

COUNTERS = ("threads/counter/0", "threads/counter/1")
LISTS = ("threads/list/0",)
REGISTERS = tuple(Register(name, (name,)) for name in (f"threads/register/{number}" for number in range(6)))


def own_key(seat: str) -> str:
    """Return the key that only one task or thread writes."""
    return f"threads/own/{seat}"
