"""The branches for other platforms, by injected errors."""

import errno
import os
import threading
import time
from types import SimpleNamespace

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._stores.jsonfile import access as _access
from persistent_context._stores.jsonfile import atomic as _atomic
from persistent_context._stores.jsonfile import flock as _flock
from persistent_context._stores.jsonfile import lock as _lock
from persistent_context._stores.jsonfile import opening as _opening
from persistent_context._stores.jsonfile import session as _session
from persistent_context._stores.jsonfile import syncing as _syncing


def on(monkeypatch, platform):
    """Make the modules believe that they run on another platform."""
    for module in (_access, _atomic, _flock, _opening, _session, _syncing):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform=platform))


class Busy(PermissionError):
    """The error of Windows while a reader has the file open."""

    winerror = 5


class TestMacOS:
    def test_the_drive_is_told_to_empty_its_cache(self, tmp_path, monkeypatch):
        """F_FULLFSYNC replaces fsync: of the file, of the directory, and, the first time, of the one above it."""
        import fcntl

        on(monkeypatch, "darwin")
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        calls = []
        monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: calls.append(command))
        monkeypatch.setattr(os, "fsync", None)
        SyncPersistentContext(tmp_path / "state.json").save()

        assert [51, 51, 51] == calls

    @pytest.mark.parametrize("mode", [0o600, 0o640])
    def test_access_lists_are_the_business_of_linux(self, tmp_path, monkeypatch, mode):
        """Where access lists work differently, only the mode is kept."""
        on(monkeypatch, "darwin")
        for module in (_atomic, _syncing):
            monkeypatch.setattr(module, "sync", lambda fd: None)
        path = tmp_path / "state.json"
        path.write_text("{}", encoding="utf-8")
        path.chmod(mode)
        SyncPersistentContext(path).incr("n")

        assert mode == path.stat().st_mode & 0o777

    def test_a_failing_sync_leaves_the_old_file(self, tmp_path, monkeypatch):
        """An error of F_FULLFSYNC is an error of the save."""
        import fcntl

        on(monkeypatch, "darwin")
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)

        def fail(fd, command):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(fcntl, "fcntl", fail)
        with pytest.raises(OSError, match="Input/output") as caught:
            SyncPersistentContext(tmp_path / "state.json").save()

        assert (errno.EIO, {"state.json.lock"}) == (caught.value.errno, {path.name for path in tmp_path.iterdir()})


class TestWindows:
    @pytest.fixture(autouse=True)
    def windows(self, monkeypatch):
        """Pretend to be Windows, where locks are polled."""
        on(monkeypatch, "win32")

    def test_saving_and_loading_work(self, tmp_path):
        """Without pread, fchmod and syncs of directories, the file is still written and read."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        ctx["a"] = [1, "ü"]
        ctx.save()
        ctx.incr("n")

        assert {"a": [1, "ü"], "n": 1} == SyncPersistentContext.create(tmp_path / "state.json").get_all_data()

    def test_the_file_is_closed_when_it_is_replaced(self, tmp_path, monkeypatch):
        """Windows refuses to replace an open file."""
        path, replace, still_open = tmp_path / "state.json", os.replace, []
        ctx = SyncPersistentContext(path)
        ctx.incr("n")

        def watched(source, target):
            links = (f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd"))
            still_open.extend(link for link in links if os.path.exists(link) and os.path.samefile(link, target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", watched)
        ctx.incr("n")

        assert ([], {"n": 2}) == (still_open, SyncPersistentContext.create(path).get_all_data())

    def test_a_rename_is_tried_again_while_a_reader_has_the_file_open(self, tmp_path, monkeypatch):
        """WinError 5 and 32 are temporary, so the rename is tried again, a bounded number of times."""
        replace, refusals = os.replace, [Busy(), Busy(), Busy()]

        def busy_at_first(source, target):
            if refusals:
                raise refusals.pop()
            replace(source, target)

        monkeypatch.setattr(os, "replace", busy_at_first)
        SyncPersistentContext(tmp_path / "state.json").save()

        assert "{}\n" == (tmp_path / "state.json").read_text()

    def test_a_rename_that_is_always_refused_is_an_error(self, tmp_path, monkeypatch):
        """When the bound is reached, the old file stays, and no temporary is left."""
        monkeypatch.setattr(_atomic, "_WINDOWS_RETRIES", 3)
        calls = []

        def busy(source, target):
            calls.append(source)
            raise Busy(errno.EACCES, "busy", target)

        monkeypatch.setattr(os, "replace", busy)
        with pytest.raises(PermissionError, match="busy"):
            SyncPersistentContext(tmp_path / "state.json").save()

        assert (3, ["state.json.lock"]) == (len(calls), [path.name for path in tmp_path.iterdir()])

    def test_another_error_of_the_rename_is_not_tried_again(self, tmp_path, monkeypatch):
        """Only temporary errors are waited for."""
        calls = []

        def full(source, target):
            calls.append(source)
            raise OSError(errno.ENOSPC, "full", target)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="full"):
            SyncPersistentContext(tmp_path / "state.json").save()

        assert 1 == len(calls)

    def test_waiting_for_the_lock_works_by_polling(self, tmp_path):
        """A waiting call gets the lock when its holder releases it."""
        path = tmp_path / "state.json"
        lock = _lock.FileLock(f"{path}.lock", str(path))
        held = lock.acquire("test", wait=False)
        ctx = SyncPersistentContext(path)
        caller = threading.Thread(target=ctx.incr, args=["n"])
        caller.start()
        while ctx._link.find().store._plain._lock._wait is None:
            time.sleep(0.001)
        held.release()
        caller.join(60)

        assert '{\n"n": 1\n}\n' == path.read_text()
