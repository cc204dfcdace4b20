"""The store in one JSON file: what it writes and what it leaves alone, and what may happen to the place meanwhile."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import filelock
import pytest

from persistent_context import (
    DurabilityUnknownError,
    LockLostError,
    NotARegularFileError,
    PersistentContext,
    SyncPersistentContext,
)
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile import store as _store
from persistent_context._stores.jsonfile.access import Access
from persistent_context._stores.jsonfile.lock import FileLock, HeldLock
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

INCREMENT = """
import sys
from persistent_context import DurabilityUnknownError, SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    try:
        ctx.incr("n")
    except DurabilityUnknownError:
        pass  # the directory went between the replacing and the sync
print("done", flush=True)
"""


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """The names of all files beside the file and its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


def identity(path):
    """What tells one writing of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


class TestTheDirectoryIsRemoved:
    def test_under_a_cycle(self, face, path):
        """The cycle starts again, and makes the directory anew."""
        calls = []

        def remove_once(value):
            if not calls:
                shutil.rmtree(path.parent)
            calls.append(value)
            return "there"

        ctx = face.open(path)
        face.do(ctx.add, "before", 1)

        assert "there" == face.do(ctx.mutate, "n", remove_once)
        assert ({"n": "there"}, [None, None]) == (stored(path), calls)
        assert [1, 2] == [face.do(ctx.incr, "m"), face.do(face.open(path, lock_timeout=5).incr, "m")]

    def test_under_a_transaction(self, face, path):
        """It cannot be repeated, and so it is told that its lock was lost."""
        ctx = face.open(path)

        def remove(tx):
            tx["a"] = 1
            shutil.rmtree(path.parent)

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, remove)

        assert not path.parent.exists()

    def test_file_by_file(self, path, monkeypatch):
        """A removal that has come to the temporary, and not to the lock file yet, is waited for."""
        ctx, replace = SyncPersistentContext.create(path), os.replace

        def removed_meanwhile(source, target):
            monkeypatch.setattr(os, "replace", replace)
            os.unlink(source)
            replace(source, target)

        def go_on(_seconds):
            path.with_name("state.json.lock").unlink(missing_ok=True)

        monkeypatch.setattr(os, "replace", removed_meanwhile)
        monkeypatch.setattr(_store, "time", SimpleNamespace(sleep=go_on, monotonic=time.monotonic))

        assert (1, {"n": 1}) == (ctx.incr("n"), stored(path))

    def test_a_temporary_that_is_removed_alone_is_an_error(self, path, monkeypatch):
        """The lock is held all the same, and so nothing is to be repeated."""
        ctx, replace = SyncPersistentContext.create(path), os.replace

        def removed_meanwhile(source, target):
            os.unlink(source)
            replace(source, target)

        with monkeypatch.context() as patch, pytest.raises(FileNotFoundError):
            patch.setattr(os, "replace", removed_meanwhile)
            ctx.incr("n")

        assert (1, []) == (ctx.incr("n"), temporaries(path))

    def test_before_what_is_corrupt_in_it_could_be_moved_aside(self, path, monkeypatch):
        """A corrupt file that goes between two looks is a missing one."""
        path.write_text("corrupt", encoding="utf-8")
        rename = os.rename

        def removed_meanwhile(source, target):
            shutil.rmtree(path.parent)
            rename(source, target)

        monkeypatch.setattr(os, "rename", removed_meanwhile)
        number = SyncPersistentContext(path).incr("n")

        assert (1, {"n": 1}) == (number, stored(path))

    def test_just_after_the_lock_was_taken(self, path, monkeypatch):
        """Where there is no directory there are no leftovers; the cycle starts again."""
        listdir = os.listdir

        def removed_meanwhile(directory):
            monkeypatch.setattr(os, "listdir", listdir)
            shutil.rmtree(directory)
            return listdir(directory)

        monkeypatch.setattr(os, "listdir", removed_meanwhile)
        number = SyncPersistentContext(path).incr("n")

        assert (1, {"n": 1}) == (number, stored(path))

    def test_just_before_the_lock_file_is_made(self, tmp_path, monkeypatch):
        """As often as it goes it is made again, up to a bound."""
        path, exists = tmp_path / "data" / "state.json", os.path.exists
        removals = 3

        def removed_meanwhile(name):
            nonlocal removals
            if str(name) == str(path) and removals:
                removals -= 1
                path.parent.rmdir()
            return exists(name)

        monkeypatch.setattr(os.path, "exists", removed_meanwhile)
        number = SyncPersistentContext(path).incr("n")
        shutil.rmtree(path.parent)
        removals = 1_000
        with pytest.raises(FileNotFoundError, match=r"state\.json\.lock"):
            SyncPersistentContext(path).incr("n")

        assert 1 == number

    def test_again_and_again(self, path, spawn):
        """Writers whose directory is removed all the time go on, each call in the directory that is there then."""
        children = [spawn(INCREMENT, path) for _ in range(2)]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        heard = []
        listeners = [threading.Thread(target=lambda child=child: heard.append(child.hear())) for child in children]
        for listener in listeners:
            listener.start()
        while any(listener.is_alive() for listener in listeners):
            shutil.rmtree(path.parent, ignore_errors=True)
            listeners[0].join(0.002)
        for child in children:
            child.finish()

        assert ["done", "done"] == heard


class TestClosedStreams:
    @pytest.mark.parametrize("closed", ["0", "1", "2", "0,1,2"])
    def test_what_is_printed_lands_in_no_file(self, path, spawn, closed):
        """No file of ours becomes the standard output of a process that has closed its own."""
        spawn(PRINT_WITH_CLOSED_STREAMS, path, closed).finish()
        lock = path.with_name("state.json.lock").read_bytes()

        assert ('{\n"n": 2\n}\n', False, []) == (path.read_text(), b"printed" in lock, temporaries(path))

    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_nor_what_is_printed_between(self, path, spawn):
        """What another thread prints in the very moment in which a temporary is opened is thrown away."""
        spawn(PRINT_BETWEEN, path).finish()

        assert '{\n"n": 1\n}\n' == path.read_text()


class TestReading:
    def test_it_keeps_nobody_from_committing(self, path, monkeypatch):
        """While a slow reader of this process is in the midst of the file, calls are carried out."""
        store = JsonFileStore(str(path))
        reading, go_on, read_at = threading.Event(), threading.Event(), _store.read_at

        def slow(fd, offset, length):
            if threading.current_thread() is reader:
                reading.set()
                go_on.wait(60)
            return read_at(fd, offset, length)

        path.write_text('{\n"n": 1\n}\n', encoding="utf-8")
        monkeypatch.setattr(_store, "read_at", slow)
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
        """However often a watch looks at a file that repeats keys, the log says so once, until the file changes."""
        store = JsonFileStore(str(path))
        warnings = []
        for content in (1, 1, 1, 2, 2, 3):
            path.write_text(f'{{"a": {content}, "a": 0{rest}}}', encoding="utf-8")
            store.snapshot()
            warnings.append(len([record for record in caplog.records if record.levelno == logging.WARNING]))

        assert [1, 1, 1, 2, 2, 3] == warnings

    def test_a_file_that_is_finished_between_two_looks_is_taken(self, path, monkeypatch):
        """A program that takes no lock, and is just writing the file in place, is given the time to finish."""
        path.write_text('{"theirs": ', encoding="utf-8")

        def finish_it(_seconds):
            path.write_text('{"theirs": 1}', encoding="utf-8")

        monkeypatch.setattr(_store, "time", SimpleNamespace(sleep=finish_it, monotonic=time.monotonic))
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
    def test_one_that_fails_is_told(self, path, monkeypatch):
        """What access rights the file has is not guessed when the disk does not say."""
        stat = os.lstat

        def fail(name, **options):
            if name == str(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return stat(name, **options)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "lstat", fail)
            Access.of(str(path))

        assert not path.exists()


class TestLinks:
    def test_a_loop_in_the_place_of_the_file(self, face, path):
        """It is told as what it is."""
        path.symlink_to(path.name)
        for call in (lambda: face.open(path), lambda: face.do(face.cls(path).incr, "n")):
            with pytest.raises(NotARegularFileError, match="found a loop of symbolic links") as caught:
                call()

            assert errno.ELOOP == caught.value.errno

    def test_a_loop_on_the_way(self, face, path):
        """Nobody is told to remove a lock file that is not there."""
        loop = path.with_name("loop")
        loop.symlink_to("loop")
        for call in (lambda: face.open(loop / "state.json"), lambda: face.do(face.cls(loop / "state.json").incr, "n")):
            with pytest.raises(NotARegularFileError, match="found a loop of symbolic links"):
                call()

    def test_a_link_in_the_place_of_the_lock_file(self, face, path):
        """The message says what to do about it."""
        path.with_name("state.json.lock").symlink_to("elsewhere")
        with pytest.raises(NotARegularFileError, match=r"symbolic link, which is never followed; remove it: .*\.lock"):
            face.do(face.open(path).incr, "n")
        with pytest.raises(NotARegularFileError, match="symbolic link, which is never followed"):
            face.do(face.open(path).lock_holder)

    def test_one_that_took_the_place_of_the_file(self, path):
        """A link that somebody puts there under a cycle is not replaced by the file."""
        store = JsonFileStore(str(path))
        session = store.begin("test", wait=False)
        assert not session.snapshot.exists
        path.symlink_to("elsewhere")
        with pytest.raises(NotARegularFileError, match="found a symbolic link"):
            session.commit(Changes({"n": b"1"}), durable=True)
        session.close()

        assert (True, []) == (path.is_symlink(), temporaries(path))

    def test_a_link_that_was_turned_is_followed_anew(self, face, path):
        """A save goes to where the link leads now."""
        old, new = path.parent / "old.json", path.parent / "new.json"
        old.write_text('{"a": 1}', encoding="utf-8")
        new.write_text('{"b": 1}', encoding="utf-8")
        path.symlink_to(old)
        ctx = face.open(path)
        path.unlink()
        path.symlink_to(new)
        ctx.set("c", 1)
        face.do(ctx.save)

        assert ({"a": 1}, 1) == (stored(old), stored(new)["c"])

    def test_the_link_stays_and_its_target_is_written(self, face, path):
        """A symlink is followed, never replaced."""
        target = path.parent / "elsewhere" / "real.json"
        target.parent.mkdir()
        target.write_text('{"a": 1}', encoding="utf-8")
        path.symlink_to(target)
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert (True, {"a": 2}) == (path.is_symlink(), stored(target))


@pytest.mark.parametrize("place", ["state.json", "state.json.lock"])
class TestWhatStandsThere:
    @pytest.mark.parametrize(("make", "what"), [(os.mkdir, "a directory"), (os.mkfifo, "a FIFO")])
    def test_it_is_named(self, path, place, make, what):
        """The message says what was found, and where."""
        make(path.with_name(place))
        with pytest.raises(NotARegularFileError, match=rf"found {what}.*{place}'?$"):
            SyncPersistentContext(path).incr("n")

    def test_a_socket_is_named(self, path, place, monkeypatch):
        """Opening one fails in a way of its own."""
        import socket

        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(place)
            with pytest.raises(NotARegularFileError, match=rf"found a socket.*{place}'?$"):
                SyncPersistentContext(path).incr("n")


class TestNothingToWrite:
    def test_a_save_without_changes_writes_nothing(self, face, path):
        """The file is the same file afterwards."""
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_a_value_set_to_what_it_was_writes_nothing(self, face, path):
        """No difference, no writing."""
        ctx = face.open(path)
        ctx.set("a", [1])
        face.do(ctx.save)
        before = identity(path)
        ctx.set("a", [1])
        face.do(ctx.save)

        assert before == identity(path)

    def test_another_layout_is_left_alone(self, face, path):
        """A save without changes does not reformat what a human wrote."""
        path.write_text('{\n    "a":   1\n}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_others_changes_are_taken_over_all_the_same(self, face, path):
        """A save with nothing to write still shows what others wrote."""
        path.write_text('{"a": 1, "b": 1, "c": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("a", 2)
        del other["b"]
        face.do(other.save)
        before = identity(path)
        face.do(ctx.save)

        assert (before, {"a": 2, "c": 1}, set()) == (identity(path), dict(ctx), ctx.unsaved_keys())

    def test_a_change_that_others_made_too_writes_nothing(self, face, path):
        """Where the file has my change already, there is nothing to write."""
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
        """A file that somebody deleted says nothing about what to delete."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 3)
        face.do(ctx.save)

        assert {"a": 3, "b": 2} == stored(path)

    def test_all_memory_is_written_even_without_changes(self, face, path):
        """A save brings a deleted file back."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, {"a": 1, "b": 2}, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())

    def test_a_deleted_key_does_not_come_back(self, face, path):
        """All of memory is what memory holds, not what it held."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        del ctx["a"]
        face.do(ctx.save)

        assert {"b": 2} == stored(path)

    @pytest.mark.parametrize("bad", [None, b"{"], ids=["gone", "corrupt"])
    def test_the_order_of_memory_is_kept(self, face, path, bad):
        """All of memory is written in memory's order, changed keys in their places."""
        path.write_text('{"a": 1, "b": 2, "c": 3}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(b=5, new=1)
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        face.do(ctx.save)

        assert b'{\n"a": 1,\n"b": 5,\n"c": 3,\n"new": 1\n}\n' == path.read_bytes()

    def test_it_is_no_conflict(self, face, path):
        """A missing file conflicts with nobody."""
        ctx = face.open(path, on_conflict="raise")
        ctx.update(a=1)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2} == stored(path)

    def test_a_directory_that_is_gone_is_made_again(self, face, path):
        """The whole directory may be gone."""
        deep = path.parent / "x" / "state.json"
        ctx = face.open(deep)
        ctx.set("a", 1)
        face.do(ctx.save)
        for one in deep.parent.iterdir():
            one.unlink()
        deep.parent.rmdir()
        face.do(ctx.save)

        assert {"a": 1} == stored(deep)


