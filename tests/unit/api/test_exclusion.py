"""A transaction excludes all other tasks, threads, contexts and processes, and a nested call fails at once."""

import asyncio
import concurrent.futures
import json
import os
import threading

import pytest

from persistent_context import (
    ContextUsageError,
    LockTimeoutError,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    UnsavedInTransactionWarning,
)

TRANSFER = """
import asyncio, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, face, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

async def transfer_async():
    ctx = await PersistentContext.create(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        async with ctx.transaction() as tx:
            a, b = tx["a"], tx["b"]
            await asyncio.sleep(0)
            tx["a"] = a - 1
            tx["b"] = b + 1

def transfer_sync():
    ctx = SyncPersistentContext.create(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        with ctx.transaction() as tx:
            tx["a"] -= 1
            tx["b"] += 1

if face == "async":
    asyncio.run(transfer_async())
else:
    transfer_sync()
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


async def turns(count=50):
    """Let every other task run until it waits for something external."""
    for _ in range(count):
        await asyncio.sleep(0)


CALLS = {
    "save": lambda ctx: ctx.save(),
    "incr": lambda ctx: ctx.incr("n"),
    "add": lambda ctx: ctx.add("n", 1),
    "compare_and_set": lambda ctx: ctx.compare_and_set("n", 1, 2),
    "mutate": lambda ctx: ctx.mutate("n", lambda _: 1),
}


class TestReentrancyOfTheAsyncFace:
    @pytest.mark.parametrize("which", ["same", "other", "linked", "sync"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_call_inside_raises_at_once(self, path, call, which):
        """A call on the same file by the same task, through any context, raises at once instead of deadlocking."""
        path.write_text('{"n": 1}', encoding="utf-8")
        link = path.with_name("link.json")
        link.symlink_to(path)
        ctx = await PersistentContext.create(path)
        used = {
            "same": lambda: ctx,
            "other": lambda: PersistentContext(path),
            "linked": lambda: PersistentContext(link),
            "sync": lambda: SyncPersistentContext(path),
        }[which]()
        used.set("x", 1)
        async with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                result = call(used)
                if which != "sync":
                    await result
            tx["n"] = 5

        assert {"n": 5} == stored(path)

    @pytest.mark.parametrize("which", ["same", "other"])
    async def test_a_second_transaction_raises_at_once(self, path, which):
        """A transaction inside a transaction on the same file is an error; the outer one goes on."""
        ctx = await PersistentContext.create(path)
        used = ctx if which == "same" else await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(ReentrantTransactionError):
                async with used.transaction() as inner:
                    inner["a"] = 2
            tx["b"] = 1

        assert {"a": 1, "b": 1} == stored(path)

    async def test_a_sync_transaction_inside_raises_at_once(self, path):
        """A transaction of the other face raises, too."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                with SyncPersistentContext(path).transaction() as inner:
                    inner["a"] = 2
            tx["a"] = 1

        assert {"a": 1} == stored(path)

    async def test_a_group_around_the_call_does_not_hide_it(self, path):
        """A call awaited through other coroutines is still in the same task."""
        ctx = await PersistentContext.create(path)

        async def far_away():
            async with asyncio.timeout(60):
                await ctx.save()

        async with ctx.transaction():
            with pytest.raises(ReentrantTransactionError):
                await far_away()

    async def test_load_inside_works(self, path):
        """Reading needs no lock: load() inside a transaction sees the committed state."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 2
            await ctx.load()
            inside = ctx["a"]

        assert (1, 2, 2) == (inside, stored(path)["a"], ctx["a"])

    async def test_loading_another_context_inside_works(self, path):
        """Another context can be created and loaded inside a transaction."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 2
            other = await PersistentContext.create(path)

        assert 1 == other["a"]

    async def test_another_file_inside_works(self, path):
        """Only the same file is excluded."""
        ctx = await PersistentContext.create(path)
        other = await PersistentContext.create(path.with_name("other.json"))
        async with ctx.transaction() as tx:
            tx["n"] = await other.incr("n")
            async with other.transaction() as inner:
                inner["m"] = 1

        assert ({"n": 1}, {"n": 1, "m": 1}) == (stored(path), stored(path.with_name("other.json")))

    async def test_after_the_end_calls_work_again(self, path):
        """The same task may call again when its transaction is over."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["n"] = 1
        with pytest.raises(LookupError):
            async with ctx.transaction():
                raise LookupError

        assert 2 == await ctx.incr("n")

    async def test_it_is_a_usage_error(self, path):
        """The error is a ContextUsageError and a RuntimeError."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction():
            with pytest.raises(ContextUsageError) as caught:
                await ctx.save()

        assert (True, True) == (isinstance(caught.value, RuntimeError), "state.json" in str(caught.value))


