"""Durability: what is durable when a call returns, the order of the syncs, and the errors when the disk fails."""

import errno
import gc
import json
import os
import pickle
import stat
import sys
from types import SimpleNamespace

import pytest

from persistent_context import DurabilityUnknownError, SyncPersistentContext
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile import syncing as _syncing
from persistent_context._stores.jsonfile.store import JsonFileStore

HOLD_WITHOUT_A_PROMISE = """
import sys
from persistent_context import SyncPersistentContext

with SyncPersistentContext(sys.argv[1], durable=False).transaction() as tx:
    print("held", flush=True)
    sys.stdin.readline()
"""

STOP_AT_THE_FIRST_SYNC_IN_A_NEW_DIRECTORY = """
import os, sys
from persistent_context import SyncPersistentContext

path, sync = sys.argv[1], os.fsync

def stop(fd):
    if os.path.isdir(os.path.dirname(path)):
        print("made", flush=True)
        sys.stdin.readline()
    sync(fd)

os.fsync = stop
SyncPersistentContext(path).incr("n")
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def broken_disk(monkeypatch):
    """A disk that can no longer sync."""

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)


NOTHING_TO_WRITE = {
    "save": lambda face, ctx: (ctx.set("a", 1), face.do(ctx.save)),
    "compare_and_set": lambda face, ctx: face.do(ctx.compare_and_set, "a", 1, 1),
    "incr by nothing": lambda face, ctx: face.do(ctx.incr, "a", 0),
    "mutate": lambda face, ctx: face.do(ctx.mutate, "a", lambda value: value),
    "transaction": lambda face, ctx: face.inside(ctx.transaction, lambda tx: tx.update(a=1)),
}


@pytest.fixture
def break_fsync(monkeypatch):
    """Make fsync fail like a broken disk: for directories, for regular files, or not any more."""
    real = os.fsync

    def fail_for(kind):
        def fsync(fd):
            descriptor = fd if isinstance(fd, int) else fd.fileno()
            if kind is not None and kind(os.fstat(descriptor).st_mode):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd)

        monkeypatch.setattr(os, "fsync", fsync)

    return fail_for


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Record the steps of a write, which are really performed."""
    recorded = []

    def record(name, function):
        def recording(*args, **options):
            what = args[0] if isinstance(args[0], int) else str(args[0])
            if isinstance(what, int):
                what = os.readlink(f"/proc/self/fd/{what}") if sys.platform == "linux" else "?"
            recorded.append((name, what if os.path.isdir(what) else os.path.splitext(what)[1]))
            return function(*args, **options)

        return recording

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, record(name, getattr(os, name)))
    return recorded


