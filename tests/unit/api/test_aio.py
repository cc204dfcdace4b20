"""The asyncio interface: event loops, the executor, which waiting calls never occupy, and loads beside other calls."""

import asyncio
import concurrent.futures
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import filelock
import pytest

from persistent_context import ContextUsageError, PersistentContext, SyncPersistentContext
from persistent_context._api import guarded as _guarded
from persistent_context._engine.registry import queue_of

THREADS = 6


@pytest.fixture
async def executor():
    """A default executor of six threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        yield pool


def threads_of(path):
    """Return the threads that wait for the lock of a file."""
    return [thread for thread in threading.enumerate() if thread.name.endswith(f" {path.name}")]


def stored(path):
    return json.loads(path.read_text(encoding="utf-8"))


async def turns(count=50):
    """Let every other task run until it waits for something external."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def eager_switches():
    """Let threads switch as soon as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


async def contend(ctx):
    """Make the last call of a context one that waited for another process."""
    await ctx.incr("n")
    while not queue_of(str(ctx.filepath)).is_contended:
        with filelock.FileLock(f"{ctx.filepath}.lock"):
            waiting = asyncio.create_task(ctx.incr("n"))
            await asyncio.sleep(0.05)
        await waiting
        await asyncio.sleep(0.05)  # until its thread is idle, which would otherwise run the next call, too


class _Free:
    """A lock that is always free."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        return None


class TestManyWaiters:
    async def test_200_contexts_with_transactions_that_await_all_finish(self, tmp_path, executor):
        """Transactions that await in their blocks finish on six threads, alongside users of run_in_executor."""
        path = tmp_path / "state.json"
        loop = asyncio.get_running_loop()

        async def transact():
            ctx = PersistentContext(path, lock_timeout=100, durable=False)
            async with ctx.transaction() as tx:
                number = tx.get("n", 0)
                await asyncio.sleep(0)
                await loop.run_in_executor(None, threading.get_ident)
                tx["n"] = number + 1

        async def increment():
            await PersistentContext(path, lock_timeout=100, durable=False).incr("m")

        async def others():
            return [await loop.run_in_executor(None, int, n) for n in range(100)]

        async with asyncio.TaskGroup() as group:
            beside = group.create_task(others())
            for _ in range(200):
                group.create_task(transact())
                group.create_task(increment())

        assert ({"n": 200, "m": 200}, list(range(100))) == (stored(path), beside.result())

    async def test_a_held_lock_leaves_the_executor_free(self, tmp_path, executor):
        """While many calls wait for another program's lock, all six threads are free for other work."""
        path = tmp_path / "state.json"
        loop = asyncio.get_running_loop()
        barrier = threading.Barrier(THREADS + 1)
        with filelock.FileLock(f"{path}.lock"):
            contexts = [PersistentContext(path) for _ in range(50)]
            waiting = [asyncio.create_task(ctx.incr("n")) for ctx in contexts]
            waiting += [asyncio.create_task(ctx.save()) for ctx in contexts]
            for _ in range(3):  # all of them must run at the same time to pass the barrier
                jobs = [loop.run_in_executor(None, barrier.wait, 60) for _ in range(THREADS)]
                with ThreadPoolExecutor(1) as own:
                    await loop.run_in_executor(own, barrier.wait, 60)
                await asyncio.gather(*jobs)
            done = [task.done() for task in waiting]
        await asyncio.gather(*waiting)

        assert (not any(done), {"n": 50}) == (True, stored(path))

    async def test_a_transaction_ends_though_calls_that_wait_for_it_fill_the_executor(self, tmp_path, executor):
        """A transaction commits even if blocking calls that wait for it fill the default executor."""
        path = tmp_path / "state.json"
        ctx = PersistentContext(path)
        begun = threading.Barrier(THREADS + 1)

        def wait_for_it():
            begun.wait(60)
            SyncPersistentContext(path, lock_timeout=100).incr("n")

        loop = asyncio.get_running_loop()
        async with ctx.transaction() as tx:
            blocked = [loop.run_in_executor(None, wait_for_it) for _ in range(THREADS)]
            with ThreadPoolExecutor(1) as own:
                await loop.run_in_executor(own, begun.wait, 60)
            tx["n"] = 1
        await asyncio.gather(*blocked)

        assert {"n": 1 + THREADS} == stored(path)

    async def test_a_blocked_loop_does_not_keep_others_waiting(self, tmp_path):
        """A call whose event loop is blocked holds neither the lock nor the queue of its process."""
        path = tmp_path / "standing-still.json"
        other = SyncPersistentContext(path, lock_timeout=100)
        with filelock.FileLock(f"{path}.lock"):
            ctx = PersistentContext(path)
            call = asyncio.create_task(ctx.incr("n"))
            while not threads_of(path):
                await asyncio.sleep(0.001)
        # From here on, a blocking call stops this loop; the other context's call waits behind the first.
        with ThreadPoolExecutor(1) as own:
            number = own.submit(other.incr, "n").result(60)

        assert (2, 1) == (number, await call)

    async def test_an_executor_that_was_shut_down_fails_no_other_context(self, tmp_path):
        """Calls queued when the executor is shut down fail loudly and at once, and those of other contexts go on."""
        path = tmp_path / "state.json"
        ctx = await PersistentContext.create(path)
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shutdown"):
            await ctx.incr("n")

        assert 1 == await asyncio.get_running_loop().run_in_executor(
            ThreadPoolExecutor(1), SyncPersistentContext(path).incr, "n"
        )

    async def test_a_waiting_call_holds_no_thread_of_the_executor(self, path, hold):
        """While a save waits for the lock, the loop's only executor thread can still run other work."""
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            calls = [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.incr("n"))]
            await turns()
            served = [await asyncio.to_thread(lambda: "served") for _ in range(5)]
        await asyncio.gather(*calls)

        assert (["served"] * 5, {"a": 1, "n": 1}) == (served, stored(path))