class TestTasks:
    @pytest.mark.parametrize("which", ["same", "other"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_task_started_inside_waits(self, path, call, which):
        """A task that was started inside is another task: its timeout error names this process."""
        ctx = await PersistentContext.create(path, lock_timeout=0.05)
        used = ctx if which == "same" else await PersistentContext.create(path, lock_timeout=0.05)
        used.set("x", 1)
        async with ctx.transaction(timeout=30) as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(call(used))

        assert (os.getpid(), {"a": 1}) == (caught.value.holder.pid, stored(path))

    async def test_a_transaction_of_a_task_started_inside_waits(self, path):
        """A transaction in a task that was started inside waits as well."""
        ctx = await PersistentContext.create(path)

        async def inner():
            async with ctx.transaction(timeout=0.05) as tx:
                tx["a"] = 2

        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(inner())

        assert (os.getpid(), {"a": 1}) == (caught.value.holder.pid, stored(path))

    async def test_a_thread_started_inside_waits(self, path):
        """A thread that was started inside is not part of the task: its timeout error names this process."""
        ctx = await PersistentContext.create(path)
        worker = SyncPersistentContext.create(path, lock_timeout=0.05)
        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.to_thread(worker.incr, "n")

        assert os.getpid() == caught.value.holder.pid

    async def test_a_task_that_waited_goes_on_afterwards(self, path):
        """A call that waits for a transaction of the same process gets its turn."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            waiting = asyncio.create_task(ctx.incr("n"))
            await turns()
            waited = not waiting.done()
            tx["n"] = 10

        assert (True, 11) == (waited, await waiting)

    async def test_a_task_started_inside_may_outlive_it(self, path):
        """After the transaction, a task that was started inside it runs like any other task."""
        ctx = await PersistentContext.create(path)
        ended = asyncio.Event()

        async def later():
            await ended.wait()
            async with ctx.transaction() as tx:
                tx["a"] += 1
            return await ctx.incr("a")

        async with ctx.transaction() as tx:
            task = asyncio.create_task(later())
            tx["a"] = 1
        ended.set()

        assert 3 == await task

    async def test_the_holder_can_always_finish(self, path):
        """However many calls wait, and with one executor thread, the task that holds the transaction commits."""
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        contexts = [await PersistentContext.create(path) for _ in range(5)]
        async with contexts[0].transaction() as tx:
            waiting = [asyncio.create_task(contexts[number % 5].incr("n")) for number in range(50)]
            for number, ctx in enumerate(contexts):
                with pytest.warns(UnsavedInTransactionWarning):
                    ctx.set(f"key-{number}", number)
                waiting.append(asyncio.create_task(ctx.save()))
            await turns()
            await contexts[1].load()
            tx["n"] = 100
        await asyncio.gather(*waiting)

        assert 150 == stored(path)["n"]

    async def test_transactions_of_tasks_exclude_each_other(self, path):
        """No other task's transaction comes between a read and a write of one task's transaction."""
        path.write_text('{"n": 0}', encoding="utf-8")
        contexts = [await PersistentContext.create(path) for _ in range(3)]

        async def count(ctx):
            for _ in range(5):
                async with ctx.transaction() as tx:
                    number = tx["n"]
                    await turns(5)
                    tx["n"] = number + 1

        await asyncio.gather(*(count(contexts[number % 3]) for number in range(12)))

        assert {"n": 60} == stored(path)

    async def test_transactions_and_calls_exclude_each_other(self, path):
        """Atomic calls and saves of other tasks come before or after a transaction, never inside."""
        path.write_text('{"n": 0}', encoding="utf-8")
        ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)

        async def transact():
            for _ in range(10):
                async with ctx.transaction() as tx:
                    number = tx["n"]
                    await turns(5)
                    tx["n"] = number + 1

        async def call(number):
            for turn in range(10):
                await other.incr("n")
                other.set(f"key-{number}", turn)
                await other.save()

        await asyncio.gather(transact(), transact(), *(call(number) for number in range(3)))

        assert {"n": 50, "key-0": 9, "key-1": 9, "key-2": 9} == stored(path)

    async def test_only_one_is_open_at_a_time(self, path):
        """At most one transaction on a file is open in a process at any time."""
        contexts = [await PersistentContext.create(path) for _ in range(3)]
        open_now, most = 0, 0

        async def transact(ctx):
            nonlocal open_now, most
            async with ctx.transaction():
                open_now += 1
                most = max(most, open_now)
                await turns(5)
                open_now -= 1

        await asyncio.gather(*(transact(contexts[number % 3]) for number in range(30)))

        assert 1 == most


class TestTheSyncFace:
    @pytest.mark.parametrize("which", ["same", "other", "linked"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_a_call_inside_raises_at_once(self, path, call, which):
        """A call on the same file by the same thread, through any context, raises at once instead of deadlocking."""
        path.write_text('{"n": 1}', encoding="utf-8")
        link = path.with_name("link.json")
        link.symlink_to(path)
        ctx = SyncPersistentContext.create(path)
        used = {"same": ctx, "other": SyncPersistentContext(path), "linked": SyncPersistentContext(link)}[which]
        used.set("x", 1)
        with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                call(used)
            tx["n"] = 5

        assert {"n": 5} == stored(path)

    def test_a_second_transaction_raises_at_once(self, path):
        """A transaction inside a transaction on the same file is an error; the outer one goes on."""
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(ReentrantTransactionError):
                with ctx.transaction() as inner:
                    inner["a"] = 2
            tx["b"] = 1

        assert {"a": 1, "b": 1} == stored(path)

    def test_load_inside_works(self, path):
        """Reading needs no lock: load() inside a transaction sees the committed state."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            tx["a"] = 2
            ctx.load()
            inside = ctx["a"]

        assert (1, 2, 2) == (inside, stored(path)["a"], ctx["a"])

    def test_another_file_inside_works(self, path):
        """Only the same file is excluded."""
        ctx = SyncPersistentContext.create(path)
        other = SyncPersistentContext.create(path.with_name("other.json"))
        with ctx.transaction() as tx:
            tx["n"] = other.incr("n")
            with other.transaction() as inner:
                inner["m"] = 1

        assert ({"n": 1}, {"n": 1, "m": 1}) == (stored(path), stored(path.with_name("other.json")))

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_another_thread_waits(self, path, call):
        """Another thread waits, and its timeout error names this process."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0.05)
        ctx.set("x", 1)
        with ctx.transaction(timeout=30) as tx, concurrent.futures.ThreadPoolExecutor(1) as pool:
            tx["a"] = 1
            error = pool.submit(call, ctx).exception()

        assert (True, os.getpid()) == (isinstance(error, LockTimeoutError), error.holder.pid)

    def test_another_thread_goes_on_afterwards(self, path):
        """A thread that waited gets its turn."""
        ctx = SyncPersistentContext.create(path)
        begun = threading.Event()

        def count():
            begun.set()
            return ctx.incr("n")

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with ctx.transaction() as tx:
                waiting = pool.submit(count)
                begun.wait()
                tx["n"] = 10

            assert 11 == waiting.result()

    def test_a_loop_in_another_thread_waits(self, path):
        """A task waits for a thread's transaction, and its timeout error names this process."""
        ctx = SyncPersistentContext.create(path)

        async def count():
            return await PersistentContext(path, lock_timeout=0.05).incr("n")

        with ctx.transaction(), concurrent.futures.ThreadPoolExecutor(1) as pool:
            error = pool.submit(asyncio.run, count()).exception()

        assert (True, os.getpid()) == (isinstance(error, LockTimeoutError), error.holder.pid)

    def test_transactions_of_threads_exclude_each_other(self, path):
        """No other thread's transaction comes between a read and a write of one thread's transaction."""
        path.write_text('{"n": 0}', encoding="utf-8")
        shared = SyncPersistentContext.create(path)

        def count(number):
            ctx = shared if number % 2 else SyncPersistentContext.create(path)
            for _ in range(10):
                with ctx.transaction() as tx:
                    value = tx["n"]
                    os.sched_yield()
                    tx["n"] = value + 1

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(count, range(6)))

        assert {"n": 60} == stored(path)


class TestProcesses:
    @pytest.mark.parametrize("faces", [("sync", "sync"), ("async", "async"), ("sync", "async")], ids="-".join)
    def test_transactions_of_processes_exclude_each_other(self, path, spawn, faces):
        """When several processes move amounts between two keys, the total stays the same."""
        path.write_text('{"a": 1000, "b": 0}', encoding="utf-8")
        children = [spawn(TRANSFER, path, face, 40) for face in (*faces, faces[0])]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        for child in children:
            child.finish()

        assert {"a": 880, "b": 120} == stored(path)

    def test_a_call_that_waits_behind_a_process_gets_its_turn(self, face, path, hold_transaction, spawn):
        """A call waits for a transaction of another process, and sees its result."""
        ctx = face.open(path)
        waiter = (
            "import sys\n"
            "from persistent_context import SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1])\n"
            "print('ready', flush=True)\n"
            "with ctx.transaction() as tx:\n"
            "    print(tx['holder'], flush=True)\n"
            "    tx['waiter'] = 'was here'\n"
        )
        with hold_transaction(path):
            child = spawn(waiter, path)
            child.hear()
        heard = child.finish()
        seen = face.inside(ctx.transaction, dict)

        assert (["child"], {"holder": "child", "waiter": "was here"}) == (heard, seen)

    def test_a_transaction_of_ours_excludes_another_process(self, face, path, spawn):
        """While a transaction of this process is open, another process gets a timeout error that names this process."""
        code = (
            "import sys\n"
            "from persistent_context import LockTimeoutError, SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1], lock_timeout=0.05)\n"
            "try:\n"
            "    ctx.incr('n')\n"
            "except LockTimeoutError as error:\n"
            "    print(error.holder.pid, flush=True)\n"
        )
        ctx = face.open(path)
        said = face.inside(ctx.transaction, lambda tx: spawn(code, path).finish())

        assert ([str(os.getpid())], False) == (said, path.exists())
