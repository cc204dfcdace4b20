"""Checkpoints, and their state after a crash, an error, or a program that does not know journals."""

import errno
import os

import pytest

from journals import MISSING, commit, entries, header_line, journal_of, kept, lines_of, open_store, seen, stored
from persistent_context import DurabilityUnknownError
from persistent_context._stores.journal.record import NO_FILE, Author

CRASH = """
import os, sys
from journals import commit, open_store

path, point, real = sys.argv[1], sys.argv[2], os.replace

def crash(source, target):
    if target.endswith(point):
        os._exit(9)
    real(source, target)

store = open_store(path, journal=None)
store.snapshot()
os.replace = crash
commit(store, folds=True)
"""

COUNT = """
import sys
from journals import commit, open_store
from persistent_context._model.snapshot import Changes

store, number = open_store(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(30):
    session = store.begin("test", wait=True)
    count = int(session.snapshot.get(["n"]).get("n", b"0")) + 1
    session.commit(Changes({"n": b"%d" % count, f"p{number}": b"%d" % turn}), durable=turn % 2 == 0)
    session.close()
    if turn % 5 == number:
        commit(store, folds=True)
"""

SWITCH = """
import sys
from persistent_context import SyncPersistentContext

journal = {"True": True, "False": False, "None": None}[sys.argv[2]]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    SyncPersistentContext(sys.argv[1], journal=journal, durable=turn % 4 == 0).incr("n")
"""

APPEND_AND_SAY = """
import sys
from journals import commit, open_store

store = open_store(sys.argv[1])
print("ready", flush=True)
for number in range(100_000):
    commit(store, {"n": b"%d" % number})
    print(number, flush=True)
    if number % 7 == 6:
        commit(store, folds=True)
"""


@pytest.fixture
def crash(path, store, spawn):
    """Make another process crash during a checkpoint, just before a file is replaced."""

    def crashing(point):
        child = spawn(CRASH, path, point)
        assert 9 == child.process.wait()

    return crashing


def replace_by_a_foreign_program(path, text):
    """Replace the JSON file, as a program does that does not know its journal."""
    other = path.with_name("theirs")
    other.write_text(text, encoding="utf-8")
    other.replace(path)


@pytest.fixture
def refuse(monkeypatch):
    """Prevent replacing the journal."""

    def refusing(code):
        real = os.replace

        def replace(source, target):
            if target.endswith(".journal"):
                raise OSError(code, os.strerror(code), target)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        return lambda: monkeypatch.setattr(os, "replace", real)

    return refusing


