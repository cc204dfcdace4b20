"""What a store reports, and when it releases resources: holders, traffic, closing, and forks."""

from __future__ import annotations

import os
import sys
import time

import pytest

from contract.helping import Listener, begin, commit, entries, finish, value
from persistent_context._model.snapshot import Changes
from persistent_context._stores.protocol import Traffic

FORK = """
import os, signal, sys
from persistent_context._model.snapshot import Changes

store.snapshot()
session = store.begin("parent", wait=False)
out, into = os.pipe()
child = os.fork()
if child == 0:
    os.close(into)
    store.after_fork_in_child()
    session.close()
    said = store.holder(), store.begin("child", wait=False), dict(store.snapshot().get(["n"]))
    print(said[0].pid == os.getppid(), said[0].purpose, *said[1:], flush=True)
    os.read(out, 1)
    session = store.begin("child", wait=True)
    number = int(session.snapshot.get(["n"])["n"]) + 1
    session.commit(Changes({"n": b"%d" % number}), durable=False)
    session.close()
    os._exit(0)
os.close(out)
"""
COMMIT_BESIDE_THE_CHILD = """
sys.stdin.readline()
session.commit(Changes({"n": b"2"}), durable=False)
session.close()
session = store.begin("parent", wait=False)  # though the child has inherited what the first session had open
session.close()
os.write(into, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), dict(store.snapshot().get(["n"])), flush=True)
"""
OUTLIVE_THE_CHILD = """
sys.stdin.readline()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(store.begin("parent", wait=False), flush=True)
sys.stdin.readline()
session.close()
"""


class TestHolder:
    @pytest.mark.parametrize("probe", [True, False])
    def test_it_is_who_has_the_session(self, place, probe):
        """While a session is open, every store reports its holder, its purpose, and since when it is open."""
        store, before = place.store(), time.time()
        session = begin(store, "purpose")
        holders = [one.holder(probe=probe) for one in (store, place.store())]
        after = time.time()
        session.close()

        assert [(os.getpid(), "purpose", True)] * 2 == [(one.pid, one.purpose, one.verified) for one in holders]
        assert [True, True] == [before - 1 <= holder.since <= after + 1 for holder in holders]

    @pytest.mark.parametrize("probe", [True, False])
    def test_it_is_nobody_when_no_session_is_open(self, place, probe):
        """Before a session and after it, there is no holder."""
        store = place.store()
        before = store.holder(probe=probe)
        begin(store).close()

        assert [None] * 3 == [before, store.holder(probe=probe), place.store().holder(probe=probe)]

    def test_it_changes_with_the_session(self, place):
        """After one session comes the holder of the next."""
        store, other = place.store(), place.store()
        session = begin(store, "first")
        waiting = place.begin_waiting(other, "second")
        first = store.holder()
        session.close()
        session = place.granted(waiting)
        second = store.holder()
        session.close()

        assert ["first", "second"] == [first.purpose, second.purpose]

    def test_it_may_be_another_process(self, shared_place, elsewhere):
        """A holder in another process is reported, and is gone when that process was killed."""
        other, store = elsewhere(), shared_place.store()
        other.do("(session := store.begin('elsewhere', wait=True)) and None")
        holders = [store.holder(probe=probe) for probe in (True, False)]
        refused = store.begin("test", wait=False)
        other.child.kill()

        assert [(other.pid, "elsewhere", True)] * 2 == [(one.pid, one.purpose, one.verified) for one in holders]
        assert [None] * 3 == [refused, store.holder(), store.holder(probe=False)]
        begin(store).close()