class TestTheOriginalSpecification:
    async def test_the_lock_is_an_asyncio_lock(self, path):
        """`_lock` is an asyncio.Lock, as in the original specification."""
        ctx = await PersistentContext.create(path)

        assert isinstance(ctx._lock, asyncio.Lock)

    @pytest.mark.parametrize("name", ["load", "save"])
    async def test_load_and_save_wait_for_the_lock(self, path, name):
        """While a task holds `_lock`, load and save wait."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        async with ctx._lock:
            task = asyncio.create_task(getattr(ctx, name)())
            await turns()
            waited = not task.done()
        await task
        async with ctx._lock:
            free = True

        assert (True, True) == (waited, free)

    @pytest.mark.parametrize("name", ["load", "save"])
    async def test_load_and_save_run_in_the_default_executor(self, path, name):
        """The file is read and written in a thread of the loop's default executor."""
        asyncio.get_running_loop().set_default_executor(
            concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="the-default-executor"),
        )
        threads = []

        class Watched(PersistentContext):
            def _sync_load_internal(self, *args, **kwargs):
                threads.append(threading.current_thread().name)
                return super()._sync_load_internal(*args, **kwargs)

            def _sync_save_internal(self, *args, **kwargs):
                threads.append(threading.current_thread().name)
                return super()._sync_save_internal(*args, **kwargs)

        ctx = Watched(path)
        ctx.set("a", 1)
        await getattr(ctx, name)()

        assert {True} == {thread.startswith("the-default-executor") for thread in threads}

    @pytest.mark.parametrize(("name", "tries"), [("save", True), ("incr", False)])
    async def test_a_contended_call_waits_in_the_pool_at_once(self, path, name, tries):
        """After a wait for another process, only a save, as specified, first tries in the default executor."""
        tried = []

        class Watched(PersistentContext):
            def _sync_save_internal(self):
                tried.append(name)
                return super()._sync_save_internal()

        ctx = Watched(path)
        await contend(ctx)
        tried.clear()
        ctx.set("a", 1)
        await (ctx.save() if name == "save" else ctx.incr("a"))

        assert (tries, 1 if name == "save" else 2) == (bool(tried), stored(path)["a"])

    async def test_contended_calls_share_a_cycle(self, path, eager_switches):
        """A worker thread starts once all tasks that are ready have made their calls."""
        ctx = PersistentContext(path)
        await contend(ctx)
        before = ctx.statistics().cycles
        await asyncio.gather(*(ctx.incr("a") for _ in range(50)))

        assert 1 == ctx.statistics().cycles - before

    async def test_the_snapshot_of_a_save_is_the_calls(self, path):
        """A save that waits for `_lock` writes what memory held at the call."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        async with ctx._lock:
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 2)
        await saving

        assert ({"a": 1}, {"a"}) == (stored(path), ctx.unsaved_keys())


class TestEventLoops:
    def test_a_context_needs_no_loop_to_be_made(self, path):
        """A context may be created before any loop runs."""
        ctx = PersistentContext(path)
        ctx.set("a", 1)
        asyncio.run(ctx.save())

        assert {"a": 1} == stored(path)

    def test_a_later_loop_may_use_it(self, path):
        """After a loop is closed, another one may use the context."""
        ctx = PersistentContext(path)

        numbers = [asyncio.run(ctx.incr("n")) for _ in range(3)]

        assert ([1, 2, 3], {"n": 3}) == (numbers, stored(path))

    @pytest.mark.parametrize("call", [PersistentContext.load, PersistentContext.save, lambda ctx: ctx.incr("n")])
    def test_a_second_loop_beside_the_first_is_refused(self, path, call):
        """Two open loops cannot share one context."""
        ctx = PersistentContext(path)
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(ctx.save())

            async def use():
                await call(ctx)

            with pytest.raises(ContextUsageError, match="another event loop"):
                second.run(use())

            assert 1 == first.run(ctx.incr("n"))

    def test_two_loops_in_two_threads_share_the_file(self, path):
        """Each thread's loop has its own context, and no increment is lost."""

        async def count():
            ctx = await PersistentContext.create(path)
            return await asyncio.gather(*(ctx.incr("n") for _ in range(25)))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            numbers = [number for part in pool.map(lambda _: asyncio.run(count()), range(2)) for number in part]

        assert list(range(1, 51)) == sorted(numbers)

    def test_a_transaction_whose_loop_is_closed_before_its_turn_holds_no_lock(self, tmp_path):
        """A turn whose event loop is closed is given back."""
        path = tmp_path / "state.json"
        loop = asyncio.new_event_loop()
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            tasks = [loop.create_task(call) for call in (ctx.incr("n"), ctx.transaction().__aenter__(), ctx.save())]
            loop.run_until_complete(asyncio.sleep(0.1))
            loop.close()
        for task in tasks:
            task._log_destroy_pending = False

        assert 2 == SyncPersistentContext(path, lock_timeout=60).incr("n")

    async def test_an_executor_that_is_shut_down_fails_no_call_that_has_begun(self, tmp_path):
        """A call that is part of a cycle ends with the cycle, whatever happens to the executor."""
        ctx = await PersistentContext.create(tmp_path / "state.json")
        taken = []

        def function(value):
            taken.extend(request.fail(RuntimeError("no executor")) for request in ctx._home.calls._in_flight)
            return 1

        assert (1, [False]) == (await ctx.mutate("n", function), taken)


