"""Lists that only grow, until a long one makes room for the next generation."""

from __future__ import annotations

from typing import Any

from stress.children.worker.actor import Actor, Call
from stress.documents.hammered import GENERATION
from stress.workloads.registry import operation

PREFIXES = ("prefix/0", "prefix/1")


def _any_prefix(actor: Actor) -> str:
    return actor.random.choice(PREFIXES)


@operation("prefix", _any_prefix)
async def extend(actor: Actor, call: Call) -> Any:
    """Append atomically; return the generation and the place in it."""
    generation, tokens = await actor.context.mutate(call.key, lambda old: _longer(old, call.token), default=[0, []])
    return [generation, len(tokens)]


@operation("prefix", _any_prefix)
async def extend_exclusively(actor: Actor, call: Call) -> Any:
    """Append in a transaction."""
    async with actor.context.transaction() as tx:
        tx[call.key] = generation, tokens = _longer(tx.get(call.key, [0, []]), call.token)
    return [generation, len(tokens)]


@operation("prefix", _any_prefix)
async def see(actor: Actor, call: Call) -> Any:
    """Read the list from the file."""
    return (await actor.fresh()).get(call.key, [0, []])


@operation("prefix", _any_prefix)
async def see_exclusively(actor: Actor, call: Call) -> Any:
    """Read the list in a transaction."""
    async with actor.context.transaction() as tx:
        return tx.get(call.key, [0, []])


def _longer(old: list[Any], token: str) -> list[Any]:
    """Return the list with one more token, or the first list of the next generation."""
    generation, tokens = old
    return [generation, [*tokens, token]] if len(tokens) < GENERATION else [generation + 1, [token]]