class TestTraffic:
    def test_it_begins_with_nothing(self, place):
        """What others did before is not counted."""
        commit(place.store(), {"a": 1})

        assert Traffic() == place.store().traffic()

    def test_commits_are_counted(self, place):
        """Each commit of changes counts once, with the bytes written, and an empty one does not count."""
        store, counts = place.store(), []
        for texts in ({"a": b"1"}, {}, {"b": b"2" * 1000}, {}):
            session, before = begin(store), store.traffic()
            finish(session, Changes(texts))
            after = store.traffic()
            counts.append((after.commits - before.commits, session.bytes_written))

            assert after.bytes_written >= before.bytes_written + session.bytes_written
        commits, written = zip(*counts, strict=True)

        assert ((1, 0, 1, 0), 4) == (commits, store.traffic().commits + 2)
        assert (True, 0, True, 0) == (written[0] > 0, written[1], written[2] > 1000, written[3])

    def test_what_fails_is_not_counted(self, place):
        """A commit that wrote nothing is not counted."""
        store = place.store()
        session = begin(store)
        with place.failing("write"), pytest.raises(OSError, match="Input/output error"):
            finish(session, Changes({"a": b"1"}), durable=True)

        assert 0 == store.traffic().commits

    def test_what_was_read_is_counted(self, place):
        """A store that reads for the first time reads everything."""
        commit(place.store(), {"a": "x" * 1000})
        store = place.store()
        store.snapshot().get(["a"])

        assert (0, True, 0) == ((it := store.traffic()).commits, it.bytes_read >= 1000, it.bytes_written)


class TestClosing:
    def test_a_closed_store_can_be_used_again(self, place):
        """After it was closed, even twice, a store reads, writes and notifies as before."""
        store = place.store()
        before = commit(store, {"n": 1})
        store.close()
        store.close()
        listener = Listener(store)
        read = store.snapshot()
        subscription = store.subscribe(listener.notify, listener.fail)
        after = commit(store, {"n": 2})
        place.until(lambda: listener.has_seen(2))
        subscription.close()
        store.close()

        assert [("n", 1)] == entries(read)
        assert (True, {"n": b"2"}) == (after.revision != before.revision, after.changes_since(before))

    def test_what_was_read_before_can_be_looked_at(self, place):
        """A snapshot can be used after its store was closed."""
        store = place.store()
        snapshot = commit(store, {str(n): n for n in range(10_000)})
        store.close()

        assert [(str(n), n) for n in range(10_000)] == entries(snapshot)

    def test_it_leaves_others_alone(self, place):
        """Closing a store does not end the session of another one."""
        store, other = place.store(), place.store()
        session = begin(other)
        store.snapshot()
        store.close()
        refused = place.store().begin("other", wait=False)
        finish(session, Changes({"a": b"1"}))

        assert (None, [("a", 1)]) == (refused, entries(store.snapshot()))


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork(2): run on Linux")
class TestFork:
    def test_a_session_stays_with_the_parent(self, shared_place, spawn):
        """A child cannot end its parent's session, waits for it like any other process, and does not keep it open."""
        commit(shared_place.store(), {"n": 1})
        program = f"import sys; {shared_place.opens_elsewhere}{FORK}{COMMIT_BESIDE_THE_CHILD}"
        parent = spawn(program, shared_place.path)
        child_said = parent.hear()
        parent.say()

        assert "True parent None {'n': b'1'}" == child_said
        assert ["0 {'n': b'3'}"] == parent.finish()

    def test_it_outlives_the_child(self, shared_place, spawn):
        """A child that ends in any way does not end its parent's session."""
        commit(shared_place.store(), {"n": 1})
        parent = spawn(f"import sys; {shared_place.opens_elsewhere}{FORK}{OUTLIVE_THE_CHILD}", shared_place.path)
        child_said = parent.hear()
        parent.say()
        parent_said = parent.hear()
        refused = shared_place.store().begin("test", wait=False)
        parent.finish()

        assert ("True parent None {'n': b'1'}", "None", None) == (child_said, parent_said, refused)

    def test_it_does_not_outlive_the_parent(self, shared_place, spawn):
        """When the parent is killed, its session is over although the child lives: the child can begin one itself."""
        store = shared_place.store()
        commit(store, {"n": 1})
        parent = spawn(f"import sys; {shared_place.opens_elsewhere}{FORK}sys.stdin.readline()", shared_place.path)
        parent.hear()
        parent.process.kill()
        shared_place.until(lambda: value(store.snapshot(), "n") == 2)