def temporaries(path):
    """Return the names of all files beside the file and its lock file."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


class TestADurableCallThatWritesNothing:
    @pytest.fixture
    def unsynced(self, path):
        """A file that another process has written without a sync, in a directory that is not synced either."""
        SyncPersistentContext(path, durable=False).incr("a")
        return path

    @pytest.mark.parametrize("call", NOTHING_TO_WRITE)
    def test_it_syncs_what_it_found(self, face, unsynced, synced, call):
        """What a call acknowledges survives a power loss, even if another process wrote it without a sync."""
        ctx, before = face.open(unsynced), unsynced.stat()
        NOTHING_TO_WRITE[call](face, ctx)
        first = synced.copy()
        synced.clear()
        NOTHING_TO_WRITE[call](face, ctx)
        directory = unsynced.parent

        assert ([str(unsynced), str(directory), str(directory.parent)], [str(unsynced), str(directory)]) == (
            first,
            synced,
        )
        assert os.path.samestat(before, unsynced.stat())

    @pytest.mark.parametrize("call", NOTHING_TO_WRITE)
    def test_one_that_is_not_to_be_durable_syncs_nothing(self, face, unsynced, synced, call):
        """With ``durable=False`` the sync is left out."""
        NOTHING_TO_WRITE[call](face, face.open(unsynced, durable=False))

        assert [] == synced

    def test_a_missing_file_needs_no_sync(self, face, path, synced):
        """If there is no file, nothing can be lost."""
        ctx = face.open(path)
        face.do(ctx.compare_and_set, "a", 1, 2)

        assert ([], False) == (synced, path.exists())

    def test_a_session_syncs_the_document_that_it_read(self, unsynced, synced):
        """A durable session without changes syncs the document that it read."""
        for durable in (False, True):
            session = JsonFileStore(str(unsynced)).begin("test", wait=False)
            session.commit(Changes(), durable=durable)
            session.close()

        assert [str(unsynced), str(unsynced.parent), str(unsynced.parent.parent)] == synced

    def test_a_file_that_is_gone_by_then_needs_no_sync(self, unsynced, synced):
        """A program that takes no lock may remove the file after it was read."""
        session = JsonFileStore(str(unsynced)).begin("test", wait=False)
        assert session.snapshot.exists
        unsynced.unlink()
        session.commit(Changes(), durable=True)
        session.close()

        assert [] == synced

    def test_a_failure_leaves_durability_unknown(self, face, unsynced, broken_disk):
        """The error says that what is in the file may not survive, and memory has it."""
        ctx = face.open(unsynced)
        ctx.set("a", 1)
        with pytest.raises(DurabilityUnknownError, match=r"nothing to write.*unknown.*Input/output error") as caught:
            face.do(ctx.save)

        assert (errno.EIO, str(unsynced)) == (caught.value.errno, caught.value.filename)
        assert ({"a": 1}, set(), {"a": 1}) == (dict(ctx), ctx.unsaved_keys(), stored(unsynced))

    def test_windows_syncs_only_what_it_may_write(self, path, monkeypatch):
        """On Windows, a file is opened for writing in order to sync it."""
        flags, real = [], os.open
        SyncPersistentContext(path).save()
        monkeypatch.setattr(_syncing, "sys", SimpleNamespace(platform="win32"))

        def recording(name, how, mode=0o777):
            flags.append(how & (os.O_RDWR | os.O_CREAT))
            return real(name, how, mode)

        monkeypatch.setattr(os, "open", recording)
        _syncing.make_durable(str(path), new_directory=True)

        assert [os.O_RDWR] == flags


class TestANewDirectory:
    def test_one_of_a_killed_process_is_synced_by_the_next(self, tmp_path, spawn, synced):
        """No call is acknowledged before the directory's own name is durable, whichever process created it."""
        path = tmp_path / "new" / "state.json"
        maker = spawn(STOP_AT_THE_FIRST_SYNC_IN_A_NEW_DIRECTORY, path)
        assert "made" == maker.hear()
        maker.kill()
        number = SyncPersistentContext(path).incr("n")

        assert (1, True) == (number, str(tmp_path) in synced)

    def test_one_of_a_volatile_call_is_synced_by_the_next_durable_one(self, tmp_path, synced):
        """After ``durable=False`` nothing counts as durable, and after a durable call everything does."""
        path = tmp_path / "new" / "state.json"
        careless, careful = (SyncPersistentContext(path, durable=durable) for durable in (False, True))
        counts = []
        for ctx in (careless, careless, careful, careful, careless, careful):
            before = synced.count(str(tmp_path))
            ctx.incr("n")
            counts.append(synced.count(str(tmp_path)) - before)

        assert [0, 0, 1, 0, 0, 0] == counts

    def test_it_is_synced_before_there_is_another_one_in_it(self, tmp_path, synced, monkeypatch):
        """When one of the created directories exists, those above it are durable, even if their creators are slow."""
        made, real = [], os.mkdir

        def make(name, *arguments):
            made.append(os.path.dirname(os.path.dirname(name)) in synced)
            real(name, *arguments)

        monkeypatch.setattr(os, "mkdir", make)
        SyncPersistentContext(tmp_path / "a" / "b" / "c" / "state.json", durable=False).incr("n")

        assert [True, True, True] == made

    def test_one_that_another_process_creates_first_is_used(self, tmp_path, monkeypatch):
        """When two processes find no directory, both use the one that the faster of them creates."""
        path, real = tmp_path / "a" / "b" / "state.json", os.mkdir

        def too_late(name, *arguments):
            real(name, *arguments)
            real(name, *arguments)

        monkeypatch.setattr(os, "mkdir", too_late)

        assert 1 == SyncPersistentContext(path).incr("n")

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL, errno.EROFS])
    def test_where_no_directory_can_be_made_none_is_synced(self, path, monkeypatch, code):
        """The parent directory may be on a read-only file system, or belong to another user."""
        real = os.fsync

        def refuse(fd):
            if os.path.samestat(os.fstat(fd), path.parent.parent.stat()):
                raise OSError(code, os.strerror(code))
            real(fd)

        monkeypatch.setattr(os, "fsync", refuse)

        assert (1, 2) == tuple(SyncPersistentContext(path).incr("n") for _ in range(2))

    def test_one_that_cannot_be_synced_leaves_durability_unknown(self, path, monkeypatch):
        """Until the directory can be synced, no call is acknowledged as durable, but the change is visible."""
        real, broken = os.fsync, True

        def fail(fd):
            if broken and os.path.samestat(os.fstat(fd), path.parent.parent.stat()):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, "fsync", fail)
        ctx = SyncPersistentContext(path)
        for _ in range(2):
            with pytest.raises(DurabilityUnknownError):
                ctx.incr("n")
        broken = False

        assert (3, {"n": 3}) == (ctx.incr("n"), stored(path))