TRY_THE_LOCK = """
import sys
import filelock

try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free", flush=True)
except filelock.Timeout:
    print("locked", flush=True)
"""


@pytest.fixture
def at_the_sync_of_the_directory(path, monkeypatch):
    """Have a function called whenever the file's directory is to be synced."""

    def arrange(function):
        real, directory = os.fsync, path.parent.stat()

        def sync(fd):
            if os.path.samestat(os.fstat(fd), directory):
                function()
            real(fd)

        monkeypatch.setattr(os, "fsync", sync)

    return arrange


def _fail_to_sync():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


CALLS = {
    "incr": lambda face, ctx: face.do(ctx.incr, "a"),
    "save": lambda face, ctx: (ctx.set("a", 1), face.do(ctx.save)),
    "transaction": lambda face, ctx: face.inside(ctx.transaction, lambda tx: tx.update(a=1)),
    "nothing to write": lambda face, ctx: face.do(ctx.compare_and_set, "there", 1, 1),
}


class TestSyncingTheDirectory:
    @pytest.fixture(autouse=True)
    def there(self, path):
        """A file with something in it."""
        path.write_text('{"there": 1}', encoding="utf-8")

    @pytest.mark.parametrize("call", CALLS)
    def test_the_lock_is_free_meanwhile(self, face, path, run, at_the_sync_of_the_directory, call):
        """Another process may have its turn while the disk is slow, and finds the new file."""
        found = []
        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: found.append((*run(TRY_THE_LOCK, path), stored(path).get("a"))))
        CALLS[call](face, ctx)

        assert [("free", None if call == "nothing to write" else 1)] == found

    @pytest.mark.parametrize("call", CALLS)
    def test_nothing_is_acknowledged_before_it_is_done(self, face, path, at_the_sync_of_the_directory, call):
        """A call returns when its change would survive a power loss, though it is visible before."""
        returned, early = threading.Event(), []
        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: early.append(returned.wait(0.3)))
        caller = threading.Thread(target=lambda: (CALLS[call](face, ctx), returned.set()))
        caller.start()
        caller.join(60)

        assert ([False], True) == (early, returned.is_set())

    @pytest.mark.parametrize("call", CALLS)
    def test_a_failure_is_told_and_the_change_is_there(self, face, path, at_the_sync_of_the_directory, call):
        """The file and memory have the change, of which it is unknown whether it survives."""
        ctx = face.open(path)
        at_the_sync_of_the_directory(_fail_to_sync)
        with pytest.raises(DurabilityUnknownError, match=r"unknown.*Input/output error") as caught:
            CALLS[call](face, ctx)

        assert (errno.EIO, str(path)) == (caught.value.errno, caught.value.filename)
        assert (stored(path), set()) == (dict(ctx), ctx.unsaved_keys())
        assert {"there": 1} | ({} if call == "nothing to write" else {"a": 1}) == stored(path)

    async def test_a_failure_is_told_to_every_call_of_the_cycle(self, path, at_the_sync_of_the_directory):
        """Each gets an error of its own, also one that is not to be durable; and the next cycle is none of it."""
        contexts = [await PersistentContext.create(path, durable=durable) for durable in (True, False, True)]
        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.incr("n")) for ctx in contexts]
            while not (queue := contexts[0]._link.here()) or len(queue._waiting) < len(calls):
                await asyncio.sleep(0)
            failures = [_fail_to_sync]
            at_the_sync_of_the_directory(lambda: failures and failures.pop()())
        errors = await asyncio.gather(*calls, return_exceptions=True)

        assert [DurabilityUnknownError] * 3 == [*map(type, errors)]
        assert (3, 1) == (len({*map(id, errors)}), contexts[0].statistics().cycles)
        assert ({"there": 1, "n": 3}, [3, 3, 3]) == (stored(path), [ctx["n"] for ctx in contexts])
        assert 4 == await contexts[0].incr("n")

    @pytest.mark.parametrize("call", ["incr", "nothing to write"])
    def test_it_is_done_though_the_lock_could_not_be_released_cleanly(
        self, face, path, at_the_sync_of_the_directory, monkeypatch, call
    ):
        """Where memory runs out while the lock is released, the call that is acknowledged is durable all the same."""
        synced, release = [], HeldLock.release

        def failing(held):
            release(held)
            raise MemoryError

        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: synced.append(True))
        monkeypatch.setattr(HeldLock, "release", failing)
        CALLS[call](face, ctx)

        assert [True] == synced

    @pytest.mark.parametrize("call", ["incr", "nothing to write"])
    def test_any_error_leaves_durability_unknown(self, face, path, at_the_sync_of_the_directory, call):
        """Not only the system's: no call succeeds whose directory was not synced."""

        def fail():
            raise MemoryError

        ctx = face.open(path)
        at_the_sync_of_the_directory(fail)
        with pytest.raises(DurabilityUnknownError, match="MemoryError"):
            CALLS[call](face, ctx)

    def test_the_time_that_it_takes_does_not_count_as_held(self, path, at_the_sync_of_the_directory):
        """How long the lock was held is known by then, and what is reported does not change any more."""
        held = []
        session = JsonFileStore(str(path)).begin("test", wait=False)
        at_the_sync_of_the_directory(lambda: held.append(session.held))
        session.commit(Changes({"n": b"1"}), durable=True)
        session.close()

        assert [session.held] == held
        assert session.held > 0

    def test_one_that_failed_is_made_up_for_by_the_next(self, tmp_path, synced, monkeypatch):
        """A directory of ours whose name could not be synced is synced by the next durable call of the process."""
        path = tmp_path / "new" / "state.json"
        ctx = SyncPersistentContext(path)
        real, failures = os.fsync, []

        def fail_once(fd):
            if os.path.samestat(os.fstat(fd), tmp_path.stat()) and path.exists() and not failures:
                failures.append(True)
                _fail_to_sync()
            real(fd)

        monkeypatch.setattr(os, "fsync", fail_once)
        with pytest.raises(DurabilityUnknownError):
            ctx.incr("n")
        counts = []
        for _ in range(2):
            before = synced.count(str(tmp_path))
            ctx.incr("n")
            counts.append(synced.count(str(tmp_path)) - before)

        assert [1, 0] == counts


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no modes")
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc/self/fd to see what is open: run on Linux")
class TestTheReplacedFile:
    """Freeing its blocks takes longer than replacing it: others do not wait for that."""

    def is_open(self, path):
        """Whether this process has a file open that was at the path before."""
        targets = []
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return f"{path} (deleted)" in targets

    @pytest.mark.parametrize("call", [call for call in CALLS if call != "nothing to write"])
    def test_it_is_open_until_the_lock_is_released(self, face, path, monkeypatch, call):
        """It is open when the lock is being released."""
        path.write_text('{"there": 1}', encoding="utf-8")
        give_back, found = FileLock.give_back, []
        monkeypatch.setattr(
            FileLock, "give_back", lambda lock, file: (found.append(self.is_open(path)), give_back(lock, file))
        )
        CALLS[call](face, face.open(path))

        assert [True] == found

    @pytest.mark.parametrize("call", CALLS)
    def test_it_is_freed_when_the_call_is_over(self, face, path, call):
        """Nothing stays open, though the lock file does."""
        path.write_text('{"there": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            CALLS[call](face, ctx)

        assert (False, True) == (self.is_open(path), len(os.listdir("/proc/self/fd")) <= before + 1)

    def test_it_is_freed_after_an_error_as_well(self, path, at_the_sync_of_the_directory):
        """The directory could not be synced."""
        path.write_text('{"there": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        at_the_sync_of_the_directory(_fail_to_sync)
        with pytest.raises(DurabilityUnknownError):
            ctx.incr("a")

        assert not self.is_open(path)


class TestAccess:
    def test_it_is_looked_at_once_a_commit(self, path, monkeypatch):
        """The temporary and the lock file are given what the file's owners, mode and list were at one moment."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        real, looks = os.lstat, []

        def look(name, **options):
            status = real(name, **options)
            if name == str(path):
                looks.append(status.st_mode & 0o777)
                os.chmod(path, 0o666)  # as somebody else may do just then
            return status

        path.chmod(0o640)
        monkeypatch.setattr(os, "lstat", look)
        ctx.incr("n")
        modes = [real(name).st_mode & 0o777 for name in (path, f"{path}.lock")]

        assert ([0o640], [0o640, 0o640]) == (looks, modes)

    def test_a_kept_lock_file_follows_the_file(self, path):
        """Whoever may use the file after a change of its mode may lock it after the next commit, and no one else."""
        ctx = SyncPersistentContext.create(path)
        modes = []
        for mode in (0o600, 0o660, 0o604, 0o640):
            ctx.incr("n")
            path.chmod(mode)
            ctx.incr("n")
            modes.append((mode, *(os.stat(name).st_mode & 0o777 for name in (path, f"{path}.lock"))))

        assert [(mode, mode, mode) for mode in (0o600, 0o660, 0o604, 0o640)] == modes

    @pytest.mark.skipif(sys.platform != "linux", reason="has other access lists")
    def test_an_access_list_is_looked_up_and_given_with_it(self, path, monkeypatch):
        """The list of the same moment goes to both files; a list that is gone is taken from neither."""
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")
        lists, given = [b"list"], []
        monkeypatch.setattr(os, "getxattr", lambda name, _: lists.pop() if name == str(path) and lists else b"")
        monkeypatch.setattr(os, "setxattr", lambda fd, name, acl: given.append((_name_of(fd), acl)))
        ctx.incr("n")

        assert ([], [(".lock", b"list"), (".tmp", b"list")]) == (lists, given)


def _name_of(fd):
    return os.path.splitext(os.readlink(f"/proc/self/fd/{fd}"))[1]
