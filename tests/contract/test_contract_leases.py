"""Leases: names that one session at a time holds, apart from the state, with numbers that only grow."""

from __future__ import annotations

import pytest

from contract.helping import begin
from persistent_context._model.snapshot import Changes
from persistent_context._stores.protocol import NUMBER, SessionLostError


def number_of(session):
    """Return the number of a session of a lasting lease."""
    return int(session.snapshot.get([NUMBER])[NUMBER])


class TestExclusive:
    @pytest.mark.parametrize("lasting", [True, False])
    def test_one_at_a_time_has_a_name(self, place, lasting):
        """While a session has a lease, no store at the place gives it to another one."""
        store = place.store()
        session = begin(store.lease("a", lasting=lasting))
        refused = [one.lease("a", lasting=lasting).begin("other", wait=False) for one in (store, place.store())]
        session.close()
        begin(place.store().lease("a", lasting=lasting)).close()

        assert [None, None] == refused

    def test_names_and_kinds_and_the_state_are_apart(self, place):
        """A lease excludes only leases of the same name and kind, and no session of the store."""
        store = place.store()
        open_ones = [begin(store.lease("a", lasting=True)), begin(store.lease("a", lasting=False))]
        open_ones += [begin(store.lease("b", lasting=True)), begin(store)]
        for session in open_ones:
            session.close()

    def test_nor_has_another_process(self, shared_place, elsewhere):
        """A lease excludes other processes, and theirs exclude this one; a killed process loses its lease at once."""
        other, lease = elsewhere(), shared_place.store().lease("a", lasting=True)
        session = begin(lease)
        refused = other.do("store.lease('a', lasting=True).begin('other', wait=False)")
        session.close()
        other.do("(session := store.lease('a', lasting=True).begin('other', wait=False)) is not None or 1 / 0")
        refused_here = lease.begin("test", wait=False)
        holder = lease.holder()
        other.child.kill()
        begin(lease).close()

        assert (None, None, other.pid, None) == (refused, refused_here, holder and holder.pid, lease.holder())


class TestNumbers:
    def test_they_grow(self, place):
        """Every session of a lasting lease has a greater number than all before, through any store."""
        numbers = []
        for store in (one := place.store(), place.store(), one):
            session = begin(store.lease("a", lasting=True))
            numbers.append(number_of(session))
            session.close()

        assert sorted(set(numbers)) == numbers

    def test_one_that_is_not_lasting_has_none(self, place):
        """The state of a lease that is not lasting is empty."""
        session = begin(place.store().lease("a", lasting=False))
        keys = list(session.snapshot.keys())
        session.close()

        assert [] == keys

    def test_a_lease_that_was_kept_is_confirmed(self, place):
        """A commit confirms that no other session can have held the lease; the store's state is independent of it."""
        store = place.store()
        session = begin(store.lease("a", lasting=True))
        number = number_of(session)
        after = session.commit(Changes(), durable=False)
        session.close()

        assert (number, False) == (int(after.get([NUMBER])[NUMBER]), store.snapshot().exists)


class TestLost:
    def test_a_lease_that_was_lost_says_so(self, place):
        """The holder of a lost lease is told, and the next holder has a greater number."""
        lost, lease = begin(place.store().lease("a", lasting=True)), place.store().lease("a", lasting=True)
        place.lose_leases()
        session = begin(lease)
        with pytest.raises(SessionLostError):
            lost.commit(Changes(), durable=False)
        lost.close()
        numbers = number_of(lost), number_of(session)
        session.close()

        assert numbers[0] < numbers[1]
