"""Waiting ends on time, whatever else is busy: other calls, anyio's threads, the executor, or a lost lock file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import filelock
import pytest

from persistent_context import LockLostError, LockTimeoutError, PersistentContext, SyncPersistentContext
from persistent_context._stores.jsonfile.store import JsonFileStore

THREADS = 4
JOBS = 12
LATE = 0.6  # seconds of delay that a busy machine may cause

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see who waits: run on Linux")


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def opened(path, pid="self"):
    """Return how often a process has the lock file open: a waiting call has, and so has the holder."""
    found = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{descriptor}") == os.path.realpath(f"{path}.lock")
    return found


async def ended(task, seconds=8.0):
    """Wait for the end of a task, but not forever; return how long it took."""
    began = time.monotonic()
    finished, _ = await asyncio.wait({task}, timeout=seconds)

    assert finished, "the call did not end"
    return time.monotonic() - began


# ---------------------------------------- timeouts


NO_DESCRIPTORS = """
import asyncio, os, resource, sys, threading, time
import filelock
from persistent_context import LockTimeoutError, PersistentContext, SyncPersistentContext

path, face = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
lock = filelock.FileLock(path + ".lock", thread_local=False)
lock.acquire()
eaten = []

def eat():
    try:
        while True:
            eaten.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass

def blocking():
    ctx = SyncPersistentContext(path, lock_timeout=0.6)
    timer = threading.Timer(0.3, eat)
    timer.start()
    try:
        ctx.incr("n")
    finally:
        timer.join()

async def on_a_loop():
    ctx = PersistentContext(path, lock_timeout=0.6)
    asyncio.get_running_loop().call_later(0.3, eat)
    await ctx.incr("n")

try:
    asyncio.run(on_a_loop()) if face == "async" else blocking()
except LockTimeoutError:
    print("timed out")
assert eaten
for descriptor in eaten:
    os.close(descriptor)
