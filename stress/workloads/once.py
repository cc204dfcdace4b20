"""Keys that only one actor can create."""

from __future__ import annotations

from typing import Any

from persistent_context import MISSING
from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation

ROUNDS = 50
"""How many keys are created, one after the other in the course of the run."""


def _present_round(actor: Actor) -> str:
    return f"once/{min(int(actor.progress() * ROUNDS), ROUNDS - 1)}"


@operation("once", _present_round)
async def add(actor: Actor, call: Call) -> bool:
    """Create the key."""
    return await actor.context.add(call.key, call.token)


@operation("once", _present_round)
async def expect_missing(actor: Actor, call: Call) -> bool:
    """Create the key by comparing it with absence."""
    return await actor.context.compare_and_set(call.key, MISSING, call.token)


@operation("once", _present_round)
async def read_winner(actor: Actor, call: Call) -> Any:
    """Read which actor created the key."""
    return (await actor.fresh()).get(call.key)