class TestMovingAside:
    @pytest.mark.parametrize(
        ("content", "durable"), [("corrupt", True), ("corrupt", False), ('{"a": 1, "a": 2}', True)]
    )
    def test_the_new_name_is_durable_before_the_old_one_is_gone(self, path, synced, monkeypatch, content, durable):
        """The file that was moved aside, or kept, survives a power loss after the file is replaced."""
        path.write_text(content, encoding="utf-8")
        replace, before = os.replace, []

        def replacing(source, target):
            before.append((str(path.parent) in synced, len(list(path.parent.glob("*.corrupt-*")))))
            replace(source, target)

        monkeypatch.setattr(os, "replace", replacing)
        SyncPersistentContext(path, durable=durable).incr("n")

        assert [(True, 1)] == before

    def test_the_copy_of_a_file_that_repeats_keys_is_as_durable_as_the_rest(self, tmp_path, monkeypatch):
        """With ``durable=False`` nothing is synced, even when the original file is kept aside."""
        path = tmp_path / "state.json"
        ctx = SyncPersistentContext(path, durable=False)
        ctx.save()
        path.write_text('{"a": 1, "a": 2}', encoding="utf-8")
        monkeypatch.setattr(os, "fsync", None)
        ctx.incr("a")
        (aside,) = tmp_path.glob("state.json.corrupt-*")

        assert ('{"a": 1, "a": 2}', '{\n"a": 3\n}\n') == (aside.read_text(), path.read_text())


class TestABrokenDisk:
    def test_an_unsynced_file_does_not_replace_the_old_one(self, face, path, break_fsync):
        """If the new file cannot be synced, the old one stays, no temporary file is left, and changes are unsaved."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 2)
        break_fsync(stat.S_ISREG)
        with pytest.raises(OSError, match="Input/output error") as caught:
            face.do(ctx.save)
        left = sorted(os.listdir(path.parent))

        assert (b'{"a": 1}', ["state.json", "state.json.lock"], 2, {"a"}, False) == (
            path.read_bytes(),
            left,
            ctx["a"],
            ctx.unsaved_keys(),
            isinstance(caught.value, DurabilityUnknownError),
        )

    def test_it_can_be_repeated(self, face, path, break_fsync):
        """When the disk works again, the next save succeeds."""
        ctx = face.open(path)
        ctx.set("a", 2)
        break_fsync(stat.S_ISREG)
        with pytest.raises(OSError, match="Input/output error"):
            face.do(ctx.save)
        break_fsync(None)
        face.do(ctx.save)

        assert ({"a": 2}, set()) == (stored(path), ctx.unsaved_keys())

    def test_an_unsynced_directory_leaves_durability_unknown(self, face, path, break_fsync):
        """If the directory cannot be synced, the change is visible, and memory matches the new file."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("theirs", 1)
        face.do(other.save)
        ctx.set("a", 2)
        break_fsync(stat.S_ISDIR)
        with pytest.raises(DurabilityUnknownError) as caught:
            face.do(ctx.save)
        expected = {"a": 2, "theirs": 1}

        assert (expected, expected, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())
        assert (errno.EIO, str(path)) == (caught.value.errno, caught.value.filename)

    def test_an_operation_says_so_too(self, face, path, break_fsync):
        """An atomic operation raises DurabilityUnknownError, with its change visible."""
        ctx = face.open(path)
        break_fsync(stat.S_ISDIR)
        with pytest.raises(DurabilityUnknownError):
            face.do(ctx.incr, "n")

        assert ({"n": 1}, 1) == (stored(path), ctx["n"])

    def test_a_transaction_says_so_too(self, face, path, break_fsync):
        """A transaction raises DurabilityUnknownError, with its changes visible."""
        ctx = face.open(path)
        break_fsync(stat.S_ISDIR)
        with pytest.raises(DurabilityUnknownError):
            face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert ({"a": 1}, 1, set()) == (stored(path), ctx["a"], ctx.unsaved_keys())

    def test_a_call_that_is_not_durable_does_not_fail(self, face, path, break_fsync):
        """With durable=False nothing is synced, so no sync can fail."""
        ctx = face.open(path, durable=False)
        ctx.set("a", 1)
        break_fsync(lambda _: True)
        face.do(ctx.save)

        assert {"a": 1} == stored(path)

    def test_the_lock_is_free_afterwards(self, face, path, break_fsync):
        """After any failure, others can go on."""
        ctx = face.open(path)
        for kind in (stat.S_ISREG, stat.S_ISDIR):
            ctx.set("a", repr(kind))
            break_fsync(kind)
            with pytest.raises(OSError, match=r"state\.json|Input/output error"):
                face.do(ctx.save)
        break_fsync(None)

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")


