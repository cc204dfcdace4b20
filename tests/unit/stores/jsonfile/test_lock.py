"""The lock between processes, from within: how a wait ends, and what survives an error or a fork."""

import asyncio
import errno
import json
import os
import signal
import sys
import threading
import time

import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._stores.jsonfile import flock as _flock
from persistent_context._stores.jsonfile import lock as _lock
from persistent_context._stores.jsonfile.lock import FileLock

CHECK_DESCRIPTORS_IN_A_CHILD = """
import os, sys, threading, time
from persistent_context._stores.jsonfile.lock import FileLock

path = sys.argv[1]
lock = FileLock(path + ".lock", path)
threading.Thread(target=lock.acquire, args=["test"], kwargs={"wait": True}, daemon=True).start()
while lock._wait is None:
    time.sleep(0.001)
lock._wait.settle()
threading.Thread(target=lock.acquire, args=["test"], kwargs={"wait": True}, daemon=True).start()

def open_locks():
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass
    return sum(name == path + ".lock" for name in names)

while open_locks() < 2:
    time.sleep(0.001)
if (pid := os.fork()) == 0:
    lock.after_fork_in_child()
    print(open_locks(), lock.abandon_vain_wait(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(open_locks(), flush=True)
"""


def is_free(path):
    """Whether another process could take the lock."""
    held = FileLock(f"{path}.lock", str(path)).acquire("test", wait=False)
    if held:
        held.release()
    return held is not None


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def queued(path):
    """Wait until a call is in the kernel's queue for the lock; return whether one was."""
    if not os.path.exists("/proc/locks"):
        pytest.skip("needs /proc/locks to see waiting processes: run on Linux")

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


class TestWhetherAWaitIsAbandoned:
    def test_one_for_the_file_at_its_path_is_not(self, path, lock, hold, wait_for):
        """A wait for the lock file at the path is not abandoned."""
        before = lock.abandon_vain_wait()
        with hold(path):
            waiting, ended = wait_for()
            during = lock.abandon_vain_wait()
        waiting.join(60)

        assert (False, False, [True], False) == (before, during, ended, lock.abandon_vain_wait())

    @pytest.mark.parametrize("how", ["deleted", "replaced", "gone with its directory"])
    def test_one_for_a_file_that_is_no_longer_there_is(self, path, lock, hold, wait_for, how):
        """Once the lock file has been deleted or replaced, others may be locking its successor."""
        file = path.with_name("state.json.lock")
        with hold(path):
            wait_for()
            if how == "replaced":
                path.write_bytes(b"")
                path.replace(file)
            else:
                file.unlink()
            if how == "gone with its directory":
                path.parent.rmdir()
                path.parent.write_bytes(b"")
            seen = lock.abandon_vain_wait()
            if how == "gone with its directory":
                path.parent.unlink()

        assert seen

    def test_one_whose_file_cannot_be_looked_for_is_not(self, lock, path, hold, wait_for, monkeypatch):
        """A directory that can no longer be searched does not prove that the lock file is gone."""
        with hold(path), monkeypatch.context() as patch:
            wait_for()

            def refuse(name):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

            patch.setattr(os, "lstat", refuse)
            seen = lock.abandon_vain_wait()

        assert not seen


