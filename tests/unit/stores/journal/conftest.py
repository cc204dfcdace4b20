"""What tests of the journal share."""

import errno
import os

import pytest

from journals import commit, open_store
from persistent_context._stores.journal import idle


@pytest.fixture(autouse=True)
def nothing_is_left_to_fold():
    """Let no journal of a test be folded after it, when its directory is gone."""
    yield
    idle._pending.clear()


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
    """What was warned of so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def break_sync(monkeypatch):
    """Let fsync or fdatasync fail for what a condition says of the name; return the inodes that were tried."""

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
