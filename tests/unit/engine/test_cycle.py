"""The engine, on a store in memory that can fail, wait and lose sessions, and on files."""

import asyncio
import errno
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import filelock
import pytest

from contract.memorystore import Gate, MemoryStore
from persistent_context import (
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContext,
    SyncPersistentContext,
)
from persistent_context._engine import registry
from persistent_context._stores.jsonfile import lock
from persistent_context._stores.protocol import SessionLostError


@pytest.fixture
def store(monkeypatch):
    """The store of every context of the test, wherever its file would be."""
    store = MemoryStore()
    monkeypatch.setattr(registry, "open_store", lambda identity: store)
    return store


@pytest.fixture
def place(store):
    """Where the store keeps its state."""
    return store.place


@pytest.fixture
def ctx(store, tmp_path):
    """A loaded blocking context on the store."""
    return SyncPersistentContext.create(tmp_path / "state.json")


@pytest.fixture
def threads():
    """A pool of threads for blocking calls."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def stored(place):
    """Return the texts at a place."""
    return {key: text.decode() for key, text in place.state.texts.items()}


def in_file(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def broken():
    """Return the error of a broken disk."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def unknown():
    """Return the error of a store that has written, and cannot know whether that survives."""
    return DurabilityUnknownError(errno.EIO, "written, but it may not survive")


class TestALostSession:
    @pytest.mark.parametrize("times", [1, 3])
    def test_a_call_runs_again_until_it_is_committed(self, ctx, place, times):
        """An increment whose session is lost takes effect in another session, once."""
        ctx.incr("n")
        place.plan("commit", *times * [place.lose_sessions])

        assert 2 == ctx.incr("n")
        assert {"n": "2"} == stored(place)

    def test_it_runs_again_on_the_state_of_the_new_session(self, ctx, place, tmp_path):
        """The repeated call sees what another writer committed between the two sessions."""
        other = MemoryStore(place)

        def lose_to_another():
            place.lose_sessions()
            session = other.begin("other", wait=True)
            session.commit(_changes(n=b"10"), durable=False)
            session.close()

        place.plan("commit", lose_to_another)

        assert 11 == ctx.incr("n")

    def test_a_transaction_raises_and_has_written_nothing(self, ctx, place):
        """A transaction whose session is lost raises, because its body cannot be run again."""
        place.plan("commit", place.lose_sessions)
        with pytest.raises(LockLostError), ctx.transaction() as tx:
            tx["n"] = 1

        assert not place.state.exists
        assert [] == place.turns

    def test_a_save_keeps_its_changes_until_they_are_committed(self, ctx, place):
        """A save whose session is lost, and whose second attempt fails, leaves its changes unsaved."""
        place.plan("commit", place.lose_sessions, broken())
        ctx["a"] = 1
        with pytest.raises(OSError, match="state.json"):
            ctx.save()

        assert {"a"} == ctx.unsaved_keys()
        assert not place.state.exists

    def test_a_transaction_that_cannot_be_read_for_begins_again(self, ctx, place):
        """If the session is lost before the state could be read, the transaction gets another session."""
        place.plan("read", SessionLostError("lost"))
        with ctx.transaction() as tx:
            tx["n"] = 1

        assert {"n": b"1"} == place.state.get(["n"])
        assert [] == place.turns

    def test_a_call_that_failed_by_itself_does_not_run_again(self, ctx, place, threads):
        """When the session of a group is lost, only the calls that were applied are repeated."""
        gate, runs = Gate(), []
        ctx.add("word", "x")
        place.plan("begin", gate)
        first = threads.submit(ctx.incr, "n")
        assert gate.reached.wait(60)

        def fail(value):
            runs.append(value)
            raise ZeroDivisionError

        second = threads.submit(ctx.mutate, "word", fail)
        while not _is_queued(ctx, 2):
            pass
        place.plan("commit", place.lose_sessions)
        gate.opened.set()
        with pytest.raises(ZeroDivisionError):
            second.result(60)

        assert (1, ["x"]) == (first.result(60), runs)


class TestAnUnknownOutcome:
    @pytest.mark.parametrize("point", ["committed", "closed"])
    def test_every_call_of_the_cycle_gets_the_error(self, ctx, place, threads, point):
        """Every call of the cycle gets the error that its change is visible but may not survive."""
        gate = Gate()
        place.plan("begin", gate)
        place.plan(point, unknown())
        calls = [threads.submit(ctx.incr, "n") for _ in range(3)]
        assert gate.reached.wait(60)
        while not _is_queued(ctx, 3):
            pass
        gate.opened.set()

        assert 3 * [DurabilityUnknownError] == [type(call.exception(60)) for call in calls]
        assert {"n": "3"} == stored(place)
        assert 3 == ctx["n"]

    @pytest.mark.parametrize("point", ["committed", "closed"])
    def test_memory_takes_over_what_was_written(self, ctx, place, point):
        """After a save that may not survive, nothing is unsaved."""
        place.plan(point, unknown())
        ctx["a"] = 1
        with pytest.raises(DurabilityUnknownError):
            ctx.save()

        assert set() == ctx.unsaved_keys()
        assert {"a": "1"} == stored(place)

    @pytest.mark.parametrize("point", ["committed", "closed"])
    def test_a_transaction_raises_and_is_over(self, ctx, place, point):
        """The transaction raises and its session is closed; the next call sees the change."""
        place.plan(point, unknown())
        with pytest.raises(DurabilityUnknownError), ctx.transaction() as tx:
            tx["n"] = 1

        assert 2 == ctx.incr("n")