lock.release()
print(SyncPersistentContext(path, lock_timeout=5).incr("n"))
"""


class TestWaiting:
    @pytest.mark.parametrize("lock_timeout", [0, 1e-9, 1e-6])
    def test_a_free_lock_is_had_in_no_time(self, face, path, lock_timeout):
        """A call that need not wait does not time out, however short its timeout."""
        ctx = face.open(path, lock_timeout=lock_timeout, durable=False)

        assert list(range(1, 101)) == [face.do(ctx.incr, "n") for _ in range(100)]

    def test_a_save_that_gave_up_can_be_repeated(self, face, path, hold):
        """After a timeout the next save writes the changes."""
        ctx = face.open(path, lock_timeout=1)
        ctx.set("a", 2)
        with hold(path), pytest.raises(LockTimeoutError):
            face.do(ctx.save)
        face.do(ctx.save)

        assert ({"a": 2}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_a_save_waits_until_the_lock_is_free(self, path, hold):
        """A save without a timeout ends when the lock is released."""
        ctx = await PersistentContext.create(path, lock_timeout=math.inf)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await asyncio.sleep(0.05)
            written = path.exists()
        await saving

        assert (False, {"a": 1}) == (written, stored(path))

    def test_a_call_that_began_in_time_may_take_longer_than_its_timeout(self, tmp_path, monkeypatch):
        """The timeout only limits the wait: a cycle that has begun is waited for, and its result returned."""
        monkeypatch.setattr("persistent_context._api.blocking_calls.NAP_SECONDS", 0.02)
        ctx = SyncPersistentContext(tmp_path / "state.json", lock_timeout=0.05)

        def slow(value):
            time.sleep(0.3)
            return "done"

        assert "done" == ctx.mutate("a", slow)

    def test_no_descriptor_is_left_at_a_timeout(self, path, run, face):
        """A call that times out while the process has no free file descriptor raises LockTimeoutError."""
        assert ["timed out", "1"] == run(NO_DESCRIPTORS, path, face.name)


class TestTimeoutsAreExact:
    async def test_beside_calls_that_time_out_earlier(self, path):
        """Neither an earlier nor a later call of the same context changes a call's timeout."""
        timeouts = [0.35, 0.1, 0.65, 0.2, 0.5]
        ctx = PersistentContext(path, lock_timeout=60)
        over = []

        async def transact(timeout):
            with pytest.raises(LockTimeoutError) as caught:
                async with ctx.transaction(timeout=timeout):
                    raise AssertionError
            over.append((timeout, caught.value.waited))

        with filelock.FileLock(f"{path}.lock"):
            patient = asyncio.create_task(ctx.incr("n"))
            await asyncio.gather(*(transact(timeout) for timeout in timeouts))
        await patient

        assert sorted(timeouts) == [timeout for timeout, _ in over]
        for timeout, waited in over:
            assert timeout * 0.9 <= waited < timeout + LATE

    async def test_of_several_contexts(self, path):
        """Contexts of one file with different timeouts each wait for their own."""
        timeouts = [0.1, 0.25, 0.4]
        with filelock.FileLock(f"{path}.lock"):
            calls = [PersistentContext(path, lock_timeout=timeout).incr("n") for timeout in timeouts]
            errors = await asyncio.gather(*calls, return_exceptions=True)

        for timeout, error in zip(timeouts, errors, strict=True):
            assert isinstance(error, LockTimeoutError)
            assert timeout * 0.9 <= error.waited < timeout + LATE

    def test_of_threads(self, path):
        """Blocking calls of several threads on one context each wait for their own timeout."""
        ctx = SyncPersistentContext(path, lock_timeout=60)

        def transact(timeout):
            with pytest.raises(LockTimeoutError) as caught, ctx.transaction(timeout=timeout):
                raise AssertionError
            return timeout, caught.value.waited

        with filelock.FileLock(f"{path}.lock", thread_local=False), ThreadPoolExecutor(4) as pool:
            results = list(pool.map(transact, [0.1, 0.25, 0.4, 0.55]))

        for timeout, waited in results:
            assert timeout * 0.9 <= waited < timeout + LATE

    async def test_one_that_was_withdrawn_moves_nobodys(self, path):
        """A call that is cancelled leaves the timeout of the next one unchanged."""
        ctx = PersistentContext(path, lock_timeout=0.5)
        with filelock.FileLock(f"{path}.lock"):
            first = asyncio.create_task(PersistentContext.transaction(ctx, timeout=0.2).__aenter__())
            second = asyncio.create_task(ctx.incr("n"))
            third = asyncio.create_task(ctx.incr("n"))
            await asyncio.sleep(0.05)
            third.cancel()
            await asyncio.wait({first, second, third})

        assert isinstance(first.exception(), LockTimeoutError)
        assert 0.45 <= second.exception().waited < 0.5 + LATE


