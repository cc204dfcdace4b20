"""The store in one JSON file: what it reads, what it writes, and what it leaves alone."""

import errno
import json
import logging
import os
import sys
import threading
from types import SimpleNamespace

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile import file as _file
from persistent_context._stores.jsonfile.access import Access
from persistent_context._stores.jsonfile.store import JsonFileStore

PRINT_WITH_CLOSED_STREAMS = """
import os, sys
from persistent_context import SyncPersistentContext

def print_to_all(event, arguments):
    if event == "os.rename":
        for stream in closed:
            try:
                os.write(stream, b"printed")
            except OSError:
                pass

path, closed = sys.argv[1], [int(number) for number in sys.argv[2].split(",")]
ctx = SyncPersistentContext.create(path)
for stream in closed:
    os.close(stream)
sys.addaudithook(print_to_all)
with ctx.transaction() as tx:
    print_to_all("os.rename", ())
    tx["n"] = 1
ctx.incr("n")
os._exit(0)
"""

PRINT_BETWEEN = """
import os, sys
from persistent_context import SyncPersistentContext

real = os.dup

def print_first(fd):
    if os.readlink(f"/proc/self/fd/{fd}").endswith(".tmp"):
        os.write(fd, b"printed by another thread")
    return real(fd)

os.close(1)
os.dup = print_first
SyncPersistentContext(sys.argv[1]).incr("n")
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """Return the names of all files beside the file and its lock file."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


def identity(path):
    """Return what distinguishes one write of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


class TestClosedStreams:
    @pytest.mark.parametrize("closed", ["0", "1", "2", "0,1,2"])
    def test_what_is_printed_lands_in_no_file(self, path, spawn, closed):
        """No file of the library becomes the standard output of a process that has closed its own."""
        spawn(PRINT_WITH_CLOSED_STREAMS, path, closed).finish()
        lock = path.with_name("state.json.lock").read_bytes()

        assert ('{\n"n": 2\n}\n', False, []) == (path.read_text(), b"printed" in lock, temporaries(path))

    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_nor_what_is_printed_between(self, path, spawn):
        """What another thread prints just when a temporary file is opened is discarded."""
        spawn(PRINT_BETWEEN, path).finish()

        assert '{\n"n": 1\n}\n' == path.read_text()


class TestReading:
    def test_it_does_not_delay_a_commit(self, path, monkeypatch):
        """While a slow reader of this process is reading the file, other calls run."""
        store = JsonFileStore(str(path))
        reading, go_on, read_at = threading.Event(), threading.Event(), _file.read_at

        def slow(fd, offset, length):
            if threading.current_thread() is reader:
                reading.set()
                go_on.wait(60)
            return read_at(fd, offset, length)

        path.write_text('{\n"n": 1\n}\n', encoding="utf-8")
        monkeypatch.setattr(_file, "read_at", slow)
        read = []
        reader = threading.Thread(target=lambda: read.append(store.snapshot().get(["n"])))
        reader.start()
        reading.wait(60)
        session = store.begin("test", wait=False)
        session.commit(Changes({"n": b"2"}), durable=True)
        session.close()
        written = stored(path)
        go_on.set()
        reader.join(60)

        assert ({"n": 2}, [{"n": b"1"}]) == (written, read)

    @pytest.mark.parametrize("rest", ["", ", " + ", ".join(f'"{n}": "{"x" * 100}"' for n in range(1000))])
    def test_repeated_keys_are_warned_of_once_a_content(self, path, caplog, rest):
        """However often a watch looks at a file with repeated keys, one warning is logged until the file changes."""
        store = JsonFileStore(str(path))
        warnings = []
        for content in (1, 1, 1, 2, 2, 3):
            path.write_text(f'{{"a": {content}, "a": 0{rest}}}', encoding="utf-8")
            store.snapshot()
            warnings.append(len([record for record in caplog.records if record.levelno == logging.WARNING]))

        assert [1, 1, 1, 2, 2, 3] == warnings

    def test_a_file_that_is_finished_between_two_looks_is_taken(self, path, monkeypatch):
        """A program that takes no lock and is writing the file in place gets time to finish."""
        path.write_text('{"theirs": ', encoding="utf-8")

        def finish_it(_seconds):
            path.write_text('{"theirs": 1}', encoding="utf-8")

        monkeypatch.setattr(_file, "time", SimpleNamespace(sleep=finish_it))
        SyncPersistentContext(path).incr("n")

        assert ({"theirs": 1, "n": 1}, []) == (stored(path), temporaries(path))


class TestWaitingInVain:
    def test_an_abandoned_begin_makes_room_for_another_one(self, path, hold):
        """Behind a holder whose lock file was deleted, a thread gives up its place for one under the new lock file."""
        store = JsonFileStore(str(path))
        ended = []
        waiting = threading.Thread(target=lambda: ended.append(store.begin("first", wait=True)))
        with hold(path):
            waiting.start()
            tick = threading.Event()
            while store._lock._wait is None:
                tick.wait(0.001)
            at_its_path = store.abandon_vain_wait()
            path.with_name("state.json.lock").unlink()
            abandoned = store.abandon_vain_wait()
            session = store.begin("second", wait=True)
            session.commit(Changes({"n": b"1"}), durable=False)
        waiting.join(60)
        session.close()

        assert (False, True, [None], {"n": 1}) == (at_its_path, abandoned, ended, stored(path))


class TestALook:
    def test_an_error_is_raised(self, path, monkeypatch):
        """An error while reading the file's access rights is raised."""
        stat = os.lstat

        def fail(name, **options):
            if name == str(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return stat(name, **options)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "lstat", fail)
            Access.of(str(path))

        assert not path.exists()


