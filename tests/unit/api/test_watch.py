"""Watching: what other writers change is seen soon, and the last change always."""

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
    """Watch with watchfiles, and as if it were not installed."""
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
    """Somebody else who writes to the file."""
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
    """Return what a watch yields while others have the loop's time, and until it is closed."""
    return [changes async for changes in watch]


@pytest.mark.usefixtures("how")
class TestChanges:
    async def test_a_change_of_another_context_is_yielded(self, path, other):
        """Each changed key comes with its value before and now, and memory is left alone."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.incr, "a")

            assert {"a": Change(1, 2)} == await anext(watch)
        assert (1, set()) == (ctx["a"], ctx.unsaved_keys())

    def test_the_sync_face_yields_the_same(self, path, other):
        """A thread that waits for a change gets it."""
        ctx = SyncPersistentContext.create(path)
        with ctx.watch("a") as watch:
            caller = threading.Thread(target=other.incr, args=["a"])
            caller.start()

            assert {"a": Change(1, 2)} == next(watch)
        caller.join()

    async def test_a_change_from_before_the_watch_and_after_the_load_is_no_secret(self, path, other):
        """The first changes are those that this context does not know yet."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(other.incr, "a")
        async with ctx.watch() as watch:
            assert {"a": Change(1, 2)} == await anext(watch)

    async def test_new_and_deleted_keys_are_changes_from_and_to_missing(self, path, other):
        """MISSING stands for absence on both sides."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(other.load)
        del other["a"]
        other["ü"] = [None]
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.save)

            assert {"a": Change(1, MISSING), "ü": Change(MISSING, [None])} == await anext(watch)

    async def test_a_file_that_is_gone_has_no_keys(self, path):
        """Deleting the file deletes what was in it."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            path.unlink()

            assert {"a": Change(1, MISSING)} == await anext(watch)

    async def test_other_keys_are_passed_over(self, path, other):
        """Who watches one key is not told of another."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            await asyncio.to_thread(other.incr, "n")
            await asyncio.to_thread(other.incr, "a")

            assert {"a": Change(1, 2)} == await anext(watch)

    async def test_the_same_value_in_another_layout_is_no_change(self, path):
        """White space and the order of inner keys say nothing."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            path.write_text('{"b":{"c":2},"a":1,"n":0}', encoding="utf-8")

            assert {"n": Change(MISSING, 0)} == await anext(watch)

    async def test_a_half_written_file_is_waited_for(self, path):
        """A writer who takes no lock and replaces nothing is not seen half-way."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            path.write_text('{"a": 5', encoding="utf-8")
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.2)
            path.write_text('{"a": 5, "b": {"c": 2}}', encoding="utf-8")

            assert {"a": Change(1, 5)} == await waiting

    async def test_the_last_change_of_many_processes_is_never_missed(self, path, spawn):
        """Values in between may be skipped; what stands in the file at the end has been yielded."""
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
        """What the path leads to is watched, and not what it led to once."""
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

    async def test_a_directory_that_is_made_later_is_no_hindrance(self, tmp_path):
        """A file may be watched before there is a place for it."""
        path = tmp_path / "new" / "state.json"
        async with PersistentContext(path).watch() as watch:
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(SyncPersistentContext(path).incr, "n")

            assert {"n": Change(MISSING, 1)} == await waiting


class TestOwnChanges:
    async def test_what_the_context_writes_itself_is_no_news(self, path, other):
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

    async def test_a_change_over_an_own_one_is_told_from_it(self, path, other):
        """The value before is the one that this context wrote, even where the new one stood there before that."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch("a") as watch:
            await ctx.incr("a")
            await asyncio.to_thread(other.incr, "a", -1)

            assert {"a": Change(2, 1)} == await anext(watch)

    async def test_an_own_write_between_two_looks_does_not_hide_or_double_anything(self, path, other):
        """Own writes are left out one by one, however many there are before the next look."""
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
        """A change that came into memory by the way is a change all the same."""
        ctx = await PersistentContext.create(path)
        async with ctx.watch() as watch:
            await asyncio.to_thread(other.incr, "a")
            await ctx.save()

            assert {"a": Change(1, 2)} == await anext(watch)
        assert 2 == ctx["a"]


class TestTheEnd:
    async def test_closing_ends_a_wait(self, path):
        """A task that waits for changes goes on when the watch is closed, and no thread is left."""
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
        """The same for the synchronous face."""
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
        """A watch that was closed before anybody waited yields nothing, and leaves no thread."""
        watch = SyncPersistentContext.create(path).watch()
        watch.close()

        assert [] == list(watch)
        while alarms():
            pass

    async def test_a_watch_that_is_forgotten_closes_itself(self, path):
        """A loop over changes may be left by ``break``."""
        ctx = await PersistentContext.create(path)
        await asyncio.to_thread(SyncPersistentContext(path).incr, "a")
        async for _ in ctx.watch():
            break
        while alarms():
            await asyncio.sleep(0.01)

    def test_a_loop_that_is_closed_ends_its_alarm(self, path):
        """A watch that was not closed does not outlive its event loop."""
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
        """A change that was seen by a wait that was cancelled is yielded by the next."""
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

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_is_told_that_the_watch_is_not_its_own(self, path):
        """A child has no thread that would ring: it gets an error instead of a wait without an end."""
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

    @pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything: run it as a user")
    async def test_a_file_that_cannot_be_read_is_an_error(self, path):
        """Watching does not go on in silence."""
        ctx = await PersistentContext.create(path)
        path.chmod(0)
        with pytest.raises(PermissionError):
            await anext(ctx.watch())

    async def test_a_directory_in_the_place_of_the_file_is_an_error(self, path):
        """Watching does not go on in silence."""
        ctx = await PersistentContext.create(path)
        path.unlink()
        path.mkdir()
        with pytest.raises(OSError, match="directory"):
            await anext(ctx.watch())

    def test_an_alarm_that_fails_ends_the_wait_with_its_error(self, path, monkeypatch):
        """Whoever waits for changes is told when nothing will ever wake it up again."""

        def broken(*_):
            raise MemoryError

        monkeypatch.setattr(_events, "_ticks", broken)
        monkeypatch.setattr(_events, "_events", broken)
        with pytest.raises(MemoryError), SyncPersistentContext.create(path).watch() as watch:
            next(watch)

    def test_one_loop_at_a_time(self, path, other):
        """A watch is refused to a second loop while the first is open, and goes on there when that one is closed."""

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
        """A call that times out leaves its reading to the next one, so that changes are seen however long one takes."""
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
        given_up = len(looks)
        go_on.set()

        assert (1, {"n": Change(MISSING, 1)}) == (given_up, await anext(watch))

    async def test_a_reading_that_failed_meanwhile_is_told_to_the_next_call(self, path, monkeypatch):
        """No error is lost with the call that was given up."""
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
        """A signal handler that uses the watch with which its thread is looking is told so, and waits for nothing."""
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
        """A wait goes on, nap after nap, until there is something."""
        monkeypatch.setattr("persistent_context._api.blocking_watch.NAP_SECONDS", 0.001)
        with SyncPersistentContext.create(path).watch() as watch:
            writer = threading.Timer(0.2, SyncPersistentContext(path).incr, ["n"])
            writer.start()

            assert {"n": Change(MISSING, 1)} == next(watch)
            writer.join()
