"""What shows for a moment only: temporaries, new files, waiting, and the order in which calls are told."""

import asyncio
import errno
import json
import os
import selectors
import stat
import threading
import time
from types import SimpleNamespace

import anyio
import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._stores.jsonfile import store as _store

STOP_BEFORE_THE_FIRST_SYNC = """
import os, sys
from persistent_context import SyncPersistentContext

sync = os.fsync

def wait_first(fd):
    os.fsync = sync
    print("written", flush=True)
    sys.stdin.readline()
    sync(fd)

ctx = SyncPersistentContext.create(sys.argv[1])
os.fsync = wait_first
print(ctx.incr("n"), flush=True)
"""


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """The names of all files beside the file and its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


@pytest.fixture
def queued(path):
    """Wait until somebody stands in the kernel's queue for the lock; return whether this came to pass."""
    if not os.path.exists("/proc/locks"):
        pytest.skip("needs /proc/locks to see who waits for a lock: run on Linux")

    def stands():
        lock = f":{path.with_name('state.json.lock').stat().st_ino} "
        with open("/proc/locks", encoding="ascii") as file:
            return any(" -> FLOCK" in line and lock in line for line in file)

    def wait():
        tick = threading.Event()
        deadline = time.monotonic() + 10
        while not (found := stands()) and time.monotonic() < deadline:
            tick.wait(0.005)
        return found

    return wait


@pytest.fixture
def half_way(path, spawn):
    """Another process that has written its temporary, and has not replaced the file yet."""
    path.write_text('{"n": 1}', encoding="utf-8")
    child = spawn(STOP_BEFORE_THE_FIRST_SYNC, path)
    assert child.hear() == "written"
    return child


@pytest.fixture
def created(monkeypatch):
    """The mode with which each file is made, by the end of its name, in a process that lets in everybody it may."""
    modes = {}
    real = os.open

    def recording(path, flags, mode=0o777, **options):
        fd = real(path, flags, mode, **options)
        if flags & os.O_CREAT:
            modes[os.path.splitext(path)[1]] = stat.S_IMODE(os.fstat(fd).st_mode)
        return fd

    monkeypatch.setattr(os, "open", recording)
    mask = os.umask(0)
    yield modes
    os.umask(mask)


class TestTemporaries:
    def test_one_that_a_killed_writer_left_is_removed(self, path, half_way):
        """The next writer removes what one that was killed in mid-write left behind."""
        half_way.kill()
        left = temporaries(path)
        SyncPersistentContext(path).incr("n")

        assert (1, [], {"n": 2}) == (len(left), temporaries(path), stored(path))

    def test_one_whose_writer_lives_stays(self, path, half_way):
        """A writer that is slow keeps its temporary, even if its lock file was deleted, and loses no change."""
        mine = temporaries(path)
        path.with_name("state.json.lock").unlink()
        number = SyncPersistentContext(path).incr("n")
        still_mine = temporaries(path)
        half_way.say()

        assert (1, mine, 2) == (len(mine), still_mine, number)
        assert (["3"], {"n": 3}, []) == (half_way.finish(), stored(path), temporaries(path))

    def test_one_that_somebody_planted_is_not_used(self, path, monkeypatch):
        """Even who guesses the name of the next temporary cannot have the document written to a file of theirs."""
        ctx = SyncPersistentContext.create(path)
        ctx.save()
        monkeypatch.setattr(os, "urandom", bytes)
        planted = path.with_name(f".state.json.{bytes(8).hex()}.tmp")
        planted.write_bytes(b"theirs")
        ctx.set("secret", 1)
        with pytest.raises(FileExistsError):
            ctx.save()

        assert (b"theirs", {}, {"secret"}) == (planted.read_bytes(), stored(path), ctx.unsaved_keys())

    def test_one_is_never_open_to_more_users_than_the_file(self, path, created):
        """From its first moment on, nobody can read the temporary who could not read the file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".tmp"]


class TestTheLockFile:
    def test_it_is_never_open_to_more_users_than_the_file(self, path, created):
        """From its first moment on, nobody can lock who could not write the file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".lock"]

    def test_a_deleted_one_that_was_waited_for_is_no_lock(self, path, hold, queued):
        """A transaction whose lock file is deleted while it waits has its turn under the new one, and commits."""

        async def wait():
            ctx = await PersistentContext.create(path)
            lock = path.with_name("state.json.lock")

            async def transact():
                async with ctx.transaction() as tx:
                    tx["n"] = 1
                    return lock.exists()

            with hold(path):
                waiting = asyncio.create_task(transact())
                assert await asyncio.to_thread(queued)
                lock.unlink()
            return await waiting

        assert (True, {"n": 1}) == (asyncio.run(wait()), stored(path))


