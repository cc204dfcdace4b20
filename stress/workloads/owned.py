"""A key for each task, which only that task writes, kept by saving memory."""

from __future__ import annotations

from typing import Any

from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation


def _own_key(actor: Actor) -> str:
    return f"owned/{actor.seat}"


@operation("owned", _own_key)
async def replace(actor: Actor, call: Call) -> None:
    """Set a new value, and save."""
    actor.context.set(call.key, [call.token])
    await actor.context.save()


@operation("owned", _own_key)
async def change(actor: Actor, call: Call) -> None:
    """Change the live value in place, and save."""
    actor.context.setdefault(call.key, [""])[0] = call.token
    await actor.context.save()


@operation("owned", _own_key)
async def delete(actor: Actor, call: Call) -> None:
    """Delete the key, and save."""
    actor.context.pop(call.key, None)
    await actor.context.save()


@operation("owned", _own_key)
async def read_back(actor: Actor, call: Call) -> Any:
    """Read the value from the file."""
    return (await actor.fresh()).get(call.key, [None])[0]