class TestAnAbandonedWait:
    def test_another_thread_may_lock_the_successor_at_once(self, path, lock, hold, wait_for):
        """If the lock file of a stopped holder was deleted, a new wait finds the new lock file free."""
        held = hold(path)
        os.kill(held.pid, signal.SIGSTOP)
        waiting, ended = wait_for()
        path.with_name("state.json.lock").unlink()
        abandoned = lock.abandon_vain_wait()
        taken = lock.acquire("test", wait=False)
        free_meanwhile, ended_meanwhile = is_free(path), list(ended)
        os.kill(held.pid, signal.SIGCONT)
        held.release()
        waiting.join(60)

        assert (True, True, False, []) == (abandoned, taken is not None, free_meanwhile, ended_meanwhile)
        assert ([False], False) == (ended, is_free(path))
        taken.check()

    def test_it_keeps_no_lock_when_it_is_granted_one(self, path, lock, hold, wait_for):
        """An abandoned wait that is granted releases the lock at once, even if a forked child has its descriptor."""
        file = path.with_name("state.json.lock")
        with hold(path):
            waiting, ended = wait_for()
            inherited = [os.dup(file.fd) for file in lock._files._open]
            other = os.open(file, os.O_RDWR)
            file.unlink()
            abandoned = lock.abandon_vain_wait()
        waiting.join(60)
        free = _flock.try_lock(other)
        for fd in (*inherited, other):
            os.close(fd)

        assert (True, [False], True, set()) == (abandoned, ended, free, lock._files._open)

    def test_one_that_is_over_cannot_be_abandoned(self, path, lock, hold, wait_for):
        """A lock that was granted is held, so its wait cannot be abandoned."""
        never = lock.abandon_vain_wait()
        with hold(path):
            waiting, ended = wait_for()
        waiting.join(60)
        free = is_free(path)
        path.with_name("state.json.lock").unlink()

        assert (False, [True], False, False) == (never, ended, lock.abandon_vain_wait(), free)

    def test_it_ends_one_way_or_the_other(self, path, lock, hold, wait_for):
        """However close a grant and an abandonment are, either the call holds the lock or no call does."""
        outcomes = []
        for _ in range(20):
            held = hold(path)
            waiting, ended = wait_for()
            held.child.say()
            path.with_name("state.json.lock").unlink()
            abandoned = lock.abandon_vain_wait()
            waiting.join(60)
            outcomes.append((abandoned, *ended) in ((True, False), (False, True)))
            if granted := wait_for.granted[-1]:
                granted.release()
            outcomes.append(is_free(path))

        assert {True} == set(outcomes)

    @pytest.mark.parametrize("abandoned", [False, True])
    def test_its_error_ends_the_wait(self, path, lock, hold, wait_for, monkeypatch, abandoned):
        """An error of the kernel is raised by the wait; an abandoned wait ends without it."""
        go_on = threading.Event()

        def fail(fd):
            go_on.wait(60)
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(_lock, "wait_for_lock", fail)
        with hold(path):
            waiting, ended = wait_for()
            path.with_name("state.json.lock").unlink()
            if abandoned:
                lock.abandon_vain_wait()
            go_on.set()
            waiting.join(60)

        assert ([False if abandoned else errno.ENOLCK], set(), False) == (
            ended,
            lock._files._open,
            lock.abandon_vain_wait(),
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_a_forked_child_keeps_none_of_its_descriptors(self, path, hold, spawn):
        """A child knows every descriptor that it inherits, including those of abandoned waits."""
        with hold(path):
            said = spawn(CHECK_DESCRIPTORS_IN_A_CHILD, path).finish()

        assert ["0 False", "2"] == said


class TestWaiting:
    def test_only_the_cycle_that_waited_counts(self, path, hold):
        """A cycle that finds the lock free did not wait, whatever earlier cycles did."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        counts = [ctx.statistics().waits]
        caller = threading.Thread(target=ctx.incr, args=["n"])
        with hold(path):
            caller.start()
            tick = threading.Event()
            while ctx._link.find().store._plain._lock._wait is None:
                tick.wait(0.001)
        caller.join(60)
        counts.append(ctx.statistics().waits)
        for _ in range(3):
            ctx.incr("n")
        counts.append(ctx.statistics().waits)

        assert [0, 1, 1] == counts

    def test_a_waiting_process_is_in_the_queue_of_the_kernel(self, path, hold, queued):
        """A process that waits for the lock is in the kernel's queue, where it cannot be overtaken."""
        caller = threading.Thread(target=SyncPersistentContext(path).incr, args=["n"])
        with hold(path):
            caller.start()
            found = queued()
        caller.join()

        assert (True, {"n": 1}) == (found, stored(path))


class TestReleasing:
    def test_an_unlock_that_fails_is_made_up_for_by_closing(self, path, monkeypatch, caplog):
        """The lock is free all the same, the call has succeeded, and nothing is logged."""

        def fail(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        ctx = SyncPersistentContext.create(path)
        with monkeypatch.context() as patch:
            patch.setattr(_lock, "unlock", fail)
            number = ctx.incr("n")

        assert (1, True, []) == (number, is_free(path), caplog.records)

    @pytest.mark.parametrize("step", ["write_at", "unlock"])
    def test_no_error_keeps_the_lock(self, path, lock, monkeypatch, step):
        """Whatever fails at the end, even for lack of memory, the lock is free afterwards."""

        def fail(*_):
            raise MemoryError

        held = lock.acquire("test", wait=False)
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(_lock, step, fail)
            held.release()
        free = is_free(path)
        lock.close()

        assert (True, set()) == (free, lock._files._open)


class TestASignalHandler:
    def test_it_may_lock_another_file_while_one_is_being_locked(self, path, lock):
        """A handler that runs just when a lock file is opened does not wait for its own thread."""
        other = FileLock(f"{path.with_name('other.json')}.lock", str(path))
        taken, armed = [], True

        def handle(number, frame):
            held = other.acquire("test", wait=False)
            held.release()
            taken.append(True)

        def interrupt(event, arguments):
            nonlocal armed
            if armed and event == "open" and arguments[0] == lock.path:
                armed = False
                signal.raise_signal(signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            sys.addaudithook(interrupt)  # stays installed, but does nothing later
            taken.append(lock.acquire("test", wait=False) is not None)
        finally:
            armed = False
            signal.signal(signal.SIGUSR1, before)

        assert [True, True] == taken


class TestTheLockFile:
    def test_a_forked_child_that_holds_nothing_releases_nothing(self, tmp_path):
        """Releasing a lock that is not held is not an error, and affects no other process."""
        path = tmp_path / "state.json"
        lock = _lock.FileLock(f"{path}.lock", str(path))
        held = lock.acquire("test", wait=False)
        lock.after_fork_in_child()
        held.release()

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_a_deleted_one_that_was_waited_for_does_not_count(self, path, hold, queued):
        """A transaction whose lock file is deleted while it waits gets its turn under the new one, and commits."""

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


RELEASE_IN_A_CHILD = """
import os, sys
import filelock
from persistent_context._engine.registry import queue_of
from persistent_context._model.snapshot import Changes
from persistent_context._stores.protocol import SessionLostError

path = sys.argv[1]
queue = queue_of(path)
session = queue.store.begin("test", wait=False)

def stamp():
    with open(path + ".lock", "rb") as file:
        return file.read()

before = stamp()
if (pid := os.fork()) == 0:
    try:
        session.commit(Changes({"child": b"1"}), durable=True)
    except SessionLostError:
        print("lost", flush=True)
    session.close()
    session.lock.release()
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
try:
    filelock.FileLock(path + ".lock", timeout=0).acquire()
    locked = False
except filelock.Timeout:
    locked = True
print(status, stamp() == before, locked, flush=True)
session.commit(Changes({"parent": b"1"}), durable=True)
session.close()
print([*queue.store.snapshot().keys()], flush=True)
"""


LOCK_IN_PARENT_AND_CHILD = """
import os, sys
from persistent_context import LockTimeoutError, SyncPersistentContext

path = sys.argv[1]
ctx = SyncPersistentContext.create(path)
ctx.incr("n")  # keeps the lock file open
entered, told = os.pipe()
if (pid := os.fork()) == 0:
    os.read(entered, 1)
    child = SyncPersistentContext(path, lock_timeout=0)
    for one in (ctx, child):
        try:
            with one.transaction(timeout=0):
                print("in the parent's transaction", flush=True)
        except LockTimeoutError:
            print("kept out", flush=True)
    os._exit(0)
with ctx.transaction() as tx:
    os.write(told, b".")
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on a POSIX system")
class TestAForkedChild:
    def test_it_neither_writes_to_nor_unlocks_its_parents_lock_file(self, path, run):
        """A child that commits, closes and releases what it inherited leaves its parent's lock and stamp alone."""
        assert ["lost", "0 True True", "['parent']"] == run(RELEASE_IN_A_CHILD, path)

    def test_it_does_not_share_the_kept_file(self, path, run):
        """The lock belongs to the open file: a child that used its parent's would share the lock."""
        assert ["kept out", "kept out"] == run(LOCK_IN_PARENT_AND_CHILD, path)
