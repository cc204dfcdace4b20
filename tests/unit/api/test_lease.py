"""Leases on both faces: exclusive among tasks, threads and contexts, with tokens that grow."""

import asyncio
import contextlib
import gc
import os
import pickle
import threading

import pytest

from persistent_context import (
    ContextUsageError,
    Lease,
    LeaseHeldError,
    LockLostError,
    LockTimeoutError,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    metrics,
)

TAKE = """
import sys
from persistent_context import SyncPersistentContext

with SyncPersistentContext(sys.argv[1]).lease("a", wait=False) as lease:
    print(lease.token)
"""


def lease_files(path):
    return [file for file in path.parent.iterdir() if ".lease-" in file.name]


@pytest.fixture
def holder(path):
    """A thread that holds the lease "a" until the returned event is set."""
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with SyncPersistentContext(path).lease("a"):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    yield let_go
    let_go.set()
    thread.join()


class TestBothFaces:
    def test_a_lease_has_a_name_and_a_token_that_grows(self, face, path):
        """Each token is greater than all earlier ones, whichever context acquires the lease."""
        leases = [face.inside(face.open(path).lease, lambda lease: lease, name="job 7") for _ in range(3)]

        assert [Lease("job 7", lease.token) for lease in leases] == leases
        assert sorted({lease.token for lease in leases}) == [lease.token for lease in leases]

    def test_nothing_is_written_to_the_file(self, face, path):
        """A lease is not stored in the data file, and does not lock it."""
        ctx = face.open(path)
        found = face.inside(ctx.lease, lambda _: (path.exists(), SyncPersistentContext(path).incr("n")), name="a")

        assert ((False, 1), {"n": 1}) == (found, face.open(path).get_all_data())

    def test_one_that_is_held_is_refused(self, face, path, holder):
        """With ``wait=False`` the error names the lease and its holder at once."""
        ctx = face.open(path)
        with pytest.raises(LeaseHeldError, match=r"lease 'a' \(held by this process, in t") as caught:
            face.inside(ctx.lease, pytest.fail, name="a", wait=False)
        error = caught.value

        assert ("a", 0.0, os.getpid(), str(path)) == (error.name, error.timeout, error.holder.pid, error.filepath)
        assert isinstance(error, LockTimeoutError)
        assert (str(error), vars(error)) == (str(copy := pickle.loads(pickle.dumps(error))), vars(copy))  # noqa: S301

    def test_a_timeout(self, face, path, holder):
        """After ``timeout`` seconds the error names both as well; another lease is free, and this one is free later."""
        ctx = face.open(path)
        with pytest.raises(LeaseHeldError, match=r"lease 'a' within 0\.05 s \(held by this process, in t") as caught:
            face.inside(ctx.lease, pytest.fail, name="a", timeout=0.05)
        other = face.inside(ctx.lease, lambda lease: lease.name, name="b", wait=False)
        holder.set()

        assert ("b", "a") == (other, face.inside(ctx.lease, lambda lease: lease.name, name="a"))
        assert caught.value.waited >= 0.05

    def test_lock_timeout_does_not_limit_it(self, face, path, holder):
        """A lease may be held for long: by default the wait is unlimited."""
        ctx = face.open(path, lock_timeout=0)
        threading.Timer(0.3, holder.set).start()

        assert "a" == face.inside(ctx.lease, lambda lease: lease.name, name="a")

    def test_asking_for_ones_own_is_refused(self, face, path):
        """The same task or thread gets an error instead of waiting for itself, even through another context."""
        ctx = face.open(path)

        async def in_tasks():
            async with ctx.lease("a"), PersistentContext(path).lease("b"):
                async with PersistentContext(path).lease("a"):
                    pytest.fail("twice")

        def in_threads():
            with ctx.lease("a"), SyncPersistentContext(path).lease("b"), SyncPersistentContext(path).lease("a"):
                pytest.fail("twice")

        with pytest.raises(ReentrantTransactionError, match="lease 'a' belongs to its own task or thread"):
            face.do(in_tasks if face.name == "async" else in_threads)

        assert "a" == face.inside(ctx.lease, lambda lease: lease.name, name="a", wait=False)

    def test_an_error_of_the_block_releases_it(self, face, path):
        """The error of the block is raised, and the lease is free."""
        ctx = face.open(path)
        manager = ctx.lease("a")
        with pytest.raises(ZeroDivisionError):
            face.inside(lambda: manager, lambda _: 1 / 0)

        assert "a" == face.inside(ctx.lease, lambda lease: lease.name, name="a", wait=False)

    def test_a_deleted_file_is_noticed(self, face, path, run):
        """If the lease's file is deleted, the holder learns at the end that another may have held the lease too."""
        ctx = face.open(path)

        tokens = []

        def lose(first):
            lease_files(path)[0].unlink()
            tokens.extend([first.token, *map(int, run(TAKE, path))])

        with pytest.raises(LockLostError, match="lease 'a' was deleted or replaced") as caught:
            face.inside(ctx.lease, lose, name="a")

        assert (str(path), True) == (caught.value.filepath, tokens[0] < tokens[1])

    def test_losing_it_does_not_hide_an_error(self, face, path):
        """An error of the block is raised unchanged, with a note."""
        ctx = face.open(path)

        def fail(_):
            lease_files(path)[0].unlink()
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine") as caught:
            face.inside(ctx.lease, fail, name="a")

        assert ["another may have held it too"] == [note.rpartition(": ")[2] for note in caught.value.__notes__]

    def test_impossible_arguments(self, face, path):
        """Invalid arguments are refused when the lease is requested."""
        ctx = face.open(path)
        with pytest.raises(TypeError, match="name of a lease must be a str, not int"):
            ctx.lease(7)
        with pytest.raises(ValueError, match="wait=False"):
            ctx.lease("a", wait=False, timeout=1)
        with pytest.raises(ValueError, match="timeout must be"):
            ctx.lease("a", timeout=-1)


