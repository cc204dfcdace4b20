"""Sessions: what is acknowledged is durable, and a failed sync is reported once and for all."""

import errno
import os
import stat
import threading

import pytest

from journals import MISSING, commit, entries, journal_of, lines_of, open_store, seen, stored
from persistent_context import DurabilityUnknownError
from persistent_context._model.snapshot import Changes
from persistent_context._stores.journal import journal as _journal
from persistent_context._stores.journal import session as _session
from persistent_context._stores.journal import state as _state
from persistent_context._stores.journal.record import Fingerprint
from persistent_context._stores.jsonfile.lock import HeldLock
from persistent_context._stores.protocol import SessionLostError

FORK_AFTER_A_FAILED_SYNC = """
import os, sys
from journals import commit, open_store, stored
from pathlib import Path
from persistent_context import DurabilityUnknownError
from persistent_context._stores.journal.idle import Idle

Idle.touch = lambda *_arguments, **_options: None
path, real = Path(sys.argv[1]), os.fdatasync

def fail(fd):
    os.fdatasync = real
    raise OSError(5, "broken")

os.fdatasync = fail
try:
    commit(open_store(path), {"b": b"2"})
except DurabilityUnknownError:
    child = os.fork()
    if not child:
        commit(open_store(path, journal=None), {"c": b"3"})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(stored(path), flush=True)
os._exit(0)
"""

is_journal = lambda name: name.removesuffix(" (deleted)").endswith(".journal")


@pytest.fixture
def steps(monkeypatch):
    """The steps really performed, each with its target: the JSON file, the journal, a temporary file, the directory."""
    found = []

    def recorded(step, function):
        def recording(first, *others, **options):
            name = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else others[0]
            kind = "directory" if os.path.isdir(name) else name.rpartition(".")[2]
            if kind != "lock":
                found.append((step, kind))
            return function(first, *others, **options)

        return recording

    for step in ("pwrite", "write", "fsync", "fdatasync", "replace"):
        monkeypatch.setattr(os, step, recorded(step, getattr(os, step)))
    return found


