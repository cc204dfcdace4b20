"""A program that uses the whole interface with exact types, as users write it; checked, and not run."""

import asyncio
from collections.abc import Mapping
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Unpack

from persistent_context import (
    MISSING,
    AsyncTransaction,
    AsyncWatch,
    Change,
    ConflictError,
    ContextUsageError,
    CorruptFileError,
    DurabilityUnknownError,
    Holder,
    LockTimeoutError,
    Missing,
    OnConflict,
    OnCorrupt,
    Options,
    PersistentContext,
    PersistentContextError,
    Resolver,
    Statistics,
    SyncPersistentContext,
    SyncTransaction,
    SyncWatch,
    Transaction,
    UnserializableValueError,
)


def largest(key: str, base: Any, mine: Any, theirs: Any) -> Any:
    """Resolve a conflict."""
    return theirs if mine is MISSING else max(mine, theirs)


RESOLVER: Resolver = largest
POLICIES: tuple[OnConflict, ...] = ("mine", "theirs", "raise", RESOLVER)
CORRUPT: OnCorrupt = "raise"
OPTIONS: Options = {
    "durable": False,
    "lock_timeout": 5,
    "on_conflict": "theirs",
    "on_corrupt": CORRUPT,
    "journal": None,
}


class Store:
    """Wraps a context, and passes its options on."""

    def __init__(self, filepath: str | Path, **options: Unpack[Options]) -> None:
        self.context = PersistentContext(filepath, **options)

    async def next_number(self) -> int:
        return await self.context.incr("n")

    async def add_hours(self, hours: float) -> float:
        return await self.context.incr("hours", hours)

    async def append(self, item: str) -> list[str]:
        def fn(items: list[str]) -> list[str]:
            return [*items, item]

        return await self.context.mutate("items", fn, default=[])

    async def take(self, old: str | Missing) -> bool:
        return await self.context.compare_and_set("state", old, "taken")

    def exclusively(self) -> AsyncTransaction:
        return self.context.transaction(timeout=1.5)

    def changes(self) -> AsyncWatch:
        return self.context.watch("state")


class SyncStore:
    """The same without a loop."""

    def __init__(self, filepath: str | Path, **options: Unpack[Options]) -> None:
        self.context = SyncPersistentContext.create(filepath, **options)

    def next_number(self) -> int:
        return self.context.incr("n")

    def add_hours(self, hours: float) -> float:
        return self.context.incr("hours", hours)

    def count(self) -> int:
        return self.context.mutate("items", len, default="")

    def exclusively(self) -> SyncTransaction:
        return self.context.transaction()

    def changes(self) -> SyncWatch:
        return self.context.watch()


def transfer(tx: Transaction, amount: int) -> None:
    """Change both values, or none."""
    tx["a"] -= amount
    tx["b"] += amount


def describe(error: PersistentContextError) -> str:
    """Use the attributes of errors."""
    match error:
        case LockTimeoutError(holder=Holder() as holder):
            return f"{holder} after {error.waited:.1f} s"
        case ConflictError():
            return ", ".join(sorted(error.keys))
        case CorruptFileError():
            return error.reason
        case UnserializableValueError():
            return error.place
        case DurabilityUnknownError() | ContextUsageError():
            return str(error)
        case _:
            return error.filepath or ""


def increment(context: SyncPersistentContext) -> int:
    """Run in a process of a pool."""
    return context.incr("n")


def values(context: Mapping[str, Any]) -> list[Any]:
    """Take a context as a mapping."""
    return list(context.values())


async def main() -> None:
    """Use the whole asynchronous face."""
    store = Store("state.json", **OPTIONS)
    await store.context.load()
    async with store.exclusively() as tx:
        transfer(tx, 10)
    numbers: tuple[int, int] = await asyncio.gather(store.next_number(), store.context.incr("m", 2, default=1))
    async with store.changes() as watch:
        async for changes in watch:
            change: Change | None = changes.get("state")
            print(change and change.new)
    statistics: Statistics = store.context.statistics()
    print(numbers, statistics.commits, await store.append("x"), await store.take(MISSING), values(store.context))
    try:
        await store.context.save()
    except PersistentContextError as error:
        print(describe(error))


def blocking() -> None:
    """Use the whole synchronous face."""
    store = SyncStore(Path("state.json"), on_conflict=RESOLVER, on_corrupt="aside")
    with store.exclusively() as tx:
        transfer(tx, 10)
    with store.changes() as watch:
        changes: dict[str, Change] = next(watch)
    with Pool() as pool:
        numbers: list[int] = pool.map(increment, [store.context] * 4)
    print(changes, numbers, store.add_hours(0.5), store.count())
