"""The public interface as type checkers see it; checked by mypy and pyright, and not run."""

from typing import Any, assert_type

from persistent_context import (
    MISSING,
    Change,
    Holder,
    Lease,
    PersistentContext,
    Statistics,
    SyncPersistentContext,
    Transaction,
    metrics,
)
from persistent_context.runtime import Context, ContextManager


def prefer_larger(key: str, base: Any, mine: Any, theirs: Any) -> Any:
    return theirs if mine is MISSING else max(mine, theirs)


def appended(items: list[int]) -> list[int]:
    return [*items, 1]


async def compute() -> list[int]:
    return [1]


async def asynchronous() -> None:
    ctx = await PersistentContext.create("state.json", durable=False, lock_timeout=1.5, on_conflict=prefer_larger)
    assert_type(ctx, PersistentContext)
    assert_type(ctx.get("a", 0), Any)
    assert_type(ctx.get_all_data(), dict[str, Any])
    assert_type(ctx.unsaved_keys(), set[str])
    assert_type(await ctx.add("a", 1), bool)
    assert_type(await ctx.compare_and_set("a", MISSING, 1), bool)
    assert_type(await ctx.incr("n"), int)
    assert_type(await ctx.incr("n", 2, default=5), int)
    assert_type(await ctx.incr("n", 0.5), float)
    assert_type(await ctx.incr("n", default=0.5), float)
    assert_type(await ctx.mutate("l", appended, default=[]), list[int])
    assert_type(await ctx.mutate("n", len), int)
    assert_type(await ctx.delete("a"), bool)
    assert_type(await ctx.append("l", 1), int)
    assert_type(await ctx.extend("l", (1, 2)), int)
    await ctx.refresh()
    assert_type(await ctx.compute_once("c", lambda: 1), int)
    assert_type(await ctx.compute_once("c", compute, expires=60, version=[1]), list[int])
    async with ctx.lease("job-7", timeout=5) as lease:
        assert_type(lease, Lease)
        assert_type(lease.token, int)
    assert_type(await ctx.lock_holder(), Holder | None)
    assert_type(ctx.statistics(), Statistics)
    async with PersistentContext("state.json") as inside:
        assert_type(inside, PersistentContext)
        async with inside.transaction(timeout=2) as tx:
            assert_type(tx, Transaction)
            tx["a"] = tx.get("b", 0) + 1

    async for changes in ctx.watch("a"):
        assert_type(changes, dict[str, Change])

    manager = ContextManager("state.json", persistent=("cursor", "jobs"), durable=False)
    context = await manager.create_context(client=object())
    assert_type(context.fork(depth=1), Context)
    assert_type(context["cursor"], Any)
    assert_type(await context.add("a", 1), bool)
    assert_type(await context.compute_once("c", lambda: 1), int)
    assert_type(await context.compute_once("c", compute), list[int])
    assert_type(await context.lock_holder(), Holder | None)
    assert_type(context.unsaved_keys(), set[str])
    async with context.transaction() as tx:
        assert_type(tx, Transaction)
    ContextManager("state.json", durable="yes")  # type: ignore[arg-type]


def blocking() -> None:
    with SyncPersistentContext("state.json", on_conflict="raise") as ctx:
        assert_type(ctx, SyncPersistentContext)
        assert_type(ctx.add("a", 1), bool)
        assert_type(ctx.incr("n"), int)
        assert_type(ctx.incr("n", 0.5), float)
        assert_type(ctx.mutate("l", appended, default=[]), list[int])
        assert_type(ctx.delete("a"), bool)
        assert_type(ctx.append("l", 1), int)
        assert_type(ctx.extend("l", [2]), int)
        ctx.refresh()
        assert_type(ctx.compute_once("c", lambda: 1), int)
        assert_type(ctx.compute_once("c", compute), list[int])
        with ctx.lease("job-7", wait=False) as lease:
            assert_type(lease, Lease)
        assert_type(ctx.lock_holder(), Holder | None)
        with ctx.transaction() as tx:
            assert_type(tx, Transaction)
        assert_type(next(ctx.watch()), dict[str, Change])
    PersistentContext("state.json", on_conflict="yours")  # type: ignore[arg-type]


def observing() -> None:
    stop = metrics.listen(lambda cycle: assert_type(cycle.held, float))
    assert_type(stop(), None)
    metrics.record_to_opentelemetry()()