class TestATimeoutNeedsNobodysThreads:
    async def test_though_all_tokens_of_anyio_are_taken(self, path):
        """A timeout is reported although all of anyio's worker threads are busy."""
        release = threading.Event()
        tokens = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
        busy = [asyncio.create_task(anyio.to_thread.run_sync(release.wait)) for _ in range(tokens)]
        try:
            while anyio.to_thread.current_default_thread_limiter().available_tokens:
                await asyncio.sleep(0)
            with filelock.FileLock(f"{path}.lock"):
                call = asyncio.create_task(PersistentContext(path, lock_timeout=0.3).incr("n"))
                await ended(call)
        finally:
            release.set()
            await asyncio.gather(*busy)

        assert isinstance(call.exception(), LockTimeoutError)
        assert call.exception().waited < 0.3 + LATE

    @pytest.mark.parametrize("timeout", [0, 0.3])
    @pytest.mark.parametrize("lock", ["free", "held"])
    async def test_though_the_default_executor_is_full(self, path, lock, timeout):
        """A call with a short timeout ends in time, served or not, although the executor is full of other work."""
        release = threading.Event()
        with ThreadPoolExecutor(THREADS) as pool, contextlib.ExitStack() as stack:
            stack.callback(release.set)
            asyncio.get_running_loop().set_default_executor(pool)
            for _ in range(THREADS * 2):
                pool.submit(release.wait)
            if lock == "held":
                stack.enter_context(filelock.FileLock(f"{path}.lock"))
            call = asyncio.create_task(PersistentContext(path, lock_timeout=timeout).incr("n"))
            took = await ended(call)

        assert took < timeout + 2
        if lock == "held" or call.exception():
            assert isinstance(call.exception(), LockTimeoutError)
            assert not path.exists()
        else:
            assert {"n": 1} == stored(path)

    # ---------------------------------------- the default executor

    async def test_though_the_holder_cannot_be_found_out_soon(self, path, monkeypatch):
        """If finding out the holder takes too long, as on a hung file system, the timeout error lacks the holder."""
        ctx = PersistentContext(path, lock_timeout=0.05)
        release = threading.Event()
        monkeypatch.setattr("persistent_context._api.aio_calls._FIND_HOLDER_SECONDS", 0.05)
        monkeypatch.setattr(JsonFileStore, "holder", lambda self, *, probe: release.wait(20) and None)
        with filelock.FileLock(f"{path}.lock"), pytest.raises(LockTimeoutError) as caught:
            await ctx.incr("n")
        release.set()

        assert (None, str(path)) == (caught.value.holder.pid, caught.value.filepath)


class TestTheExecutorIsFullOfThreadsThatCallUs:
    @pytest.mark.parametrize("kind", ["incr", "save", "load", "create", "transaction"])
    async def test_they_are_served(self, path, kind):
        """Threads that fill the default executor and wait for calls on the loop all get their results."""
        loop = asyncio.get_running_loop()
        ctx = PersistentContext(path, lock_timeout=4)
        await ctx.load()

        async def call(number):
            if kind == "incr":
                await ctx.incr("n")
            elif kind == "save":
                ctx[f"k{number}"] = number
                await ctx.save()
            elif kind == "load":
                await ctx.load()
            elif kind == "create":
                await PersistentContext.create(path)
            else:
                async with ctx.transaction() as tx:
                    tx["n"] = tx.get("n", 0) + 1

        def from_a_thread(number):
            asyncio.run_coroutine_threadsafe(call(number), loop).result(6)

        with ThreadPoolExecutor(THREADS) as pool:
            loop.set_default_executor(pool)
            jobs = [loop.run_in_executor(None, from_a_thread, number) for number in range(JOBS)]
            results = await asyncio.gather(*jobs, return_exceptions=True)

        assert [None] * JOBS == results
        if kind in ("incr", "transaction"):
            assert {"n": JOBS} == stored(path)
        elif kind == "save":
            assert {f"k{number}": number for number in range(JOBS)} == stored(path)


# ---------------------------------------- timeout and cancelling at once


class TestATimeoutAndACancelAtOnce:
    @pytest.mark.parametrize("kind", ["transaction", "incr", "save"])
    @pytest.mark.parametrize("cancel_at", [0.01, 0.02, 0.03])
    async def test_one_of_the_two_comes_out(self, path, kind, cancel_at):
        """A call that times out and is cancelled in the same turn of the loop raises one of the two, without effect."""
        loop = asyncio.get_running_loop()
        ctx = PersistentContext(path, lock_timeout=0.02)
        ctx["mine"] = 1

        async def call():
            if kind == "transaction":
                async with ctx.transaction():
                    raise AssertionError
            await (ctx.incr("n") if kind == "incr" else ctx.save())

        with filelock.FileLock(f"{path}.lock"):
            for _ in range(5):
                task = asyncio.create_task(call())
                for _ in range(5):
                    await asyncio.sleep(0)
                loop.call_later(cancel_at, task.cancel)
                loop.call_later(0.002, time.sleep, 0.05)  # the loop stalls, and then finds both to be due
                await ended(task)
                if not task.cancelled():
                    assert isinstance(task.exception(), LockTimeoutError)
        assert 1 == await PersistentContext(path).incr("probe")

        assert {"probe": 1} == stored(path)

    async def test_at_any_turn_after_the_timeout(self, path):
        """Cancelled any number of turns after its timeout, entering a transaction raises one of the two."""
        ctx = PersistentContext(path, lock_timeout=0.05)
        with filelock.FileLock(f"{path}.lock"):
            for turns in range(10):
                loop = asyncio.get_running_loop()
                task = asyncio.create_task(ctx.transaction().__aenter__())
                await asyncio.sleep(0)
                loop.call_later(0.01, time.sleep, 0.1)
                await asyncio.sleep(0.04)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await ended(task)
                if not task.cancelled():
                    assert isinstance(task.exception(), LockTimeoutError)
        assert 1 == await ctx.incr("probe")


