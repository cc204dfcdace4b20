"""Sessions: one at a time, in order; a commit is written completely or not at all."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from contract.helping import begin, commit, entries, finish, increment, texts_of
from persistent_context._model.snapshot import Changes
from persistent_context._model.values import MISSING
from persistent_context._stores.protocol import CorruptStateError, SessionLostError
from persistent_context.errors import DurabilityUnknownError

CHANGE = Changes({"a": b"2"})


class TestExclusive:
    def test_another_does_not_begin(self, place):
        """While a session is open, no store at the place begins another one."""
        store = place.store()
        session = begin(store)
        refused = [one.begin("other", wait=False) for one in (store, place.store())]
        session.close()

        assert [None, None] == refused

    def test_nor_in_another_thread(self, place):
        """A session excludes the other threads of its process as well."""
        store = place.store()
        session = begin(store)
        refused = [place.result(place.start(one.begin, "other", wait=False)) for one in (store, place.store())]
        session.close()

        assert [None, None] == refused

    def test_nor_in_another_process(self, shared_place, elsewhere):
        """A session excludes other processes, and theirs exclude this one."""
        other, store = elsewhere(), shared_place.store()
        session = begin(store)
        refused = other.do("store.begin('other', wait=False)")
        session.close()
        other.do("(session := store.begin('other', wait=False)) is not None or 1 / 0")
        refused_here = store.begin("test", wait=False)
        other.do("session.close()")
        begin(store).close()

        assert (None, None) == (refused, refused_here)

    def test_once_it_is_closed_another_begins(self, place):
        """A closed session leaves nothing that another one would have to wait for."""
        for store in (one := place.store(), place.store(), one):
            session = begin(store)
            session.close()

            assert 0 == session.waited

    def test_it_may_go_from_thread_to_thread(self, place):
        """The thread that ends a session need not be the one that began it."""
        session = place.result(place.start(place.store().begin, "test", wait=True))
        place.result(place.start(session.commit, CHANGE, durable=False))
        session.close()

        assert [("a", 2)] == entries(place.store().snapshot())

    def test_nothing_is_lost_among_threads(self, place):
        """Threads that read and write in sessions of one store, or of several, lose none of their changes."""
        shared, together = place.store(), threading.Barrier(4)

        def work(store):
            together.wait()
            for _ in range(50):
                increment(store, "n")

        for done in [place.start(work, one) for one in (shared, shared, place.store(), place.store())]:
            place.result(done)

        assert [("n", 200)] == entries(shared.snapshot())

    def test_nor_among_processes(self, shared_place, elsewhere):
        """Processes that read and write in sessions lose none of their changes."""
        others, store = [elsewhere() for _ in range(2)], shared_place.store()
        for other in others:
            other.start("[increment(store) for _ in range(100)] and None")
        for _ in range(100):
            increment(store, "n")
        for other in others:
            other.result()

        assert [("n", 300)] == entries(store.snapshot())


class TestWaiting:
    def test_it_ends_with_the_session(self, place):
        """A waiting call gets the session as soon as the open one is closed, and is told how long it waited."""
        store = place.store()
        for waiter in (store, place.store()):
            session = begin(store)
            waiting = place.begin_waiting(waiter)
            is_early = waiting.done()
            session.close()
            waited = place.granted(waiting)
            refused = store.begin("other", wait=False)
            waited.close()

            assert (False, None, True) == (is_early, refused, 0 < waited.waited < place.patience)

    def test_it_ends_with_that_of_another_process(self, shared_place, elsewhere):
        """A call that waits for another process is told how long it waited, on both sides."""
        other, store = elsewhere(), shared_place.store()
        other.do("(session := store.begin('other', wait=True)) and None")
        waiting = shared_place.begin_waiting(store)
        other.do("session.close()")
        session = shared_place.granted(waiting)
        other.start("(session := store.begin('other', wait=True)).waited")
        shared_place.until(shared_place.waiting)
        session.close()

        assert (True, True) == (session.waited > 0, other.result() > 0)

    def test_it_sees_what_was_committed_meanwhile(self, place):
        """The state in a session is that of its beginning, not that of the moment when it was requested."""
        store, other = place.store(), place.store()
        commit(other, {"a": 1})
        other.snapshot()
        session = begin(store)
        waiting = place.begin_waiting(other)
        finish(session, CHANGE)
        session = place.granted(waiting)
        seen = entries(session.snapshot)
        session.close()

        assert [("a", 2)] == seen

    def test_is_in_order(self, place):
        """Waiting calls are served in their order, whichever store they use."""
        store, order, waiting = place.store(), [], []
        session = begin(store)
        for one in (store, place.store(), store, place.store()):
            waiting.append(place.begin_waiting(one))
        session.close()
        while waiting:
            place.until(lambda: any(one.done() for one in waiting))
            order.append([one.done() for one in waiting])
            place.granted(waiting.pop(0)).close()

        assert [[True] + [False] * n for n in (3, 2, 1, 0)] == order

    def test_is_not_needed_when_it_is_free(self, place):
        """A call that was ready to wait but did not have to is told so."""
        session = place.store().begin("test", wait=True)
        session.close()

        assert 0 == session.waited


class TestCommit:
    def test_others_see_it_at_once(self, place):
        """A change is visible to no other store before its commit, and to all after it, even in the open session."""
        store, other = place.store(), place.store()
        commit(store, {"a": 1})
        session = begin(store)
        before = entries(session.snapshot), entries(store.snapshot()), entries(other.snapshot())
        committed = session.commit(CHANGE, durable=False)
        after = entries(committed), entries(store.snapshot()), entries(other.snapshot())
        session.close()

        assert ([("a", 1)],) * 3 == before
        assert ([("a", 2)],) * 3 == after

    def test_others_see_it_elsewhere(self, shared_place, elsewhere):
        """What one process has committed is visible to another one from then on."""
        other, store = elsewhere(), shared_place.store()
        commit(store, {"n": 1})
        seen = other.do("store.snapshot().get(['n'])")
        other.do("increment(store)")

        assert ({"n": b"1"}, {"n": b"2"}) == (seen, store.snapshot().get(["n"]))

    @pytest.mark.parametrize("durable", [False, True])
    def test_it_lasts(self, place, durable):
        """What was committed is there after the session, and after the end of its store."""
        commit(place.store(), {"a": 1, "b": 2}, durable=durable)
        commit(place.store(), {"a": MISSING, "c": [3]}, durable=durable)

        assert [("b", 2), ("c", [3])] == entries(place.store().snapshot())

    def test_it_is_seen_as_a_whole(self, place):
        """A read during commits sees all of a commit or none of it."""
        store, halves = place.store(), []
        commit(store, {str(n): 0 for n in range(20)})

        def write():
            writer = place.store()
            for number in range(1, 101):
                commit(writer, {str(n): number for n in range(20)})

        writing = place.start(write)
        while not writing.done() and not halves:
            numbers = {number for _, number in entries(store.snapshot())}
            halves += [numbers] if len(numbers) != 1 else []
        place.result(writing)

        assert [] == halves
        assert [(str(n), 100) for n in range(20)] == entries(store.snapshot())

    def test_a_session_begins_with_what_others_committed(self, place):
        """A store that has read before sees the present state in its session."""
        store = place.store()
        commit(store, {"a": 1})
        commit(place.store(), {"a": 3})
        session = begin(store)
        seen = entries(session.snapshot)
        session.close()

        assert [("a", 3)] == seen

    def test_without_one_nothing_changes(self, place):
        """A session that is closed without a commit leaves the state unchanged."""
        store = place.store()
        before = commit(store, {"a": 1})
        session = begin(store)
        session.snapshot.changes_since(before)
        session.close()

        assert ([("a", 1)], before.revision) == (entries(place.store().snapshot()), store.snapshot().revision)

    def test_the_session_has_what_it_wrote(self, place):
        """After a commit the session's state is the new one, or without changes the old one."""
        store = place.store()
        commit(store, {"a": 1})
        seen = []
        for changes in (CHANGE, Changes()):
            session = begin(store)
            before = entries(session.snapshot)
            committed = session.commit(changes, durable=False)
            seen.append((before, entries(session.snapshot), session.snapshot.revision == committed.revision))
            session.close()

        assert [([("a", 1)], [("a", 2)], True), ([("a", 2)], [("a", 2)], True)] == seen

    @pytest.mark.parametrize("values", [{}, {"a": 1}])
    def test_that_fails_leaves_what_was_there(self, place, values):
        """After an error nothing of the commit is stored, the session is still open, and the next commit works."""
        store = place.store()
        before = commit(store, values)
        session = begin(store)
        with place.failing("write"), pytest.raises(OSError, match="Input/output error") as caught:
            session.commit(Changes(texts_of({"a": 2, "b": 3})), durable=True)
        refused = place.store().begin("other", wait=False)
        after, in_session = store.snapshot(), entries(session.snapshot)
        session.close()

        assert list(values.items()) == in_session
        assert not isinstance(caught.value, DurabilityUnknownError)
        assert (None, before.exists, before.revision) == (refused, after.exists, after.revision)
        assert list(values.items()) == entries(place.store().snapshot())
        assert [*values.items(), ("c", 4)] == entries(commit(store, {"c": 4}, durable=True))

    def test_that_may_not_survive_is_there(self, place):
        """If only durability fails, the new state is stored, the session ends, and the error is raised by then."""
        store = place.store()
        commit(store, {"a": 1})
        session = begin(store)
        with place.failing("durability"), pytest.raises(DurabilityUnknownError):
            finish(session, CHANGE, durable=True)
        session.close()

        assert [("a", 2)] == entries(session.snapshot)
        assert [[("a", 2)]] * 2 == [entries(one.snapshot()) for one in (store, place.store())]
        assert [("a", 2), ("b", 3)] == entries(commit(place.store(), {"b": 3}, durable=True))


