"""The state of a file with a journal equals that of a plain file with the same commits."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from journals import MISSING, commit, entries, journal_of, open_store
from persistent_context._model.snapshot import NOTHING
from persistent_context._stores.journal.overlay import Changing, Overlay
from persistent_context._stores.journal.snapshot import JournalSnapshot
from persistent_context._stores.jsonfile.document import EMPTY, Document
from persistent_context._stores.jsonfile.store import JsonFileStore

KEYS = st.sampled_from("abcdefg")
COMMIT = st.tuples(
    st.dictionaries(KEYS, st.sampled_from([b"1", b"2", MISSING]), min_size=1), st.sets(KEYS), st.booleans()
)


def snapshot_of(document, *records, start=1, generation="1"):
    """Return the snapshot of a document with records."""
    overlay = Overlay()
    for number, texts in enumerate(records, start):
        changing = Changing(overlay)
        changing.apply(number, texts)
        overlay = changing.result()
    return JournalSnapshot(document, overlay, generation, start + len(records) - 1, exists=True)


def listed(snapshot):
    """Return the texts by key, in order."""
    return {key: bytes(text) for part in snapshot.parts() for key, text in part.items()}


def applied(changes, to):
    """Return a state with changes applied, ignoring order."""
    changed = {**to, **changes}
    return {key: text for key, text in changed.items() if text is not MISSING}


class TestOrder:
    @settings(max_examples=60)
    @given(st.lists(COMMIT, max_size=8), st.sampled_from(["", '{\n"g": 0,\n"a": 0,\n"c": 0\n}\n']))
    def test_it_is_that_of_a_plain_file(self, commits, first):
        """The same commits, with checkpoints in between, give the same entries, in order, and the same bytes."""
        with tempfile.TemporaryDirectory() as directory:
            plain, path = Path(directory, "plain.json"), Path(directory, "state.json")
            for file in (plain, path):
                if first:
                    file.write_text(first, encoding="utf-8")
            one, other = JsonFileStore(str(plain)), open_store(path)
            for texts, moved, folds in commits:
                going = sorted(key for key in moved if texts.get(key, MISSING) is not MISSING)
                for store in (one, other):
                    commit(store, texts, moved=going, durable=False)
                if folds:
                    commit(other, folds=True, durable=False)

                assert entries(one) == entries(other) == entries(open_store(path))
            commit(other, folds=True)
            contents = [file.read_bytes() if file.exists() else None for file in (plain, path)]

        assert contents[0] == contents[1]

    def test_many_new_keys_come_in_parts(self):
        """New keys come in parts, so that other threads run in between."""
        snapshot = snapshot_of(EMPTY, {str(number): b"1" for number in range(10_000)})

        assert [4096, 4096, 1808] == [len(part) for part in snapshot.parts()]
        assert [str(number) for number in range(10_000)] == list(snapshot.keys())

    def test_pages_that_no_record_has_changed_are_those_of_the_document(self):
        """Pages without changes are taken from the document, at no cost."""
        document = EMPTY.changed({f"k{number}": b'"' + b"x" * 1000 + b'"' for number in range(300)})
        snapshot = snapshot_of(document, {"k0": b"1", "new": b"2"})

        pages, parts = list(document.parts()), list(snapshot.parts())

        assert [*document.keys(), "new"] == list(snapshot.keys())
        assert len(pages) > 2
        assert pages[1:] == parts[1 : len(pages)]


class TestEntries:
    def test_some_keys_are_got(self):
        """Keys come from the records or the document; deleted and unknown ones are left out."""
        snapshot = snapshot_of(EMPTY.changed({"a": b"1", "b": b"1", "c": b"1"}), {"a": b"2", "b": MISSING})
        found = {key: bytes(text) for key, text in snapshot.get(["a", "b", "c", "d"]).items()}

        assert ({"a": b"2", "c": b"1"}, {"a": b"2"}) == (found, snapshot.get(["a"]))

    def test_what_is_folded_is_the_document_without_records(self):
        """Folding without records returns the document; a missing file becomes an empty object."""
        document = EMPTY.changed({"a": b"1"})
        folded = snapshot_of(EMPTY).folded()

        assert document is snapshot_of(document).folded()
        assert ([], True) == (list(folded.keys()), folded.exists)

    def test_each_has_a_revision_of_its_own(self):
        """Each snapshot has its own revision, which is not that of a document."""
        document = Document()
        revisions = [snapshot_of(document).revision for _ in range(3)] + [document.revision]

        assert 4 == len(set(revisions))


class TestChanges:
    @given(st.lists(st.dictionaries(KEYS, st.sampled_from([b"1", b"2", MISSING]), min_size=1), max_size=6), st.data())
    def test_they_turn_any_state_into_any_other(self, records, data):
        """In both directions, on the same document and on one with the records folded in."""
        document = EMPTY.changed({"a": b"0", "b": b"0"})
        cut = data.draw(st.integers(0, len(records)))
        folded = snapshot_of(document, *records[:cut]).folded()
        states = [document, NOTHING, snapshot_of(document, *records), snapshot_of(document, *records[:cut])]
        states += [snapshot_of(folded, *records[cut:]), snapshot_of(folded)]
        for older in states:
            for newer in states[2:]:
                changes = newer.changes_since(older)

                assert listed(newer) == applied(changes, listed(older))

    def test_only_what_has_changed_is_compared(self):
        """Between two states of one journal, only the later records are compared."""
        document = EMPTY.changed({str(number): b"1" for number in range(1000)})
        older = snapshot_of(document, {"a": b"1"})
        changing = Changing(older.overlay)
        changing.apply(2, {"b": b"2"})
        newer = JournalSnapshot(document, changing.result(), older.generation, 2, exists=True)

        assert {"b": b"2"} == newer.changes_since(older)

    def test_the_numbers_of_another_generation_mean_nothing(self):
        """The lines of each journal are numbered from the start, although the document may be the same."""
        document = EMPTY.changed({"a": b"0", "b": b"0"})
        older = snapshot_of(document, {"a": b"1"}, generation="1")
        newer = snapshot_of(document, {"b": b"1"}, generation="2")

        assert {"a": b"0", "b": b"1"} == newer.changes_since(older)

    def test_a_store_that_reads_on_sees_them(self, path, store):
        """A store that reads on sees what another store has appended."""
        other = open_store(path)
        before = other.snapshot()
        commit(store, {"a": b"2", "json": MISSING, "b": b"3"})
        changes = other.snapshot().changes_since(before)

        assert {"a": b"2", "json": MISSING, "b": b"3"} == changes
        assert json.loads(path.read_bytes()) == {"json": 1} and journal_of(path).exists()
