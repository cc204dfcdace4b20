"""Operations that several kinds of children perform: on registers, on counters, on lists, and on own keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from persistent_context import MISSING
from stress.children.faces import Context
from stress.documents.registers import Register
from stress.logs.scribe import Scribe

LONG_LIST = 60
"""Tokens in a list that is drained."""


@dataclass(frozen=True, slots=True)
class Hand:
    """One task or thread that performs operations."""

    scribe: Scribe
    random: Random
    context: Context
    fresh: Callable[[], Awaitable[Context]]
    """Opens another context on the file, which reads it at once."""


OnRegister: TypeAlias = Callable[[Hand, Register], Awaitable[None]]
OnKey: TypeAlias = Callable[[Hand, str], Awaitable[None]]


async def read(hand: Hand, register: Register) -> None:
    """Read the value from the file, without a lock."""
    with hand.scribe.operation("read_register", register.name) as entry:
        entry.result = register.held((await hand.fresh()).get)


async def read_exclusively(hand: Hand, register: Register) -> None:
    """Read the value in a transaction."""
    with hand.scribe.operation("read_register", register.name) as entry:
        async with hand.context.transaction() as tx:
            entry.result = register.held(tx.get)


async def write(hand: Hand, register: Register) -> None:
    """Set the value in memory, whatever the old one was, and save. No other thread may save between two of the keys."""
    with hand.scribe.operation("write", register.name) as entry:
        for key in register.keys:
            hand.context.set(key, register.dress(entry.token))
        await hand.context.save()


async def exchange(hand: Hand, register: Register) -> None:
    """Replace the value in a transaction."""
    with hand.scribe.operation("exchange", register.name) as entry:
        async with hand.context.transaction() as tx:
            entry.note({"expected": register.held(tx.get)})
            for key in register.keys:
                tx[key] = register.dress(entry.token)


async def swap(hand: Hand, register: Register) -> None:
    """Replace the value of the only key, unless it was changed after it was read."""
    expected = register.held((await hand.fresh()).get)
    with hand.scribe.operation("swap", register.name, expected=expected) as entry:
        new = register.dress(entry.token)
        entry.result = await hand.context.compare_and_set(entry.key, _value(register, expected), new)


async def create(hand: Hand, register: Register) -> None:
    """Set the value of the only key if there is none."""
    with hand.scribe.operation("create", register.name, expected=None) as entry:
        entry.result = await hand.context.add(entry.key, register.dress(entry.token))


async def remove(hand: Hand, register: Register) -> None:
    """Delete the only key, unless it was changed after it was read."""
    expected = register.held((await hand.fresh()).get)
    with hand.scribe.operation("remove", register.name, expected=expected) as entry:
        entry.result = await hand.context.compare_and_set(entry.key, _value(register, expected), MISSING)


def _value(register: Register, token: str | None) -> Any:
    return MISSING if token is None else register.dress(token)


async def survey(hand: Hand, registers: Sequence[Register], key: str) -> None:
    """Read many values in a transaction, one after the other; `key` is the one that the log names."""
    with hand.scribe.operation("survey", key) as entry:
        async with hand.context.transaction() as tx:
            entry.result = {register.name: register.held(tx.get) for register in registers}


async def incr(hand: Hand, key: str) -> None:
    """Increment a counter atomically."""
    with hand.scribe.operation("incr", key) as entry:
        entry.result = await hand.context.incr(entry.key)


async def incr_exclusively(hand: Hand, key: str) -> None:
    """Increment a counter in a transaction."""
    with hand.scribe.operation("incr_exclusively", key) as entry:
        async with hand.context.transaction() as tx:
            tx[entry.key] = number = tx.get(entry.key, 0) + 1
        entry.result = number


async def append(hand: Hand, key: str) -> None:
    """Append to a list atomically."""
    with hand.scribe.operation("append", key) as entry:
        await hand.context.mutate(entry.key, lambda items: [*items, entry.token], default=[])


async def append_in_place(hand: Hand, key: str) -> None:
    """Append in a transaction, to the live value."""
    with hand.scribe.operation("append_in_place", key) as entry:
        async with hand.context.transaction() as tx:
            tx.setdefault(entry.key, []).append(entry.token)


async def drain(hand: Hand, key: str) -> None:
    """Take all tokens out of a long list."""
    with hand.scribe.operation("drain", key) as entry:
        async with hand.context.transaction() as tx:
            entry.note(tx.pop(entry.key) if len(tx.get(entry.key, [])) >= LONG_LIST else [])


async def replace(hand: Hand, key: str) -> None:
    """Set an own key, and save."""
    with hand.scribe.operation("replace", key) as entry:
        hand.context.set(entry.key, [entry.token])
        await hand.context.save()


async def change(hand: Hand, key: str) -> None:
    """Change the live value of an own key, and save."""
    with hand.scribe.operation("change", key) as entry:
        hand.context.setdefault(entry.key, [""])[0] = entry.token
        await hand.context.save()


async def delete(hand: Hand, key: str) -> None:
    """Delete an own key, and save."""
    with hand.scribe.operation("delete", key) as entry:
        hand.context.pop(entry.key, None)
        await hand.context.save()


async def read_back(hand: Hand, key: str) -> None:
    """Read an own key from the file."""
    with hand.scribe.operation("read_back", key) as entry:
        entry.result = (await hand.fresh()).get(entry.key, [None])[0]


ON_REGISTERS: tuple[OnRegister, ...] = (read, read_exclusively, write, exchange, swap, create, remove)
ON_COUNTERS: tuple[OnKey, ...] = (incr, incr_exclusively)
ON_LISTS: tuple[OnKey, ...] = (append, append_in_place, drain)
ON_OWN_KEYS: tuple[OnKey, ...] = (replace, change, delete, read_back)
