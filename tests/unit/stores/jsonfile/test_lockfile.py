"""The lock file that stays open between two holds: it is trusted only at its path, and never leaks."""

import gc
import os
import signal
import stat
import sys

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._stores.jsonfile.lock import FileLock
from persistent_context._stores.jsonfile.lockfile import LockFiles

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks descriptors up in /proc")

HOLD_WITH_A_CHILD_FORKED_BEFORE = """
import os, sys, threading
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
ctx.incr("n")
forked, tell = os.pipe()
child = os.fork()
if not child:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.write(tell, b".")  # what a child does after a fork is done
    os.read(0, 1)
    os._exit(0)
os.read(forked, 1)
with ctx.transaction():
    print(child, flush=True)
    threading.Event().wait()
"""


def open_lock_files(directory):
    """The lock files below a directory that this process has open; one as often as it is open."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)"))
        except FileNotFoundError:  # the one that lists
            continue
    return sorted(os.path.basename(name) for name in names if name.startswith(f"{directory}/") and ".lock" in name)


def is_locked(path):
    """Whether nobody else could take the lock."""
    held = FileLock(f"{path}.lock", str(path)).acquire("test", wait=False)
    if held:
        held.release()
    return held is None


@pytest.fixture
def lock(path):
    """The lock of the test's file."""
    one = FileLock(f"{path}.lock", str(path))
    yield one
    one._files.close_all()


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


class TestTheKeptFile:
    @pytest.fixture
    def lock(self, path):
        """The lock of the test's file."""
        one = FileLock(f"{path}.lock", str(path))
        yield one
        one._files.close_all()

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_one_that_is_no_longer_at_its_path_is_not_used(self, path, lock, how):
        """Others lock the file at the path, so that is the one that is locked."""
        lock.acquire("test", wait=False).release()
        file = path.with_name("state.json.lock")
        file.unlink()
        if how == "replaced":
            file.touch()
        held = lock.acquire("test", wait=False)
        held.check()

        assert (True, ["state.json.lock"]) == (is_locked(path), open_lock_files(path.parent))

    def test_at_most_one_is_kept(self, path, lock):
        """Of two locks that are released, as after an abandoned wait, one stays open."""
        held = [lock.acquire("test", wait=False)]
        path.with_name("state.json.lock").unlink()
        held.append(lock.acquire("test", wait=False))
        for one in held:
            one.release()

        assert ["state.json.lock"] == open_lock_files(path.parent)

    def test_it_is_closed_with_its_lock(self, path, lock):
        """Closing the lock closes the file, and the lock can be used again."""
        counts = []
        for _ in range(2):
            lock.acquire("test", wait=False).release()
            counts.append(len(open_lock_files(path.parent)))
            lock.close()
            counts.append(len(open_lock_files(path.parent)))

        assert [1, 0, 1, 0] == counts

    def test_none_is_left_by_contexts_that_are_gone(self, path):
        """Programs use one file after another, and run out of no descriptors."""
        for number in range(20):
            SyncPersistentContext(path.with_name(f"{number}.json"), durable=False).incr("n")
        gc.collect()

        assert [] == open_lock_files(path.parent)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
    def test_a_child_that_was_forked_between_two_holds_does_not_keep_the_lock(self, path, spawn):
        """The child closes what its parent keeps open, or it would share the lock that the parent takes later."""
        holder = spawn(HOLD_WITH_A_CHILD_FORKED_BEFORE, path)
        child = int(holder.hear())
        before = is_locked(path)
        holder.process.kill()
        holder.process.wait()
        try:
            after = is_locked(path)
        finally:
            os.kill(child, signal.SIGKILL)

        assert (True, False) == (before, after)


class TestMaking:
    def test_a_lock_file_that_another_process_makes_at_the_same_moment_is_the_one(self, tmp_path, monkeypatch):
        """Of two processes that find no lock file, both take the one that the faster of them made."""
        path, real = tmp_path / "state.json", os.open

        def too_late(name, flags, mode=0o777, **options):
            if str(name).endswith(".lock") and flags & os.O_EXCL:
                os.close(real(name, flags, mode))
            return real(name, flags, mode, **options)

        monkeypatch.setattr(os, "open", too_late)

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_it_is_never_open_to_more_users_than_the_file(self, path, created):
        """From its first moment on, nobody can lock who could not write the file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".lock"]


class TestClosing:
    def test_one_that_is_closed_is_not_closed_again(self, tmp_path):
        """After a fork has closed all of them, whoever lets one go closes no file that has got its number since."""
        files = LockFiles(str(tmp_path / "state.json.lock"), str(tmp_path / "state.json"))
        file = files.open()
        number = file.fd
        files.close_all()
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        files.close(file)
        os.fsync(other)
        os.close(other)

        assert (number, -1) == (other, file.fd)
