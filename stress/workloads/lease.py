"""Leases that all actors take, and values that one actor computes for all."""

from __future__ import annotations

import asyncio
import time

from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation

LEASES = 3
ROUNDS = 50
"""How many values are computed, one after the other in the course of the run."""


def _any_lease(actor: Actor) -> str:
    return f"lease/{actor.random.randrange(LEASES)}"


def _present_round(actor: Actor) -> str:
    return f"computed/{min(int(actor.progress() * ROUNDS), ROUNDS - 1)}"


@operation("lease", _any_lease)
async def hold(actor: Actor, call: Call) -> list[int]:
    """Hold a lease for a moment; return the token, and from when until when it was held."""
    async with actor.context.lease(call.key) as lease:
        since = time.monotonic_ns()
        await asyncio.sleep(0)
        return [lease.token, since, time.monotonic_ns()]


@operation("computed", _present_round)
async def compute(actor: Actor, call: Call) -> str:
    """Return the value, computed if it is missing, and note that it was."""

    def factory() -> str:
        call.note("computed")
        return call.token

    return await actor.context.compute_once(call.key, factory)
