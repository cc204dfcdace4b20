"""The names beside the file: temporary files, and what crashed writers left."""

import json
import os
import stat

import pytest

from persistent_context import SyncPersistentContext


def mode(path):
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


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
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """Return the names of all files beside the file and its lock file."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


@pytest.fixture
def half_way(path, spawn):
    """Another process that has written its temporary file, and has not replaced the file yet."""
    path.write_text('{"n": 1}', encoding="utf-8")
    child = spawn(STOP_BEFORE_THE_FIRST_SYNC, path)
    assert child.hear() == "written"
    return child


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


DIE_BEFORE_THE_RENAME = """
import os, signal, sys
from persistent_context import SyncPersistentContext

sys.addaudithook(lambda event, arguments: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
SyncPersistentContext(sys.argv[1]).incr("n")
"""


class TestTemporaries:
    def test_one_that_a_killed_writer_left_is_removed(self, path, half_way):
        """The next writer removes the temporary file of a writer that was killed during its write."""
        half_way.kill()
        left = temporaries(path)
        SyncPersistentContext(path).incr("n")

        assert (1, [], {"n": 2}) == (len(left), temporaries(path), stored(path))

    def test_one_whose_writer_lives_stays(self, path, half_way):
        """A slow writer keeps its temporary file, even if its lock file was deleted, and loses no change."""
        mine = temporaries(path)
        path.with_name("state.json.lock").unlink()
        number = SyncPersistentContext(path).incr("n")
        still_mine = temporaries(path)
        half_way.say()

        assert (1, mine, 2) == (len(mine), still_mine, number)
        assert (["3"], {"n": 3}, []) == (half_way.finish(), stored(path), temporaries(path))

    def test_a_planted_one_is_not_used(self, path, monkeypatch):
        """Even someone who guesses the name of the next temporary file cannot have the document written to another."""
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
        """From its creation on, the temporary file can be read only by users who may read the data file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".tmp"]


class TestLeftovers:
    def test_one_of_a_holder_that_crashed_later_is_removed_too(self, path, spawn):
        """A context that has been in use for long removes what writers killed later have left."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        child = spawn(DIE_BEFORE_THE_RENAME, path)
        child.process.wait()
        left = temporaries(path)
        ctx.incr("n")

        assert (1, [], {"n": 2}) == (len(left), temporaries(path), stored(path))
