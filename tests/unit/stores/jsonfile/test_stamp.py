"""The holder of the lock, by its stamp: only a live process is shown, and checking affects no process."""

import os
import signal

import pytest

from persistent_context import LockTimeoutError, SyncPersistentContext
from persistent_context._stores import process as _process
from persistent_context._stores.jsonfile.lock import FileLock


@pytest.fixture
def lock(path):
    """The lock of the test's file."""
    one = FileLock(f"{path}.lock", str(path))
    yield one
    one._files.close_all()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc to recognize a zombie")
class TestAZombie:
    @pytest.fixture
    def zombie(self, path, hold_transaction):
        """A process that was killed while it held the lock, and that its parent has not reaped yet."""
        held = hold_transaction(path)
        os.kill(held.pid, signal.SIGKILL)
        os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
        return held.pid

    def test_it_is_not_shown_for_the_holder(self, path, zombie, hold):
        """The stamp that a zombie left in the lock file says nothing about the current holder."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0)
        with hold(path):
            holder = ctx.lock_holder()
            with pytest.raises(LockTimeoutError) as caught:
                ctx.incr("n")

        assert (None, None) == (holder.pid, caught.value.holder.pid)

    def test_one_of_another_user_is_dead_too(self, zombie, monkeypatch):
        """A zombie is not taken for alive even if this process may not signal it."""

        def refuse(pid, number):
            raise PermissionError

        monkeypatch.setattr(os, "kill", refuse)

        assert not _process._is_alive(zombie, _process._process(zombie)[1])


class TestWindows:
    def test_no_process_is_sent_a_signal(self, monkeypatch):
        """Signal 0, which only checks elsewhere, is Ctrl-C on Windows."""
        monkeypatch.setattr(_process, "_process", lambda pid: None)
        monkeypatch.setattr(os, "kill", None)
        monkeypatch.setattr(os, "name", "nt")

        assert not _process._is_alive(os.getpid(), None)


class TestWithoutProc:
    def test_without_proc_a_process_is_asked_for_by_a_signal(self, monkeypatch):
        """When the start time of a process is unknown, an unused pid is dead, and any other is alive."""
        monkeypatch.setattr(_process, "_process", lambda pid: None)
        monkeypatch.setattr(os.path, "exists", lambda path: False)

        def answer(pid, number):
            if pid == 1:
                raise PermissionError
            if pid == 2:
                raise ProcessLookupError

        monkeypatch.setattr(os, "kill", answer)

        assert [True, False, True] == [_process._is_alive(pid, None) for pid in (1, 2, 3)]

    def test_without_proc_the_stamp_works_without_a_pid_namespace(self, monkeypatch):
        """On a system without /proc the stamp has less information, and the lock works."""

        def fail(path):
            raise FileNotFoundError(path)

        monkeypatch.setattr(os, "readlink", fail)

        assert _process._pid_space() is None