class TestTheOrderOfTheSteps:
    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_a_durable_write_syncs_the_file_before_the_rename_and_the_directory_after_it(self, tmp_path, steps):
        """The order is write, fsync, rename, fsync of the directory, as power loss demands."""
        ctx = SyncPersistentContext.create(tmp_path / "state.json")
        ctx.save()
        steps.clear()
        ctx.incr("n")

        assert [("write", ".tmp"), ("fsync", ".tmp"), ("replace", ".tmp"), ("fsync", str(tmp_path))] == [
            step for step in steps if step[1] != ".lock"
        ]

    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_a_write_that_is_not_durable_syncs_nothing(self, tmp_path, steps):
        """``durable=False`` omits both syncs, and is still atomic."""
        SyncPersistentContext(tmp_path / "state.json", durable=False).save()

        assert [("write", ".tmp"), ("replace", ".tmp")] == [step for step in steps if step[1] != ".lock"]

    @pytest.mark.skipif(sys.platform != "linux", reason="looks descriptors up in /proc")
    def test_new_directories_are_durable_too(self, tmp_path, steps):
        """A directory is synced before anything is created in it, and the last one before the first acknowledgement."""
        ctx = SyncPersistentContext(tmp_path / "a" / "b" / "state.json")
        ctx.save()
        synced = [what for step, what in steps if step == "fsync"]
        steps.clear()
        ctx.incr("n")

        assert [str(tmp_path.parent), str(tmp_path), ".tmp", str(tmp_path / "a" / "b"), str(tmp_path / "a")] == synced
        assert [".tmp", str(tmp_path / "a" / "b")] == [what for step, what in steps if step == "fsync"]


class TestFailuresAfterTheRename:
    def test_a_rename_that_happened_in_spite_of_its_error_is_seen(self, tmp_path, monkeypatch):
        """After a failed rename, the file is checked: it may have been replaced all the same."""
        replace = os.replace

        def replace_and_fail(source, target):
            replace(source, target)
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)

        monkeypatch.setattr(os, "replace", replace_and_fail)
        with pytest.raises(DurabilityUnknownError):
            SyncPersistentContext(tmp_path / "state.json").save()

        assert {"state.json", "state.json.lock"} == {path.name for path in tmp_path.iterdir()}

    def test_a_descriptor_that_cannot_be_closed_leaves_durability_unknown(self, tmp_path, monkeypatch):
        """An error of writing back that only close(2) reports is raised, too."""
        close = os.close

        def fail(fd):
            temporary = os.readlink(f"/proc/self/fd/{fd}").endswith("/state.json")
            close(fd)
            if temporary:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        ctx = SyncPersistentContext(tmp_path / "state.json")
        monkeypatch.setattr(os, "close", fail)
        with pytest.raises(DurabilityUnknownError):
            ctx.save()

    def test_whatever_fails_after_the_replacing_leaves_durability_unknown(self, tmp_path, monkeypatch):
        """Even with an error other than the system's, the file is replaced, and memory matches it."""

        def fail(path):
            raise MemoryError

        ctx = SyncPersistentContext(tmp_path / "state.json")
        monkeypatch.setattr(_syncing, "sync_directory", fail)
        ctx["a"] = 1
        with pytest.raises(DurabilityUnknownError, match="MemoryError") as caught:
            ctx.save()
        again = pickle.loads(pickle.dumps(caught.value))

        assert (set(), None, str(tmp_path / "state.json")) == (ctx.unsaved_keys(), again.errno, again.filename)


