"""Nobody who waits occupies the default executor, and nothing blocks the event loop."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import filelock
import pytest

from persistent_context import LockTimeoutError, PersistentContext, SyncPersistentContext

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


class TestManyWaiters:
    async def test_200_contexts_with_transactions_that_await_all_finish(self, tmp_path, executor):
        """Transactions that await inside finish on six threads, beside others who use run_in_executor."""
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
        """While many calls wait for another program's lock, all six threads are there for others."""
        path = tmp_path / "state.json"
        loop = asyncio.get_running_loop()
        barrier = threading.Barrier(THREADS + 1)
        with filelock.FileLock(f"{path}.lock"):
            contexts = [PersistentContext(path) for _ in range(50)]
            waiting = [asyncio.create_task(ctx.incr("n")) for ctx in contexts]
            waiting += [asyncio.create_task(ctx.save()) for ctx in contexts]
            for _ in range(3):  # all of them must run at the same time to get through
                jobs = [loop.run_in_executor(None, barrier.wait, 60) for _ in range(THREADS)]
                with ThreadPoolExecutor(1) as own:
                    await loop.run_in_executor(own, barrier.wait, 60)
                await asyncio.gather(*jobs)
            done = [task.done() for task in waiting]
        await asyncio.gather(*waiting)

        assert (not any(done), {"n": 50}) == (True, stored(path))

    async def test_a_transaction_ends_though_the_executor_is_full_of_those_who_wait_for_it(self, tmp_path, executor):
        """Blocking calls that fill the default executor wait for a transaction, which commits all the same."""
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

    async def test_a_loop_that_stands_still_does_not_keep_others_waiting(self, tmp_path):
        """A call whose own loop is blocked neither holds the lock nor the queue of its process."""
        path = tmp_path / "standing-still.json"
        other = SyncPersistentContext(path, lock_timeout=100)
        with filelock.FileLock(f"{path}.lock"):
            ctx = PersistentContext(path)
            call = asyncio.create_task(ctx.incr("n"))
            while not threads_of(path):
                await asyncio.sleep(0.001)
        # From here on this loop stands still, in a blocking call; the other's call waits behind the first one's.
        with ThreadPoolExecutor(1) as own:
            number = own.submit(other.incr, "n").result(60)

        assert (2, 1) == (number, await call)

    async def test_an_executor_that_was_shut_down_fails_nobody(self, tmp_path):
        """Calls queued when the executor is gone fail loudly and at once, and those of other contexts go on."""
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


class TestGroupCommit:
    async def test_calls_that_wait_share_one_write(self, tmp_path):
        """Saves and atomic calls of many contexts that wait for the lock are carried by few writes."""
        path = tmp_path / "state.json"
        contexts = [await PersistentContext.create(path) for _ in range(100)]
        with filelock.FileLock(f"{path}.lock"):
            calls = []
            for n, ctx in enumerate(contexts):
                ctx.set(f"key-{n}", n)
                calls += [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.incr("n"))]
            await asyncio.sleep(0.1)
        results = await asyncio.gather(*calls)

        assert set(range(1, 101)) == set(results[1::2])
        assert {f"key-{n}": n for n in range(100)} | {"n": 100} == stored(path)
        assert 200 == contexts[0].statistics().operations
        assert 4 > contexts[0].statistics().commits

    async def test_calls_of_other_loops_and_threads_share_it_too(self, tmp_path):
        """One queue serves all loops and threads of a process."""
        path = tmp_path / "state.json"

        def in_a_loop():
            async def work():
                ctx = PersistentContext(path, lock_timeout=100)
                await asyncio.gather(*(ctx.incr("n") for _ in range(50)))

            asyncio.run(work())

        def in_a_thread():
            ctx = SyncPersistentContext(path, lock_timeout=100)
            for _ in range(10):
                ctx.incr("n")

        await asyncio.gather(*(asyncio.to_thread(job) for job in [in_a_loop, in_a_thread] * 4))

        assert {"n": 240} == stored(path)

    async def test_every_call_gets_its_own_error(self, tmp_path):
        """One call's error is not another's, and what failed changed nothing."""
        path = tmp_path / "state.json"
        path.write_text('{"text": "x"}', encoding="utf-8")
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            names = ["a", "text", "b", "text"]
            calls = [asyncio.create_task(ctx.incr(name)) for name in names]
            await asyncio.sleep(0.05)
        results = await asyncio.gather(*calls, return_exceptions=True)

        assert ([1, 1], {"text": "x", "a": 1, "b": 1}) == (results[::2], stored(path))
        assert [TypeError, TypeError] == [type(error) for error in results[1::2]]
        assert results[1] is not results[3]

    async def test_an_earlier_call_of_the_same_context_is_no_conflict(self, tmp_path):
        """A context is in no conflict with its own calls that were under way."""
        ctx = await PersistentContext.create(tmp_path / "state.json", on_conflict="raise")
        ctx["k"] = 1
        await ctx.save()
        with filelock.FileLock(f"{tmp_path}/state.json.lock"):
            calls = [asyncio.create_task(ctx.incr("k"))]
            await asyncio.sleep(0)
            ctx["k"] = 10
            calls.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
            ctx["k"] = 20
            calls.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0.05)
        await asyncio.gather(*calls)

        assert ({"k": 20}, set()) == (stored(tmp_path / "state.json"), ctx.unsaved_keys())


class TestTimeouts:
    async def test_calls_time_out_on_time_and_in_any_order(self, tmp_path):
        """One timer serves calls with different timeouts; who timed out changed nothing."""
        path = tmp_path / "state.json"
        ctx = PersistentContext(path, lock_timeout=100)
        with filelock.FileLock(f"{path}.lock"):
            patient = asyncio.create_task(ctx.incr("n"))
            for timeout in (0.2, 0, 0.05, 0.1):
                with pytest.raises(LockTimeoutError) as caught:
                    async with ctx.transaction(timeout=timeout):
                        raise AssertionError
                assert caught.value.waited >= timeout * 0.9
        assert 1 == await patient
        assert {"n": 1} == stored(path)
