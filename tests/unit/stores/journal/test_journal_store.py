"""Files with a journal, as contexts see them: which files have one, what is reported, and forks."""

import json
import os
import sys
import threading

import pytest

from journals import commit, entries, journal_of, lines_of, open_store, seen, stored
from persistent_context import ContextUsageError
from persistent_context._stores.journal import store as _store
from persistent_context._stores.journal.journal import Journal
from persistent_context._stores.protocol import CorruptStateError

KILLED_BEFORE_THE_JOURNAL = """
import os, sys, time
from journals import commit, open_store

def stop(source, target, real=os.replace):
    if target.endswith(".journal"):
        print("ready", flush=True)
        time.sleep(60)
    real(source, target)

os.replace = stop
commit(open_store(sys.argv[1]), {"a": b"1"})
"""

USE_IN_A_FORKED_CHILD = """
import os, sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1], journal=True)
for _ in range(3):
    ctx.incr("n")
child = os.fork()
if not child:
    for _ in range(3):
        ctx.incr("n")
    os._exit(0)
for _ in range(3):
    ctx.incr("n")
assert os.waitpid(child, 0)[1] == 0
ctx.load()
print(ctx["n"])
os._exit(0)
"""


class TestTheOption:
    def test_true_makes_one_for_everybody(self, face, path):
        """Once a journal exists, contexts without the option use it, too."""
        one = face.open(path, journal=True)
        face.do(one.incr, "n")
        other = face.open(path)
        face.do(other.incr, "n")
        face.do(one.incr, "n")

        assert ({"n": 1}, {"n": 3}, 2) == (stored(path), seen(path), len(lines_of(path)[1]))

    def test_false_ends_it_with_the_next_write(self, face, path):
        """The JSON file has everything, and stays plain."""
        one = face.open(path, journal=True)
        for _ in range(3):
            face.do(one.incr, "n")
        other = face.open(path, journal=False)
        before = journal_of(path).exists()
        face.do(other.incr, "n")
        ended = (stored(path), journal_of(path).exists())
        face.do(one.incr, "n")

        assert (True, ({"n": 4}, False), {"n": 5}, False) == (before, ended, stored(path), journal_of(path).exists())

    def test_a_checkpoint_brings_the_json_file_up_to_date(self, face, path):
        """After a checkpoint, a second one has nothing to do."""
        ctx = face.open(path, journal=True)
        for _ in range(3):
            face.do(ctx.incr, "n")
        before = stored(path)
        face.do(ctx.checkpoint)
        after = (stored(path), path.stat().st_ino)
        face.do(ctx.checkpoint)

        assert ({"n": 1}, ({"n": 3}, path.stat().st_ino)) == (before, after)

    def test_it_is_refused_on_windows(self, path, monkeypatch):
        """On Windows, where an open file cannot be replaced, journal=True is refused."""
        store = open_store(path, journal=None)
        monkeypatch.setattr(_store.os, "name", "nt")
        with pytest.raises(ContextUsageError, match="does not work on Windows"):
            store.want(journal=True)
        store.want(journal=False)


class TestReading:
    def test_it_never_repairs(self, path, store):
        """A reader leaves a torn tail, and everything else, as it is."""
        with journal_of(path).open("ab") as file:
            file.write(b"torn")
        before = (journal_of(path).read_bytes(), sorted(os.listdir(path.parent)))
        entries(store)
        seen(path)

        assert before == (journal_of(path).read_bytes(), sorted(os.listdir(path.parent)))

    def test_it_is_repeated_if_the_journal_is_replaced_meanwhile(self, path, store, monkeypatch):
        """The records of one journal are never applied to the JSON file of the next."""
        other, real, turns = open_store(path), _store.Journal.read, []

        def read(journal, read_document):
            state = real(journal, read_document)
            if not turns:
                turns.append(1)
                commit(store, {"a": b"2"})
                commit(store, folds=True)
            return state

        monkeypatch.setattr(_store.Journal, "read", read)

        assert [("json", b"1"), ("a", b"2")] == entries(other)

    def test_one_that_is_replaced_all_the_time_is_an_error(self, store, monkeypatch):
        """A journal that is replaced all the time raises an error instead of an endless wait."""
        monkeypatch.setattr(_store, "_READINGS", 0)
        with pytest.raises(CorruptStateError, match="replaced each time"):
            store.snapshot()

    def test_threads_read_while_others_write(self, path, store):
        """Later readings never return an older state."""
        seen_numbers, done = [], threading.Event()

        def read():
            while not done.is_set():
                seen_numbers.append(int(store.snapshot().get(["n"]).get("n", b"-1")))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(30):
            commit(store, {"n": b"%d" % number}, durable=False)
            if number % 10 == 9:
                commit(store, folds=True)
        done.set()
        reader.join()

        assert sorted(seen_numbers) == seen_numbers


