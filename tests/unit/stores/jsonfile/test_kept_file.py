"""The lock file that is kept open between two holds: it is used only if it is still at its path, and never leaks."""

import gc
import os
import signal
import threading

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._stores.jsonfile.lock import FileLock
from persistent_context._stores.jsonfile.store import JsonFileStore

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks descriptors up in /proc")

HOLD_WITH_A_CHILD_FORKED_BEFORE = """
import os, sys, threading
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
ctx.incr("n")
forked, tell = os.pipe()
child = os.fork()
if not child:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.write(tell, b".")  # the after-fork functions have run
    os.read(0, 1)
    os._exit(0)
os.read(forked, 1)
with ctx.transaction():
    print(child, flush=True)
    threading.Event().wait()
"""


def is_free(path):
    """Whether another process could take the lock."""
    held = FileLock(f"{path}.lock", str(path)).acquire("test", wait=False)
    if held:
        held.release()
    return held is not None


def open_lock_files(directory):
    """Return the lock files in a directory that this process has open, one entry per open descriptor."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return sorted(os.path.basename(name) for name in names if name.startswith(f"{directory}/") and ".lock" in name)


@pytest.fixture
def opened(monkeypatch, lock):
    """Record how often the lock file is opened."""
    names, real = [], os.open

    def opening(name, *arguments, **options):
        fd = real(name, *arguments, **options)
        if name == lock.path:
            names.append(name)
        return fd

    monkeypatch.setattr(os, "open", opening)
    return names


class TestTheKeptFile:
    def test_it_stays_open_between_two_holds(self, path, lock, opened):
        """The lock file is opened once, and unlocked between holds."""
        free = []
        for _ in range(3):
            held = lock.acquire("test", wait=False)
            free.append(is_free(path))
            held.release()
            free.append(is_free(path))
        own = [file.path for file in lock._files._open]

        assert ([False, True] * 3, [lock.path]) == (free, own)
        assert len(opened) == 1 + len(free)  # each is_free opens it

    @needs_proc
    def test_it_is_closed_with_its_lock(self, path, lock, opened):
        """Closing leaves no descriptor open, and the next hold opens the file again."""
        counts = []
        for _ in range(2):
            lock.acquire("test", wait=False).release()
            counts.append((len(opened), len(lock._files._open), len(open_lock_files(path.parent))))
            lock.close()
            counts.append((len(opened), len(lock._files._open), len(open_lock_files(path.parent))))

        assert [(1, 1, 1), (1, 0, 0), (2, 1, 1), (2, 0, 0)] == counts

    def test_closing_does_not_unlock(self, path, lock):
        """A held lock stays held when its lock object is closed, and its file is closed later."""
        held = lock.acquire("test", wait=False)
        lock.close()
        held.check()
        free = is_free(path)
        held.release()

        assert (False, True) == (free, is_free(path))

    def test_one_without_references_closes_its_file(self, path):
        """The descriptor is closed when the store is garbage-collected, without a call and before the process ends."""
        store = JsonFileStore(str(path))
        store.begin("test", wait=False).close()
        (file,) = store._lock._files._open
        before = file.fd
        del store
        gc.collect()

        assert (True, -1) == (before >= 0, file.fd)

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_a_try_does_not_trust_one_that_is_gone(self, path, lock, how):
        """A try fails if the new lock file is locked, and succeeds if it is free."""
        lock.acquire("test", wait=False).release()
        self.remove(path, how)
        other = FileLock(f"{path}.lock", str(path)).acquire("other", wait=False)
        while_held = lock.acquire("test", wait=False)
        other.release()
        held = lock.acquire("test", wait=False)
        held.check()

        assert (None, False) == (while_held, is_free(path))

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_a_wait_does_not_trust_one_that_is_gone(self, path, lock, wait_for, how):
        """A waiting call waits for the new lock file, even if the old one is free."""
        lock.acquire("test", wait=False).release()
        self.remove(path, how)
        other = FileLock(f"{path}.lock", str(path)).acquire("other", wait=False)
        waiting, ended = wait_for()
        early = list(ended)
        other.release()
        waiting.join(60)
        wait_for.granted[0].check()

        assert ([], [True], False) == (early, ended, is_free(path))

    @pytest.mark.parametrize("wait", [False, True])
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_one_that_is_gone_is_not_waited_for(self, path, lock, how, wait):
        """The new lock file is free, and is locked at once, even if the old one is locked."""
        lock.acquire("test", wait=False).release()
        other = FileLock(f"{path}.lock", str(path)).acquire("other", wait=False)
        self.remove(path, how)
        rescue = threading.Timer(5, other.release)
        rescue.start()
        held = lock.acquire("test", wait=wait)
        rescue.cancel()

        assert (False, False) == (held.waited, is_free(path))
        held.check()

    def test_several_threads_leave_one(self, path, lock, hold, wait_for):
        """However many threads try while one waits, one descriptor is kept."""
        with hold(path):
            waiting, _ = wait_for()
            tries = [lock.acquire("test", wait=False) for _ in range(3)]
        waiting.join(60)
        wait_for.granted[0].release()

        assert ([None] * 3, 1, 1) == (tries, len(lock._idle), len(lock._files._open))

    def test_an_abandoned_wait_leaves_one(self, path, lock, hold, wait_for):
        """The descriptor of the deleted file is closed when its wait ends, and the new file's descriptor is kept."""
        with hold(path):
            waiting, _ = wait_for()
            path.with_name("state.json.lock").unlink()
            lock.abandon_vain_wait()
            lock.acquire("test", wait=True).release()
        waiting.join(60)
        (file,) = lock._files._open

        assert (True, [file]) == (file.status_at_path() is not None, list(lock._idle))

    @pytest.mark.parametrize("reused", [False, True])
    def test_a_descriptor_that_the_program_has_closed_is_not_used(self, path, lock, reused):
        """A program may close all descriptors between two calls; another file that reuses the number is not locked."""
        lock.acquire("test", wait=False).release()
        (file,) = lock._files._open
        number = file.fd
        foreign = path.with_name("foreign")
        foreign.write_bytes(b"")
        os.close(number)
        if reused:
            other = os.open(foreign, os.O_RDWR)
            if other != number:
                os.dup2(other, number)
                os.close(other)
        held = lock.acquire("test", wait=False)
        held.check()
        free = is_free(path)
        held.release()
        lock.close()

        assert (False, b"", set()) == (free, foreign.read_bytes(), lock._files._open)
        if reused:
            assert os.path.samestat(foreign.stat(), os.fstat(number))
            os.close(number)

    @needs_proc
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_one_that_is_no_longer_at_its_path_is_not_used(self, path, lock, how):
        """The file that is at the path is locked, because others lock that one."""
        lock.acquire("test", wait=False).release()
        file = path.with_name("state.json.lock")
        file.unlink()
        if how == "replaced":
            file.touch()
        held = lock.acquire("test", wait=False)
        held.check()

        assert (False, ["state.json.lock"]) == (is_free(path), open_lock_files(path.parent))

    @needs_proc
    def test_at_most_one_is_kept(self, path, lock):
        """Of two released locks, as after an abandoned wait, one file stays open."""
        held = [lock.acquire("test", wait=False)]
        path.with_name("state.json.lock").unlink()
        held.append(lock.acquire("test", wait=False))
        for one in held:
            one.release()

        assert ["state.json.lock"] == open_lock_files(path.parent)

    @needs_proc
    def test_none_is_left_by_contexts_that_are_gone(self, path):
        """A program that uses one file after another does not run out of descriptors."""
        for number in range(20):
            SyncPersistentContext(path.with_name(f"{number}.json"), durable=False).incr("n")
        gc.collect()

        assert [] == open_lock_files(path.parent)

    @needs_proc
    def test_a_child_that_was_forked_between_two_holds_does_not_keep_the_lock(self, path, spawn):
        """The child closes the kept file; otherwise it would share the lock that its parent takes later."""
        holder = spawn(HOLD_WITH_A_CHILD_FORKED_BEFORE, path)
        child = int(holder.hear())
        before = is_free(path)
        holder.process.kill()
        holder.process.wait()
        try:
            after = is_free(path)
        finally:
            os.kill(child, signal.SIGKILL)

        assert (False, True) == (before, after)

    @staticmethod
    def remove(path, how):
        """Remove the lock file, or replace it by another one."""
        file = path.with_name("state.json.lock")
        if how == "deleted":
            file.unlink()
        else:
            other = path.with_name("other")
            other.write_bytes(b"")
            other.replace(file)
