"""A journal is folded when nothing has been written for a while, and at the interpreter's exit."""

import _thread
import os
import shutil
import threading
import time

import pytest

from journals import commit, entries, journal_of, lines_of, open_store, seen, stored
from persistent_context._stores.journal import idle as _idle
from persistent_context._stores.journal.idle import Idle

pytestmark = pytest.mark.usefixtures("folds_by_itself")

CHANGE_AND_EXIT = """
import os, sys, time
from persistent_context import SyncPersistentContext

context = SyncPersistentContext(sys.argv[1], journal=True)
context.incr("n")
context.incr("n")
print(open(sys.argv[1], encoding="utf-8").read().count("2"), flush=True)
if sys.argv[2] == "after a while":
    time.sleep(0.7)
if sys.argv[2] == "without its journal":
    os.unlink(sys.argv[1] + ".journal")
if sys.argv[2] == "without its descriptors":
    os.closerange(3, 256)
"""

EXIT_IN_A_FOLD = """
import os, sys, threading, time
from persistent_context import SyncPersistentContext
from persistent_context._stores.journal import idle

idle.QUIET_SECONDS = 0.1
begun, real = threading.Event(), os.replace

def replace(source, target):
    if threading.current_thread() is not threading.main_thread() and target == sys.argv[1]:
        begun.set()
        time.sleep(1)
    real(source, target)

context = SyncPersistentContext(sys.argv[1], journal=True)
context.incr("n")
context.incr("n")
os.replace = replace
begun.wait(60)
print(open(sys.argv[1], encoding="utf-8").read().count("2"), flush=True)
"""

EXIT_AFTER_A_FAILED_FOLD = """
import os, sys, time
from persistent_context import SyncPersistentContext
from persistent_context._stores.journal import idle

idle.QUIET_SECONDS = 0.1
real, failed = os.replace, []

def replace(source, target):
    failed.append(target)
    raise OSError(28, "No space left on device", target)

context = SyncPersistentContext(sys.argv[1], journal=True)
context.incr("n")
os.replace = replace
context.incr("n")
while not failed or idle._pending and next(iter(idle._pending))._thread_pid:
    time.sleep(0.01)
os.replace = real
print(open(sys.argv[1], encoding="utf-8").read().count("2"), flush=True)
"""


def wait_until(condition, seconds=60):
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


IN_PROCESSES = """
import multiprocessing, sys
from persistent_context import SyncPersistentContext

def count(path):
    SyncPersistentContext(path, journal=True).incr("n")

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    for _ in range(2):
        child = context.Process(target=count, args=(sys.argv[1],))
        child.start()
        child.join()
"""


@pytest.fixture
def quick(monkeypatch):
    """Make the idle time short."""
    monkeypatch.setattr(_idle, "QUIET_SECONDS", 0.05)


