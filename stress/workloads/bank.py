"""Transfers between accounts; two balances, the number of transfers and the journal change together."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from stress.children.worker.actor import Actor, Call
from stress.documents.hammered import ACCOUNTS, TRANSFERS, enter, opening_document, snapshot
from stress.workloads.registry import operation


@operation("bank", lambda _: TRANSFERS)
async def transfer(actor: Actor, call: Call) -> None:
    """Move money."""
    async with actor.context.transaction() as tx:
        call.note(_move(actor, call, tx))
        await asyncio.sleep(actor.dawdling())


@operation("bank", lambda _: TRANSFERS)
async def abort(actor: Actor, call: Call) -> None:
    """Move money in a transaction that is then abandoned."""
    with suppress(_GivenUpError):
        async with actor.context.transaction() as tx:
            _move(actor, call, tx)
            raise _GivenUpError


@operation("bank", lambda _: TRANSFERS)
async def audit(actor: Actor, _: Call) -> Any:
    """Read the whole bank from the file, without a lock."""
    context = await actor.fresh()
    return snapshot({key: context.get(key) for key in opening_document()})


@operation("bank", lambda _: TRANSFERS)
async def audit_exclusively(actor: Actor, _: Call) -> Any:
    """Read the whole bank in a transaction."""
    async with actor.context.transaction() as tx:
        return snapshot({key: tx[key] for key in opening_document()})


class _GivenUpError(Exception):
    """Ends a transaction that must leave no trace."""


def _move(actor: Actor, call: Call, tx: MutableMapping[str, Any]) -> dict[str, Any]:
    """Move a random amount between two random accounts; return everything about the transfer."""
    source, target = actor.random.sample(ACCOUNTS, 2)
    amount = actor.random.randint(1, 100)
    tx[source] -= amount
    tx[target] += amount
    tx[TRANSFERS] += 1
    enter(tx, [call.token, source, target, amount])
    after = [tx[source], tx[target]]
    return {"number": tx[TRANSFERS], "from": source, "to": target, "amount": amount, "after": after}