class TestClose:
    def test_it_tells_how_long_others_had_to_wait(self, place):
        """Closing returns the time for which a session was open, whether it has committed or not."""
        for changes in (Changes(), CHANGE):
            before = time.monotonic()
            session = begin(place.store())
            since = time.monotonic()
            while time.monotonic() == since:
                pass
            session.commit(changes, durable=True)
            least = time.monotonic() - since
            session.close()

            assert least <= session.held <= time.monotonic() - before

    def test_a_second_time_does_nothing(self, place):
        """Closing a session again does not end another store's session."""
        store = place.store()
        first = begin(store)
        first.commit(CHANGE, durable=True)
        first.close()
        second = begin(place.store())
        first.close()
        refused = place.store().begin("other", wait=False)
        second.close()

        assert refused is None

    def test_nor_does_it_when_the_same_store_has_another_one(self, place):
        """A session ends only itself, not the session that its store has now."""
        store = place.store()
        first = begin(store)
        first.close()
        second = begin(store)
        first.close()
        refused = place.store().begin("other", wait=False)
        second.close()

        assert refused is None


class TestLost:
    def test_its_commit_writes_nothing(self, place):
        """A commit in a lost session raises an error, and writes nothing."""
        store = place.store()
        commit(store, {"a": 1})
        session = begin(store)
        seen = entries(session.snapshot)
        place.lose_sessions()
        with pytest.raises(SessionLostError):
            finish(session, CHANGE)

        assert [[("a", 1)]] * 3 == [seen, *(entries(one.snapshot()) for one in (store, place.store()))]
        assert [("a", 2)] == entries(commit(store, {"a": 2}))

    def test_another_may_have_begun(self, place):
        """A session that follows a lost one is as exclusive as any other, and its commit stays."""
        lost = begin(place.store())
        place.lose_sessions()
        store = place.store()
        session = begin(store)
        with pytest.raises(SessionLostError):
            finish(lost, CHANGE)
        refused = place.store().begin("other", wait=False)
        finish(session, Changes({"b": b"1"}))

        assert (None, [("b", 1)]) == (refused, entries(store.snapshot()))

    def test_what_waited_for_it_gets_another_one(self, place):
        """A call that waits for a lost session gets a valid one, at the latest when the lost one is closed."""
        lost = begin(place.store())
        store = place.store()
        waiting = place.begin_waiting(store)
        place.lose_sessions()
        lost.close()
        session = place.granted(waiting)
        refused = place.store().begin("other", wait=False)
        finish(session, CHANGE)

        assert (None, [("a", 2)]) == (refused, entries(store.snapshot()))


