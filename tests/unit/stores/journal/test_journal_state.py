"""The state of a file and its journal: how it is understood, and what has to be done before the next write."""

import pytest

from journals import commit, fold_line, journal_of, lines_of, open_store, seen
from persistent_context._stores.journal import record
from persistent_context._stores.journal.file import open_journal
from persistent_context._stores.journal.record import Author, Fingerprint
from persistent_context._stores.journal.state import Fault
from persistent_context.errors import JournalVersionError

NEWER = b'{"persistent_context_journal": 2, "number": 0, "time": 1.0, "pid": 1, "follows": [0, 0]}'


@pytest.fixture
def state(store):
    """The state of the fixture's file."""
    store.snapshot()
    return store._journal.known


class TestReadingOn:
    def test_nothing_new_is_the_same_state(self, state):
        """Without new lines, the same objects are returned."""
        assert state is state.extended()
        assert state.snapshot is state.on(state.base).snapshot

    def test_reading_on_gives_the_same_as_reading_from_the_start(self, path, store, state):
        """Appending, reading on and reading from the start give the same state."""
        commit(open_store(path), {"b": b"2"}, durable=False)
        commit(store, {"c": b"3"}, durable=False)
        appended, read_on = store._journal.known, state.extended()
        other = open_store(path)
        other.snapshot()
        read = other._journal.known

        assert appended[3:] == read_on[3:] == read[3:]
        assert (
            appended.snapshot.overlay.entries() == read_on.snapshot.overlay.entries() == read.snapshot.overlay.entries()
        )

    def test_reading_the_json_file_after_a_fold_drops_its_records(self, path, store, state):
        """After a fold, the records are in the JSON file, and are dropped from the state."""
        commit(store, {"b": b"2"}, durable=False)
        commit(open_store(path), folds=True)
        other = open_store(path)
        other.snapshot()
        later = state.extended().on(other._journal.known.base)

        assert ({}, {"json", "a", "b"}) == (dict(later.snapshot.overlay.entries()), set(later.snapshot.keys()))


class TestFaults:
    def test_none(self, state):
        """A file and its journal match."""
        assert (None, False, None) == (state.fault, state.has_ended, state.folded_number)

    def test_a_damaged_header(self, path, state):
        """With a damaged header there is no generation, so nothing can be appended."""
        damaged = state._replace(header=None)

        assert (Fault.DAMAGED, "") == (damaged.fault, damaged.generation)

    def test_each_has_its_name(self, state):
        """A deleted or damaged journal is reported as such, whatever is in the JSON file."""
        other = state.base._replace(fingerprint=Fingerprint(1, 2))
        foreign = state.on(other)

        assert (Fault.FOREIGN, Fault.DELETED, Fault.DAMAGED) == (
            foreign.fault, foreign._replace(is_deleted=True).fault, foreign._replace(is_damaged=True).fault,
        )  # fmt: skip

    @pytest.mark.parametrize("ends", [False, True])
    def test_an_announced_fold_counts_once_the_json_file_is_so(self, path, state, ends):
        """Until the JSON file has changed, the announcement has no effect, except that the journal may have ended."""
        becomes = Fingerprint(1, 2)
        line = fold_line(state.generation, state.last + 1, Author(1.0, 1), becomes, ends=ends)
        state.file.append(line, state.end)
        announced = state.extended()
        done = announced.on(state.base._replace(fingerprint=becomes))

        assert (None, Fault.FOLDED, ends) == (announced.fault, done.fault, done.has_ended)
        assert (True, False) == (bool(announced.snapshot.overlay), bool(done.snapshot.overlay))


class TestANewerVersion:
    @pytest.mark.parametrize("payload", [NEWER, b'{"persistent_context_journal": 3, "other": []}'])
    def test_nothing_is_read_or_touched(self, path, store, payload, monkeypatch):
        """Not even ending or folding the journal touches any file; the error says to upgrade."""
        line = record._framed("0123456789abcdef", payload)
        journal_of(path).write_bytes(line + b"what a later version writes\n\0")
        before = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith(".lock")}
        for journal in (True, None, False):
            for call in (
                lambda store: store.snapshot(),
                lambda store: commit(store, {"b": b"2"}),
                lambda store: commit(store, folds=True),
            ):
                with pytest.raises(JournalVersionError, match="upgrade"):
                    call(open_store(path, journal=journal))
        after = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith(".lock")}

        assert before == after

    def test_a_newer_header_in_another_place_is_damage(self, path, store):
        """Only the first line is a header."""
        with journal_of(path).open("ab") as file:
            file.write(NEWER + b"\n")

        assert ({"json": 1, "a": 1}, 1) == (seen(path), len([one for one in lines_of(path)[1] if one]))

    def test_it_is_the_file_that_is_opened(self, path, store):
        """The journal is opened at the JSON file's full path with the suffix added."""
        assert open_journal(f"{path}.journal", str(path)).size() == journal_of(path).stat().st_size