class TestReports:
    def test_traffic_counts_both_files(self, path, store):
        """Appends are commits, the bytes of both files are counted, and the journal's size is reported."""
        before = store.traffic()
        commit(store, {"b": b"2"})
        appended = store.traffic()
        commit(store, folds=True)
        folded = store.traffic()

        assert (1, 0) == (appended.commits - before.commits, appended.checkpoints - before.checkpoints)
        assert appended.bytes_written - before.bytes_written == appended.journal_bytes - before.journal_bytes > 0
        assert (1, journal_of(path).stat().st_size) == (folded.checkpoints - appended.checkpoints, folded.journal_bytes)
        assert 0 == open_store(path).traffic().journal_bytes

    def test_the_statistics_of_a_context_have_them(self, face, path):
        """The statistics of a context have the size of the journal and the number of checkpoints."""
        ctx = face.open(path, journal=True)
        for _ in range(3):
            face.do(ctx.incr, "n")
        face.do(ctx.checkpoint)
        found = ctx.statistics()

        assert (journal_of(path).stat().st_size, True) == (found.journal_bytes, found.checkpoints >= 1)

    def test_a_change_in_the_journal_is_notified(self, path, store):
        """A watch sees the change, although the JSON file does not change."""
        changed = threading.Event()
        subscription = open_store(path).subscribe(lambda: changed.set() is None, lambda error: None)
        try:
            changed.wait(60)
            changed.clear()
            commit(store, {"a": b"2"})

            assert changed.wait(60)
        finally:
            subscription.close()

    def test_the_holder_is_reported(self, path, store):
        """The holder is reported as for a plain file."""
        session = store.begin("counting", wait=True)
        found = open_store(path).holder()
        session.close()

        assert (os.getpid(), "counting", None) == (found.pid, found.purpose, open_store(path).holder())


class TestTheSession:
    def test_a_lock_in_use_is_not_waited_for(self, path, store, hold):
        """Without waiting, a held lock gives no session."""
        with hold(path):
            assert store.begin("test", wait=False) is None

    def test_an_error_at_its_begin_releases_the_lock(self, path, store, monkeypatch):
        """After the error, others can go on."""

        def fail(_journal):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "is_needed", fail)
            with pytest.raises(MemoryError):
                store.begin("test", wait=True)
        session = open_store(path).begin("test", wait=False)
        session.close()

        assert not store.abandon_vain_wait()


class TestLeftovers:
    def test_the_next_writer_removes_those_of_a_journal(self, path, spawn):
        """The leftovers of a writer that was killed before it began a journal are removed, too."""
        child = spawn(KILLED_BEFORE_THE_JOURNAL, path)
        child.hear()
        child.kill()
        left = [name for name in os.listdir(path.parent) if name.endswith(".tmp")]
        commit(open_store(path, journal=None), {"b": b"2"})

        assert (1, True) == (len(left), left[0].startswith(f".{path.name}.journal."))
        assert {path.name, f"{path.name}.lock"} == set(os.listdir(path.parent))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
@pytest.mark.skipif(sys.platform == "darwin", reason="forking a process with threads may crash on macOS")
class TestForks:
    def test_a_forked_child_uses_the_context_that_it_inherits(self, path, run):
        """Parent and child append to the same journal, and each sees the other's changes."""
        assert ["9"] == run(USE_IN_A_FORKED_CHILD, path)
        assert {"n": 9} == seen(path)

    def test_a_child_forgets_the_open_files(self, store):
        """A child does not use its parent's open files."""
        store.snapshot()
        store.after_fork_in_child()

        assert store._journal.known is None
        assert {"json": 1, "a": 1} == {key: json.loads(text) for key, text in entries(store)}
