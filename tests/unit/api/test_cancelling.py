"""A cancelled call has no effect or its full effect, whenever it is cancelled, and leaves no lock behind."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from cancelling import (
    BEFORE,
    WRITES,
    Cancelling,
    check,
    every_write,
    fresh,
    read,
    settled,
    spin,
    spins,
    take_and_give_back,
)
from persistent_context import LockTimeoutError, PersistentContext

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

# ---------------------------------------- at every await


@pytest.mark.parametrize("how", ["at once", "soon"])
class TestAtEveryAwait:
    @every_write
    def test_a_write_has_no_effect_or_its_whole(self, tmp_path: Path, call: str, how: str) -> None:
        """Cancelled at any of its awaits, a write does nothing or everything, ends cancelled, and releases the lock."""

        async def at(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            cancelling = Cancelling(WRITES[call][0](ctx), number, how)
            task = asyncio.create_task(_await(cancelling))
            await settled(task)
            assert cancelling.hit == task.cancelled()
            await check(path, ctx, call, hit=cancelling.hit)
            return cancelling.hit

        async def story() -> int:
            number = 1
            while await at(number):
                number += 1
            return number

        assert asyncio.run(story()) > 1

    @every_write
    def test_cancelled_over_and_over(self, tmp_path: Path, call: str, how: str) -> None:
        """Cancelled again at each of its awaits, a write still does nothing or everything, and still ends cancelled."""

        async def story() -> None:
            for number in range(5):
                path = fresh(tmp_path, number)
                ctx = await PersistentContext.create(path)
                cancelling = Cancelling(WRITES[call][0](ctx), None, how)
                task = asyncio.create_task(_await(cancelling))
                await settled(task)
                assert task.cancelled()
                await check(path, ctx, call, hit=True)

        asyncio.run(story())

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks: run on Python 3.12 or later")
    @every_write
    def test_in_an_eager_task(self, tmp_path: Path, call: str, how: str) -> None:
        """An eager task can be cancelled like any other."""

        async def at(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            cancelling = Cancelling(WRITES[call][0](ctx), number, how)
            task = asyncio.create_task(_await(cancelling))
            await settled(task)
            assert cancelling.hit == task.cancelled()
            await check(path, ctx, call, hit=cancelling.hit)
            return cancelling.hit

        async def story() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            number = 1
            while await at(number):
                number += 1

        asyncio.run(story())

    def test_load_leaves_memory_old_or_new(self, tmp_path: Path, how: str) -> None:
        """A cancelled load leaves memory unchanged, with its unsaved changes, or loads the whole file."""

        async def at(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            ctx.set("mine", 1)
            path.write_text('{"n": 5}')
            cancelling = Cancelling(ctx.load(), number, how)
            task = asyncio.create_task(_await(cancelling))
            await settled(task)
            assert cancelling.hit == task.cancelled()
            new = {"n": 5} == ctx.get_all_data()
            assert new or {**BEFORE, "mine": 1} == ctx.get_all_data()
            assert (set() if new else {"mine"}) == ctx.unsaved_keys()
            assert new or cancelling.hit
            await asyncio.to_thread(take_and_give_back, path)
            assert new == ({"n": 5} == ctx.get_all_data())
            await ctx.save()
            assert ({"n": 5} if new else {"n": 5, "mine": 1}) == read(path)
            return cancelling.hit

        async def story() -> int:
            number = 1
            while await at(number):
                number += 1
            return number

        assert asyncio.run(story()) > 1

    def test_create_and_lock_holder_change_nothing(self, tmp_path: Path, how: str) -> None:
        """A cancelled read leaves nothing behind."""

        async def at(number: int) -> bool:
            path = fresh(tmp_path, number)
            hits = []
            for reading in (PersistentContext.create(path), PersistentContext(path).lock_holder()):
                cancelling = Cancelling(reading, number, how)
                task = asyncio.create_task(_await(cancelling))
                await settled(task)
                assert cancelling.hit == task.cancelled()
                hits.append(cancelling.hit)
                assert BEFORE == read(path)
                await asyncio.to_thread(take_and_give_back, path)
            assert 2 == await PersistentContext(path).incr("n")
            return any(hits)

        async def story() -> int:
            number = 1
            while await at(number):
                number += 1
            return number

        assert asyncio.run(story()) > 1

    @pytest.mark.parametrize("name", ["load", "incr", "save"])
    def test_a_bad_document_is_never_lost(self, tmp_path: Path, name: str, how: str) -> None:
        """A call cancelled while it moves a bad document aside leaves it in its place or aside, complete and once."""

        async def at(number: int) -> bool:
            path = fresh(tmp_path, number)
            path.write_bytes(b"{ broken")
            ctx = PersistentContext(path)
            ctx.set("a", 1)
            calls = {"load": ctx.load, "incr": lambda: ctx.incr("n"), "save": ctx.save}
            cancelling = Cancelling(calls[name](), number, how)
            task = asyncio.create_task(_await(cancelling))
            await settled(task)
            assert cancelling.hit == task.cancelled()
            await asyncio.to_thread(take_and_give_back, path)
            contents = [found.read_bytes() for found in path.parent.iterdir()]
            assert 1 == contents.count(b"{ broken")
            assert not [found for found in os.listdir(path.parent) if found.endswith(".tmp")]
            await ctx.incr("probe")
            assert 1 == read(path)["probe"]
            contents = [found.read_bytes() for found in path.parent.iterdir()]
            assert 1 == contents.count(b"{ broken")
            return cancelling.hit

        async def story() -> int:
            number = 1
            while await at(number):
                number += 1
            return number

        assert asyncio.run(story()) > 1


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


# ---------------------------------------- after any time


class TestAfterAnyTime:
    @every_write
    def test_cancelled_after_some_rounds_of_the_loop(self, tmp_path: Path, call: str) -> None:
        """However long a write has been running when cancelled, it does nothing or everything, and ends cancelled."""

        async def after(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            task = asyncio.create_task(WRITES[call][0](ctx))
            await spin(number)
            hit = task.cancel()
            await settled(task)
            assert hit == task.cancelled()
            await check(path, ctx, call, hit=hit)
            return hit

        async def story() -> None:
            for number in spins():
                if not await after(number):
                    break

        asyncio.run(story())

    @every_write
    def test_before_it_began(self, tmp_path: Path, call: str) -> None:
        """A task that is cancelled before it runs does nothing."""

        async def story() -> None:
            path = fresh(tmp_path, "0")
            ctx = await PersistentContext.create(path)
            task = asyncio.create_task(WRITES[call][0](ctx))
            task.cancel()
            await settled(task)

            assert task.cancelled()
            assert BEFORE == read(path)
            assert call == "save" or BEFORE == ctx.get_all_data()
            assert {path.name} == set(os.listdir(path.parent))

        asyncio.run(story())

    @every_write
    def test_by_a_timeout_of_asyncio(self, tmp_path: Path, call: str) -> None:
        """When `asyncio.timeout` expires, the call has done nothing or everything, and its task goes on uncancelled."""

        async def within(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            in_time = True
            try:
                async with asyncio.timeout(number * 0.0001) as deadline:
                    await WRITES[call][0](ctx)
            except TimeoutError as error:
                assert not isinstance(error, LockTimeoutError)
                in_time = False
            task = asyncio.current_task()
            assert task is not None
            assert 0 == task.cancelling()
            assert in_time != deadline.expired()
            await check(path, ctx, call, hit=not in_time)
            return in_time

        async def story() -> list[bool]:
            return [await within(number) for number in range(-1, 25)]

        assert not asyncio.run(story())[0]

    @every_write
    def test_by_a_scope_of_anyio(self, tmp_path: Path, call: str) -> None:
        """When `anyio.move_on_after` expires, the call has done nothing or everything, and the scope knows."""

        async def within(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            finished = False
            with anyio.move_on_after(number * 0.0001) as scope:
                await WRITES[call][0](ctx)
                finished = True
            assert finished != scope.cancelled_caught
            await anyio.lowlevel.checkpoint()
            await check(path, ctx, call, hit=not finished)
            return finished

        async def story() -> list[bool]:
            return [await within(number) for number in range(-1, 25)]

        assert not asyncio.run(story())[0]

    @every_write
    def test_by_another_task_through_a_scope_of_anyio(self, tmp_path: Path, call: str) -> None:
        """A scope that another task cancels, after any number of rounds, ends the call in it cleanly."""

        async def after(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            finished = False
            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()

                async def work() -> None:
                    nonlocal finished
                    with scope:
                        await WRITES[call][0](ctx)
                        finished = True

                group.start_soon(work)
                await spin(number)
                scope.cancel()
            assert finished != scope.cancelled_caught
            await check(path, ctx, call, hit=not finished)
            return finished

        async def story() -> None:
            for number in spins():
                if await after(number):
                    break

        asyncio.run(story())

    @every_write
    def test_by_a_sibling_that_fails(self, tmp_path: Path, call: str) -> None:
        """When a sibling in the same `TaskGroup` fails, the call ends cleanly, and the failure propagates."""

        async def after(number: int) -> bool:
            path = fresh(tmp_path, number)
            ctx = await PersistentContext.create(path)
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(WRITES[call][0](ctx))
                    await spin(number)
                    ended = task.done()
                    raise LookupError
            assert caught.group_contains(LookupError)
            assert ended != task.cancelled()
            await check(path, ctx, call, hit=not ended)
            return ended

        async def story() -> None:
            for number in spins():
                if await after(number):
                    break

        asyncio.run(story())

    def test_only_the_cancelled_one_of_a_group(self, tmp_path: Path) -> None:
        """Of calls that share a write, only the cancelled one is withdrawn, and each of the others counts once."""

        async def after(number: int) -> bool:
            path = fresh(tmp_path, number)
            contexts = [await PersistentContext.create(path) for _ in range(3)]
            tasks = [asyncio.create_task(contexts[which % 3].incr("n")) for which in range(12)]
            await spin(number)
            cancelled = sum(task.cancel() for task in tasks[::3])
            results = await asyncio.gather(*tasks, return_exceptions=True)
            numbers = [result for result in results if isinstance(result, int)]
            assert cancelled == sum(task.cancelled() for task in tasks)
            assert len(tasks) - cancelled == len(numbers) == len(set(numbers))
            await asyncio.to_thread(take_and_give_back, path)
            count = read(path)["n"] - 1
            assert len(numbers) <= count <= len(tasks)
            assert max(numbers) <= count + 1
            assert count + 2 == await contexts[0].incr("n")
            return bool(cancelled)

        async def story() -> None:
            for number in spins():
                if not await after(number):
                    break

        asyncio.run(story())

    def test_a_scope_that_cancels_again_and_again_does_not_keep_the_loop_busy(self, path):
        """While a cancelled call's write finishes, the event loop sleeps."""
        turns = 0

        class Counting(selectors.DefaultSelector):
            def select(self, timeout=None):
                nonlocal turns
                turns += 1
                return super().select(timeout)

        begun, go_on = threading.Event(), threading.Event()

        def slow(_value):
            begun.set()
            go_on.wait(60)
            return "written"

        async def story():
            ctx = PersistentContext(path)

            async def call():
                with scope:
                    await ctx.mutate("k", slow)

            scope = anyio.CancelScope()
            calling = asyncio.create_task(call())
            await asyncio.to_thread(begun.wait)
            scope.cancel()
            before = turns
            await asyncio.sleep(0.2)
            busy = turns - before
            go_on.set()
            await calling
            return busy

        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Counting())) as runner:
            busy = runner.run(story())

        assert (True, {"k": "written"}) == (busy < 100, read(path))


WITHOUT_ANYIO = """
import asyncio, sys, threading
from persistent_context import PersistentContext

async def main():
    begun, go_on = threading.Event(), threading.Event()

    def function(value):
        begun.set()
        go_on.wait(20)
        return 1

    ctx = PersistentContext(sys.argv[1])
    call = asyncio.create_task(ctx.mutate("n", function))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):
        call.cancel()
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([call])
    await ctx.load()
    print("anyio" in sys.modules, call.cancelled(), ctx["n"])

asyncio.run(main())
"""


def test_in_a_program_that_does_not_use_anyio(tmp_path, run):
    """A program that does not use anyio, too, finishes a call that has begun before cancelling it."""
    assert ["False True 1"] == run(WITHOUT_ANYIO, tmp_path / "state.json")
