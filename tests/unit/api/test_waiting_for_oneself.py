"""Timeouts of calls that wait for a transaction of their own process: the error says so, and how to fix it."""

import asyncio
import os
import pickle
import re
import sys
import threading

import filelock
import pytest

from persistent_context import (
    LockTimeoutError,
    OpenTransaction,
    PersistentContext,
    PersistentContextError,
    ReentrantTransactionError,
    SyncPersistentContext,
)
from persistent_context._engine.worker import pool

ADVICE = (
    "it cannot end if its own block waits for this call; use the transaction there, or make the call after the block"
)

A_LOCK_OF_THE_PARENT = """
import fcntl, os, sys
from persistent_context import SyncPersistentContext

with open(sys.argv[1] + ".lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    if (child := os.fork()) == 0:
        print(SyncPersistentContext(sys.argv[1]).lock_holder(), flush=True)
        os._exit(0)
    assert 0 == os.waitpid(child, 0)[1]
"""


class TestATransactionOfThisProcess:
    async def test_a_call_that_the_block_waits_for(self, path):
        """A call in a task that was started inside the block names the task that waits for it."""
        ctx = await PersistentContext.create(path, lock_timeout=0.05)
        asyncio.current_task().set_name("the holder")
        async with ctx.transaction():
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(ctx.incr("n"))
        error = caught.value

        assert re.fullmatch(
            re.escape(f"{path}: could not get the lock within 0.05 s (held by this process, in a transaction of task ")
            + r"'the holder' open for \d+\.\d s: "
            + re.escape(f"{ADVICE})"),
            str(error),
        )
        assert ("task 'the holder'", True) == (error.transaction.owner, error.transaction.seconds >= 0.05)
        assert (os.getpid(), "transaction") == (error.holder.pid, error.holder.purpose)

    def test_a_call_in_another_thread(self, path):
        """The error names the thread that is inside the blocking transaction."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0.05)
        errors = []

        def call():
            with pytest.raises(LockTimeoutError) as caught:
                ctx.incr("n")
            errors.append(caught.value)

        with ctx.transaction():
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

        assert [f"thread {threading.current_thread().name!r}"] == [error.transaction.owner for error in errors]

    async def test_a_blocking_call_that_a_task_waits_for(self, path):
        """A blocking call that the task inside hands to a thread gets an error that names the task."""
        ctx, other = await PersistentContext.create(path), SyncPersistentContext(path, lock_timeout=0)
        async with ctx.transaction():
            with pytest.raises(LockTimeoutError, match=r"lock at once \(held by this process, in a transaction of ta"):
                await asyncio.to_thread(other.incr, "n")

    def test_a_thread_that_has_ended(self, path):
        """A transaction that outlives the thread in which it was entered is shown with that thread's name."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0)
        transaction = ctx.transaction()
        thread = threading.Thread(target=transaction.__enter__, name="the former")
        thread.start()
        thread.join()
        with pytest.raises(LockTimeoutError) as caught:
            ctx.incr("n")
        transaction.__exit__(None, None, None)

        assert "thread 'the former'" == caught.value.transaction.owner

    async def test_it_pickles(self, path):
        """The error arrives in another process unchanged."""
        ctx = await PersistentContext.create(path, lock_timeout=0.02)
        async with ctx.transaction():
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(ctx.incr("n"))
        error = caught.value
        back = pickle.loads(pickle.dumps(error))

        assert (str(error), error.timeout, error.waited, error.holder, error.transaction) == (
            str(back), back.timeout, back.waited, back.holder, back.transaction,
        )  # fmt: skip

    async def test_its_description_is_safe_to_print(self):
        """The description escapes control characters in the name of a task."""
        assert r"a transaction of task '\x1b' open for 1.5 s" == str(OpenTransaction("task '\x1b'", 1.54))


