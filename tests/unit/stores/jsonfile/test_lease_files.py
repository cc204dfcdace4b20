"""The files of leases: their names, their numbers, their permissions, and how many there are."""

import os
import stat
import time

import pytest

from persistent_context._stores.jsonfile.flock import try_lock
from persistent_context._stores.jsonfile.lease import lease_path
from persistent_context._stores.jsonfile.stamp import STAMP_BYTES
from persistent_context._stores.jsonfile.store import JsonFileStore
from persistent_context._stores.protocol import NUMBER
from persistent_context.errors import NotARegularFileError

DAY = 24 * 60 * 60


def taken(store, name="a", *, lasting=True):
    """Take a lease, and return its session."""
    session = store.lease(name, lasting=lasting).begin("test", wait=False)

    assert session is not None, "the lease is held"
    return session


def number(store, name="a"):
    """Return the current number of a lease."""
    session = taken(store, name)
    session.close()
    return int(session.snapshot.get([NUMBER])[NUMBER])


def files(path):
    """Return the lease files of a data file."""
    return sorted(
        file for file in path.parent.iterdir() if file.name.startswith((f"{path.name}.lease", f"{path.name}.once"))
    )


@pytest.fixture
def store(path):
    return JsonFileStore(str(path))


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../a", "a/b", "job 7", "ü", "\0", "\udc80", "x" * 1000, "A", "a", "-", "\n", "$(a)"]
    )
    def test_any_string_is_a_name(self, path, store, name):
        """Whatever its name, each lease has one file of its own beside the data file."""
        path = path.resolve()
        session = taken(store, name)
        other = taken(store, name + "'")
        session.close(), other.close()

        assert 2 == len(files(path))
        assert {path.parent} == {file.parent for file in files(path)}

    def test_a_long_name_of_the_data_file(self, path):
        """The name of the lease file is not too long, and two such data files have separate leases."""
        paths = [str(path.with_name("x" * 254 + last)) for last in "ab"]
        sessions = [taken(JsonFileStore(one)) for one in paths]
        for session in sessions:
            session.close()

        assert 2 == len(os.listdir(path.parent))

    def test_it_says_which_lease_it_is(self, path):
        """The name of the lease is recognizable in the name of its file."""
        assert ".lease-job-7-" in lease_path(str(path), "job 7", lasting=True)
        assert ".once-the-key-" in lease_path(str(path), "the/key", lasting=False)


class TestNumbers:
    def test_it_is_about_the_time_in_microseconds(self, store):
        """The number is about the time in microseconds, so it grows even if the file is gone."""
        before = time.time_ns() // 1000
        first = number(store)

        assert before <= first <= time.time_ns() // 1000

    def test_it_grows_though_the_clock_is_set_back(self, store, monkeypatch):
        """The file records the last number, so the next is greater even if the clock is set back."""
        first = number(store)
        monkeypatch.setattr(time, "time_ns", lambda: 1000)

        assert [first + 1, first + 2] == [number(JsonFileStore(store.path)), number(store)]

    def test_it_grows_though_the_file_is_deleted(self, path, store):
        """The time is later, so the number grows even if the file is deleted."""
        first = number(store)
        for file in files(path):
            file.unlink()

        assert first < number(store)

    @pytest.mark.parametrize("content", [b"", b"0\n", b"-5\n", b"x" * 100, b"9" * 17 + b"\n", b"12", b"\xff\n"])
    def test_what_is_not_a_number_is_replaced(self, path, store, content):
        """Foreign content does no harm, and the next number is valid again."""
        first = number(store)
        (file,) = files(path)
        file.write_bytes(file.read_bytes()[:STAMP_BYTES] + content)

        assert first < number(store) < number(store)

    def test_it_is_synced_before_anyone_has_it(self, path, store, monkeypatch):
        """The number and the name of the file are durable before a holder gets them."""
        synced, sync, sync_data = [], os.fsync, os.fdatasync
        monkeypatch.setattr(
            os, "fdatasync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync_data(fd))
        )
        monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
        first, (file,) = number(store), files(path)
        second = number(store)

        assert ([str(file), str(path.parent), str(file)], True) == (synced, first < second)

    def test_a_foreign_file_is_not_written_to(self, path, store):
        """A lease whose file belongs to another program, or has a second name, is refused, and the file is kept."""
        number(store)
        (file,) = files(path)
        file.write_bytes(b"precious")
        with pytest.raises(NotARegularFileError, match="another program's file"):
            number(JsonFileStore(store.path))

        assert b"precious" == file.read_bytes()
        file.unlink()
        number(store)
        os.link(file, path.with_name("backup"))
        before = file.read_bytes()
        with pytest.raises(NotARegularFileError, match="hard link"):
            number(store)

        assert before == file.read_bytes()

    def test_a_link_is_not_followed(self, path, store):
        """Nothing is created where a planted link points."""
        os.symlink(path.with_name("target"), lease_path(str(path), "a", lasting=True))
        with pytest.raises(NotARegularFileError):
            number(store)

        assert not path.with_name("target").exists()


class TestPermissions:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666])
    def test_they_are_those_of_the_data(self, path, store, mode):
        """Whoever may use the data may take the lease, and no one else."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(mode)
        number(store)

        assert [mode] == [stat.S_IMODE(file.stat().st_mode) for file in files(path)]


class TestHowManyFiles:
    def test_one_that_is_not_lasting_leaves_none(self, path, store):
        """A lease that is not lasting removes its file."""
        session = taken(store, lasting=False)
        before = files(path)
        session.close()

        assert (1, []) == (len(before), files(path))

    def test_removing_it_does_not_let_two_holders_in(self, path, store):
        """A call that waits for the removed file takes the new one, which excludes all others."""
        first = taken(store, lasting=False)
        waiting = JsonFileStore(store.path).lease("a", lasting=False)
        held = os.open(files(path)[0], os.O_RDWR)
        first.close()
        second = waiting.begin("test", wait=True)

        assert try_lock(held), "the removed file is locked"
        os.close(held)
        assert store.lease("a", lasting=False).begin("test", wait=False) is None
        second.close()

    def test_it_is_removed_under_its_lock(self, path, store, monkeypatch):
        """Otherwise the removed file could be that of the next holder."""
        session, free, unlink = taken(store, lasting=False), [], os.unlink

        def look(file):
            fd = os.open(file, os.O_RDWR)
            free.append(try_lock(fd))
            os.close(fd)
            unlink(file)

        monkeypatch.setattr(os, "unlink", look)
        session.close()

        assert [False] == free

    def test_those_unused_for_a_day_are_removed(self, path, store):
        """The next process that takes any lease removes old unused lease files; all other files stay."""
        names = ["old", "held", "young"]
        for name in names:
            number(store, name)
        held = taken(JsonFileStore(store.path), "held")
        abandoned = taken(store, "abandoned", lasting=False)
        abandoned._lock.release()  # as the kernel does when the process dies
        old = time.time() - DAY - 60
        others = [path.with_name(f"{path.name}.lease-x"), path.with_name(f"other.lease-old-{'0' * 16}")]
        for file in others:
            file.touch()
        for file in path.parent.iterdir():
            if ".lease-young" not in file.name:
                os.utime(file, (old, old))
        now = taken(JsonFileStore(store.path), "now", lasting=False)
        now.close()
        held.close()

        assert {
            *others,
            *(path.parent / os.path.basename(lease_path(str(path), one, lasting=True)) for one in names[1:]),
        } == {file for file in path.parent.iterdir() if file.name != path.name + ".lock"}
