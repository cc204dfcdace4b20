"""A transaction cancelled in its body, at its ends or while it waits takes effect completely or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from cancelling import BEFORE, WRITES, every_locking_write, fresh, held, read, settled, spin, take_and_give_back
from persistent_context import PersistentContext

if TYPE_CHECKING:
    from pathlib import Path


class TestTransactions:
    def test_a_cancelled_body_discards(self, tmp_path: Path) -> None:
        """A transaction whose body is cancelled writes nothing, and passes the lock on."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)
            inside = asyncio.Event()

            async def body() -> None:
                async with ctx.transaction() as tx:
                    tx["n"] = 100
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(body())
            await inside.wait()
            waiting = asyncio.create_task(other.incr("n"))
            await spin(20)
            assert not waiting.done()
            task.cancel()
            await settled(task)

            assert task.cancelled()
            assert 2 == await waiting
            assert {**BEFORE, "n": 2} == read(path)
            assert BEFORE == ctx.get_all_data()

        asyncio.run(story())

    @every_locking_write
    def test_a_call_that_waits_behind_one_is_withdrawn(self, tmp_path: Path, call: str) -> None:
        """A call that waits for another task's transaction is withdrawn at once, and the transaction goes on."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)
            inside, enough = asyncio.Event(), asyncio.Event()

            async def body() -> None:
                async with other.transaction() as tx:
                    tx["theirs"] = 1
                    inside.set()
                    await enough.wait()

            transaction = asyncio.create_task(body())
            await inside.wait()
            for number in [0, 1, 2, 3, 10, 100, 1000]:
                task = asyncio.create_task(WRITES[call][0](ctx))
                await spin(number)
                assert not task.done()
                task.cancel()
                await settled(task)
                assert task.cancelled()
            assert BEFORE == read(path)
            enough.set()
            await transaction
            assert {**BEFORE, "theirs": 1} == read(path)
            await asyncio.to_thread(take_and_give_back, path)
            assert 1 == await ctx.incr("probe")

            assert {**BEFORE, "theirs": 1, "probe": 1} == read(path)

        asyncio.run(story())

    def test_a_cancel_that_the_body_catches(self, tmp_path: Path) -> None:
        """A body that catches its cancellation may still commit everything."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx = await PersistentContext.create(path)
            inside = asyncio.Event()

            async def body() -> None:
                async with ctx.transaction() as tx:
                    tx["n"] = 100
                    inside.set()
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        tx["new"] = "tidied up"
                        task = asyncio.current_task()
                        assert task is not None
                        task.uncancel()

            task = asyncio.create_task(body())
            await inside.wait()
            task.cancel()
            await task

            assert {**BEFORE, "n": 100, "new": "tidied up"} == read(path)

        asyncio.run(story())

    def test_the_same_task_can_begin_another(self, tmp_path: Path) -> None:
        """A task whose transaction was cancelled is not considered inside it any more."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx = await PersistentContext.create(path)
            for number in range(10):
                with anyio.move_on_after(number * 0.0002):
                    async with ctx.transaction() as tx:
                        tx["new"] = number
                        await asyncio.Event().wait()
            async with held(path):
                with anyio.move_on_after(0.01):
                    async with ctx.transaction():
                        pytest.fail("the transaction began")
            async with ctx.transaction() as tx:
                tx["n"] += 1
            assert 3 == await ctx.incr("n")

            assert {**BEFORE, "n": 3} == read(path)

        asyncio.run(story())

    async def test_a_timeout_around_the_body_discards_and_releases(self, path):
        """asyncio.timeout around the body is a cancellation like any other."""
        ctx = await PersistentContext.create(path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), ctx.transaction() as tx:
                tx["a"] = 2
                await asyncio.Event().wait()

        assert (1, {"n": 1}) == (await ctx.incr("n"), read(path))

    async def test_a_cancel_at_any_turn_leaves_all_or_nothing(self, path):
        """Whenever a transaction is cancelled, the file has all of its changes or none."""
        path.write_text('{"a": 0, "b": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)

        async def body():
            async with ctx.transaction() as tx:
                tx["a"] += 1
                await spin(3)
                tx["b"] += 1

        finished = 0
        for count in range(60):
            task = asyncio.create_task(body())
            await spin(count)
            task.cancel()
            try:
                await task
                finished += 1
            except asyncio.CancelledError:
                pass
        await ctx.add("probe", 1)
        data = read(path)

        assert (True, True) == (data["a"] == data["b"], finished <= data["a"] <= 60)

    async def test_cancelling_a_task_that_waits_behind_leaves_the_others(self, path):
        """When many calls wait for a transaction, only the cancelled ones are withdrawn."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction():
            waiting = [asyncio.create_task(ctx.incr("n")) for _ in range(10)]
            await spin(50)
            for task in waiting[1::2]:
                task.cancel()
            await spin(50)
        results = await asyncio.gather(*waiting, return_exceptions=True)

        assert ([1, 2, 3, 4, 5], {"n": 5}) == (
            sorted(result for result in results if isinstance(result, int)),
            read(path),
        )