class TestACrashInACheckpoint:
    @pytest.mark.parametrize("point", [".json", ".json.journal"])
    def test_it_is_harmless(self, path, store, crash, warnings, point):
        """Before and after the JSON file is replaced, everything is there, once, and no warning is logged."""
        commit(store, {"a": b"1", "b": b"2"})
        crash(point)
        found = (seen(path), dict(entries(store)), stored(path))
        commit(store, {"a": b"3"})
        commit(open_store(path), {"c": b"4"})
        everything = {"json": 1, "a": 1, "b": 2}

        assert (everything, {"json": b"1", "a": b"1", "b": b"2"}) == found[:2]
        assert (everything if point == ".json.journal" else {"json": 1}) == found[2]
        assert ({"json": 1, "a": 3, "b": 2, "c": 4}, [], []) == (seen(path), kept(path), warnings())

    def test_what_is_folded_is_not_applied_twice(self, path, store, crash):
        """A later change to the JSON file by another program is not overwritten by records that were already folded."""
        crash(".json.journal")
        commit(open_store(path), {"a": b"2"})
        commit(open_store(path), folds=True)

        assert 2 == stored(path)["a"]

    def test_another_crash_in_the_next_one_is_harmless_too(self, path, store, crash, warnings):
        """If the JSON file is replaced twice with the same journal, both readers and the next writer cope."""
        crash(".json.journal")
        crash(".json.journal")
        replaced = seen(path)
        commit(open_store(path), {"b": b"2"})

        assert ({"json": 1, "a": 1}, {"json": 1, "a": 1, "b": 2}, []) == (replaced, seen(path), warnings())

    def test_a_reader_of_it_does_not_forget_what_was_folded(self, path, store, crash):
        """If a foreign program then restores the earlier JSON file, the records are applied to it."""
        before = path.read_text(encoding="utf-8")
        reader = open_store(path)
        crash(".json.journal")
        entries(reader)
        replace_by_a_foreign_program(path, before)

        assert {"json": b"1", "a": b"1"} == dict(entries(reader))
        commit(reader, folds=True)
        assert {"json": 1, "a": 1} == stored(path)

    def test_the_next_writer_ends_a_journal_that_was_being_ended(self, path, store, monkeypatch):
        """The next writer removes the journal, even without the context that was ending it."""

        def fail(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

        store.want(journal=False)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", fail)
            commit(store, {"b": b"2"})
        found = journal_of(path).exists()
        commit(open_store(path, journal=None), {"c": b"3"})

        assert (True, False) == (found, journal_of(path).exists())
        assert {"json": 1, "a": 1, "b": 2, "c": 3} == stored(path)

    def test_a_setting_changed_during_it_is_kept(self, path, store, monkeypatch):
        """If the setting changes during a checkpoint, the next call that writes follows it."""
        real = os.replace

        def replace(source, target):
            store.want(journal=False)
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            commit(store, folds=True)
        found = journal_of(path).exists()
        commit(store, {"b": b"2"})

        assert (True, False) == (found, journal_of(path).exists())

    def test_a_killed_writer_loses_nothing_that_it_has_acknowledged(self, path, spawn):
        """Whenever a writer is killed, repeatedly, its acknowledged changes stay, and the next one goes on."""
        last = -1
        for _ in range(4):
            child = spawn(APPEND_AND_SAY, path)
            assert "ready" == child.hear()
            for _ in range(12):
                last = int(child.hear())
            last = max([last, *(int(line) for line in child.kill() if line.isdigit())][-1:])

            assert seen(path)["n"] in (last, last + 1)
        commit(open_store(path), folds=True)

        assert [] == kept(path)


class TestAJournalThatCannotBeMade:
    def test_the_state_goes_on(self, path, store, refuse, warnings):
        """The JSON file has everything; commits go there until a journal can be made."""
        again = refuse(errno.EPERM)
        commit(store, folds=True)
        found = [stored(path)]
        for number in range(3):
            commit(store, {"a": b"%d" % number, "b": b"1"})
            found += [stored(path), seen(path), {key: int(text) for key, text in entries(store)}]
        again()
        commit(store, {"a": b"9"})
        commit(store, {"a": b"10"})
        expected = [{"json": 1, "a": 1}]
        for number in range(3):
            expected += [{"json": 1, "a": number, "b": 1}] * 3

        assert (expected, {"json": 1, "a": 10, "b": 1}) == (found, seen(path))
        assert ([], 1) == (kept(path), len(lines_of(path)[1]))
        assert {True} == {"could not renew the journal; the next writer will try again" in one for one in warnings()}

    def test_it_is_not_acknowledged_if_the_old_one_knows_nothing_of_it(
        self, path, store, refuse, break_sync, monkeypatch
    ):
        """After a failed sync, the announcement may be lost, so that the old journal would count as newer."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", os.fdatasync)
            break_sync("fdatasync", lambda name: name.endswith(".journal"))
            with pytest.raises(DurabilityUnknownError):
                commit(store, {"a": b"2"})
        refuse(errno.ENOSPC)
        with pytest.raises(DurabilityUnknownError, match="but not its journal"):
            commit(store, {"a": b"3"})

        assert {"json": 1, "a": 3} == stored(path)

    def test_so_it_does_for_a_file_that_is_to_get_its_first_one(self, path, refuse):
        """If the first journal of a file cannot be made, the commit succeeds without it."""
        again = refuse(errno.ENOSPC)
        store = open_store(path)
        commit(store, {"a": b"1"})
        found = (stored(path), journal_of(path).exists())
        again()
        commit(store, {"a": b"2"})

        assert (({"a": 1}, False), True, {"a": 2}) == (found, journal_of(path).exists(), seen(path))

    def test_a_reader_between_the_two_sees_the_new_state(self, path, store, monkeypatch, refuse):
        """A reader between the replacement of the JSON file and of the journal never sees half of a commit."""
        refuse(errno.EPERM)
        commit(store, folds=True)
        real, found = os.replace, []

        def replace(source, target):
            found.append(seen(path))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        commit(store, {"a": b"2", "b": b"2"})
        before, after = {"json": 1, "a": 1}, {"json": 1, "a": 2, "b": 2}

        assert [before, after] == found


class TestABackupOfLinks:
    """A backup made by ``cp -al``, which shares all files with the original until they are replaced."""

    @pytest.fixture
    def backup(self, path, store):
        """The JSON file in a backup of the test's directory."""
        directory = path.parent.with_name("backup")
        directory.mkdir()
        for file in (path, journal_of(path)):
            os.link(file, directory / file.name)
        return directory / path.name

    def test_it_does_not_change(self, path, store, backup, warnings):
        """The next change begins a new journal, in which the following ones are appended; no process sees a loss."""
        reader = open_store(path)
        reader.snapshot()
        for text in (b"2", b"3"):
            commit(store, {"a": text, "b": text})
        content = {key: int(text) for key, text in entries(reader)}

        assert ({"json": 1, "a": 3, "b": 3}, {"json": 1, "a": 3, "b": 3}, 1, []) == (
            seen(path), content, len(lines_of(path)[1]), warnings(),
        )  # fmt: skip
        assert ({"json": 1, "a": 1}, {"json": 1}) == (seen(backup), stored(backup))

    def test_a_change_in_it_leaves_the_original(self, path, store, backup, warnings):
        """Both can be used, in any order, and begin journals of their own."""
        commit(open_store(backup), {"only": b"1"})
        commit(store, {"b": b"2"})
        commit(open_store(backup), {"more": b"1"})

        assert ({"json": 1, "a": 1, "b": 2}, {"json": 1, "a": 1, "only": 1, "more": 1}, []) == (
            seen(path), seen(backup), warnings(),
        )  # fmt: skip


class TestForeignPrograms:
    """Programs that replace or change the JSON file, and do not know its journal."""

    def test_their_other_keys_are_taken_over(self, path, store, warnings):
        """Keys in the journal win; the foreign file is kept aside, once, and a warning says so."""
        replace_by_a_foreign_program(path, '{"a": 5, "json": 6, "theirs": 7}')
        found = [seen(path), {key: int(text) for key, text in entries(store)}]
        commit(store, {"b": b"2"})
        commit(store, {"b": b"3"})
        (aside,) = [one for one in path.parent.iterdir() if ".replaced-" in one.name]
        (warning,) = warnings()

        assert [{"a": 1, "json": 6, "theirs": 7}] * 2 == found
        assert ({"a": 1, "json": 6, "theirs": 7, "b": 3}, '{"a": 5, "json": 6, "theirs": 7}') == (
            seen(path), aside.read_text(encoding="utf-8"),
        )  # fmt: skip
        assert aside.name in warning

    def test_their_file_is_kept_once_however_often_a_write_fails(self, path, store, monkeypatch):
        """Each attempt would keep another copy, on a disk that is full already; and no attempt needs a link."""

        def fail(source, target):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

        replace_by_a_foreign_program(path, '{"theirs": 7}')
        monkeypatch.setattr(os, "link", fail)
        real = os.replace
        monkeypatch.setattr(os, "replace", fail)
        for _ in range(3):
            with pytest.raises(PermissionError):
                commit(store, {"b": b"2"})
        monkeypatch.setattr(os, "replace", real)
        commit(store, {"b": b"2"})

        assert ({"theirs": 7, "a": 1, "b": 2}, ["state.json.replaced"]) == (seen(path), kept(path))

    def test_without_records_nothing_is_kept(self, path, store, warnings):
        """Without records there is no conflict, so the foreign file is not kept aside."""
        commit(store, folds=True)
        replace_by_a_foreign_program(path, '{"theirs": 7}')
        commit(store, {"b": b"2"})

        assert ({"theirs": 7, "b": 2}, [], []) == (seen(path), kept(path), warnings())

    def test_a_durable_call_that_changes_nothing_takes_it_over_too(self, path, store):
        """A durable call without changes folds the foreign content, because what it acknowledges has to survive."""
        replace_by_a_foreign_program(path, '{"theirs": 7}')
        commit(store)

        assert {"theirs": 7, "a": 1} == stored(path)

    def test_a_write_in_place_within_a_clock_tick_is_noticed(self, path, store):
        """A file of the same size and time is read again before it is trusted."""
        times = path.stat().st_mtime_ns
        entries(store)
        with path.open("r+", encoding="utf-8") as file:
            file.write('{\n"json": 2\n}\n')
        os.utime(path, ns=(times, times))

        assert ([("json", b"2"), ("a", b"1")], {"json": 2, "a": 1}) == (entries(store), seen(path))

    def test_a_json_file_that_was_deleted_leaves_the_records(self, path, store, warnings):
        """The content of the deleted file is lost; the journal's is written to a new file, with a warning."""
        path.unlink()
        found = [seen(path), {key: int(text) for key, text in entries(store)}]
        commit(store, {"b": b"2"})

        assert ([{"a": 1}] * 2, {"a": 1, "b": 2}) == (found, stored(path))
        assert [f"{path} was deleted: only the changes in its journal are left"] == warnings()

    def test_one_that_was_deleted_with_an_empty_journal_is_gone(self, path, store):
        """If the JSON file is deleted and the journal is empty, the state does not exist."""
        commit(store, folds=True)
        path.unlink()

        assert (False, False) == (store.snapshot().exists, open_store(path).snapshot().exists)

    def test_a_corrupt_one_is_moved_aside_and_the_records_remain(self, path, store, nobody_repairs_it):
        """As without a journal, a corrupt JSON file is moved aside, and a reader gets an error."""
        path.write_text("corrupt", encoding="utf-8")
        with pytest.raises(ValueError):
            seen(path)
        commit(store, {"b": b"2"})

        assert ({"a": 1, "b": 2}, ["state.json.corrupt"]) == (seen(path), kept(path))


class TestADeletedJournal:
    def test_acknowledged_changes_stay_for_a_process_that_has_it_open(self, path, store, warnings):
        """A process that has the journal open writes it to the JSON file, with a warning, and begins a new one."""
        journal_of(path).unlink()
        found = dict(entries(store))
        commit(store, {"b": b"2"})

        assert ({"json": b"1", "a": b"1"}, {"json": 1, "a": 1, "b": 2}) == (found, stored(path))
        assert (True, 1) == (journal_of(path).exists(), len(warnings()))

    @pytest.mark.parametrize("how", ["linked", "chmod", "touched"])
    def test_they_stay_if_the_json_file_has_other_times_and_permissions(self, path, store, how):
        """Only a file with another content, or put in its place, counts as written by another program."""
        if how == "linked":
            os.link(path, path.with_name("backup"))
        elif how == "chmod":
            path.chmod(0o600)
        else:
            os.utime(path)
        journal_of(path).unlink()
        found = dict(entries(store))
        commit(store, {"b": b"2"})

        assert ({"json": b"1", "a": b"1"}, {"json": 1, "a": 1, "b": 2}) == (found, stored(path))

    @pytest.mark.parametrize("journal", [None, False])
    def test_they_stay_if_a_checkpoint_was_announced_and_never_made(self, path, store, monkeypatch, warnings, journal):
        """On a full disk, nothing but the announcement is written, even if the journal was to end."""

        def fail(*_arguments, **_options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        other = open_store(path, journal=journal)
        with monkeypatch.context() as patch:
            patch.setattr("persistent_context._stores.jsonfile.session.replace", fail)
            with pytest.raises(OSError, match="No space left"):
                commit(other, {"b": b"2"}, folds=True)
        path.chmod(0o600)
        journal_of(path).unlink()
        found = dict(entries(store))
        done = store._fold_if_idle(at_exit=True)

        assert ({"json": b"1", "a": b"1"}, True, {"json": 1, "a": 1}) == (found, done, stored(path))
        assert [f"{path}: the journal was deleted while it was in use; its changes will be written into the file"] == (
            warnings()
        )

    def test_what_others_have_written_since_counts(self, path, store, warnings):
        """Processes without the journal went on with the JSON file alone; a warning reports the loss."""
        commit(store, {"json": b"2"})
        journal_of(path).unlink()
        commit(open_store(path, journal=None), {"json": b"3", "c": b"3"})
        commit(store, {"b": b"2"})

        assert ({"json": 3, "c": 3, "b": 2}, False) == (seen(path), journal_of(path).exists())
        assert ["the journal was deleted while it was in use; its changes since the last checkpoint are lost"] == [
            one.split(": ", 1)[1] for one in warnings()
        ]

    def test_nothing_is_written_back_after_a_reset(self, path, store):
        """If all files are deleted and the first JSON file is restored, nothing is written back."""
        commit(store, {"json": b"2"})
        content = path.read_bytes()
        journal_of(path).unlink()
        path.unlink()
        gone = entries(store)
        store._journal.wanted = None
        path.write_bytes(content)
        commit(store, {"b": b"2"})

        assert ([], {"json": 1, "b": 2}) == (gone, seen(path))

    def test_nor_if_it_was_not_looked_at_meanwhile(self, path, store):
        """The restored JSON file has the same content, but is another file."""
        commit(store, {"json": b"2"})
        content = path.read_bytes()
        journal_of(path).unlink()
        again = path.with_name("again")
        again.write_bytes(content)
        again.replace(path)
        commit(store, {"b": b"2"})

        assert {"json": 1, "b": 2} == seen(path)

    def test_nor_if_it_was_looked_at_in_between(self, path, store):
        """The JSON file was deleted first, and its absence was seen."""
        path.unlink()
        entries(store)
        journal_of(path).unlink()
        commit(store, {"b": b"2"})

        assert {"b": 2} == seen(path)

    def test_no_loss_is_reported_if_a_checkpoint_leaves_the_json_file_unchanged(self, path, store, warnings):
        """No loss is reported when keys were changed and changed back, even by another checkpoint."""
        commit(store, {"a": MISSING})
        reader = open_store(path)
        entries(reader)
        commit(store, folds=True)
        found = [dict(entries(reader))]
        for text in (b"2", b"1"):
            commit(store, {"json": text})
            if text == b"2":
                entries(reader)
            commit(store, folds=True)
        found.append(dict(entries(reader)))

        assert ([{"json": b"1"}] * 2, []) == (found, warnings())

    def test_a_loss_is_reported_even_if_there_is_another_journal_by_now(self, path, store, warnings):
        """A loss is reported even if a process that did not know the deleted journal has begun a new one."""
        journal_of(path).unlink()
        commit(open_store(path), {"b": b"2"})
        entries(store)

        assert ["the journal was deleted while it was in use; its changes since the last checkpoint are lost"] == [
            one.split(": ", 1)[1] for one in warnings()
        ]

    def test_no_loss_is_reported_after_another_process_has_saved_the_changes(self, path, store, warnings):
        """Of all processes that know a deleted journal, one writes its changes into the JSON file."""
        commit(store, {"json": MISSING, "b": b"2"})
        other = open_store(path)
        other.snapshot()
        journal_of(path).unlink()
        commit(store, folds=True)
        found = dict(entries(other))
        commit(other, {"c": b"3"})

        assert ({"a": b"1", "b": b"2"}, {"a": 1, "b": 2, "c": 3}) == (found, seen(path))
        assert [f"{path}: the journal was deleted while it was in use; its changes will be written into the file"] == (
            warnings()
        )

    @pytest.mark.parametrize("checkpoints", [0, 1, 2])
    def test_one_that_another_process_has_ended_is_never_restored(self, path, store, checkpoints, warnings):
        """A journal that another process has ended is not restored, whatever was written since."""
        commit(store, {"gone": b"1", "json": b"5"})
        entries(store)
        other = open_store(path)
        for _ in range(checkpoints):
            commit(other, folds=True)
            commit(other, {"again": b"1"})
        commit(open_store(path, journal=False), {"json": b"1", "gone": b"1"})
        plain = open_store(path, journal=None)
        commit(plain, {"gone": MISSING, "a": MISSING})
        found = dict(entries(store))
        store._journal.wanted = None
        commit(store, {"b": b"2"})
        expected = {"json": 1, "b": 2} | ({"again": 1} if checkpoints else {})

        assert (expected, False, []) == (stored(path), journal_of(path).exists(), warnings())
        assert {"json", *expected} - {"b"} == set(found)

    def test_a_writer_notices_the_end_of_one(self, path, store):
        """A writer that has not looked before notices the end under the lock, and begins no new journal."""
        commit(store, {"b": b"2"})
        commit(open_store(path, journal=False), {"b": b"3"})
        commit(store, {"c": b"4"})

        assert ({"json": 1, "a": 1, "b": 3, "c": 4}, False) == (stored(path), journal_of(path).exists())

    def test_a_writer_notices_the_end_of_one_without_records(self, path, store, warnings):
        """The end is noticed even if the JSON file is unchanged, and does not count as a deletion."""
        commit(store, folds=True)
        commit(open_store(path, journal=False), folds=True)
        commit(store, {"b": b"2"})

        assert ({"json": 1, "a": 1, "b": 2}, False) == (stored(path), journal_of(path).exists())
        assert [] == warnings()

    def test_one_that_follows_no_file_is_appended_to(self, path, store):
        """Both files may have been restored to a time before the JSON file existed, so it may be missing."""
        commit(store, {"b": b"2"})
        path.unlink()
        other = path.with_name("other")
        other.write_bytes(header_line("0123456789abcdef", NO_FILE, Author(1.0, 1)))
        other.replace(journal_of(path))
        commit(store, {"c": b"3"})
        before = path.exists()
        commit(store, folds=True)

        assert (False, {"c": 3}) == (before, stored(path))

    def test_ending_one_that_is_gone_is_not_an_error(self, path, store, warnings):
        """After a deleted journal is ended, the file is plain."""
        entries(store)
        journal_of(path).unlink()
        store.want(journal=False)
        commit(store, {"b": b"2"})
        commit(store, {"c": b"3"})

        assert ({"json": 1, "a": 1, "b": 2, "c": 3}, False) == (stored(path), journal_of(path).exists())
        assert [] == [one for one in warnings() if "could not begin" in one]

    def test_a_replaced_one_is_that_of_another_checkpoint(self, path, store):
        """A process that has the old journal open goes on with the new one."""
        other = open_store(path)
        entries(other)
        commit(store, folds=True)
        commit(store, {"b": b"2"})
        commit(other, {"c": b"3"})

        assert {"json": 1, "a": 1, "b": 2, "c": 3} == seen(path)


class TestManyProcesses:
    def test_checkpoints_beside_concurrent_appends_lose_nothing(self, path, spawn):
        """Four processes increment, with checkpoints in between, and every increment counts."""
        children = [spawn(COUNT, path, number) for number in range(4)]
        for child in children:
            assert "ready" == child.hear()
        for child in children:
            child.say()
        while any(child.running() for child in children):
            found = seen(path) if path.exists() else {}
            assert found.get("n", 0) >= sum(found.get(f"p{number}", -1) + 1 for number in range(4))
        for child in children:
            child.finish()

        assert (120, []) == (seen(path)["n"], kept(path))

    def test_a_journal_is_begun_and_ended_under_fire(self, path, spawn):
        """Processes with journal=True, False and None increment in turn, and every increment counts."""
        wishes = ["True", "False", "None"]
        children = [spawn(SWITCH, path, wish) for wish in wishes]
        for child in children:
            assert "ready" == child.hear()
        for child in children:
            child.say()
        for child in children:
            child.finish()

        assert (60, []) == (seen(path)["n"], kept(path))