class TestSyncing:
    def test_a_failed_sync_is_not_tried_again(self, path, monkeypatch):
        """fsync is not repeated after a failure: the kernel would report success, but has dropped the data."""
        ctx = SyncPersistentContext.create(path)
        ctx.save()
        answers = []
        real = os.fsync

        def fail_once(fd):
            answers.append(stat.S_ISREG(os.fstat(fd).st_mode))
            if len(answers) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, "fsync", fail_once)
        ctx.set("a", 1)
        with pytest.raises(OSError, match="Input/output error"):
            ctx.save()

        assert ([True], {}, []) == (answers, stored(path), temporaries(path))

    @pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR])
    def test_one_of_what_was_found_is_not_tried_again(self, path, break_fsync, kind):
        """A durable call that finds nothing to write then writes the same content into a new file."""
        SyncPersistentContext(path, durable=False).incr("n")
        ctx = SyncPersistentContext.create(path)
        inode = path.stat().st_ino
        break_fsync(kind)
        with pytest.raises(DurabilityUnknownError):
            ctx.save()
        break_fsync(None)
        with path.open("rb"):  # while it is open, its inode number is not reused
            ctx.save()
        again = path.stat().st_ino
        ctx.save()

        assert (True, True, {"n": 1}) == (inode != again, again == path.stat().st_ino, stored(path))

    def test_nor_that_of_a_write(self, path, break_fsync):
        """The directory could not be synced after the file was replaced: the next call replaces it again."""
        ctx = SyncPersistentContext.create(path)
        break_fsync(stat.S_ISDIR)
        with pytest.raises(DurabilityUnknownError):
            ctx.incr("n")
        break_fsync(None)
        inode = path.stat().st_ino
        with path.open("rb"):
            ctx.save()

        assert (True, {"n": 1}) == (inode != path.stat().st_ino, stored(path))

    @pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR])
    def test_it_is_known_to_later_contexts_as_well(self, path, break_fsync, kind):
        """The contexts of the file may be gone by the next call, but the process still knows."""
        SyncPersistentContext(path, durable=False).incr("n")
        break_fsync(kind)
        with pytest.raises(DurabilityUnknownError):
            SyncPersistentContext(path).save()
        break_fsync(None)
        gc.collect()
        inodes = [path.stat().st_ino]
        with path.open("rb"):
            for _ in range(2):
                SyncPersistentContext(path).save()
                gc.collect()
                inodes.append(path.stat().st_ino)

        assert (True, True, {"n": 1}) == (inodes[0] != inodes[1], inodes[1] == inodes[2], stored(path))

    def test_one_that_fails_in_another_thread_is_not_relied_upon(self, path, monkeypatch):
        """The kernel reports an error once: a second sync, for a commit made before it, falsely succeeds."""
        store, real, others = JsonFileStore(str(path)), os.fsync, []

        def fail_once(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode) and not others:
                others.append(store.begin("test", wait=False))
                others[0].commit(Changes(), durable=True)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        monkeypatch.setattr(os, "fsync", fail_once)
        session = store.begin("test", wait=False)
        session.commit(Changes({"n": b"1"}), durable=True)
        with pytest.raises(DurabilityUnknownError):
            session.close()
        with pytest.raises(DurabilityUnknownError):
            others[0].close()