class TestTheEndOfATransaction:
    async def test_a_handler_that_interrupts_it(self, path, monkeypatch):
        """A blocking call of a signal handler, before a thread ends the transaction, is refused, and does not wait."""
        ctx, submit, errors = await PersistentContext.create(path), pool.submit, []

        def interrupted(job, name):
            monkeypatch.undo()
            try:
                SyncPersistentContext(path, lock_timeout=5).incr("handled")
            except PersistentContextError as error:
                errors.append(error)
            return submit(job, name)

        async with ctx.transaction() as tx:
            tx["n"] = 1
            monkeypatch.setattr(pool, "submit", interrupted)
        await ctx.incr("n")

        assert [ReentrantTransactionError] == [type(one) for one in errors]
        assert {"n": 2} == ctx.get_all_data()

    async def test_a_blocking_call_of_another_task_waits_for_it(self, path, monkeypatch):
        """Once another thread ends it, a call that blocks the loop does not hold it up any more."""
        ctx, submit = await PersistentContext.create(path), pool.submit
        ends, go_on = asyncio.Event(), threading.Event()

        def slow(job, name):
            monkeypatch.undo()
            ends.set()
            return submit(lambda: (go_on.wait(60), job()), name)

        async def transact():
            async with ctx.transaction() as tx:
                tx["n"] = 1
                monkeypatch.setattr(pool, "submit", slow)

        transacting = asyncio.create_task(transact())
        await ends.wait()
        threading.Timer(0.1, go_on.set).start()

        assert 2 == SyncPersistentContext(path).incr("n")
        await transacting


class TestOthers:
    def test_a_transaction_of_another_process(self, face, path, hold_transaction):
        """Another process's transaction is described as usual, and not as one of this process."""
        ctx = face.open(path, lock_timeout=0.05)
        with hold_transaction(path) as held, pytest.raises(LockTimeoutError) as caught:
            face.do(ctx.incr, "n")
        error = caught.value

        assert (None, held.pid, False) == (error.transaction, error.holder.pid, "this process" in str(error))

    def test_the_timeout_is_that_of_the_call(self, face, path, hold):
        """The message has the timeout; how long the call waited is in an attribute."""
        ctx = face.open(path, lock_timeout=0.25)
        with hold(path):
            with pytest.raises(LockTimeoutError, match=r"could not get the lock within 0\.25 s \(") as long:
                face.do(ctx.incr, "n")
            with pytest.raises(LockTimeoutError, match=r"could not get the lock within 0\.125 s \(") as short:
                face.inside(ctx.transaction, dict, timeout=0.125)

        assert [0.25, 0.125] == [long.value.timeout, short.value.timeout]
        assert long.value.waited >= 0.25
        assert short.value.waited >= 0.125

    @pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to see which process has locked a file")
    def test_a_lock_that_this_process_took_otherwise(self, face, path, hold):
        """A lock taken with filelock in this process is recognized as such; a lock of another process is not."""
        ctx = face.open(path, lock_timeout=0.05)
        with filelock.FileLock(f"{path}.lock"):
            with pytest.raises(LockTimeoutError, match="which is this process: it locked the lock file without") as own:
                face.do(ctx.incr, "n")
            holder = face.do(ctx.lock_holder)
        with hold(path), pytest.raises(LockTimeoutError, match=r"\(held by an unidentified program\)$"):
            face.do(ctx.incr, "n")

        assert (os.getpid(), None, True) == (holder.pid, holder.purpose, holder.verified)
        assert holder == own.value.holder

    def test_a_lock_that_the_parent_took(self, path, run):
        """An inherited open lock file, as under flock(1), does not count as held by this process."""
        assert ["an unidentified program"] == run(A_LOCK_OF_THE_PARENT, path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [("", r"for mutate since [^,]*, which is this process\)"), ("foreign", r"\(held by an unidentified program\)")],
    )
    def test_a_long_call_of_this_process(self, path, content, message):
        """A function that runs under the lock keeps other calls waiting; without a stamp, no other holder is named."""
        ctx = SyncPersistentContext.create(path)
        begun, go_on = threading.Event(), threading.Event()

        def function(_):
            begun.set()
            go_on.wait(60)

        thread = threading.Thread(target=ctx.mutate, args=("a", function))
        path.with_name(path.name + ".lock").write_text(content, encoding="utf-8")
        thread.start()
        begun.wait(60)
        with pytest.raises(LockTimeoutError, match=message):
            SyncPersistentContext(path, lock_timeout=0.05).incr("n")
        go_on.set()
        thread.join()
