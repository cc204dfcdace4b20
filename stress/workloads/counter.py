"""Numbers that all actors increment, in several ways."""

from __future__ import annotations

from typing import Any

from persistent_context import MISSING
from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation


@operation("counter", lambda _: "counter/incr")
async def incr(actor: Actor, call: Call) -> Any:
    """Increment atomically."""
    return await actor.context.incr(call.key)


@operation("counter", lambda _: "counter/transaction")
async def read_modify_write(actor: Actor, call: Call) -> Any:
    """Increment in a transaction."""
    async with actor.context.transaction() as tx:
        tx[call.key] = value = tx.get(call.key, 0) + 1
    return value


@operation("counter", lambda _: "counter/compare_and_set")
async def compare_and_set(actor: Actor, call: Call) -> Any:
    """Increment, unless the number was changed after it was read; return nothing then."""
    expected = (await actor.fresh()).get(call.key, MISSING)
    new = 1 if expected is MISSING else expected + 1
    return new if await actor.context.compare_and_set(call.key, expected, new) else None
