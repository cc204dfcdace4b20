"""All actors append unique tokens; one that finds a long list drains it."""

from __future__ import annotations

from stress.children.worker.actor import Actor, Call
from stress.workloads.registry import operation

LISTS = ("list/0", "list/1", "list/2")
LONG_LIST = 60
"""Tokens in a list that may be drained. The file has to stay small, or a run would get slower and slower."""


def _any_list(actor: Actor) -> str:
    return actor.random.choice(LISTS)


@operation("list", _any_list)
async def append(actor: Actor, call: Call) -> None:
    """Append atomically."""
    await actor.context.mutate(call.key, lambda items: [*items, call.token], default=[])


@operation("list", _any_list)
async def append_in_place(actor: Actor, call: Call) -> None:
    """Append in a transaction, to the live value."""
    async with actor.context.transaction() as tx:
        tx.setdefault(call.key, []).append(call.token)


@operation("list", _any_list)
async def drain(actor: Actor, call: Call) -> None:
    """Take all tokens out of a long list."""
    async with actor.context.transaction() as tx:
        call.note(tx.pop(call.key) if len(tx.get(call.key, [])) >= LONG_LIST else [])
