"""Keys that hold one value, which all actors write, swap and delete."""

from __future__ import annotations

import asyncio
from typing import Any

from persistent_context import MISSING
from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation

REGISTERS = 8
"""Enough that few operations overlap on one register: the search for an order grows with the overlap."""


def _any_register(actor: Actor) -> str:
    return f"register/{actor.random.randrange(REGISTERS)}"


async def _read(actor: Actor, key: str) -> Any:
    return (await actor.fresh()).get(key)


@operation("register", _any_register)
async def read_register(actor: Actor, call: Call) -> Any:
    """Read the value from the file."""
    return await _read(actor, call.key)


@operation("register", _any_register)
async def write(actor: Actor, call: Call) -> None:
    """Set a new value in memory, whatever the old one was, and save.

    A save that is cancelled may leave the value unsaved, and any later save may include it: so it is saved again.
    """
    actor.context.set(call.key, call.token)
    try:
        await actor.context.save()
    except asyncio.CancelledError:
        await actor.context.save()
        raise


@operation("register", _any_register)
async def swap(actor: Actor, call: Call) -> bool:
    """Replace the value, unless it was changed after it was read."""
    expected = await _read(actor, call.key)
    call.note({"expected": expected})
    return await actor.context.compare_and_set(call.key, MISSING if expected is None else expected, call.token)


@operation("register", _any_register)
async def create(actor: Actor, call: Call) -> bool:
    """Set a value if there is none."""
    call.note({"expected": None})
    return await actor.context.add(call.key, call.token)


@operation("register", _any_register)
async def remove(actor: Actor, call: Call) -> bool:
    """Delete the value, unless it was changed after it was read."""
    expected = await _read(actor, call.key)
    call.note({"expected": expected})
    return await actor.context.compare_and_set(call.key, MISSING if expected is None else expected, MISSING)


@operation("register", _any_register)
async def exchange(actor: Actor, call: Call) -> None:
    """Replace the value in a transaction."""
    async with actor.context.transaction() as tx:
        call.note({"expected": tx.get(call.key)})
        tx[call.key] = call.token
        await asyncio.sleep(actor.dawdling())