class TestAFailure:
    @pytest.mark.parametrize("point", ["begin", "read", "commit"])
    def test_of_each_step_changes_nothing_and_ends_the_session(self, ctx, place, point):
        """The call raises, its change is still unsaved, and the next call works."""
        place.plan(point, broken())
        ctx["a"] = 1
        with pytest.raises(OSError, match="state.json"):
            ctx.save()

        assert (False, {"a"}, []) == (place.state.exists, ctx.unsaved_keys(), place.turns)

        ctx.save()

        assert {"a": "1"} == stored(place)

    def test_at_the_end_of_a_session_is_logged(self, ctx, place, caplog):
        """If memory runs out after the commit, the calls have taken effect and succeed."""
        place.plan("closed", MemoryError())

        assert 1 == ctx.incr("n")
        assert "the cycle did not end cleanly" in caplog.text
        assert 2 == ctx.incr("n")

    def test_while_a_transaction_begins_leaves_no_session(self, ctx, place):
        """A transaction that cannot read the state does not begin, and blocks no other call."""
        place.plan("read", broken())
        with pytest.raises(OSError, match="state.json"), ctx.transaction():
            pytest.fail("it has begun")

        assert [] == place.turns
        assert 1 == ctx.incr("n")


class TestALateAnswer:
    @pytest.mark.parametrize("point", ["commit", "committed", "closed"])
    def test_nothing_is_acknowledged_before_the_store_has_answered(self, ctx, place, threads, point):
        """A call returns when its session is committed and closed, which includes that it is durable."""
        gate = Gate()
        place.plan(point, gate)
        call = threads.submit(ctx.incr, "n")
        assert gate.reached.wait(60)

        assert not call.done()

        gate.opened.set()

        assert 1 == call.result(60)

    def test_calls_made_during_a_session_share_the_next(self, ctx, place, threads):
        """However many calls wait for one cycle, they are a single commit."""
        gate = Gate()
        place.plan("commit", gate)
        calls = [threads.submit(ctx.incr, "n")]
        assert gate.reached.wait(60)
        calls += [threads.submit(ctx.incr, "n") for _ in range(6)]
        while not _is_queued(ctx, 6):
            pass
        gate.opened.set()

        assert {1, 2, 3, 4, 5, 6, 7} == {call.result(60) for call in calls}
        assert (2, 2, 7) == (ctx.statistics().commits, ctx.statistics().cycles, ctx.statistics().operations)

    def test_others_may_begin_while_a_commit_is_made_durable(self, ctx, place, threads):
        """Others may begin a session before the call returns."""
        gate, other = Gate(), MemoryStore(place)
        place.plan("closed", gate)
        call = threads.submit(ctx.incr, "n")
        assert gate.reached.wait(60)
        session = other.begin("other", wait=False)

        assert {"n": b"1"} == session.snapshot.get(["n"])

        session.close()
        gate.opened.set()

        assert 1 == call.result(60)

    def test_a_call_that_has_not_begun_can_be_cancelled(self, store, place, tmp_path):
        """A call cancelled while its session begins never takes effect."""

        async def main():
            ctx = await PersistentContext.create(tmp_path / "state.json")
            gate = Gate()
            place.plan("begin", gate)
            call = asyncio.create_task(ctx.incr("n"))
            await asyncio.to_thread(gate.reached.wait, 60)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gate.opened.set()
            return await ctx.incr("n")

        assert 1 == asyncio.run(main())

    def test_a_call_that_has_begun_is_cancelled_after_it(self, store, place, tmp_path):
        """A call cancelled during its commit takes full effect before the cancellation propagates."""

        async def main():
            ctx = await PersistentContext.create(tmp_path / "state.json")
            gate = Gate()
            place.plan("commit", gate)
            call = asyncio.create_task(ctx.incr("n"))
            await asyncio.to_thread(gate.reached.wait, 60)
            call.cancel()
            await asyncio.sleep(0)

            assert not call.done()

            gate.opened.set()
            with pytest.raises(asyncio.CancelledError):
                await call

        asyncio.run(main())

        assert {"n": "1"} == stored(place)

    def test_a_call_times_out_behind_another_session(self, place, store, tmp_path):
        """The timeout error names the holder of the session."""
        ctx = SyncPersistentContext.create(tmp_path / "state.json", lock_timeout=0.05)
        session = MemoryStore(place).begin("migration", wait=True)
        with pytest.raises(LockTimeoutError, match=f"process {os.getpid()} .*for migration"):
            ctx.incr("n")
        session.close()

        assert 1 == ctx.incr("n")