class TestAWait:
    def test_it_is_seen(self, place):
        """A store says that a call waits for an open session, and not before or after that."""
        store = place.store()
        seen = [store.is_waiting()]
        session = begin(place.store())
        seen.append(store.is_waiting())
        waiting = place.begin_waiting(store)
        place.until(store.is_waiting)
        session.close()
        session = place.granted(waiting)
        seen.append(store.is_waiting())
        session.close()

        assert [False] * 3 == seen


class TestWaitingInVain:
    def test_it_can_be_abandoned(self, place):
        """A new session takes the place of a vain wait, which then ends without one, whatever is granted to it."""
        lost = begin(place.store())
        store = place.store()
        waiting = place.begin_waiting(store)
        place.lose_sessions()
        if not place.waits_in_vain:
            pytest.skip("calls that wait for a lost session are served")
        place.until(store.abandon_vain_wait)
        session = begin(store)
        again = store.abandon_vain_wait()
        lost.close()
        without = place.result(waiting)
        refused = place.store().begin("other", wait=False)
        finish(session, CHANGE)

        assert (False, None, None, [("a", 2)]) == (again, without, refused, entries(store.snapshot()))

    def test_no_other_wait_is(self, place):
        """Nothing is abandoned while no call waits, or while calls wait for an open session."""
        store = place.store()
        abandoned = [store.abandon_vain_wait()]
        session = begin(place.store())
        abandoned.append(store.abandon_vain_wait())
        waiting = place.begin_waiting(store)
        abandoned.append(store.abandon_vain_wait())
        session.close()
        session = place.granted(waiting)
        abandoned.append(store.abandon_vain_wait())
        session.close()

        assert [False] * 4 == abandoned


