"""What is planned at a place in memory happens there, once, to the call that reaches it."""

from __future__ import annotations

import errno

import pytest

from contract.helping import begin, commit, entries, finish
from contract.memorystore import Gate, MemoryStore, Place
from contract.places import MemoryPlace
from persistent_context._model.snapshot import Changes
from persistent_context._stores.protocol import SessionLostError
from persistent_context.errors import DurabilityUnknownError

CHANGE = Changes({"a": b"1"})


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def call(tmp_path):
    """Call functions in other threads."""
    return MemoryPlace(tmp_path)


class TestErrors:
    @pytest.mark.parametrize(
        ("point", "error", "expected"),
        [
            ("commit", SessionLostError("lost"), []),
            ("commit", OSError(errno.ENOSPC, "full"), []),
            ("committed", DurabilityUnknownError("unknown"), [("a", 1)]),
            ("closed", DurabilityUnknownError("unknown"), [("a", 1)]),
        ],
    )
    def test_one_of_a_session(self, place, point, error, expected):
        """A planned error is raised at its point, and the session still ends."""
        store = MemoryStore(place)
        place.plan(point, error)
        with pytest.raises(type(error)):
            finish(begin(store), CHANGE)

        assert expected == entries(MemoryStore(place).snapshot())
        assert [("a", 2)] == entries(commit(store, {"a": 2}))

    @pytest.mark.parametrize(
        ("point", "use"),
        [
            ("snapshot", lambda store: store.snapshot()),
            ("begin", lambda store: store.begin("test", wait=True)),
            ("read", lambda store: begin(store).snapshot),
        ],
    )
    def test_one_of_another_call(self, place, point, use):
        """An error planned for the start of a call is raised there, for as many calls as planned."""
        place.plan(point, OSError("first"), OSError("second"))
        for message in ("first", "second"):
            with pytest.raises(OSError, match=message):
                use(MemoryStore(place))
            place.lose_sessions()
        use(MemoryStore(place))


class TestGates:
    @pytest.mark.parametrize(
        ("point", "seen", "is_free"),
        [("commit", [], False), ("committed", [("a", 1)], False), ("closed", [("a", 1)], True)],
    )
    def test_a_session_is_held_where_it_is(self, place, call, point, seen, is_free):
        """A session held at a point has written or not, and is open or closed, according to the point."""
        gate, other = Gate(), MemoryStore(place)
        place.plan(point, gate)
        committing = call.start(commit, MemoryStore(place), {"a": 1})
        call.until(gate.reached.is_set)
        found = entries(other.snapshot()), (session := other.begin("other", wait=False)) is not None
        if session:
            session.close()
        gate.opened.set()

        assert (seen, is_free) == found
        assert [("a", 1)] == entries(call.result(committing))

    def test_a_beginning_is_held_before_its_turn(self, place, call):
        """Others are served while a call to begin is held, and it may then fail."""
        gate = Gate(OSError("late"))
        place.plan("begin", gate)
        beginning = call.start(MemoryStore(place).begin, "test", wait=True)
        call.until(gate.reached.is_set)
        commit(MemoryStore(place), {"a": 1})
        gate.opened.set()
        with pytest.raises(OSError, match="late"):
            call.result(beginning)


class TestMisuse:
    def test_a_session_is_for_one_commit(self, place):
        """A second commit, or a commit after the end, is an error of the caller."""
        session = begin(MemoryStore(place))
        session.commit(CHANGE, durable=False)
        with pytest.raises(AssertionError):
            session.commit(CHANGE, durable=False)
        session.close()
        session = begin(MemoryStore(place))
        session.close()
        with pytest.raises(AssertionError):
            session.commit(CHANGE, durable=False)
