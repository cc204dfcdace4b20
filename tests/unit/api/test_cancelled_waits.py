"""A call cancelled while it waits for the lock is withdrawn at once, and does not keep a program from ending."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from cancelling import (
    BEFORE,
    WRITES,
    check,
    every_locking_write,
    fresh,
    held,
    opened,
    read,
    settled,
    spin,
    spins,
    take_and_give_back,
)
from persistent_context import LockTimeoutError, PersistentContext, SyncPersistentContext

if TYPE_CHECKING:
    from pathlib import Path


class TestBehindAHeldLock:
    @every_locking_write
    def test_it_is_withdrawn_at_once(self, tmp_path: Path, call: str) -> None:
        """A call that waits for another program's lock is withdrawn while the lock is still held, and never runs."""

        async def after(number: int | None) -> None:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            async with held(path):
                task = asyncio.create_task(WRITES[call][0](ctx))
                if number is None:
                    await opened(path, task)
                else:
                    await spin(number)
                assert not task.done()
                task.cancel()
                await settled(task)
                assert task.cancelled()
                assert BEFORE == read(path)
            await check(path, ctx, call, hit=True, effect=False)

        async def story() -> None:
            for number in [*spins(2_000), None]:
                await after(number)

        asyncio.run(story())

    @every_locking_write
    def test_behind_another_process(self, tmp_path: Path, call: str, hold: Any) -> None:
        """The same holds when the holder is another process."""
        path = fresh(tmp_path, "0")
        holder = hold(path)

        async def story() -> None:
            ctx = await PersistentContext.create(path)
            task = asyncio.create_task(WRITES[call][0](ctx))
            await spin(500)
            task.cancel()
            await settled(task)
            assert task.cancelled()
            assert BEFORE == read(path)
            holder.release()
            await check(path, ctx, call, hit=True, effect=False)

        asyncio.run(story())

    @every_locking_write
    @pytest.mark.parametrize("first", ["the release", "the cancel"])
    def test_the_lock_comes_free_at_that_moment(self, tmp_path: Path, call: str, first: str) -> None:
        """A call that is cancelled as the lock changes hands does nothing or everything, and does not keep the lock."""

        async def apart(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            async with held(path) as lock:
                task = asyncio.create_task(WRITES[call][0](ctx))
                await opened(path, task)
                if first == "the release":
                    lock.release()
                    await spin(number)
                    hit = task.cancel()
                else:
                    hit = task.cancel()
                    await spin(number)
                    lock.release()
                await settled(task)
            assert hit == task.cancelled()
            await check(path, ctx, call, hit=hit)
            return hit

        async def story() -> list[bool]:
            hits: list[bool] = []
            for number in spins(3_000 if first == "the release" else 100):
                hits.append(await apart(number))
                if hits[-4:] == [False] * 4:  # the call is over by then: a later cancellation is too late as well
                    break
            return hits

        assert any(asyncio.run(story()))

    @every_locking_write
    def test_by_timeouts(self, tmp_path: Path, call: str) -> None:
        """`asyncio.timeout` and anyio's scopes end the wait for a held lock, and the call has no effect later."""

        async def story() -> None:
            path = fresh(tmp_path, "asyncio")
            ctx = await PersistentContext.create(path)
            async with held(path):
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.02):
                        await WRITES[call][0](ctx)
                assert not isinstance(caught.value, LockTimeoutError)
            await check(path, ctx, call, hit=True, effect=False)

            path = fresh(tmp_path, "anyio")
            ctx = await PersistentContext.create(path)
            async with held(path):
                with anyio.move_on_after(0.02) as scope:
                    await WRITES[call][0](ctx)
                assert scope.cancelled_caught
            await check(path, ctx, call, hit=True, effect=False)

            path = fresh(tmp_path, "anyio at once")
            ctx = await PersistentContext.create(path)
            async with held(path):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await WRITES[call][0](ctx)
                assert scope.cancelled_caught
            await check(path, ctx, call, hit=True, effect=False)

        asyncio.run(story())

    def test_only_the_cancelled_ones_are_withdrawn(self, tmp_path: Path) -> None:
        """Of many waiting calls, the cancelled ones never count, and each of the others counts once."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            contexts = [await PersistentContext.create(path) for _ in range(4)]
            async with held(path):
                tasks = [asyncio.create_task(contexts[number % 4].incr("n")) for number in range(40)]
                await opened(path, tasks[0])
                for task in tasks[::2]:
                    task.cancel()
                for task in tasks[::2]:
                    await settled(task)
                    assert task.cancelled()
                assert not any(task.done() for task in tasks[1::2])
            results = await asyncio.gather(*tasks[1::2])

            assert list(range(2, 22)) == sorted(results)
            assert 21 == read(path)["n"]

        asyncio.run(story())

    def test_the_first_in_the_queue(self, tmp_path: Path) -> None:
        """When the first call in the queue is cancelled, those behind it move up."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx = await PersistentContext.create(path)
            async with held(path):
                first = asyncio.create_task(ctx.incr("n", 100))
                await opened(path, first)
                rest = [asyncio.create_task(ctx.incr("n")) for _ in range(5)]
                await spin(10)
                first.cancel()
                await settled(first)
                assert first.cancelled()
            assert [2, 3, 4, 5, 6] == sorted(await asyncio.gather(*rest))
            assert 6 == read(path)["n"]

        asyncio.run(story())

    def test_a_bad_document_stays_where_it_is(self, tmp_path: Path) -> None:
        """A load that waits to move a bad document aside is withdrawn too, and the document stays in its place."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            path.write_bytes(b"{ broken")
            ctx = PersistentContext(path)
            ctx.set("mine", 1)
            async with held(path):
                task = asyncio.create_task(ctx.load())
                await opened(path, task)
                task.cancel()
                await settled(task)
                assert task.cancelled()
            await asyncio.to_thread(take_and_give_back, path)

            assert b"{ broken" == path.read_bytes()
            assert {"mine": 1} == dict(ctx._data)
            assert {path.name, path.name + ".lock"} == set(os.listdir(path.parent))

        asyncio.run(story())


ENDING = """
import asyncio, sys
from persistent_context import PersistentContext