class TestTheThread:
    def test_it_folds_after_a_while_without_writes(self, path, store):
        """The JSON file is brought up to date automatically, and a new journal is begun."""
        began = time.monotonic()
        commit(store, {"a": b"2"})
        before = stored(path)
        wait_until(lambda: stored(path) == {"json": 1, "a": 2})
        waited = time.monotonic() - began
        wait_until(lambda: not _idle._pending)

        assert ({"json": 1}, True, []) == (before, waited >= 0.9, lines_of(path)[1])

    def test_it_starts_again_with_the_next_write(self, quick):
        """One thread runs at a time, however often there is something to fold."""
        folded = []
        idle, fold = Idle(), lambda *, at_exit: folded.append(threading.current_thread()) is None
        for _ in range(3):
            idle.touch(fold)
        wait_until(lambda: not _idle._pending)
        first = len(folded)
        idle.touch(fold)
        wait_until(lambda: len(folded) == 2 and not _idle._pending)

        assert (1, {True}) == (first, {thread.daemon for thread in folded})

    def test_it_waits_for_the_last_write(self, monkeypatch):
        """Every write restarts the idle time."""
        monkeypatch.setattr(_idle, "QUIET_SECONDS", 0.4)
        folded, last = [], 0
        idle, fold = Idle(), lambda *, at_exit: folded.append(time.monotonic()) is None
        for _ in range(4):
            idle.touch(fold)
            last = time.monotonic()
            time.sleep(0.02)
        wait_until(lambda: folded)

        assert folded[0] - last >= 0.35

    def test_it_tries_again_until_there_is_nothing_left_to_do(self, quick):
        """Others may hold the lock, or still be writing, so folding is tried again."""
        answers = [True, False, False]
        Idle().touch(lambda *, at_exit: answers.pop(), soon=True)
        wait_until(lambda: not _idle._pending)

        assert [] == answers

    def test_something_that_comes_in_at_the_end_is_not_forgotten(self, quick):
        """A request between the last check and the end of the thread is processed."""
        folded = []

        def fold(*, at_exit):
            folded.append(1)
            if len(folded) == 1:
                idle.touch(fold)
            return True

        idle = Idle()
        idle.touch(fold, soon=True)
        wait_until(lambda: len(folded) == 2 and not _idle._pending)

    def test_an_error_is_logged(self, quick, caplog):
        """An error is logged, because no call waits for the thread; the next writer tries again, or the exit."""

        def fail(*, at_exit):
            raise OSError(5, "broken")

        idle = Idle()
        idle.touch(fail, soon=True)
        wait_until(lambda: not idle._thread_pid)
        tried_at_exit = _idle._pending.pop(idle)

        assert fail is tried_at_exit
        assert ["a journal could not be folded into its JSON file; the next writer will try again"] == [
            record.getMessage() for record in caplog.records
        ]

    def test_without_a_thread_the_exit_does_it(self, monkeypatch):
        """At the interpreter's exit, no thread can be started, so the journal is folded directly."""

        def refuse(function, arguments):
            raise RuntimeError("can't start new thread at interpreter shutdown")

        folded = []
        idle, fold = Idle(), lambda *, at_exit: folded.append(at_exit) is None
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", refuse)
            idle.touch(fold)
            _idle._fold_all()
        idle.touch(fold)
        wait_until(lambda: not _idle._pending)

        assert [True, False] == folded

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_processes_of_multiprocessing_fold_at_their_end(self, path, run, tmp_path, method):
        """Processes of multiprocessing fold even if they end without running atexit functions."""
        program = tmp_path / "program.py"
        program.write_text(IN_PROCESSES, encoding="utf-8")
        run(
            "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
            program,
            path,
            method,
        )

        assert {"n": 2} == stored(path)


