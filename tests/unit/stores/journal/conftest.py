"""Fixtures for tests of the journal."""

import errno
import os
from pathlib import Path

import pytest

import journals
from journals import commit, open_store
from persistent_context._stores.journal import idle


@pytest.fixture
def folds_by_itself():
    """Let the journals of a test be folded while nothing is written."""
    yield
    for one in list(idle._pending):
        one.fold = lambda at_exit: True


@pytest.fixture(autouse=True)
def nobody_folds(request, monkeypatch):
    """Prevent automatic folding, however long a test takes, unless the test requests it."""
    if "folds_by_itself" not in request.fixturenames:
        monkeypatch.setattr(idle.Idle, "touch", lambda *_arguments, **_options: None)


@pytest.fixture(autouse=True)
def children_import_what_is_shared(monkeypatch):
    """Let the processes that a test starts import the modules shared by these tests."""
    places = [str(Path(journals.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))


@pytest.fixture
def store(path):
    """A store whose journal has one record, on a JSON file that has another key."""
    path.write_text('{\n"json": 1\n}\n', encoding="utf-8")
    one = open_store(path)
    commit(one)
    commit(one, {"a": b"1"})
    return one


@pytest.fixture
def warnings(caplog):
    """Return the warnings logged so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def break_sync(monkeypatch):
    """Make fsync or fdatasync fail for files whose name meets a condition; return the inodes that were tried."""

    def breaking(call, condition):
        tried, real = [], getattr(os, call)

        def sync(fd):
            name = os.readlink(f"/proc/self/fd/{fd}")
            if condition(name):
                tried.append(os.fstat(fd).st_ino)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, call, sync)
        return tried

    return breaking