class TestOneCycleAtATime:
    async def test_calls_of_both_faces_never_run_at_the_same_time(self, path):
        """While a call of one thread changes the file, that of another thread of the same process waits."""
        begun, second_ran = threading.Event(), threading.Event()

        def first(value):
            begun.set()
            return [*value, "first", second_ran.wait(0.3)]

        def second(value):
            second_ran.set()
            return [*value, "second"]

        ctx, other = PersistentContext(path), SyncPersistentContext(path)
        calling = asyncio.create_task(ctx.mutate("log", first, default=[]))
        await asyncio.to_thread(begun.wait)
        last = await asyncio.to_thread(other.mutate, "log", second, [])
        await calling

        assert ["first", False, "second"] == last == stored(path)["log"]


class TestSyncing:
    def test_a_failed_sync_is_not_tried_again(self, path, monkeypatch):
        """After a failed fsync the kernel would say yes to a second one: what was written is thrown away."""
        ctx = SyncPersistentContext.create(path)
        ctx.save()
        answers = []
        real = os.fsync

        def fail_once(fd):
            answers.append(stat.S_ISREG(os.fstat(fd).st_mode))
            if len(answers) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, "fsync", fail_once)
        ctx.set("a", 1)
        with pytest.raises(OSError, match="Input/output error"):
            ctx.save()

        assert ([True], {}, []) == (answers, stored(path), temporaries(path))


class TestASecondLook:
    def test_a_file_that_is_finished_between_two_looks_is_taken(self, path, monkeypatch):
        """A program that takes no lock, and is just writing the file in place, is given the time to finish."""
        path.write_text('{"theirs": ', encoding="utf-8")

        def finish_it(_seconds):
            path.write_text('{"theirs": 1}', encoding="utf-8")

        monkeypatch.setattr(_store, "time", SimpleNamespace(sleep=finish_it, monotonic=time.monotonic))
        SyncPersistentContext(path).incr("n")

        assert ({"theirs": 1, "n": 1}, []) == (stored(path), temporaries(path))


class TestWaiting:
    def test_who_waits_stands_in_the_queue_of_the_kernel(self, path, hold, queued):
        """A process that waits for the lock is in the kernel's queue, where nobody overtakes it."""
        caller = threading.Thread(target=SyncPersistentContext(path).incr, args=["n"])
        with hold(path):
            caller.start()
            found = queued()
        caller.join()

        assert (True, {"n": 1}) == (found, stored(path))


class TestDelivery:
    async def test_memory_is_told_of_changes_in_the_order_in_which_they_were_made(self, path):
        """A call whose result is slow to arrive does not put an older value over the one of a later call."""
        arriving, overtaken = threading.Event(), threading.Event()

        class SlowOnce(PersistentContext):
            def _deliver(self, requests):
                if not arriving.is_set():
                    arriving.set()
                    overtaken.wait(60)
                super()._deliver(requests)

        ctx = SlowOnce(path)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.to_thread(arriving.wait)
        second = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        third = asyncio.create_task(asyncio.to_thread(SyncPersistentContext(path).incr, "n"))
        early, _ = await asyncio.wait([second, third], timeout=0.5)
        overtaken.set()

        assert (set(), [1, 2, 3]) == (early, await asyncio.gather(first, second, third))
        assert ({"n": 3}, 3) == (stored(path), ctx["n"])


class TestCancelling:
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
