"""What a snapshot shows: one state, whole and in order, which never changes."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.helping import begin, commit, entries, finish, increment, texts_of, value
from persistent_context._model.snapshot import NOTHING, Changes
from persistent_context._model.values import MISSING, decode

MANY = 12_000
KEYS = st.sampled_from(["", "a", "b", "c", 'quo"ted', "lines\n", "\N{SNOWMAN}"])
VALUES = st.sampled_from([None, 0, 1, 1.5, "text", ["a", {"b": []}]])


@st.composite
def changes(draw):
    """Values by key, and which of the keys come last."""
    values = draw(st.dictionaries(KEYS, VALUES | st.just(MISSING), max_size=4))
    return values, tuple(draw(st.lists(st.sampled_from(list(values)), unique=True)) if values else ())


STEPS = st.lists(st.tuples(changes(), st.booleans()), max_size=6)
"""What is committed, and whether by another store."""


def model_after(model, values, moved):
    """Return a dictionary after changes."""
    after = {key: value for key, value in model.items() if key not in moved} | values
    return {key: value for key, value in after.items() if value is not MISSING}


class TestContent:
    def test_it_has_what_was_committed(self, place):
        """A commit returns what every store at the place reads from then on."""
        store = place.store()
        committed = commit(store, {"a": 1, "b": [None, "text"]})
        expected = [("a", 1), ("b", [None, "text"])]

        assert [expected] * 3 == [entries(one) for one in (committed, store.snapshot(), place.store().snapshot())]

    def test_its_views_agree(self, place):
        """Keys, parts and single texts are of one state."""
        snapshot = commit(place.store(), {str(n): n for n in range(10)})
        keys = list(snapshot.keys())
        found = snapshot.get([*keys, "missing"])

        assert entries(snapshot) == [(key, decode(found.get(key, b"null"))) for key in keys]
        assert {str(n): b"%d" % n for n in range(10)} == found

    def test_its_parts_are_bounded(self, place):
        """If there is much, no part has all of it, and the parts together have each entry once."""
        snapshot = commit(place.store(), {str(n): n for n in range(MANY)})
        sizes = [len(part) for part in snapshot.parts()]

        assert (MANY, True) == (sum(sizes), 0 < min(sizes) <= max(sizes) <= MANY // 2)

    def test_later_commits_do_not_change_it(self, place):
        """After any later commit, a snapshot is unchanged, and so is what was read from it."""
        store = place.store()
        first = commit(store, {"a": 1, "b": [1]})
        second = store.snapshot()
        taken = first.get(["a"])
        commit(store, {"a": 2, "b": MISSING, "c": 3})
        commit(place.store(), {"a": 4})

        assert [[("a", 1), ("b", [1])]] * 2 == [entries(first), entries(second)]
        assert {"a": b"1"} == taken

    def test_what_it_gives_away_is_not_part_of_it(self, place):
        """Changing the result of ``get`` changes no snapshot."""
        snapshot = commit(place.store(), {"a": 1})
        snapshot.get(["a"])["a"] = b"2"

        assert {"a": b"1"} == snapshot.get(["a"])

    def test_threads_share_it(self, place):
        """Threads that read a snapshot at the same time all see the same content."""
        commit(place.store(), {str(n): n for n in range(MANY)})
        snapshot, together = place.store().snapshot(), threading.Barrier(4)

        def look(first):
            together.wait()
            ones = [value(snapshot, str(n)) for n in range(first, MANY, MANY // 40)]
            return (
                ones == list(range(first, MANY, MANY // 40)),
                list(snapshot.keys()) == [*map(str, range(MANY))],
                entries(snapshot) == [(str(n), n) for n in range(MANY)],
            )  # compared here: pytest takes minutes to show how two long lists differ

        looks = [place.result(future) for future in [place.start(look, n) for n in range(4)]]

        assert [(True, True, True)] * 4 == looks


class TestExistence:
    def test_at_first_nothing_is_stored(self, place):
        """Before the first commit there are no keys, and reading creates nothing."""
        snapshot = place.store().snapshot()

        assert (False, [], [], {}) == (snapshot.exists, list(snapshot.keys()), entries(snapshot), snapshot.get(["a"]))
        assert not place.store().snapshot().exists

    @pytest.mark.parametrize(("values", "creates"), [({}, True), ({"a": 1}, False), ({"a": 1}, True)])
    def test_a_commit_creates(self, place, values, creates):
        """A commit of a key creates the state, and so does an explicit request."""
        committed = commit(place.store(), values, creates=creates)
        snapshot = place.store().snapshot()

        assert [(True, list(values.items()))] * 2 == [(one.exists, entries(one)) for one in (committed, snapshot)]

    @pytest.mark.parametrize("durable", [False, True])
    def test_a_commit_of_nothing_does_not_create(self, place, durable):
        """Without changes there is nothing to write, durable or not."""
        committed = commit(place.store(), {}, durable=durable)

        assert [False, False] == [committed.exists, place.store().snapshot().exists]

    def test_it_exists_without_keys(self, place):
        """A state that has lost its last key still exists."""
        commit(place.store(), {"a": 1})
        commit(place.store(), {"a": MISSING})
        snapshot = place.store().snapshot()

        assert (True, []) == (snapshot.exists, entries(snapshot))

    def test_what_exists_is_not_created_again(self, place):
        """Creating a state that exists changes nothing."""
        commit(place.store(), {"a": 1})
        commit(place.store(), {}, creates=True)

        assert [("a", 1)] == entries(place.store().snapshot())


class TestOrder:
    @pytest.mark.parametrize(
        ("values", "moved", "expected"),
        [
            ({"z": 0, "y": 0}, (), "abczy"),
            ({"b": 0, "a": 0}, (), "abc"),
            ({"a": 0}, ("a",), "bca"),
            ({"b": 0, "a": 0}, ("a", "b"), "cba"),
            ({"z": 0, "a": 0, "y": 0}, ("a",), "bczay"),
            ({"a": MISSING, "z": 0}, (), "bcz"),
            ({"a": MISSING, "b": 0}, ("a", "b"), "cb"),
        ],
    )
    def test_new_and_moved_keys_come_last(self, place, values, moved, expected):
        """Changed keys keep their place; new and moved ones come last, in the order of the changes."""
        commit(place.store(), {"a": 1, "b": 2, "c": 3})
        committed = commit(place.store(), values, moved=moved)
        snapshot = place.store().snapshot()

        assert [list(expected)] * 2 == [list(committed.keys()), list(snapshot.keys())]

    def test_a_key_that_was_removed_comes_last_when_it_returns(self, place):
        """A key that was removed and set again comes last."""
        for values in ({"a": 1, "b": 2}, {"a": MISSING}, {"a": 3}):
            commit(place.store(), values)

        assert [("b", 2), ("a", 3)] == entries(place.store().snapshot())


class TestRevision:
    def test_it_is_the_same_until_something_is_committed(self, place):
        """Reading, and sessions without a commit, leave the revision unchanged."""
        store = place.store()
        commit(store, {"a": 1})
        before = store.snapshot().revision
        session = begin(store)
        in_session = session.snapshot.revision
        session.close()
        revisions = [in_session, commit(store, {}).revision, commit(store, {}, durable=True).revision]

        assert [before] * 4 == [*revisions, store.snapshot().revision]

    def test_it_is_another_one_for_another_state(self, place):
        """Every new state that a store sees has a new revision, whichever store committed it."""
        store, other = place.store(), place.store()
        revisions = [store.snapshot().revision]
        for n, writer in enumerate([store, other, store, store, other, other]):
            commit(writer, {"a": n % 2, str(n): n})
            revisions.append(store.snapshot().revision)

        assert len(revisions) == len(set(revisions))

    def test_that_of_a_commit_is_read_afterwards(self, place):
        """A commit returns the same state that is read afterwards."""
        store = place.store()
        revisions = [(commit(store, {"a": n}).revision, store.snapshot().revision) for n in range(3)]

        assert [(one, one) for one, _ in revisions] == revisions

    def test_it_tells_states_apart(self, place):
        """During busy writes, a reader sees one state after the other, and no two with the same revision."""
        store, seen = place.store(), []
        commit(store, {"n": 0})
        writing = place.start(lambda: [increment(writer, "n") for writer in [place.store(), place.store()] * 50])
        while value(store.snapshot(), "n") < 100 and not (writing.done() and writing.exception()):
            snapshot = store.snapshot()
            seen.append((snapshot.revision, value(snapshot, "n")))
        place.result(writing)
        numbers = [n for _, n in seen]

        assert sorted(numbers) == numbers
        assert len({revision for revision, _ in seen}) == len(set(seen))


class TestChanges:
    def test_they_are_those_between_two_states(self, place):
        """All keys whose texts differ are reported, also over several commits, and no unchanged key is."""
        store, other = place.store(), place.store()
        first = commit(store, {"same": 1, "changed": 1, "back": 1, "gone": 1})
        commit(other, {"changed": 2, "back": 2, "gone": MISSING, "passing": 1})
        last = commit(store, {"back": 1, "new": 1, "passing": MISSING})

        changes = last.changes_since(first)

        assert texts_of({"changed": 2, "gone": MISSING, "new": 1}).items() <= changes.items()
        assert (
            changes.items()
            <= texts_of({"changed": 2, "gone": MISSING, "new": 1, "back": 1, "passing": MISSING}).items()
        )
        assert {} == store.snapshot().changes_since(last)

    def test_since_there_was_nothing(self, place):
        """The first state consists only of changes, and one that merely exists has none."""
        store = place.store()
        nothing = store.snapshot()
        created = commit(store, {}, creates=True)
        first = commit(store, {"a": 1})

        assert ({}, {}) == (nothing.changes_since(NOTHING), created.changes_since(nothing))
        assert [{"a": b"1"}] * 2 == [first.changes_since(older) for older in (nothing, NOTHING)]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    @given(steps=STEPS)
    def test_they_lead_from_any_state_to_any_later_one(self, place, steps):
        """After any commits by any store, a store sees the content of a dictionary model, and every difference.

        A key that was changed and changed back may be among them, with the text that it has.
        """
        place = place.another()
        store, other = place.store(), place.store()
        seen = [({}, finish(begin(store), Changes(creates=True)))]
        for (values, moved), by_other in steps:
            model = model_after(seen[-1][0], values, moved)
            committed = commit(other if by_other else store, values, moved=moved)
            seen.append((model, store.snapshot() if by_other else committed))

            assert [list(model.items())] * 2 == [entries(committed), entries(store.snapshot())]
        committed_keys = [set(), *(set(values) for (values, _), _ in steps)]
        for (one, (before, older)), (other_one, (after, newer)) in itertools.combinations(enumerate(seen), 2):
            there = {**dict.fromkeys(before, MISSING), **after}
            expected = {key: new for key, new in there.items() if before.get(key, MISSING) != new}
            touched = set().union(*committed_keys[one + 1 : other_one + 1])
            changes = newer.changes_since(older)

            assert texts_of(expected).items() <= changes.items()
            assert changes.items() <= texts_of({key: after.get(key, MISSING) for key in touched}).items()
