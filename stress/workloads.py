"""The workloads: what actors do to the file. To each belongs the checker of the same name in `checkers`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from persistent_context import MISSING
from stress.actor import Action, Actor, Call
from stress.model import ACCOUNTS, GENERATION, TRANSFERS, enter, opening_document, snapshot

Body = Callable[[Actor, Call], Awaitable[Any]]


LISTS = ("list/0", "list/1", "list/2")
LONG_LIST = 60
"""Tokens in a list that may be drained. The file has to stay small, or a run would do less and less."""
ROUNDS = 50
"""How many keys there are to be created once, one after the other in the course of the run."""
REGISTERS = 8
"""Enough that few operations overlap on one: the search for an order of them grows with the overlap."""
PREFIXES = ("prefix/0", "prefix/1")

WORKLOADS: defaultdict[str, list[Action]] = defaultdict(list)


def operation(workload: str, pick_key: Callable[[Actor], str]) -> Callable[[Body], Body]:
    """Make a function one of the operations of a workload."""

    def register(body: Body) -> Body:
        WORKLOADS[workload].append(Action(workload, body.__name__, pick_key, body))
        return body

    return register


# counter: numbers that everybody increments, each in its own way


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
    """Increment, unless somebody else did since the number was read; return nothing then."""
    expected = (await actor.fresh()).get(call.key, MISSING)
    new = 1 if expected is MISSING else expected + 1
    return new if await actor.context.compare_and_set(call.key, expected, new) else None


# owned: a key for each task, which nobody else writes, kept by saving memory


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


# list: everybody appends unique tokens; whoever finds a long list takes it all


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


# bank: transfers between accounts; two balances, the number of transfers and the journal change together


@operation("bank", lambda _: TRANSFERS)
async def transfer(actor: Actor, call: Call) -> None:
    """Move money."""
    async with actor.context.transaction() as tx:
        call.note(_move(actor, call, tx))
        await asyncio.sleep(0)


@operation("bank", lambda _: TRANSFERS)
async def abort(actor: Actor, call: Call) -> None:
    """Move money in a transaction that is then given up."""
    with suppress(_GivenUpError):
        async with actor.context.transaction() as tx:
            _move(actor, call, tx)
            raise _GivenUpError


@operation("bank", lambda _: TRANSFERS)
async def audit(actor: Actor, _: Call) -> Any:
    """Read all of the bank from the file, without a lock."""
    context = await actor.fresh()
    return snapshot({key: context.get(key) for key in opening_document()})


@operation("bank", lambda _: TRANSFERS)
async def audit_exclusively(actor: Actor, _: Call) -> Any:
    """Read all of the bank in a transaction."""
    async with actor.context.transaction() as tx:
        return snapshot({key: tx[key] for key in opening_document()})


class _GivenUpError(Exception):
    """Ends a transaction that is to leave no trace."""


def _move(actor: Actor, call: Call, tx: MutableMapping[str, Any]) -> dict[str, Any]:
    """Move a random amount between two random accounts; return all there is to know about it."""
    source, target = actor.random.sample(ACCOUNTS, 2)
    amount = actor.random.randint(1, 100)
    tx[source] -= amount
    tx[target] += amount
    tx[TRANSFERS] += 1
    enter(tx, [call.token, source, target, amount])
    after = [tx[source], tx[target]]
    return {"number": tx[TRANSFERS], "from": source, "to": target, "amount": amount, "after": after}


# once: keys that only one can create


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
    """See who created the key."""
    return (await actor.fresh()).get(call.key)


# register: keys that hold one value, which everybody writes, swaps and deletes


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
    """Set a new value in memory, whatever it was, and save.

    A save that is cancelled may leave the value unsaved, for others to carry at any time: so it is saved again.
    """
    actor.context.set(call.key, call.token)
    try:
        await actor.context.save()
    except asyncio.CancelledError:
        await actor.context.save()
        raise


@operation("register", _any_register)
async def swap(actor: Actor, call: Call) -> bool:
    """Replace the value by a new one, unless somebody else did since it was read."""
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
    """Delete the value, unless somebody else changed it since it was read."""
    expected = await _read(actor, call.key)
    call.note({"expected": expected})
    return await actor.context.compare_and_set(call.key, MISSING if expected is None else expected, MISSING)


@operation("register", _any_register)
async def exchange(actor: Actor, call: Call) -> None:
    """Replace the value in a transaction."""
    async with actor.context.transaction() as tx:
        call.note({"expected": tx.get(call.key)})
        tx[call.key] = call.token
        await asyncio.sleep(0)


# prefix: lists that only grow, until one that is long makes place for the next generation


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
    """Return the list with one token more, or the first list of the next generation."""
    generation, tokens = old
    return [generation, [*tokens, token]] if len(tokens) < GENERATION else [generation + 1, [token]]