class TestACommit:
    def test_it_appends_one_record_and_syncs_it(self, store, steps):
        """A commit appends one synced record, and does not touch the JSON file."""
        commit(store, {"b": b"2"})

        assert [("pwrite", "journal"), ("fdatasync", "journal")] == steps

    def test_it_reads_no_more_than_what_was_appended(self, path, store):
        """A store that has the journal open does not read the JSON file again."""
        path.write_text("{" + ", ".join(f'"k{n}": 1' for n in range(1000)) + "}", encoding="utf-8")
        one, other = open_store(path), open_store(path)
        commit(one, {"a": b"1"})
        os.utime(path, ns=(10**18 + 1, 10**18 + 1))
        entries(other)
        threading.Event().wait(0.05)
        entries(other)
        before = other.traffic().bytes_read
        commit(one, {"a": b"2"})
        entries(other)

        assert 0 < other.traffic().bytes_read - before < 300

    def test_without_fdatasync_it_calls_fsync(self, store, steps, monkeypatch):
        """Without fdatasync, as on macOS, fsync is called."""
        monkeypatch.delattr(os, "fdatasync")
        commit(store, {"b": b"2"})

        assert [("pwrite", "journal"), ("fsync", "journal")] == steps

    def test_it_syncs_after_the_lock_is_released(self, path, store, monkeypatch):
        """The next writer does not wait for the disk."""
        free, real = [], os.fdatasync

        def sync(fd):
            session = open_store(path).begin("test", wait=False)
            free.append(session is not None)
            if session:
                session.close()
            real(fd)

        monkeypatch.setattr(os, "fdatasync", sync)
        commit(store, {"b": b"2"})

        assert [True] == free

    def test_one_that_is_not_durable_syncs_nothing(self, store, steps):
        """With ``durable=False`` the sync is left out."""
        commit(store, {"b": b"2"}, durable=False)

        assert [("pwrite", "journal")] == steps

    def test_one_without_changes_syncs_what_it_has_read(self, path, store, steps):
        """A durable call without changes syncs what it has read, even if another process wrote it without a sync."""
        commit(open_store(path), {"b": b"2"}, durable=False)
        steps.clear()
        commit(store)
        commit(store, durable=False)

        assert [("fdatasync", "journal")] == steps

    def test_the_first_one_on_the_journal_of_another_process_syncs_its_name(self, path, store, steps):
        """The process that created the journal may have died before it synced the name."""
        other = open_store(path)
        for _ in range(2):
            commit(other, {"b": b"2"})

        append = [("pwrite", "journal"), ("fdatasync", "journal")]
        assert [*append, ("fsync", "directory"), *append] == steps

    def test_a_checkpoint_takes_its_steps_in_order(self, store, steps):
        """The order is: the announcement, the JSON file, durably, and only then the new journal, durably."""
        commit(store, folds=True)

        assert [
            ("pwrite", "journal"), ("fdatasync", "journal"),
            ("write", "tmp"), ("fsync", "tmp"), ("replace", "json"), ("fsync", "directory"),
            ("write", "tmp"), ("fsync", "tmp"), ("replace", "journal"), ("fsync", "directory"),
        ] == [step for step in steps if step != ("fsync", "data")]  # fmt: skip

    @pytest.mark.parametrize("size", ["small", "large"])
    def test_a_journal_that_outgrows_its_file_is_folded(self, path, monkeypatch, size):
        """The journal may become as long as the JSON file, but at least 1 MiB (less in this test)."""
        monkeypatch.setattr(_state, "_SHORTEST_TO_FOLD_BYTES", 1000)
        path.write_text('{"x": "' + "x" * (1 if size == "small" else 5000) + '"}', encoding="utf-8")
        store = open_store(path)
        lengths = []
        for number in range(100):
            commit(store, {"a": b"%d" % number}, durable=False)
            lengths.append(store.traffic().journal_bytes)

        assert 99 == seen(path)["a"]
        assert (1000 if size == "small" else 5000) < max(lengths) < (1200 if size == "small" else 5300)
        assert stored(path)["a"] > 40

    def test_a_large_change_is_folded(self, path, store):
        """A reader would decode its record in one step, for which its event loop would have to wait."""
        found = []
        for texts in ({"many": b"1"} | {f"k{n}": b'"%01000d"' % n for n in range(300)}, {"many": b"2"}):
            commit(store, texts)
            found.append((len(lines_of(path)[1]), stored(path)["many"]))

        assert [(0, 1), (1, 1)] == found

    def test_a_checkpoint_of_nothing_writes_nothing(self, path, store, steps):
        """A journal without records is not folded again."""
        commit(store, folds=True)
        steps.clear()
        commit(store, folds=True, durable=False)

        assert [] == steps

    def test_a_checkpoint_makes_no_file_where_nothing_is_stored(self, path, store):
        """Nor does a call without changes create a file, except one that is to create the state."""
        commit(store, folds=True)
        path.unlink()
        commit(store, folds=True)
        commit(store)
        found = path.exists()
        session = store.begin("test", wait=True)
        session.commit(Changes(creates=True), durable=True)
        session.close()

        appended = open_store(path).snapshot().exists, path.exists()
        commit(store, folds=True)

        assert (False, True, False, {}) == (found, *appended, stored(path))

    def test_the_first_one_makes_the_journal(self, path):
        """The first commit creates the journal, unless there is neither a file nor a change."""
        store = open_store(path)
        commit(store)
        before = os.path.exists(path)
        commit(store, {"a": b"1"})
        made = journal_of(path).exists()
        other = path.with_name("other.json")
        other.write_text('{"b": 1}', encoding="utf-8")
        commit(open_store(other))

        assert (False, True, {"a": 1}, True, {"b": 1}) == (
            before, made, stored(path), journal_of(other).exists(), stored(other),
        )  # fmt: skip

    def test_without_the_option_there_is_none(self, path):
        """Without the option, a plain file stays plain."""
        store = open_store(path, journal=None)
        commit(store, {"a": b"1"})
        commit(store, folds=True)

        assert ({"a": 1}, False) == (stored(path), journal_of(path).exists())

    def test_one_after_the_journal_was_ended_is_seen(self, path, store):
        """A session notices that another process has ended the journal that its own process still knew."""
        other = open_store(path, journal=False)
        commit(other, {"a": b"2"})
        session = store.begin("test", wait=True)
        before = session.snapshot.get("ab")
        session.commit(Changes({"b": b"3"}), durable=True)
        after, size = session.snapshot.get("ab"), session.bytes_written
        session.close()

        assert ({"a": b"2"}, {"a": b"2", "b": b"3"}, path.stat().st_size) == (before, after, size)

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_a_journal_that_goes_under_the_lock_is_noticed_before_the_append(self, path, store, how):
        """Nothing is written, and the same call succeeds in another session."""
        session = store.begin("test", wait=True)
        assert session.snapshot.exists
        journal_of(path).unlink()
        if how == "replaced":
            journal_of(path).write_bytes(b"")
        with pytest.raises(SessionLostError, match="deleted or replaced"):
            session.commit(Changes({"b": b"2"}), durable=True)
        session.close()
        session.close()
        commit(store, {"b": b"3"})

        assert 3 == seen(path)["b"]

    def test_a_lock_that_is_lost_prevents_the_append(self, path, store):
        """Without the lock, another process might append at the same time."""
        session = store.begin("test", wait=True)
        assert session.snapshot.exists
        path.with_name("state.json.lock").unlink()
        with pytest.raises(SessionLostError):
            session.commit(Changes({"b": b"2"}), durable=True)
        session.close()

        assert {"json": 1, "a": 1} == seen(path)


