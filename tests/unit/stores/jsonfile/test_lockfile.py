"""The lock file: it is created once, never accessible to more users than the data file, and closed once."""

import os
import stat

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._stores.jsonfile.lockfile import LockFiles


@pytest.fixture
def created(monkeypatch):
    """The mode with which each file is created, by the end of its name; the umask removes nothing."""
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


class TestMaking:
    def test_a_lock_file_that_another_process_creates_first_is_used(self, tmp_path, monkeypatch):
        """When two processes find no lock file, both use the one that the faster of them creates."""
        path, real = tmp_path / "state.json", os.open

        def too_late(name, flags, mode=0o777, **options):
            if str(name).endswith(".lock") and flags & os.O_EXCL:
                os.close(real(name, flags, mode))
            return real(name, flags, mode, **options)

        monkeypatch.setattr(os, "open", too_late)

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_it_is_never_open_to_more_users_than_the_file(self, path, created):
        """From its creation on, the lock file can be locked only by users who may write the data file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".lock"]


class TestClosing:
    def test_one_that_is_closed_is_not_closed_again(self, tmp_path):
        """After a fork has closed all files, closing one again does not close a file that reuses its number."""
        files = LockFiles(str(tmp_path / "state.json.lock"), str(tmp_path / "state.json"))
        file = files.open()
        number = file.fd
        files.close_all()
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        files.close(file)
        os.fsync(other)
        os.close(other)

        assert (number, -1) == (other, file.fd)