class TestMetrics:
    def test_leases_are_not_reported(self, face, path):
        """Neither listeners nor statistics count the time of a lease as time under the lock of the file."""
        ctx, heard = face.open(path), []
        stop = metrics.listen(heard.append)
        face.inside(ctx.lease, lambda _: None, name="a")
        face.do(ctx.incr, "n")
        stop()

        assert (["incr"], 1) == ([cycle.purpose for cycle in heard], ctx.statistics().cycles)


class TestTasks:
    async def test_one_task_at_a_time(self, path):
        """Tasks of one context and of several take turns in the order of their requests."""
        contexts = [await PersistentContext.create(path) for _ in range(2)]
        inside, order, tokens = 0, [], []

        async def work(number):
            nonlocal inside
            async with contexts[number % 2].lease("a") as lease:
                inside += 1
                assert 1 == inside
                order.append(number)
                tokens.append(lease.token)
                await asyncio.sleep(0)
                inside -= 1

        held = contexts[0].lease("a")
        await held.__aenter__()
        tasks = []
        for number in range(10):
            tasks.append(asyncio.create_task(work(number)))
            await asyncio.sleep(0.02)
        await held.__aexit__(None, None, None)
        await asyncio.gather(*tasks)

        assert (list(range(10)), sorted(set(tokens))) == (order, tokens)

    async def test_a_cancelled_wait_ends_at_once(self, path, holder):
        """A cancelled wait leaves nothing behind, and the calls behind it get the lease."""
        ctx = await PersistentContext.create(path)

        async def wait():
            async with ctx.lease("a") as lease:
                return lease.name

        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

        assert not holder.is_set()
        holder.set()
        assert "a" == await second

    async def test_cancelling_the_holder_releases_it(self, path):
        """The lease is free once its task has ended."""
        ctx, entered = await PersistentContext.create(path), asyncio.Event()

        async def hold():
            async with ctx.lease("a"):
                entered.set()
                await asyncio.sleep(3600)

        task = asyncio.create_task(hold())
        await entered.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        async with ctx.lease("a", wait=False) as lease:
            assert "a" == lease.name

    async def test_waiting_takes_no_thread_of_the_executor(self, path, holder):
        """However many tasks wait, the default executor is free, and one thread waits for the lease."""
        ctx = await PersistentContext.create(path)

        async def wait():
            async with ctx.lease("a"):
                pass

        before = threading.active_count()
        tasks = [asyncio.create_task(wait()) for _ in range(100)]
        await asyncio.sleep(0.1)
        assert "free" == await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30)
        assert threading.active_count() <= before + 4
        holder.set()
        await asyncio.gather(*tasks)

    async def test_a_lease_whose_task_was_discarded_is_released(self, path):
        """A lease is released when the task that held it is garbage-collected."""
        ctx = await PersistentContext.create(path)

        async def leases():
            async with ctx.lease("a") as lease:
                yield lease

        generator = leases()
        await anext(generator)
        del generator
        gc.collect()
        async with ctx.lease("a", timeout=30) as lease:
            assert "a" == lease.name

    async def test_a_context_of_another_loop(self, path):
        """A context of another event loop is refused, as for all other calls."""
        ctx = await PersistentContext.create(path)

        async def elsewhere():
            async with ctx.lease("a"):
                pytest.fail("it was used")

        with pytest.raises(ContextUsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())


class TestThreads:
    def test_one_thread_at_a_time(self, path):
        """Threads that share a context take turns."""
        ctx, inside, tokens = SyncPersistentContext(path), [], []

        def work():
            for _ in range(10):
                with ctx.lease("a") as lease:
                    inside.append(None)
                    assert 1 == len(inside)
                    tokens.append(lease.token)
                    inside.pop()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (40, sorted(set(tokens))) == (len(tokens), tokens)

    async def test_a_thread_that_would_block_the_holder_s_loop(self, path):
        """A blocking call for a lease that a task of the same event loop holds is refused."""
        ctx = await PersistentContext.create(path)
        async with ctx.lease("a"):
            with pytest.raises(ReentrantTransactionError, match="or to one that it blocks"):
                SyncPersistentContext(path).lease("a").__enter__()