class TestLoading:
    @pytest.mark.parametrize("call", ["save", "incr"])
    async def test_a_load_that_a_call_overtakes_is_not_taken_for_newer(self, tmp_path, monkeypatch, call):
        """A reading from before a call does not undo the call's result in memory."""
        path = tmp_path / "state.json"
        ctx = await PersistentContext.create(path)
        load, loop = ctx._sync_load_internal, asyncio.get_running_loop()

        def overtaken():
            loaded = load()
            if call == "save":
                ctx.set("a", ctx.get("a", 0) + 1)
            asyncio.run_coroutine_threadsafe(ctx.save() if call == "save" else ctx.incr("a"), loop).result(60)
            return loaded

        monkeypatch.setattr(ctx, "_sync_load_internal", overtaken)
        monkeypatch.setattr(ctx, "_lock", _Free())
        await ctx.load()

        assert ({"a": 1}, {"a": 1}) == (dict(ctx), json.loads(path.read_text(encoding="utf-8")))

    async def test_a_failure_on_the_way_into_memory_is_the_calls_error(self, tmp_path, monkeypatch):
        """A call whose result cannot be computed fails loudly, and the next one works."""
        ctx = await PersistentContext.create(tmp_path / "state.json")

        def fail(requests):
            raise MemoryError

        with monkeypatch.context() as broken:
            broken.setattr(_guarded, "_arrival", fail)
            with pytest.raises(MemoryError):
                await ctx.incr("n")

        assert 2 == await ctx.incr("n")