class TestAFailedSync:
    def test_it_is_raised_and_never_tried_again(self, path, store, monkeypatch, break_sync):
        """The kernel would report success for a second sync, so the next call writes new files from memory."""
        old = journal_of(path).stat().st_ino
        with monkeypatch.context():
            tried = break_sync("fdatasync", is_journal)
            with pytest.raises(DurabilityUnknownError, match="the change is in the journal") as caught:
                commit(store, {"b": b"2"})
            commit(store, {"c": b"3"})
        header, records = lines_of(path)

        assert (errno.EIO, str(path), [old]) == (caught.value.errno, caught.value.filename, tried)
        assert ({"json": 1, "a": 1, "b": 2, "c": 3}, [], False) == (
            stored(path), records, old == journal_of(path).stat().st_ino,
        )  # fmt: skip
        assert header is not None

    @pytest.mark.parametrize("between", ["nothing", "close", "a look", "another store"])
    def test_it_is_remembered(self, path, store, break_sync, between):
        """The failed sync is remembered, even if the journal is closed and opened again before the next call.

        This may happen in another store: the first one is forgotten together with its contexts.
        """
        tried = break_sync("fdatasync", is_journal)
        with pytest.raises(DurabilityUnknownError):
            commit(store, {"b": b"2"})
        if between == "close":
            store.close()
        elif between == "a look":
            entries(store)
        commit(store if between != "another store" else open_store(path))

        assert (1, 2) == (len(tried), stored(path)["b"])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
    def test_a_forked_child_remembers_it(self, path, store, run):
        """The kernel has reported the error to the parent, and would report success to the child."""
        assert [str({"json": 1, "a": 1, "b": 2, "c": 3})] == run(FORK_AFTER_A_FAILED_SYNC, path)

    def test_all_sessions_that_wait_get_the_error(self, store, monkeypatch):
        """Another session of this process that appended to the same journal gets the error, too."""
        tried = []

        def fail_once(fd):
            tried.append(fd)
            if len(tried) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        sessions = []
        for number in range(2):
            sessions.append(store.begin("test", wait=True))
            sessions[-1].commit(Changes({"b": b"%d" % number}), durable=True)
            sessions[-1]._plain.close()
        monkeypatch.setattr(os, "fdatasync", fail_once)
        for session in sessions:
            with pytest.raises(DurabilityUnknownError):
                session.close()

        assert 1 == len(tried)

    def test_an_error_that_another_thread_got_is_raised_again(self, store, monkeypatch):
        """The kernel reports the error once, so it is remembered: the next sync of the file would succeed."""
        file = store._journal.known.file
        begun, failing, told = threading.Event(), threading.Event(), []

        def fail(fd):
            monkeypatch.setattr(os, "fdatasync", lambda fd: None)
            begun.set()
            failing.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def sync():
            try:
                file.sync()
            except OSError as error:
                told.append(error.errno)

        monkeypatch.setattr(os, "fdatasync", fail)
        threads = [threading.Thread(target=sync) for _ in range(2)]
        threads[0].start()
        begun.wait(60)
        threads[1].start()
        threads[1].join(0.05)
        failing.set()
        for thread in threads:
            thread.join()

        assert [errno.EIO] * 2 == told

    def test_an_idle_journal_that_is_not_relied_upon_is_folded_at_once(self, path, store, break_sync):
        """A journal whose sync failed is folded at once, even if it was just written."""
        break_sync("fdatasync", is_journal)
        with pytest.raises(DurabilityUnknownError):
            commit(store, {"b": b"2"})

        assert (True, {"json": 1, "a": 1, "b": 2}) == (store._fold_if_idle(), stored(path))

    def test_the_announcement_of_a_checkpoint_counts_too(self, path, store, break_sync):
        """If the announcement cannot be synced, nothing is written, and the journal is not relied on any more."""
        tried = break_sync("fdatasync", is_journal)
        with pytest.raises(OSError, match="Input/output error"):
            commit(store, folds=True)
        found = stored(path)
        commit(store, {"b": b"2"})

        assert ({"json": 1}, {"json": 1, "a": 1, "b": 2}, 1) == (found, stored(path), len(tried))

    @pytest.mark.parametrize("what", ["the JSON file", "the directory"])
    def test_a_checkpoint_that_cannot_be_synced_loses_nothing(self, path, store, break_sync, monkeypatch, what):
        """Either nothing is written, or the outcome is unknown; the next call writes both files again."""
        is_it = os.path.isdir if what == "the directory" else lambda name: name.endswith(".tmp")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", os.fsync)
            break_sync("fsync", is_it)
            with pytest.raises(OSError) as caught:
                commit(store, folds=True)
            patch.undo()
        monkeypatch.undo()
        found = seen(path)
        commit(store, {"b": b"2"})

        assert (what == "the directory", {"json": 1, "a": 1}) == (
            isinstance(caught.value, DurabilityUnknownError), found,
        )  # fmt: skip
        assert {"json": 1, "a": 1, "b": 2} == seen(path) == {key: int(text) for key, text in entries(store)}

    def test_a_checkpoint_whose_directory_could_not_be_synced_is_made_again(
        self, path, store, break_sync, monkeypatch, warnings
    ):
        """Even a call that changes nothing replaces the JSON file again, and takes the result for its own."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", os.fsync)
            break_sync("fsync", os.path.isdir)
            with pytest.raises(DurabilityUnknownError):
                commit(store, {"b": b"2"}, folds=True)
            patch.undo()
        monkeypatch.undo()
        inode = path.stat().st_ino
        with path.open("rb"):  # while it is open, its inode number is not reused
            commit(store)

        assert (True, {"json": 1, "a": 1, "b": 2}, []) == (inode != path.stat().st_ino, stored(path), warnings())
        assert lines_of(path)[0].follows == Fingerprint.of([path.read_bytes()])

    def test_a_journal_follows_a_file_that_is_written_again_for_it(self, path, break_sync, monkeypatch):
        """If the file could not be synced before, it is replaced, and its new layout is the one that is recorded."""
        path.write_text('{"json": 1}', encoding="utf-8")
        store = open_store(path, journal=None)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", os.fsync)
            break_sync("fsync", os.path.isdir)
            with pytest.raises(DurabilityUnknownError):
                commit(store)
            patch.undo()
        monkeypatch.undo()
        store.want(journal=True)
        commit(store)

        assert (b'{\n"json": 1\n}\n', Fingerprint.of([path.read_bytes()])) == (
            path.read_bytes(), lines_of(path)[0].follows,
        )  # fmt: skip

    def test_an_error_after_the_json_file_is_durable_fails_nothing(self, path, store, monkeypatch, warnings):
        """The call has taken effect; the next one begins the new journal."""
        real = _session.written

        def fail(*_arguments):
            monkeypatch.setattr(_session, "written", real)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(_session, "written", fail)
        commit(store, {"b": b"2"}, folds=True)
        found = stored(path)
        commit(store, {"c": b"3"})

        assert ({"json": 1, "a": 1, "b": 2}, {"json": 1, "a": 1, "b": 2, "c": 3}) == (found, seen(path))
        assert ["could not renew the journal; the next writer will try again"] == [
            one.split(": ")[1] for one in warnings()
        ]

    @pytest.mark.parametrize("wanted", [None, False])
    def test_a_lock_that_cannot_be_checked_after_that_fails_nothing(self, path, store, monkeypatch, warnings, wanted):
        """The call has taken effect; the next one begins the new journal, or removes the old one."""
        check = HeldLock.check

        def fail(lock):
            if "b" in stored(path):
                monkeypatch.setattr(HeldLock, "check", check)
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            check(lock)

        monkeypatch.setattr(HeldLock, "check", fail)
        store.want(journal=wanted)
        commit(store, {"b": b"2"}, folds=True)
        found = stored(path)
        commit(store, {"c": b"3"})

        assert ({"json": 1, "a": 1, "b": 2}, {"json": 1, "a": 1, "b": 2, "c": 3}) == (found, seen(path))
        assert (wanted is None) == journal_of(path).exists()
        assert ["could not renew the journal; the next writer will try again"] == [
            one.split(": ")[1] for one in warnings()
        ]

    def test_a_new_journal_that_is_deleted_at_once_is_begun_again(self, path, store, monkeypatch):
        """The JSON file already has everything."""
        real = _journal.open_journal

        def vanish(*arguments):
            monkeypatch.setattr(_journal, "open_journal", real)
            journal_of(path).unlink()
            return real(*arguments)

        monkeypatch.setattr(_journal, "open_journal", vanish)
        commit(store, folds=True)
        store.want(journal=True)
        commit(store, {"b": b"2"})

        assert ({"json": 1, "a": 1, "b": 2}, True) == (seen(path), journal_of(path).exists())

    def test_a_commit_in_a_checkpoint_whose_name_may_not_survive_is_seen(self, path, store, break_sync, monkeypatch):
        """The session has the state that it wrote, like all other readers."""
        store._journal.wanted = False
        break_sync("fsync", os.path.isdir)
        session = store.begin("test", wait=True)
        with pytest.raises(DurabilityUnknownError):
            session.commit(Changes({"b": b"2", "json": MISSING}), durable=True)
        found = list(session.snapshot.keys())
        session.close()

        assert (["a", "b"], {"a": 1, "b": 2}) == (found, seen(path))

    def test_a_journal_whose_name_may_not_survive_is_not_relied_upon(
        self, path, store, break_sync, monkeypatch, warnings
    ):
        """The JSON file already has everything; the next commit goes there, and begins a new journal."""
        real, synced = os.fsync, []

        def fail_at_the_second(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                synced.append(fd)
                if len(synced) == 2:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_at_the_second)
            commit(store, folds=True)
        inode = journal_of(path).stat().st_ino
        commit(store, {"b": b"2"})

        assert ({"json": 1, "a": 1, "b": 2}, False) == (stored(path), inode == journal_of(path).stat().st_ino)
        assert ["could not renew the journal; the next writer will try again"] == [
            one.split(": ")[1] for one in warnings()
        ]
