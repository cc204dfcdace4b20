"""A cancelled call has no effect or its whole effect, whenever the cancel comes, and no lock outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import sys
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from filelock import FileLock

from persistent_context import LockTimeoutError, PersistentContext, SyncPersistentContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

BEFORE: dict[str, Any] = {"n": 1, "other": [1]}

# ---------------------------------------- the calls


def _save(ctx: PersistentContext) -> Coroutine[Any, Any, None]:
    ctx.set("n", 2)  # before the task begins: a task that was cancelled before its first step does nothing at all
    return ctx.save()


async def _incr(ctx: PersistentContext) -> None:
    assert 2 == await ctx.incr("n")


async def _add(ctx: PersistentContext) -> None:
    assert await ctx.add("new", 2)


async def _compare_and_set(ctx: PersistentContext) -> None:
    assert await ctx.compare_and_set("n", 1, 2)


async def _mutate(ctx: PersistentContext) -> None:
    assert [1, 2] == await ctx.mutate("other", lambda value: [*value, 2])


async def _transaction(ctx: PersistentContext) -> None:
    async with ctx.transaction() as tx:
        tx["n"] += 1
        await asyncio.sleep(0)
        tx["new"] = 2


async def _context_manager(ctx: PersistentContext) -> None:
    async with PersistentContext(ctx.filepath) as own:
        own["n"] += 1
        await asyncio.sleep(0)
        own["new"] = 2


WRITES: dict[str, tuple[Callable[[PersistentContext], Coroutine[Any, Any, None]], dict[str, Any]]] = {
    "save": (_save, {"n": 2, "other": [1]}),
    "incr": (_incr, {"n": 2, "other": [1]}),
    "add": (_add, {"n": 1, "other": [1], "new": 2}),
    "compare_and_set": (_compare_and_set, {"n": 2, "other": [1]}),
    "mutate": (_mutate, {"n": 1, "other": [1, 2]}),
    "transaction": (_transaction, {"n": 2, "other": [1], "new": 2}),
    "async with": (_context_manager, {"n": 2, "other": [1], "new": 2}),
}

every_write = pytest.mark.parametrize("call", WRITES)

# ---------------------------------------- the tools


class Cancelling:
    """Awaits a coroutine, counts how often it suspends, and cancels the task at one, or at every, suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int | None, how: str) -> None:
        self.coroutine = coroutine
        self.at = at
        self.how = how
        self.suspensions = 0
        self.hit = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                waiting_for = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.at is None or self.at == self.suspensions:
                self.hit = True
                self.cancel()
            error = None
            try:
                yield waiting_for
            except BaseException as thrown:  # noqa: BLE001  # handed on to the coroutine
                error = thrown

    def cancel(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.how == "at once":
            task.cancel()
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def spin(times: int) -> None:
    """Let the loop go round so many times."""
    for _ in range(times):
        await asyncio.sleep(0)


def spins(limit: int = 20_000) -> list[int]:
    """Return numbers of rounds of the loop: every small one, then ever larger ones."""
    numbers = list(range(12))
    while numbers[-1] < limit:
        numbers.append(numbers[-1] * 5 // 4)
    return numbers


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def fresh(directory: Path, name: object) -> Path:
    """Return a new file in a directory of its own."""
    path = directory / str(name) / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(BEFORE))
    return path


def take_and_give_back(path: Path) -> None:
    with FileLock(f"{path}.lock", timeout=20):
        pass


async def settled(task: asyncio.Task[Any]) -> None:
    """Wait for the end of `task`, but not for ever."""
    finished, _ = await asyncio.wait({task}, timeout=30)

    assert finished, "the call did not end"


async def check(path: Path, ctx: PersistentContext, call: str, *, hit: bool, effect: bool | None = None) -> bool:
    """Check what a call left behind; return whether it had an effect."""
    found = read(path)
    whole = WRITES[call][1]

    assert found in (BEFORE, whole)
    if effect is not None:
        assert (whole if effect else BEFORE) == found
    if not hit:
        assert whole == found

    await asyncio.to_thread(take_and_give_back, path)

    assert found == read(path)
    assert {path.name, path.name + ".lock"} == set(os.listdir(path.parent))
    if call == "save":
        assert ({"n"} if found == BEFORE else set()) == ctx.unsaved_keys()
        assert 2 == ctx.get("n")
    elif call != "async with":
        assert set() == ctx.unsaved_keys()
        assert found == ctx.get_all_data()

    # The context goes on, and what was withdrawn does not come along with the next call.
    assert 1 == await ctx.incr("probe")
    assert {**found, "probe": 1} == read(path)
    if call == "save":
        await ctx.save()
        assert {**whole, "probe": 1} == read(path)
    return found != BEFORE


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[FileLock]:
    """Hold the lock as another program would."""
    lock = FileLock(f"{path}.lock", thread_local=False)
    await asyncio.to_thread(lock.acquire)
    try:
        yield lock
    finally:
        lock.release()


async def opened(path: Path, task: asyncio.Task[Any]) -> None:
    """Wait until the library has the lock file open beside the test, which it has when it waits for it."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc/self/fd to see that a call waits for the lock: run on Linux")
    lock = os.path.realpath(f"{path}.lock")
    while not task.done():
        count = 0
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += lock == os.readlink(f"/proc/self/fd/{descriptor}")
        if count > 1:
            return
        await asyncio.sleep(0)


# ---------------------------------------- at every await


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 100,\n"b": 0,\n"jobs": [1]\n}\n', encoding="utf-8")
    return face.open(path)


async def turns(count=50):
    """Let every other task run until it waits for something outside."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["at once", "soon"])
class TestAtEveryAwait:
    @every_write
    def test_a_write_has_no_effect_or_its_whole(self, tmp_path: Path, call: str, how: str) -> None:
        """Cancelled at any of its awaits, a write did nothing or all, ends cancelled, and frees the lock."""

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
        """Cancelled again at each of its awaits, a write still does nothing or all, and still ends cancelled."""

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
        """A task that begins before its maker goes on can be cancelled like any other."""

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
        """A cancelled load left memory as it was, unsaved changes and all, or made it what the file holds."""

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
        """Cancelled reading leaves nothing behind."""

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
        """Cancelled while it moves a bad document aside, a call leaves it in its place or aside, whole and once."""

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
        """However long a write has been going on, a cancel lets it do nothing or all, and it ends cancelled."""

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
        """A task that was cancelled before it ran at all did nothing."""

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
        """A call in `asyncio.timeout` did nothing or all when the time was up, and its task goes on uncancelled."""

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
        """A call in `anyio.move_on_after` did nothing or all when the time was up, and the scope knows."""

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
        """When a sibling in the same `TaskGroup` fails, the call is ended cleanly, and the failure comes through."""

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
        """Of calls that share a write, the cancelled one takes none of the others along, and each counts once."""

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
        """While a cancelled call's write comes to its end, the event loop sleeps."""
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

        assert (True, {"k": "written"}) == (busy < 100, stored(path))


# ---------------------------------------- while somebody holds the lock

LOCKING = {name: call for name, call in WRITES.items() if name != "async with"}
every_locking_write = pytest.mark.parametrize("call", LOCKING)


class TestBehindAHeldLock:
    @every_locking_write
    def test_it_is_withdrawn_at_once(self, tmp_path: Path, call: str) -> None:
        """A call that waits behind another program is withdrawn while that one still holds the lock, for good."""

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
        """The same when the holder is a process of its own."""
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
    def test_the_lock_comes_free_at_that_very_moment(self, tmp_path: Path, call: str, first: str) -> None:
        """Cancelled while the lock changes hands, a call did nothing or all, and the lock does not stay with it."""

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
            return [await apart(number) for number in spins(3_000)]

        assert any(asyncio.run(story()))

    @every_locking_write
    def test_by_timeouts(self, tmp_path: Path, call: str) -> None:
        """`asyncio.timeout` and anyio's scopes end the wait for a held lock, and nothing of it comes later."""

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
        """Of many that wait, those that are cancelled never count, and all the others do, each once."""

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
        """When the one at the head of the queue goes, those behind it move up."""

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
        """A load that waits to move a bad document aside is withdrawn too, and the document stays."""

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
            assert {"mine": 1} == ctx.get_all_data()
            assert {path.name, path.name + ".lock"} == set(os.listdir(path.parent))

        asyncio.run(story())


# ---------------------------------------- transactions


class TestTransactions:
    def test_a_cancelled_body_discards(self, tmp_path: Path) -> None:
        """A transaction whose body is cancelled writes nothing, and gives the lock to the next one."""

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
            async with other.transaction() as tx:
                tx["theirs"] = 1
                for number in [0, 1, 2, 3, 10, 100, 1000]:
                    task = asyncio.create_task(WRITES[call][0](ctx))
                    await spin(number)
                    assert not task.done()
                    task.cancel()
                    await settled(task)
                    assert task.cancelled()
                assert BEFORE == read(path)
            assert {**BEFORE, "theirs": 1} == read(path)
            await asyncio.to_thread(take_and_give_back, path)
            assert 1 == await ctx.incr("probe")

            assert {**BEFORE, "theirs": 1, "probe": 1} == read(path)

        asyncio.run(story())

    def test_a_cancel_that_the_body_catches(self, tmp_path: Path) -> None:
        """A body that handles its own cancelling may still commit, whole."""

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
        """A task whose transaction was cancelled is not taken to be inside it still."""

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
        """asyncio.timeout is a cancel like any."""
        ctx = await PersistentContext.create(path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), ctx.transaction() as tx:
                tx["a"] = 2
                await asyncio.Event().wait()

        assert (1, {"n": 1}) == (await ctx.incr("n"), stored(path))

    async def test_a_cancel_at_any_turn_leaves_all_or_nothing(self, path):
        """However far a transaction has come when it is cancelled, all of it is in the file or nothing."""
        path.write_text('{"a": 0, "b": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)

        async def body():
            async with ctx.transaction() as tx:
                tx["a"] += 1
                await turns(3)
                tx["b"] += 1

        finished = 0
        for count in range(60):
            task = asyncio.create_task(body())
            await turns(count)
            task.cancel()
            try:
                await task
                finished += 1
            except asyncio.CancelledError:
                pass
        await ctx.add("probe", 1)
        data = stored(path)

        assert (True, True) == (data["a"] == data["b"], finished <= data["a"] <= 60)

    async def test_cancelling_a_task_that_waits_behind_leaves_the_others(self, path):
        """Of many that wait for a transaction to end, only the cancelled ones are withdrawn."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction():
            waiting = [asyncio.create_task(ctx.incr("n")) for _ in range(10)]
            await turns()
            for task in waiting[1::2]:
                task.cancel()
            await turns()
        results = await asyncio.gather(*waiting, return_exceptions=True)

        assert ([1, 2, 3, 4, 5], {"n": 5}) == (
            sorted(result for result in results if isinstance(result, int)),
            stored(path),
        )


# ---------------------------------------- the end of the program

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

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born ignoring it

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
        """A program that ends while its calls wait for a lock somebody keeps for ever ends at once, and quietly."""
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
        """Control-C ends a call that waits for a held lock; it has no effect, and the program can go on."""
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


def test_where_nobody_has_imported_anyio(tmp_path, run):
    """A call that has begun is finished before it is cancelled also in a program that does not use anyio."""
    assert ["False True 1"] == run(WITHOUT_ANYIO, tmp_path / "state.json")