class TestTheStore:
    def test_nothing_is_known(self, path, store):
        """A store that was closed, or whose journal another process has folded, has nothing to fold."""
        other = open_store(path)
        other.snapshot()
        commit(store, folds=True)
        found = [other._fold_if_idle()]
        other.close()
        found.append(other._fold_if_idle())

        assert ([True, True], {"json": 1, "a": 1}) == (found, stored(path))

    def test_one_whose_journal_was_deleted_writes_its_changes(self, path, store, warnings):
        """No other process has folded it: without another call, its changes would be lost, and without a warning."""
        commit(store, {"b": b"2"})
        os.utime(journal_of(path), (1, 1))
        journal_of(path).unlink()
        done = store._fold_if_idle()

        assert (True, {"json": 1, "a": 1, "b": 2}, {"json": 1, "a": 1, "b": 2}) == (done, stored(path), seen(path))
        assert [
            f"{path}: the journal was deleted while it was in use; its changes will be written into the file"
        ] == warnings()

    def test_a_reader_of_a_deleted_journal_writes_its_changes(self, path, store, warnings, quick):
        """The process that has written them may be dead; the reader has them, and no other process does."""
        reader = open_store(path, journal=None)
        reader.snapshot()
        store.close()
        wait_until(lambda: not _idle._pending)
        journal_of(path).unlink()
        found = [dict(entries(reader)) for _ in range(2)]
        wait_until(lambda: not _idle._pending)

        assert ([{"json": b"1", "a": b"1"}] * 2, {"json": 1, "a": 1}) == (found, stored(path))
        assert [
            f"{path}: the journal was deleted while it was in use; its changes will be written into the file"
        ] == warnings()

    def test_a_reader_that_may_not_write_says_so(self, path, store, warnings, monkeypatch, quick):
        """It reports once that its changes are nowhere else."""
        reader = open_store(path, journal=None)
        reader.snapshot()
        store.close()
        wait_until(lambda: not _idle._pending)
        monkeypatch.setattr(reader._journal.known.file, "writable", False)
        journal_of(path).unlink()
        found = [dict(entries(reader)) for _ in range(2)]

        assert ([{"json": b"1", "a": b"1"}] * 2, {"json": 1}, {}) == (found, stored(path), _idle._pending)
        assert ["this process has its changes, but may not write them into the file"] == [
            one.rpartition("; ")[2] for one in warnings()
        ]

    def test_a_reader_of_a_deleted_journal_without_changes_writes_nothing(self, path, store, warnings, quick):
        """The JSON file has everything."""
        commit(store, folds=True)
        reader = open_store(path, journal=None)
        reader.snapshot()
        store.close()
        wait_until(lambda: not _idle._pending)
        journal_of(path).unlink()

        assert ({"json": b"1", "a": b"1"}, {}, []) == (dict(entries(reader)), _idle._pending, warnings())

    def test_one_whose_json_file_was_replaced_as_well_reports_the_loss(self, path, store, warnings):
        """The files that exist count, as after a reset."""
        journal_of(path).unlink()
        path.write_text('{"other": 1}', encoding="utf-8")
        done = store._fold_if_idle()
        reported = warnings()

        assert (True, {"other": 1}, 1) == (done, stored(path), len(reported))
        assert "its changes since the last checkpoint are lost" in reported[0]

    def test_one_whose_directory_is_gone_does_not_make_it_again(self, path, store, warnings):
        """A temporary directory that was removed stays removed, quietly."""
        shutil.rmtree(path.parent)

        assert (True, True, False, []) == (
            store._fold_if_idle(),
            store._fold_if_idle(at_exit=True),
            path.parent.exists(),
            warnings(),
        )

    def test_one_whose_descriptor_was_closed_opens_it_again(self, path, store):
        """A program may close it by mistake, or close all its files."""
        os.utime(journal_of(path), (1, 1))
        os.close(store._journal.known.file.fd)

        assert (True, {"json": 1, "a": 1}) == (store._fold_if_idle(), stored(path))

    def test_a_journal_in_use_is_left_alone(self, path, store):
        """A journal that was just written is not folded, but checked again later."""
        assert (False, {"json": 1}) == (store._fold_if_idle(), stored(path))

    def test_one_that_was_written_in_the_future_is_idle(self, path, store):
        """After the clock was set back by an hour, it would otherwise not be folded for an hour."""
        later = time.time() + 3600
        os.utime(journal_of(path), (later, later))

        assert (True, {"json": 1, "a": 1}) == (store._fold_if_idle(), stored(path))

    def test_a_lock_in_use_is_not_waited_for(self, path, store, hold):
        """A held lock is not waited for; folding is tried again later."""
        os.utime(journal_of(path), (1, 1))
        with hold(path):
            busy = store._fold_if_idle()
        os.utime(journal_of(path), (1, 1))

        assert (False, True, {"json": 1, "a": 1}) == (busy, store._fold_if_idle(), stored(path))

    def test_others_see_what_the_lock_is_held_for(self, path, store, monkeypatch):
        """While a journal is being folded, the holder's purpose is "checkpoint"."""
        found, real = [], os.replace

        def replace(source, target):
            found.append(open_store(path).holder(probe=False).purpose)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        os.utime(journal_of(path), (1, 1))
        store._fold_if_idle()

        assert {"checkpoint"} == set(found)


class TestTheExit:
    @pytest.mark.parametrize("when", ["at once", "after a while", "without its journal", "without its descriptors"])
    def test_it_folds(self, path, run, when):
        """A program that ends leaves a complete JSON file, even right after its last write."""
        assert ["0"] == run(CHANGE_AND_EXIT, path, when)
        assert ({"n": 2}, {"n": 2}, []) == (stored(path), seen(path), lines_of(path)[1])

    def test_it_waits_for_the_thread_that_is_just_folding(self, path, run):
        """That thread holds the lock, and does not survive the exit."""
        assert ["0"] == run(EXIT_IN_A_FOLD, path)
        assert ({"n": 2}, []) == (stored(path), lines_of(path)[1])

    def test_it_does_not_wait_for_ever(self, monkeypatch):
        """A thread that hangs, on a network file system for example, does not keep the program alive."""
        monkeypatch.setattr(_idle, "_EXIT_SECONDS", 0.05)
        begun, hanging, folded = threading.Event(), threading.Event(), []

        def fold(*, at_exit):
            folded.append(at_exit)
            begun.set()
            return at_exit or hanging.wait(60)

        Idle().touch(fold, soon=True)
        begun.wait(60)
        _idle._fold_all()
        hanging.set()
        wait_until(lambda: not _idle._pending)

        assert [False, True] == folded

    def test_it_makes_up_for_an_error(self, path, run):
        """A fold that has failed, as on a disk that was full for a while, is tried again at the exit."""
        assert ["0"] == run(EXIT_AFTER_A_FAILED_FOLD, path)
        assert ({"n": 2}, []) == (stored(path), lines_of(path)[1])
        assert ({"n": 2}, {"n": 2}, []) == (stored(path), seen(path), lines_of(path)[1])