async def enter(ctx):
    async with ctx.transaction():
        raise AssertionError

async def main(how):
    ctx = await PersistentContext.create(sys.argv[1], lock_timeout=float("inf"))
    ctx.set("mine", 1)
    calls = [ctx.incr("n"), ctx.save(), ctx.add("x", 1), enter(ctx)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    for _ in range(200):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    if how == "cancelled":
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

asyncio.run(main(sys.argv[2]))
print("ended")
"""

INTERRUPTED = """
import asyncio, os, signal, sys
from persistent_context import PersistentContext, SyncPersistentContext

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it by default

async def wait_on_a_loop():
    ctx = PersistentContext(sys.argv[1])
    print("waiting", flush=True)
    await ctx.incr("n")

def wait():
    ctx = SyncPersistentContext(sys.argv[1])
    print("waiting", flush=True)
    ctx.incr("n")

try:
    asyncio.run(wait_on_a_loop()) if sys.argv[2] == "async" else wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.readline()
print(SyncPersistentContext(sys.argv[1]).incr("n"), flush=True)
"""


class TestTheEndOfTheProgram:
    @pytest.mark.parametrize("how", ["cancelled", "left alone"])
    def test_waiting_calls_do_not_keep_it(self, tmp_path: Path, hold: Any, spawn: Any, how: str) -> None:
        """A program that ends while its calls wait for a lock that is never released exits at once, and quietly."""
        path = fresh(tmp_path, "0")
        with hold(path):
            child = spawn(ENDING, path, how)
            assert "ended" == child.hear()
            rest = child.finish()

        assert [] == rest
        assert BEFORE == read(path)
        assert "Traceback" not in (tmp_path / "child-1.stderr").read_text()
        assert "never" not in (tmp_path / "child-1.stderr").read_text()

    @pytest.mark.parametrize("face", ["async", "sync"])
    def test_an_interrupt_ends_a_wait(self, tmp_path: Path, hold: Any, spawn: Any, face: str) -> None:
        """Control-C ends a call that waits for a held lock; the call has no effect, and the program can go on."""
        path = fresh(tmp_path, "0")
        with hold(path):
            child = spawn(INTERRUPTED, path, face)
            assert "waiting" == child.hear()
            os.kill(child.pid, signal.SIGINT)
            assert "interrupted" == child.hear()
        assert BEFORE == read(path)
        child.say()

        assert "2" == child.hear()
        assert [] == child.finish()
        assert {**BEFORE, "n": 2} == SyncPersistentContext.create(path).get_all_data()
