"""Watching: other writers' changes are reported soon, and the last change always."""

import asyncio
import contextlib
import errno
import os
import sys
import threading

import pytest

from persistent_context import MISSING, Change, ContextUsageError, PersistentContext, SyncPersistentContext
from persistent_context._api.watch import Observer
from persistent_context._engine.registry import queue_of
from persistent_context._stores.jsonfile import events as _events
from persistent_context._stores.jsonfile import store as _store

HAMMER = """
import sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1])
for _ in range(int(sys.argv[2])):
    ctx.incr("n")
print("done", flush=True)
"""


@pytest.fixture(params=["events", "polling"])
def how(request, monkeypatch):
    """Run with watchfiles, and as if it were not installed."""
    if request.param == "polling":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    return request.param


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


def alarms():
    return [thread for thread in threading.enumerate() if thread.name.startswith("watch ")]


def look(observer):
    """Look at the file, as a watch does."""
    observer.look(lambda: queue_of(observer._path).store)


async def next_of(watch):
    """Return the next changes."""
    return await anext(watch)


async def quiet_until_closed(watch):
    """Return what a watch yields until it is closed, while other tasks run."""
    return [changes async for changes in watch]


@pytest.mark.usefixtures("how")
class TestChanges:
    async def test_a_change_of_another_context_is_yielded(self, path, other):
        """Each changed key comes with its old and new value, and memory is not changed."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.incr, "a")

            assert {"a": Change(1, 2)} == await anext(watch)
        assert (1, set()) == (ctx["a"], ctx.unsaved_keys())

    def test_the_sync_face_yields_the_same(self, path, other):
        """A waiting thread gets the change."""
        ctx = SyncPersistentContext.create(path)
        with ctx.watch("a") as watch:
            caller = threading.Thread(target=other.incr, args=["a"])
            caller.start()

            assert {"a": Change(1, 2)} == next(watch)
        caller.join()

    async def test_a_change_between_the_load_and_the_watch_is_yielded(self, path, other):
        """The first changes include those that this context does not know yet."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(other.incr, "a")
        async with ctx.watch() as watch:
            assert {"a": Change(1, 2)} == await anext(watch)

    async def test_new_and_deleted_keys_are_changes_from_and_to_missing(self, path, other):
        """MISSING means an absent key, on both sides."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(other.load)
        del other["a"]
        other["ü"] = [None]
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.save)

            assert {"a": Change(1, MISSING), "ü": Change(MISSING, [None])} == await anext(watch)

    async def test_a_file_that_is_gone_has_no_keys(self, path):
        """Deleting the file deletes all of its keys."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            path.unlink()

            assert {"a": Change(1, MISSING)} == await anext(watch)

    async def test_other_keys_are_passed_over(self, path, other):
        """A watch of one key does not report others."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            await asyncio.to_thread(other.incr, "n")
            await asyncio.to_thread(other.incr, "a")

            assert {"a": Change(1, 2)} == await anext(watch)

    async def test_the_same_value_in_another_layout_is_not_a_change(self, path):
        """White space and the order of inner keys do not count as changes."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            path.write_text('{"b":{"c":2},"a":1,"n":0}', encoding="utf-8")

            assert {"n": Change(MISSING, 0)} == await anext(watch)

    async def test_a_half_written_file_is_waited_for(self, path):
        """A half-written file is not reported, even if its writer takes no lock and writes in place."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            path.write_text('{"a": 5', encoding="utf-8")
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.2)
            path.write_text('{"a": 5, "b": {"c": 2}}', encoding="utf-8")

            assert {"a": Change(1, 5)} == await waiting

    async def test_the_last_change_of_many_processes_is_never_missed(self, path, spawn):
        """Values in between may be skipped; the final contents of the file are always yielded."""
        ctx = await PersistentContext.create(path)
        children = [spawn(HAMMER, path, 200) for _ in range(3)]
        seen = []
        async with ctx.watch("n") as watch:
            async for changes in watch:
                seen.append((changes["n"].old, changes["n"].new))
                if changes["n"].new == 600:
                    break
        for child in children:
            assert ["done"] == child.finish()

        assert [MISSING, *(new for _, new in seen)][:-1] == [old for old, _ in seen]

    async def test_a_symlink_that_is_turned_elsewhere_is_followed(self, path, tmp_path):
        """The file to which the path leads now is watched, not the one to which it led before."""
        link, second = tmp_path / "link.json", tmp_path / "sub" / "second.json"
        second.parent.mkdir()
        second.write_text('{"a": 7, "b": {"c": 2}}', encoding="utf-8")
        link.symlink_to(path)
        ctx = await PersistentContext.create(link)
        async with ctx.watch() as watch:
            link.unlink()
            link.symlink_to(second)

            assert {"a": Change(1, 7)} == await anext(watch)
            await asyncio.to_thread(SyncPersistentContext(second).incr, "a")
            assert {"a": Change(7, 8)} == await anext(watch)

    async def test_a_directory_may_be_created_later(self, tmp_path):
        """A file may be watched before its directory exists."""
        path = tmp_path / "new" / "state.json"
        async with PersistentContext(path).watch() as watch:
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(SyncPersistentContext(path).incr, "n")

            assert {"n": Change(MISSING, 1)} == await waiting


class TestOwnChanges:
    async def test_what_the_context_writes_itself_is_not_yielded(self, path, other):
        """Saves, atomic calls and transactions of the watching context are not yielded."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            waiting = asyncio.ensure_future(anext(watch))
            for number in range(30):
                await ctx.incr("mine")
                ctx["saved"] = number
                await ctx.save()
                async with ctx.transaction() as tx:
                    tx["kept"] = number
            await asyncio.to_thread(other.incr, "theirs")

            assert {"theirs": Change(MISSING, 1)} == await waiting

    async def test_a_change_over_an_own_one_starts_from_it(self, path, other):
        """The old value is the one that this context wrote, even if the new value is the one from before that."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            await ctx.incr("a")
            await asyncio.to_thread(other.incr, "a", -1)

            assert {"a": Change(2, 1)} == await anext(watch)

    async def test_an_own_write_between_two_looks_does_not_hide_or_double_anything(self, path, other):
        """Own writes are left out one by one, however many come before the next look."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            await ctx.incr("a")
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            await ctx.incr("a")
            await asyncio.sleep(0.1)
            await asyncio.to_thread(other.incr, "n")

            assert {"n": Change(MISSING, 1)} == await waiting

    async def test_what_a_save_has_taken_over_is_still_yielded(self, path, other):
        """A change that a save has already taken over into memory is still yielded."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.incr, "a")
            await ctx.save()

            assert {"a": Change(1, 2)} == await anext(watch)
        assert 2 == ctx["a"]


class TestTheEnd:
    async def test_closing_ends_a_wait(self, path):
        """Closing the watch ends the wait of a task, and leaves no thread."""
        ctx = await PersistentContext.create(path)
        watch = ctx.watch()
        waiting = asyncio.ensure_future(quiet_until_closed(watch))
        while not alarms():
            await asyncio.sleep(0.01)
        await watch.aclose()

        assert [] == await waiting
        assert [] == await quiet_until_closed(watch)
        while alarms():
            await asyncio.sleep(0.01)

    def test_closing_ends_a_wait_of_a_thread(self, path):
        """The same holds for the synchronous face."""
        ctx = SyncPersistentContext.create(path)
        watch, seen = ctx.watch(), []
        caller = threading.Thread(target=seen.extend, args=[watch])
        caller.start()
        while not alarms():
            pass
        watch.close()
        caller.join(60)

        assert ([], []) == (seen, list(watch))

    def test_closing_before_the_first_step_is_the_end(self, path):
        """A watch closed before the first wait yields nothing, and leaves no thread."""
        watch = SyncPersistentContext.create(path).watch()
        watch.close()

        assert [] == list(watch)
        while alarms():
            pass

    async def test_a_watch_that_is_forgotten_closes_itself(self, path):
        """A loop over changes may be left with ``break``."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(SyncPersistentContext(path).incr, "a")
        async for _ in ctx.watch():
            break
        while alarms():
            await asyncio.sleep(0.01)

    def test_a_loop_that_is_closed_ends_its_alarm(self, path):
        """A watch that is not closed does not outlive its event loop."""
        kept = []

        async def look_once():
            ctx = await PersistentContext.create(path)
            await asyncio.to_thread(SyncPersistentContext(path).incr, "a")
            kept.append(ctx.watch())
            await anext(kept[0])

        asyncio.run(look_once())
        while alarms():
            pass

    async def test_a_cancelled_wait_loses_nothing(self, path, other):
        """A change that a cancelled wait has seen is yielded by the next wait."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("n") as watch:
            total = 0
            for number in range(1, 40):
                await asyncio.to_thread(other.incr, "n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(number % 7 * 0.0005):
                        total = (await anext(watch))["n"].new
            if total != 39:
                total = (await anext(watch))["n"].new

        assert 39 == total

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on a POSIX system")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_cannot_use_the_watch(self, path):
        """A child has no thread to wake it up: it gets an error instead of waiting forever."""
        watch = SyncPersistentContext.create(path).watch()
        child = os.fork()
        if not child:
            try:
                next(watch)
            except ContextUsageError:
                os._exit(7)
            finally:
                os._exit(1)

        assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root can read any file: run as a user")
    async def test_a_file_that_cannot_be_read_is_an_error(self, path):
        """An unreadable file raises instead of being watched silently."""
        ctx = await PersistentContext.create(path)
        path.chmod(0)
        with pytest.raises(PermissionError):
            await anext(ctx.watch())

    async def test_a_directory_in_the_place_of_the_file_is_an_error(self, path):
        """A directory raises instead of being watched silently."""
        ctx = await PersistentContext.create(path)
        path.unlink()
        path.mkdir()
        with pytest.raises(OSError, match="directory"):
            await anext(ctx.watch())

    def test_an_alarm_that_fails_ends_the_wait_with_its_error(self, path, monkeypatch):
        """A waiting call gets the error when nothing can wake it up any more."""

        def broken(*_):
            raise MemoryError

        monkeypatch.setattr(_events, "_ticks", broken)
        monkeypatch.setattr(_events, "_events", broken)
        with pytest.raises(MemoryError), SyncPersistentContext.create(path).watch() as watch:
            next(watch)

    def test_one_loop_at_a_time(self, path, other):
        """A second loop is refused while the first is open, and may go on when that one is closed."""

        async def begin():
            context = await PersistentContext.create(path)
            watch = context.watch("a")
            other.incr("a")
            return watch, await anext(watch)

        first = asyncio.new_event_loop()
        watch, told = first.run_until_complete(begin())
        with pytest.raises(ContextUsageError, match="another event loop"):
            asyncio.run(next_of(watch))
        first.close()
        other.incr("a")

        assert ({"a": Change(1, 2)}, {"a": Change(2, 3)}) == (told, asyncio.run(next_of(watch)))


class TestCallsThatAreGivenUp:
    async def test_a_slow_reading_serves_the_next_call(self, path, monkeypatch):
        """A call that times out leaves its reading to the next one, so changes are seen even if readings are slow."""
        ctx = await PersistentContext.create(path)
        watch = ctx.watch()
        await asyncio.to_thread(SyncPersistentContext(path).incr, "n")
        go_on, looks, look = threading.Event(), [], Observer.look

        def slow(observer, find):
            looks.append(None)
            go_on.wait(60)
            look(observer, find)

        monkeypatch.setattr(Observer, "look", slow)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.001)
        while not looks:
            await asyncio.sleep(0.01)
        given_up = len(looks)
        go_on.set()

        assert (1, {"n": Change(MISSING, 1)}) == (given_up, await anext(watch))

    async def test_the_error_of_an_abandoned_reading_is_raised_by_the_next_call(self, path, monkeypatch):
        """The error of a reading whose call has timed out is raised by the next call."""
        watch = (await PersistentContext.create(path)).watch()
        go_on = threading.Event()

        def fail(store):
            go_on.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(_store.JsonFileStore, "snapshot", fail)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.001)
        go_on.set()
        with pytest.raises(OSError, match="Input/output error"):
            await anext(watch)


class TestAnInterrupt:
    def test_a_look_in_the_midst_of_a_look_is_refused(self, path, monkeypatch):
        """A signal handler that uses the watch in which its thread is looking gets an error instead of waiting."""
        watch = SyncPersistentContext.create(path).watch()
        found = []
        read = _store.JsonFileStore.snapshot

        def interrupted(store):
            if not found:
                found.append(None)
                with pytest.raises(ContextUsageError, match="interrupts its own read"):
                    next(watch)
            return read(store)

        SyncPersistentContext(path).incr("n")
        monkeypatch.setattr(_store.JsonFileStore, "snapshot", interrupted)
        with watch:
            assert {"n": Change(MISSING, 1)} == next(watch)
            assert [None] == found

    def test_a_wait_of_many_naps(self, path, monkeypatch):
        """A wait goes on, nap after nap, until there is a change."""
        monkeypatch.setattr("persistent_context._api.blocking_watch.NAP_SECONDS", 0.001)
        with SyncPersistentContext.create(path).watch() as watch:
            writer = threading.Timer(0.2, SyncPersistentContext(path).incr, ["n"])
            writer.start()

            assert {"n": Change(MISSING, 1)} == next(watch)
            writer.join()