class TestNothingToWrite:
    def test_a_save_without_changes_writes_nothing(self, face, path):
        """The file is not replaced."""
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_a_value_set_to_what_it_was_writes_nothing(self, face, path):
        """Without a difference, nothing is written."""
        ctx = face.open(path)
        ctx.set("a", [1])
        face.do(ctx.save)
        before = identity(path)
        ctx.set("a", [1])
        face.do(ctx.save)

        assert before == identity(path)

    def test_another_layout_is_left_alone(self, face, path):
        """A save without changes does not reformat a file that was written by hand."""
        path.write_text('{\n    "a":   1\n}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_others_changes_are_taken_over_all_the_same(self, face, path):
        """A save with nothing to write still takes over what others wrote."""
        path.write_text('{"a": 1, "b": 1, "c": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("a", 2)
        del other["b"]
        face.do(other.save)
        before = identity(path)
        face.do(ctx.save)

        assert (before, {"a": 2, "c": 1}, set()) == (identity(path), dict(ctx), ctx.unsaved_keys())

    def test_a_change_that_others_made_too_writes_nothing(self, face, path):
        """If the file has the change already, there is nothing to write."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("a", 2)
        face.do(other.save)
        before = identity(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert before == identity(path)


class TestAFileThatIsGone:
    def test_all_memory_is_written(self, face, path):
        """A deleted file does not delete any key."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 3)
        face.do(ctx.save)

        assert {"a": 3, "b": 2} == stored(path)

    def test_all_memory_is_written_even_without_changes(self, face, path):
        """A save restores a deleted file."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, {"a": 1, "b": 2}, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())

    def test_a_deleted_key_does_not_come_back(self, face, path):
        """What is written is the current memory, not an earlier one."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        del ctx["a"]
        face.do(ctx.save)

        assert {"b": 2} == stored(path)

    @pytest.mark.parametrize("bad", [None, b"{"], ids=["gone", "corrupt"])
    def test_the_order_of_memory_is_kept(self, face, path, bad):
        """The file is written in memory's order, with changed keys in their places."""
        path.write_text('{"a": 1, "b": 2, "c": 3}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(b=5, new=1)
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        face.do(ctx.save)

        assert b'{\n"a": 1,\n"b": 5,\n"c": 3,\n"new": 1\n}\n' == path.read_bytes()

    def test_it_is_not_a_conflict(self, face, path):
        """A missing file does not conflict with any change."""
        ctx = face.open(path, on_conflict="raise")
        ctx.update(a=1)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2} == stored(path)

    def test_a_directory_that_is_gone_is_made_again(self, face, path):
        """A missing directory is created again."""
        deep = path.parent / "x" / "state.json"
        ctx = face.open(deep)
        ctx.set("a", 1)
        face.do(ctx.save)
        for one in deep.parent.iterdir():
            one.unlink()
        deep.parent.rmdir()
        face.do(ctx.save)

        assert {"a": 1} == stored(deep)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
class TestAccess:
    def test_it_is_looked_at_once_a_commit(self, path, monkeypatch):
        """The temporary file and the lock file get the owners, mode and access list that the file had at one moment."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        real, looks = os.lstat, []

        def look(name, **options):
            status = real(name, **options)
            if name == str(path):
                looks.append(status.st_mode & 0o777)
                os.chmod(path, 0o666)  # as another process may do at that moment
            return status

        path.chmod(0o640)
        monkeypatch.setattr(os, "lstat", look)
        ctx.incr("n")
        modes = [real(name).st_mode & 0o777 for name in (path, f"{path}.lock")]

        assert ([0o640], [0o640, 0o640]) == (looks, modes)

    def test_a_kept_lock_file_follows_the_file(self, path):
        """After the mode of the file changes, the lock file gets the same mode with the next commit."""
        ctx = SyncPersistentContext.create(path)
        modes = []
        for mode in (0o600, 0o660, 0o604, 0o640):
            ctx.incr("n")
            path.chmod(mode)
            ctx.incr("n")
            modes.append((mode, *(os.stat(name).st_mode & 0o777 for name in (path, f"{path}.lock"))))

        assert [(mode, mode, mode) for mode in (0o600, 0o660, 0o604, 0o640)] == modes

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have other access lists")
    def test_an_access_list_is_looked_up_and_given_with_it(self, path, monkeypatch):
        """Both files get the access list of the same moment; without a list, none is removed."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        lists, given = [b"list"], []
        monkeypatch.setattr(
            os,
            "getxattr",
            lambda file, _: lists.pop() if lists and os.path.samestat(os.stat(file), path.stat()) else b"",
        )
        monkeypatch.setattr(os, "setxattr", lambda fd, name, acl: given.append((_name_of(fd), acl)))
        ctx.incr("n")

        assert ([], [(".lock", b"list"), (".tmp", b"list")]) == (lists, given)


def _name_of(fd):
    return os.path.splitext(os.readlink(f"/proc/self/fd/{fd}"))[1]
