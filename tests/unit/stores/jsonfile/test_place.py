"""The path of the file: its directory is removed, links loop or are turned, or something else is there."""

import errno
import json
import os
import shutil
import threading
from types import SimpleNamespace

import pytest

from persistent_context import LockLostError, NotARegularFileError, SyncPersistentContext
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile import file as _file
from persistent_context._stores.jsonfile.store import JsonFileStore
from persistent_context._stores.protocol import SessionLostError

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
        pass  # the directory was removed between the replacement and the sync
print("done", flush=True)
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """Return the names of all files beside the file and its lock file."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


class TestTheDirectoryIsRemoved:
    def test_under_a_cycle(self, face, path):
        """The cycle restarts, and creates the directory again."""
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
        """A transaction cannot be repeated, so it raises LockLostError."""
        ctx = face.open(path)

        def remove(tx):
            tx["a"] = 1
            shutil.rmtree(path.parent)

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, remove)

        assert not path.parent.exists()

    def test_file_by_file(self, path, monkeypatch):
        """A removal that has deleted the temporary file, but not the lock file yet, is waited for."""
        ctx, replace = SyncPersistentContext.create(path), os.replace

        def removed_meanwhile(source, target):
            monkeypatch.setattr(os, "replace", replace)
            os.unlink(source)
            replace(source, target)

        def go_on(_seconds):
            path.with_name("state.json.lock").unlink(missing_ok=True)

        monkeypatch.setattr(os, "replace", removed_meanwhile)
        monkeypatch.setattr(_file, "time", SimpleNamespace(sleep=go_on))

        assert (1, {"n": 1}) == (ctx.incr("n"), stored(path))

    def test_a_temporary_that_is_removed_alone_is_an_error(self, path, monkeypatch):
        """The lock is still held, so nothing is repeated."""
        ctx, replace = SyncPersistentContext.create(path), os.replace

        def removed_meanwhile(source, target):
            os.unlink(source)
            replace(source, target)

        with monkeypatch.context() as patch, pytest.raises(FileNotFoundError):
            patch.setattr(os, "replace", removed_meanwhile)
            ctx.incr("n")

        assert (1, []) == (ctx.incr("n"), temporaries(path))

    def test_before_what_is_corrupt_in_it_could_be_moved_aside(self, path, monkeypatch):
        """A corrupt file that disappears before it is moved aside counts as missing."""
        path.write_text("corrupt", encoding="utf-8")
        rename = os.rename

        def removed_meanwhile(source, target):
            shutil.rmtree(path.parent)
            rename(source, target)

        monkeypatch.setattr(os, "rename", removed_meanwhile)
        number = SyncPersistentContext(path).incr("n")

        assert (1, {"n": 1}) == (number, stored(path))

    def test_just_after_the_lock_was_taken(self, path, monkeypatch):
        """Without a directory there are no leftovers; the cycle restarts."""
        listdir = os.listdir

        def removed_meanwhile(directory):
            monkeypatch.setattr(os, "listdir", listdir)
            shutil.rmtree(directory)
            return listdir(directory)

        monkeypatch.setattr(os, "listdir", removed_meanwhile)
        number = SyncPersistentContext(path).incr("n")

        assert (1, {"n": 1}) == (number, stored(path))

    def test_just_before_the_lock_file_is_made(self, tmp_path, monkeypatch):
        """The directory is created again each time it disappears, up to a limit."""
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


class TestLinks:
    def test_a_loop_in_the_place_of_the_file(self, face, path):
        """The error says that it is a loop of symbolic links."""
        path.symlink_to(path.name)
        for call in (lambda: face.open(path), lambda: face.do(face.cls(path).incr, "n")):
            with pytest.raises(NotARegularFileError, match="found a loop of symbolic links") as caught:
                call()

            assert errno.ELOOP == caught.value.errno

    def test_a_loop_on_the_way(self, face, path):
        """The error does not say to remove a lock file that does not exist."""
        loop = path.with_name("loop")
        loop.symlink_to("loop")
        for call in (lambda: face.open(loop / "state.json"), lambda: face.do(face.cls(loop / "state.json").incr, "n")):
            with pytest.raises(NotARegularFileError, match="found a loop of symbolic links"):
                call()

    def test_a_link_in_the_place_of_the_lock_file(self, face, path):
        """The message says what to do."""
        path.with_name("state.json.lock").symlink_to("elsewhere")
        with pytest.raises(NotARegularFileError, match=r"symbolic link, which is never followed; remove it: .*\.lock"):
            face.do(face.open(path).incr, "n")
        with pytest.raises(NotARegularFileError, match="symbolic link, which is never followed"):
            face.do(face.open(path).lock_holder)

    def test_one_that_took_the_place_of_the_file(self, path):
        """A link that appears under a cycle is not replaced by the file."""
        store = JsonFileStore(str(path))
        session = store.begin("test", wait=False)
        assert not session.snapshot.exists
        path.symlink_to("elsewhere")
        with pytest.raises(NotARegularFileError, match="found a symbolic link"):
            session.commit(Changes({"n": b"1"}), durable=True)
        session.close()

        assert (True, []) == (path.is_symlink(), temporaries(path))

    def test_one_that_took_the_place_of_the_file_before_it_is_read(self, path):
        """It is not followed: another user may have planted it, and what it leads to has a lock of its own."""
        store = JsonFileStore(str(path))
        session = store.begin("test", wait=False)
        path.with_name("other.json").write_text('{"a": 1}', encoding="utf-8")
        path.symlink_to("other.json")
        with pytest.raises(SessionLostError):
            session.read()
        session.close()
        with pytest.raises(SessionLostError):
            store.snapshot()

    @pytest.mark.parametrize("call", ["load", "incr", "transaction"])
    def test_calls_find_the_file_anew_when_one_takes_its_place(self, face, path, monkeypatch, call):
        """A link that appears between finding the file and opening it is followed, with the lock of its target."""
        other, real = path.with_name("other.json"), _file.open_to_read
        other.write_text('{"n": 1}', encoding="utf-8")
        path.write_text('{"n": 5}', encoding="utf-8")
        ctx = face.cls(path, lock_timeout=5)

        def turned_meanwhile(opened):
            monkeypatch.setattr(_file, "open_to_read", real)
            path.unlink()
            path.symlink_to(other)
            return real(opened)

        monkeypatch.setattr(_file, "open_to_read", turned_meanwhile)
        if call == "transaction":
            face.inside(ctx.transaction, lambda tx: tx.update(n=tx["n"] + 1))
        else:
            face.do(getattr(ctx, call), *["n"] * (call == "incr"))
        face.do(ctx.load)

        assert (1 if call == "load" else 2, True) == (ctx["n"], path.is_symlink())
        assert other.with_name("other.json.lock").exists()

    def test_one_that_took_the_place_of_the_file_between_two_calls(self, face, path):
        """The next call follows it, even if the context has not looked for the file since."""
        ctx, other = face.open(path), path.with_name("other.json")
        face.do(ctx.incr, "n")
        other.write_text('{"n": 10}', encoding="utf-8")
        path.unlink()
        path.symlink_to(other)

        assert (11, {"n": 11}, True) == (face.do(ctx.incr, "n"), stored(other), path.is_symlink())

    def test_a_link_that_was_turned_is_followed_again(self, face, path):
        """A save writes to the current target of the link."""
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
        """Opening a socket fails differently, but the message is the same."""
        import socket

        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(place)
            with pytest.raises(NotARegularFileError, match=rf"found a socket.*{place}'?$"):
                SyncPersistentContext(path).incr("n")