class TestCorrupt:
    def test_reading_leaves_it_alone(self, place):
        """An invalid state is an error for every read without a session."""
        store = place.store()
        commit(store, {"a": 1})
        place.corrupt()
        for one in (store, store, place.store()):
            with pytest.raises(CorruptStateError):
                one.snapshot()

    def test_a_session_leaves_it_alone_too(self, place):
        """An invalid state is an error in a session too, unless the session sets it aside."""
        store = place.store()
        place.corrupt()
        session = begin(store)
        with pytest.raises(CorruptStateError):
            session.snapshot
        session.close()
        with pytest.raises(CorruptStateError):
            store.snapshot()

    @pytest.mark.parametrize("reads_first", [True, False])
    def test_a_session_sets_it_aside(self, place, caplog, reads_first):
        """A session that sets an invalid state aside sees none and logs a warning; its commit is all there is."""
        store = place.store()
        before = commit(store, {"a": 1})
        place.corrupt()
        session = begin(store)
        caplog.set_level(logging.WARNING, "persistent_context")
        session.set_aside()
        if reads_first:
            seen = session.snapshot

            assert (False, [], True) == (seen.exists, entries(seen), seen.revision != before.revision)
        committed = finish(session, Changes({"b": b"1"}))

        assert 1 == len([record for record in caplog.records if record.levelno == logging.WARNING])
        assert [[("b", 1)]] * 2 == [entries(committed), entries(place.store().snapshot())]
        assert {"a": MISSING, "b": b"1"} == committed.changes_since(before)

    def test_once_it_is_set_aside_nothing_is_there(self, place):
        """If nothing is committed after setting aside, nothing is stored."""
        store = place.store()
        place.corrupt()
        session = begin(store)
        session.set_aside()
        seen = session.snapshot.exists
        session.close()

        assert [False] * 3 == [seen, store.snapshot().exists, place.store().snapshot().exists]

    def test_what_is_not_corrupt_stays(self, place, caplog):
        """A state that another program has repaired in the meantime is not set aside."""
        store = place.store()
        commit(store, {"a": 1})
        session = begin(store)
        caplog.set_level(logging.WARNING, "persistent_context")
        session.set_aside()
        seen = entries(session.snapshot)
        session.close()

        assert ([("a", 1)], []) == (seen, caplog.records)
