"""A transaction that is not left where it was entered, but in another thread or task, or never."""

import asyncio
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from persistent_context import PersistentContext, SyncPersistentContext


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.timeout(15)  # these tests are about hangs
class TestEnteredHereLeftThere:
    @pytest.mark.parametrize("how", ["clean", "error"])
    def test_a_transaction_that_another_thread_leaves(self, path, how):
        """A transaction may be entered in one thread of a pool and left in another; neither counts as inside it."""
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            manager = SyncPersistentContext(path, lock_timeout=5).transaction()
            tx = first.submit(manager.__enter__).result(5)
            tx["n"] = 1
            error = LookupError()
            outcome = (None, None, None) if how == "clean" else (LookupError, error, None)
            second.submit(manager.__exit__, *outcome).result(5)
            probes = [one.submit(SyncPersistentContext(path, lock_timeout=5).incr, "probe") for one in (first, second)]

            assert [1, 2] == sorted(probe.result(6) for probe in probes)
        assert ({"n": 1, "probe": 2} if how == "clean" else {"probe": 2}) == stored(path)

    def test_the_thread_that_entered_calls_meanwhile(self, path):
        """After a transaction is passed to another thread, a call of the first thread waits until it ends there."""
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            for number in range(20):
                manager = SyncPersistentContext(path, lock_timeout=5, durable=False).transaction()
                first.submit(manager.__enter__).result(5)["n"] = number
                second.submit(manager.__exit__, None, None, None).result(5)

                assert number + 1 == first.submit(SyncPersistentContext(path, lock_timeout=5).incr, "p").result(6)

    async def test_a_transaction_that_another_task_leaves(self, path):
        """The same holds for tasks."""
        ctx = PersistentContext(path, lock_timeout=5)
        manager = ctx.transaction()
        tx = await manager.__aenter__()
        tx["n"] = 1
        await asyncio.create_task(manager.__aexit__(None, None, None))

        assert 1 == await ctx.incr("probe")
        assert {"n": 1, "probe": 1} == stored(path)

    @pytest.mark.parametrize("where", ["same thread", "other thread"])
    def test_an_abandoned_generator(self, path, where):
        """A transaction in an abandoned generator is discarded, and its thread can call again."""
        ctx = SyncPersistentContext(path, lock_timeout=5)

        def generate():
            with ctx.transaction() as tx:
                tx["n"] = 1
                yield

        generator = generate()
        next(generator)
        if where == "same thread":
            del generator
        else:
            box = [generator]
            del generator
            thread = threading.Thread(target=box.clear)
            thread.start()
            thread.join()
        gc.collect()

        assert 1 == ctx.incr("probe")
        assert 2 == SyncPersistentContext(path, lock_timeout=5).incr("probe")
        assert {"probe": 2} == stored(path)

    @pytest.mark.parametrize("how", ["dropped", "closed by another task"])
    async def test_an_abandoned_asynchronous_generator(self, path, how):
        """The same holds for an asynchronous generator, closed by another task or by the event loop."""
        ctx = PersistentContext(path, lock_timeout=5)

        async def generate():
            async with ctx.transaction() as tx:
                tx["n"] = 1
                yield

        generator = generate()
        await anext(generator)
        if how == "dropped":
            del generator
            gc.collect()
        else:
            await asyncio.create_task(generator.aclose())

        assert 1 == await ctx.incr("probe")
        assert 2 == await PersistentContext(path, lock_timeout=5).incr("probe")
        assert {"probe": 2} == stored(path)

    async def test_a_thread_of_fastapis_kind(self, path):
        """A dependency that different threads of a pool enter and leave does not make later calls fail."""

        @contextmanager
        def dependency():
            with SyncPersistentContext(path, lock_timeout=10, durable=False).transaction() as tx:
                yield tx

        async def request():
            manager = dependency()
            tx = await asyncio.to_thread(manager.__enter__)
            tx["n"] = tx.get("n", 0) + 1
            await asyncio.to_thread(manager.__exit__, None, None, None)
            await asyncio.to_thread(SyncPersistentContext(path, lock_timeout=10, durable=False).incr, "calls")

        with ThreadPoolExecutor(4) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            for _ in range(20):
                await asyncio.gather(request(), request())

        assert {"n": 40, "calls": 40} == stored(path)