class TestReading:
    def test_what_is_corrupt_is_set_aside_in_a_session(self, ctx, place, caplog):
        """Loading something unreadable begins a session, which sets it aside."""
        ctx.incr("n")
        place.is_corrupt = True
        ctx.load()

        assert (0, 2) == (len(ctx), ctx.statistics().cycles)
        assert "set aside" in caplog.text

    def test_a_load_waits_for_no_session(self, ctx, place):
        """The last committed state can be read while another session is open."""
        ctx.incr("n")
        session = MemoryStore(place).begin("other", wait=True)
        ctx.load()
        session.close()

        assert {"n": 1} == ctx.get_all_data()

    def test_a_watch_notices_a_commit_by_another_store(self, ctx, place):
        """A watch follows whichever store the context uses."""
        session = MemoryStore(place).begin("other", wait=True)
        with ctx.watch() as watch:
            session.commit(_changes(a=b"1"), durable=False)
            session.close()

            assert {"a"} == next(watch).keys()


class TestAcknowledging:
    async def test_no_call_is_acknowledged_before_the_directory_is_synced(self, path, monkeypatch):
        """Others may lock the file while the directory is being synced, but the call has not returned yet."""
        ctx = await PersistentContext.create(path)
        syncing, go_on, real = threading.Event(), threading.Event(), os.fsync

        def sync(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                syncing.set()
                go_on.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fsync", sync)
        call = asyncio.create_task(ctx.incr("n"))
        try:
            began = await asyncio.to_thread(syncing.wait, 30)
            with filelock.FileLock(f"{path}.lock", timeout=0):
                found = in_file(path)
            over, _ = await asyncio.wait([call], timeout=0.2)
        finally:
            go_on.set()

        assert (True, {"n": 1}, set(), 1) == (began, found, over, await call)

    def test_an_error_while_the_lock_is_released_does_not_prevent_the_sync(self, face, path, monkeypatch):
        """The call is still acknowledged, so what it has written has to survive."""
        synced, real = [], os.fsync

        def sync(fd):
            synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
            real(fd)

        def fail(fd):
            raise MemoryError

        ctx = face.open(path)
        face.do(ctx.save)
        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(lock, "unlock", fail)

        assert (1, [False, True]) == (face.do(ctx.incr, "n"), synced)


class TestAFailedCommit:
    def test_it_does_not_count_as_a_change(self, face, path, monkeypatch):
        """A text that could not be written is not taken for the context's own in the file: there is no conflict."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = face.open(path, on_conflict="raise")

        def fail(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "fsync", fail)
            face.do(ctx.incr, "n")
        ctx.set("n", 7)
        face.do(ctx.save)

        assert {"n": 7} == in_file(path)

    def test_one_that_was_written_nevertheless_is_known(self, face, path, monkeypatch):
        """If only a step after the replacement failed, memory has what is in the file."""
        if not os.path.exists("/proc/self/fd"):
            pytest.skip("looks descriptors up in /proc: run on Linux")
        ctx = face.open(path)
        close = os.close

        def fail(fd):
            in_loop = asyncio._get_running_loop() is not None  # a finalizer, which closes the file of an earlier test
            is_new_file = not in_loop and os.readlink(f"/proc/self/fd/{fd}") == str(path)
            close(fd)
            if is_new_file:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch, pytest.raises(DurabilityUnknownError):
            patch.setattr(os, "close", fail)
            face.do(ctx.incr, "n")

        assert ({"n": 1}, 1, set()) == (in_file(path), ctx.get("n"), ctx.unsaved_keys())


class TestABeginningThatFails:
    def test_it_leaves_the_lock_free(self, face, path):
        """A transaction on a file that cannot be read raises, and leaves the lock free."""
        path.mkdir()
        ctx = face.cls(path, lock_timeout=20)
        with pytest.raises(NotARegularFileError):
            face.inside(ctx.transaction, dict)
        path.rmdir()

        with filelock.FileLock(f"{path}.lock", timeout=0):
            assert not path.exists()


def _changes(**texts):
    from persistent_context._model.snapshot import Changes

    return Changes(texts)


def _is_queued(ctx, number):
    """Whether at least this many calls wait for their cycle."""
    threading.Event().wait(0.001)
    queue = registry.queue_of(str(ctx.filepath))
    return len(queue._waiting) >= number
