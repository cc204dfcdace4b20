"""What a watch finds when it looks at the file: others' changes, and none of its own context's."""

import asyncio
import json
import os
import threading

import pytest

from persistent_context import MISSING, Change, PersistentContext, SyncPersistentContext
from persistent_context._api.aio_calls import LoopCalls
from persistent_context._engine.registry import queue_of
from persistent_context._stores.jsonfile import store as _store


@pytest.fixture
def path(tmp_path):
    """A file with something in it."""
    path = tmp_path / "state.json"
    path.write_text('{"a": 1, "b": {"c": 2}}', encoding="utf-8")
    return path


@pytest.fixture
def other(path):
    """Another context that writes to the file."""
    return SyncPersistentContext(path)


def look(observer):
    """Look at the file, as a watch does."""
    observer.look(lambda: queue_of(observer._path).store)


class TestLooks:
    """Findings that are not taken before the next look, as after a cancelled wait."""

    def test_a_change_that_was_not_taken_is_kept_with_the_oldest_value(self, path, other):
        """Two changes that are taken together are one change."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer(["a"])
        for _ in range(2):
            other.incr("a")
            look(observer)

        assert {"a": Change(1, 3)} == observer.take_changes()
        assert {} == observer.take_changes()

    def test_own_writes_at_two_looks_are_not_reported(self, path):
        """Own writes are forgotten once found, and not compared with later own writes."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer(["a"])
        for _ in range(2):
            ctx.incr("a")
            look(observer)

        assert {} == observer.take_changes()

    def test_a_change_that_was_undone_before_it_was_taken_is_not_reported(self, path, other):
        """A value that is back at its original is not a change."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer(["a"])
        for delta in (1, -1):
            other.incr("a", delta)
            look(observer)

        assert {} == observer.take_changes()

    def test_taking_what_was_found_does_not_wait_for_a_look(self, path, other):
        """A look that a cancelled wait has left running does not hold up the event loop's thread."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer(["a"])
        other.incr("a")
        look(observer)
        with observer._guard:
            assert {} == observer.take_changes()
        assert {"a": Change(1, 2)} == observer.take_changes()

    @pytest.mark.parametrize("step", ["replace", "fsync"])
    def test_an_own_write_in_flight_is_neither_reported_nor_waited_for(self, path, monkeypatch, step):
        """A replaced file whose write is not acknowledged yet is not news to its writer, and holds nothing up."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer([])
        before = path.stat()
        replaced, go_on = threading.Event(), threading.Event()
        real = getattr(os, step)

        def hold_on(*arguments):
            real(*arguments)
            if not os.path.samestat(before, path.stat()):  # not just the sync of the temporary file
                replaced.set()
                go_on.wait(60)

        monkeypatch.setattr(os, step, hold_on)
        writer = threading.Thread(target=ctx.incr, args=["a"])
        writer.start()
        replaced.wait(60)
        look(observer)
        early = observer.take_changes()
        go_on.set()
        writer.join(60)
        look(observer)

        assert ({}, {}, 2) == (early, observer.take_changes(), json.loads(path.read_text(encoding="utf-8"))["a"])

    def test_a_commit_does_not_wait_for_a_slow_look(self, path, other, monkeypatch):
        """While a watch reads a file, however slowly, calls go on, and their writes are not reported as others'."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer([])
        reading, go_on = threading.Event(), threading.Event()
        read = _store.JsonFileStore.snapshot

        def slow(self):
            document = read(self)
            if threading.current_thread() is looker:
                reading.set()
                go_on.wait(60)
            return document

        monkeypatch.setattr(_store.JsonFileStore, "snapshot", slow)
        looker = threading.Thread(target=look, args=[observer])
        looker.start()
        reading.wait(60)
        numbers = [ctx.incr("a"), other.incr("n"), ctx.incr("a")]
        go_on.set()
        looker.join(60)
        look(observer)

        assert ([2, 1, 3], {"n": Change(MISSING, 1)}) == (numbers, observer.take_changes())

    def test_a_commit_just_before_the_reading_is_not_reported(self, path, monkeypatch):
        """What the context writes between the start of a look and its reading is known to be its own."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer([])
        read, committed = _store.JsonFileStore.snapshot, []

        def late(self):
            if threading.current_thread() is threading.main_thread() and not committed:
                committed.append(True)
                caller = threading.Thread(target=ctx.incr, args=["a"])
                caller.start()
                caller.join(60)
            return read(self)

        monkeypatch.setattr(_store.JsonFileStore, "snapshot", late)
        look(observer)

        assert ([True], {}) == (committed, observer.take_changes())

    def test_the_value_that_a_failed_add_found_is_reported(self, path, other):
        """A value that a failed add() found in the file is reported as another writer's."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer([])
        other.add("leader", "other")
        added = ctx.add("leader", "mine")
        look(observer)

        assert (False, {"leader": Change(MISSING, "other")}) == (added, observer.take_changes())

    def test_news_that_the_context_has_overwritten_is_dropped(self, path, other):
        """News that the context has overwritten before it was taken is not reported."""
        ctx = SyncPersistentContext.create(path)
        observer = ctx._observer(["a"])
        other.incr("a")
        look(observer)
        ctx.incr("a")
        look(observer)
        dropped = observer.take_changes()
        other.incr("a")
        look(observer)

        assert ({}, {"a": Change(3, 4)}) == (dropped, observer.take_changes())

    async def test_an_own_write_whose_outcome_has_not_arrived_is_not_reported(self, path, monkeypatch):
        """A watch that begins between a commit and its arrival in memory knows the commit as the context's own."""
        written, go_on, deliver = threading.Event(), threading.Event(), LoopCalls._deliver

        def slow(calls, requests):
            written.set()
            go_on.wait(60)
            deliver(calls, requests)

        monkeypatch.setattr(LoopCalls, "_deliver", slow)
        ctx = await PersistentContext.create(path)
        call = asyncio.create_task(ctx.incr("n"))
        await asyncio.to_thread(written.wait, 60)
        observer = ctx._observer([])
        go_on.set()
        await call
        await asyncio.to_thread(look, observer)

        assert {} == observer.take_changes()

    def test_own_writes_that_are_never_looked_at_take_no_space(self, path):
        """A watch that is never read remembers what is in the file, and not every key that came and went."""
        ctx = SyncPersistentContext.create(path, durable=False)
        observer = ctx._observer([])
        for number in range(1500):
            ctx.add(f"job-{number}", number)
            ctx.compare_and_set(f"job-{number}", number, MISSING)
        kept = sum(len(texts) for _, texts in observer._notes)
        look(observer)

        assert (True, {}) == (kept < 1200, observer.take_changes())