# ---------------------------------------- the lock file is replaced


class TestTheLockIsTakenAway:
    """The lock file is replaced during a cycle, and another program holds the new one for a long time."""

    @staticmethod
    def take_away(path, stack, done):
        """Return a function for ``mutate`` that replaces the lock file by one that another program holds."""

        def fn(value):
            if not done.is_set():
                os.unlink(f"{path}.lock")
                stack.enter_context(filelock.FileLock(f"{path}.lock", thread_local=False))
                done.set()
            return value + 1

        return fn

    async def test_a_call_times_out(self, path):
        """A call that has to wait again keeps its original timeout."""
        done = threading.Event()
        with contextlib.ExitStack() as stack:
            ctx = PersistentContext(path, lock_timeout=1)
            call = asyncio.create_task(ctx.mutate("n", self.take_away(path, stack, done), default=0))
            await ended(call)

        assert done.is_set()
        assert isinstance(call.exception(), LockTimeoutError)
        assert 1 == await ctx.incr("n")

    def test_a_blocking_call_times_out(self, path):
        """A blocking call that has to wait again keeps its original timeout."""
        done = threading.Event()
        with contextlib.ExitStack() as stack:
            ctx = SyncPersistentContext(path, lock_timeout=1)
            stack.callback(lambda: watchdog.cancel())
            began = time.monotonic()
            watchdog = threading.Timer(8, stack.pop_all)  # releases the lock if the call hangs
            with pytest.raises(LockTimeoutError):
                ctx.mutate("n", self.take_away(path, stack, done), default=0)

            assert time.monotonic() - began < 6
        assert 1 == ctx.incr("n")

    @pytest.mark.parametrize("timeout", [60, 1])
    async def test_a_cancelled_call_ends(self, path, timeout):
        """A call that is cancelled after its cycle had begun and has to be repeated ends, since it is only waiting."""
        done = threading.Event()
        with contextlib.ExitStack() as stack:
            ctx = PersistentContext(path, lock_timeout=timeout)
            call = asyncio.create_task(ctx.mutate("n", self.take_away(path, stack, done), default=0))
            while not done.is_set():
                await asyncio.sleep(0)
            call.cancel()
            await ended(call)

        assert call.cancelled()
        assert 1 == await ctx.incr("n")

    def test_an_interrupted_call_ends(self, path, run):
        """A blocking call that is interrupted after its cycle had begun and has to be repeated ends as well."""
        assert ["interrupted", "1"] == run(INTERRUPTED, path)

    @linux
    def test_one_who_waits_behind_a_stopped_holder_goes_on(self, path, hold_transaction, spawn):
        """A process that waits behind a stopped holder notices that the lock file was deleted, and continues."""
        held = hold_transaction(path)
        waiting = spawn("import faulthandler; faulthandler.dump_traceback_later(60, exit=True)\n" + WAIT, path)
        assert "begun" == waiting.hear()
        while not opened(path, waiting.pid):
            assert waiting.running()
            time.sleep(0.001)
        os.kill(held.pid, signal.SIGSTOP)
        try:
            os.unlink(f"{path}.lock")

            assert "1" == waiting.hear()
        finally:
            os.kill(held.pid, signal.SIGCONT)
        with pytest.raises(pytest.fail.Exception, match=LockLostError.__name__):
            held.release()

        assert {"n": 1} == stored(path)