class TestAVolatileCall:
    """A call with ``durable=False`` syncs nothing, unless it replaces content that was acknowledged as durable."""

    def test_it_syncs_nothing_where_nothing_was_promised(self, path, synced):
        """Data that was never durable needs no sync at all."""
        ctx = SyncPersistentContext(path, durable=False)
        for _ in range(3):
            ctx.incr("n")

        assert [] == synced

    @pytest.mark.parametrize("promise", ["incr", "save", "nothing to write"])
    def test_it_syncs_the_new_file_where_something_was(self, path, synced, promise):
        """The new file contains what a durable call acknowledged, and its name may survive without its content."""
        volatile, durable = (SyncPersistentContext(path, durable=durable) for durable in (False, True))
        volatile.incr("n")
        if promise == "incr":
            durable.incr("n")
        else:
            durable["n"] = 1 if promise == "nothing to write" else 5
            durable.save()
        synced.clear()
        for _ in range(2):
            volatile.incr("n")

        assert (2, 0) == (len(synced), synced.count(str(path.parent)))

    def test_a_promise_outlives_a_killed_holder(self, path, spawn, synced):
        """The promise holds even if the next holder is killed while it has the lock."""
        SyncPersistentContext(path).incr("n")
        holder = spawn(HOLD_WITHOUT_A_PROMISE, path)
        assert "held" == holder.hear()
        holder.kill()
        synced.clear()
        SyncPersistentContext(path, durable=False).incr("n")

        assert 1 == len(synced)

    def test_a_killed_holder_promises_nothing(self, path, spawn, synced):
        """A file that was volatile before a crash is volatile after it."""
        SyncPersistentContext(path, durable=False).incr("n")
        holder = spawn(HOLD_WITHOUT_A_PROMISE, path)
        assert "held" == holder.hear()
        holder.kill()
        SyncPersistentContext(path, durable=False).incr("n")

        assert [] == synced

    def test_behind_foreign_content_everything_counts_as_promised(self, path, synced):
        """A foreign lock file records nothing, so the new file is synced."""
        path.with_name("state.json.lock").write_text("somebody's own", encoding="utf-8")
        SyncPersistentContext(path, durable=False).incr("n")

        assert 1 == len(synced)

    @pytest.mark.parametrize("how", ["emptied", "deleted"])
    def test_a_promise_outlives_its_record(self, path, synced, how):
        """``9>`` in a shell empties the lock file, and a clean-up deletes it: the promise that it recorded holds."""
        volatile, durable = (SyncPersistentContext(path, durable=durable) for durable in (False, True))
        durable.incr("n")
        lock = path.with_name("state.json.lock")
        if how == "emptied":
            os.truncate(lock, 0)
        else:
            lock.unlink()
        synced.clear()
        for _ in range(2):
            volatile.incr("n")

        assert (2, 0) == (len(synced), synced.count(str(path.parent)))

    @pytest.mark.parametrize("before", ["nothing", "a volatile call", "a killed holder", "a journal"])
    @pytest.mark.parametrize("written", ["when it is synced", "when the file is replaced"])
    def test_a_promise_outlives_a_power_loss(self, path, spawn, synced, monkeypatch, before, written):
        """The record of it is as durable as what was promised, whenever the kernel last wrote the lock file back."""
        lock, journal = path.with_name("state.json.lock"), before == "a journal" or None
        if before != "nothing":
            SyncPersistentContext(path, durable=False, journal=journal).incr("n")
        if before == "a killed holder":
            holder = spawn(HOLD_WITHOUT_A_PROMISE, path)
            assert "held" == holder.hear()
            holder.kill()
        survived = lock.read_bytes() if lock.exists() else b""
        real_sync, real_replace = os.fdatasync, os.replace

        def sync(fd):
            nonlocal survived
            real_sync(fd)
            if os.path.samestat(os.fstat(fd), lock.stat()):
                survived = lock.read_bytes()

        def replace(source, target):
            nonlocal survived
            real_replace(source, target)
            if written == "when the file is replaced":
                survived = lock.read_bytes()

        monkeypatch.setattr(os, "fdatasync", sync)
        monkeypatch.setattr(os, "replace", replace)
        SyncPersistentContext(path).incr("n")
        if journal:
            SyncPersistentContext(path, journal=False).incr("n")
        lock.write_bytes(survived)
        synced.clear()
        SyncPersistentContext(path, durable=False).incr("n")

        assert 1 == len(synced)

    def test_the_record_is_synced_once(self, path, monkeypatch):
        """Only the first durable call after volatile ones has to do so, and none where nothing was volatile."""
        real, calls = os.fdatasync, []

        def sync(fd):
            calls.append(os.path.samestat(os.fstat(fd), path.with_name("state.json.lock").stat()))
            real(fd)

        monkeypatch.setattr(os, "fdatasync", sync)
        for durable in (False, False, True, True, False, True):
            SyncPersistentContext(path, durable=durable).incr("n")
        other = path.with_name("other.json")
        for durable in (True, False, True):
            SyncPersistentContext(other, durable=durable).incr("n")

        assert [True] == calls

    def test_a_record_that_cannot_be_synced_is_no_record(self, path, monkeypatch):
        """The call promises nothing, and changes nothing."""
        real, broken = os.fdatasync, True

        def sync(fd):
            if broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        SyncPersistentContext(path, durable=False).incr("n")
        monkeypatch.setattr(os, "fdatasync", sync)
        ctx = SyncPersistentContext(path)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                ctx.incr("n")
        unchanged = stored(path)
        broken = False

        assert ({"n": 1}, 2) == (unchanged, ctx.incr("n"))

    def test_an_empty_lock_file_promises_nothing_before_there_is_a_file(self, path, synced):
        """With ``( flock 9; … ) 9>> state.json.lock``, a script may make the lock file first."""
        path.with_name("state.json.lock").touch()
        ctx = SyncPersistentContext(path, durable=False)
        for _ in range(3):
            ctx.incr("n")

        assert [] == synced