INTERRUPTED = """
import contextlib, os, signal, sys
import filelock
from persistent_context import SyncPersistentContext

path = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)
done = False
lock = None

def fn(value):
    global done, lock
    if not done:
        done = True
        os.unlink(path + ".lock")
        lock = filelock.FileLock(path + ".lock", thread_local=False)
        lock.acquire()
        os.kill(os.getpid(), signal.SIGINT)
    return value + 1

ctx = SyncPersistentContext(path, lock_timeout=60)
try:
    ctx.mutate("n", fn, default=0)
except KeyboardInterrupt:
    print("interrupted")
lock.release()
print(ctx.incr("n"))
"""

WAIT = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext(sys.argv[1], lock_timeout=60)
print("begun", flush=True)
print(ctx.incr("n"), flush=True)
"""


# ---------------------------------------- the loop

IMPORTING = """
import asyncio, contextlib, sys, threading
import filelock
from persistent_context import LockTimeoutError, PersistentContext

path = sys.argv[1]
found = []

class Spy:
    @staticmethod
    def find_spec(name, *_):
        on_the_loop = threading.current_thread() is threading.main_thread()
        if on_the_loop and name.partition(".")[0] not in sys.stdlib_module_names:
            found.append(name)

async def cancelled(call):
    task = asyncio.ensure_future(call)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()

async def transact(ctx, timeout=None):
    async with ctx.transaction(timeout=timeout) as tx:
        tx["t"] = 1

async def main():
    sys.meta_path.insert(0, Spy)
    ctx = PersistentContext(path)
    with filelock.FileLock(path + ".lock"):
        await cancelled(ctx.incr("n"))
        await cancelled(ctx.save())
        await cancelled(transact(ctx))
        with contextlib.suppress(LockTimeoutError):
            await transact(ctx, timeout=0.05)
    await ctx.load()
    ctx["k"] = 1
    await ctx.save()
    await ctx.incr("n")
    await transact(ctx)
    await ctx.lock_holder()

asyncio.run(main())
print(*found)
"""

FROZEN = """
import asyncio, contextlib, os, sys, threading, time
import filelock
from persistent_context import PersistentContext, PersistentContextError, SyncPersistentContext

path, how = sys.argv[1:3]

def opened():
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{descriptor}") == os.path.realpath(path + ".lock")
    return found

async def transact(ctx, entered=None, leave=None):
    async with ctx.transaction() as tx:
        tx["n"] = tx.get("n", 0) + 1
        if entered:
            entered.set()
            await leave.wait()

async def main():
    ctx = PersistentContext(path, lock_timeout=60)
    entered, leave = asyncio.Event(), asyncio.Event()
    if how == "waiting":
        lock = filelock.FileLock(path + ".lock", thread_local=False)
        lock.acquire()
        task = asyncio.create_task(transact(ctx))
        while opened() < 2:
            await asyncio.sleep(0)
        threading.Timer(0.3, lock.release).start()
    else:
        task = asyncio.create_task(transact(ctx, entered, leave))
        await entered.wait()
    began = time.monotonic()
    try:
        SyncPersistentContext(path, lock_timeout=8).incr("m")
    except PersistentContextError as error:
        assert time.monotonic() - began < 5, f"the loop stalled until the timeout: {error}"
    leave.set()
    await asyncio.wait_for(task, 5)
    await ctx.incr("n")

asyncio.run(main())
print(SyncPersistentContext.create(path)["n"])
"""


class TestTheLoopIsNotStalled:
    def test_by_an_import(self, path, run):
        """No call imports a package in the loop's thread, including the first one that is cancelled."""
        assert [""] == run(IMPORTING, path)

    @linux
    @pytest.mark.parametrize("how", ["waiting", "open"])
    def test_by_a_blocking_call_behind_its_own_transaction(self, path, run, how):
        """A blocking call in the loop's thread, behind a transaction of the same loop, is served or refused."""
        assert ["2"] == run(FROZEN, path, how)
