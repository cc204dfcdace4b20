"""Calls whose results memory does not have yet: an unsaved change is written once, and later calls build on it."""

import asyncio
import contextlib
import gc
import itertools
import json
import threading

import pytest

from persistent_context import MISSING, PersistentContext, SyncPersistentContext, UnsavedInTransactionWarning
from persistent_context._api.aio_calls import LoopCalls
from persistent_context._model.tracking import Own, Tracker
from persistent_context._stores.jsonfile.document import EMPTY


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


FILE = EMPTY.changed({"a": b"1", "b": b"2"})


def _noted(notes, function, self, key, *rest):
    notes.append(key)
    return function(self, key, *rest)


class TestCallsMadeAtOnce:
    async def test_two_increments_of_a_key_that_was_just_set_both_count(self, path):
        """Both increments count, although the value is unsaved when they are called."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)

        assert ([11, 12], {"n": 12}) == (await asyncio.gather(ctx.incr("n"), ctx.incr("n")), stored(path))

    async def test_a_save_does_not_undo_an_increment_that_was_called_before_it(self, path):
        """A save does not write a change again that an earlier call has included: that call's result stays."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)

        assert [11, None] == await asyncio.gather(ctx.incr("n"), ctx.save())
        assert ({"n": 11}, 11) == (stored(path), ctx["n"])

    async def test_a_list_that_grows_and_shrinks_between_two_saves_is_saved_as_it_was_last(self, path):
        """A value that a save has included, and that is then changed back in place, is changed back in the file."""
        path.write_text('{"l": [1]}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx["l"].append(2)
        first = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["l"].pop()
        await asyncio.gather(first, ctx.save())

        assert ([1], {"l": [1]}, set()) == (ctx["l"], stored(path), ctx.unsaved_keys())

    async def test_a_key_that_is_set_again_between_two_calls_is_set_twice(self, path):
        """Setting a key again to the value that an earlier call has included is another change."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        ctx.set("n", 10)

        assert (11, 11) == (await ctx.incr("n"), await first)
        assert {"n": 11} == stored(path)

    async def test_a_call_made_before_the_result_of_another_arrives_builds_on_it(self, path, monkeypatch):
        """A change that is written, but whose result has not arrived in memory yet, is not written again."""
        written, go_on, deliver = threading.Event(), threading.Event(), LoopCalls._deliver

        def slow(calls, requests):
            written.set()
            go_on.wait(60)
            deliver(calls, requests)

        monkeypatch.setattr(LoopCalls, "_deliver", slow)
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.to_thread(written.wait, 60)
        second = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        go_on.set()

        assert (11, 12, {"n": 12}) == (await first, await second, stored(path))

    async def test_what_others_write_after_it_is_built_on_too(self, path, hold):
        """An included change is in the file: whatever is written to its key next wins."""
        ctx, other = await PersistentContext.create(path), SyncPersistentContext(path)
        ctx.set("n", 10)
        with hold(path):
            calls = [asyncio.create_task(ctx.incr("n"))]
            await asyncio.sleep(0.1)
            theirs = asyncio.create_task(asyncio.to_thread(other.incr, "n", 100))
            await asyncio.sleep(0.1)
            calls.append(asyncio.create_task(ctx.incr("n")))
            await asyncio.sleep(0.1)

        assert ([11, 112], 111, {"n": 112}) == (await asyncio.gather(*calls), await theirs, stored(path))

    async def test_a_save_that_waited_does_not_undo_what_others_made_of_it(self, path):
        """The next save does not write a saved change again, over what others wrote since."""
        ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)

        async def build_on_it():
            async with other.transaction() as tx:
                tx["k"] = [tx["k"], "theirs"]

        ctx.set("k", "mine")
        await asyncio.gather(ctx.save(), build_on_it(), ctx.save())

        assert {"k": ["mine", "theirs"]} == stored(path)


class TestTakingBack:
    async def test_a_change_that_is_taken_back_while_it_is_saved_is_taken_back_in_the_file(self, path):
        """When save() returns, the last value set is in the file, even if it is the original one."""
        ctx = await PersistentContext.create(path)
        ctx["kept"] = 1
        await ctx.save()
        ctx.update(kept=2, new="soon gone")
        first = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["kept"] = 1
        del ctx["new"]
        await ctx.save()
        await first

        assert ({"kept": 1}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_an_increment_builds_on_what_was_taken_back(self, path):
        """An increment adds to the number that memory shows at the call."""
        ctx = await PersistentContext.create(path)
        ctx["n"] = 1
        await ctx.save()
        ctx["n"] = 10
        saving = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["n"] = 1

        assert (2, None, {"n": 2}) == (await ctx.incr("n"), await saving, stored(path))

    async def test_a_third_word_while_two_saves_wait_is_the_last(self, path):
        """However many saves wait, the last value set is in the file after the last of them."""
        ctx = await PersistentContext.create(path)
        saves = []
        for value in (1, 2, 3, 2):
            ctx["k"] = value
            saves.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
        await asyncio.gather(*saves)

        assert ({"k": 2}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_a_value_set_back_before_any_call_is_not_a_change(self, path):
        """A key that has its old value at the call is not written, whatever others made of it."""
        ctx, other = await PersistentContext.create(path), SyncPersistentContext(path)
        ctx["k"] = 1
        await ctx.save()
        await asyncio.to_thread(other.incr, "k")
        ctx["k"] = 5
        ctx["k"] = 1
        await ctx.save()

        assert ({"k": 2}, 2) == (stored(path), ctx["k"])

    async def test_what_a_call_that_failed_took_along_is_still_unsaved(self, path):
        """A change whose call failed is included by the next one, once."""
        ctx = await PersistentContext.create(path)
        ctx["n"] = 10

        def fail(value):
            raise ZeroDivisionError

        results = await asyncio.gather(ctx.mutate("n", fail), ctx.incr("n"), ctx.incr("n"), return_exceptions=True)

        assert ("ZeroDivisionError", [11, 12]) == (type(results[0]).__name__, results[1:])
        assert {"n": 12} == stored(path)

    async def test_a_later_change_that_was_taken_along_first_is_not_followed_by_an_earlier_one(self, path, hold):
        """A transaction before two saves sees what the second is to save, which completes both."""
        ctx = await PersistentContext.create(path)
        saves = []

        async def replace():
            async with ctx.transaction() as tx:
                tx["k"] = [tx["k"], "replaced"]

        with hold(path):
            replacing = asyncio.create_task(replace())
            await asyncio.sleep(0.1)
            for value in ("first", "second"):
                ctx.set("k", value)
                saves.append(asyncio.create_task(ctx.save()))
                await asyncio.sleep(0)
        await asyncio.gather(replacing, *saves)

        assert ({"k": ["second", "replaced"]}, ["second", "replaced"]) == (stored(path), ctx["k"])

    async def test_a_list_that_grows_in_place_is_taken_along_as_it_is(self, path, hold):
        """When a transaction has included a value changed in place, no earlier state of it is written after that."""
        ctx = await PersistentContext.create(path)
        saves = []

        async def replace():
            async with ctx.transaction() as tx:
                tx["k"].append("more")

        with hold(path):
            replacing = asyncio.create_task(replace())
            await asyncio.sleep(0.1)
            for value in ("first", "second"):
                ctx.setdefault("k", []).append(value)
                saves.append(asyncio.create_task(ctx.save()))
                await asyncio.sleep(0)
        await asyncio.gather(replacing, *saves)

        assert {"k": ["first", "second", "more"]} == stored(path)

    async def test_a_list_that_grows_in_place_while_it_is_saved_is_saved_again(self, path):
        """An item appended after a save was called is another change, which the next save includes."""
        ctx = await PersistentContext.create(path)
        ctx["jobs"] = [1]
        await ctx.save()
        ctx["jobs"].append(2)
        first = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["jobs"].append(3)
        await ctx.save()
        await first

        assert ({"jobs": [1, 2, 3]}, set()) == (stored(path), ctx.unsaved_keys())


class TestAMissingFile:
    async def test_an_empty_save_creates_it_for_later_calls(self, path, hold):
        """Calls of one cycle find the file that an earlier call of the cycle has created, as if they ran one by one."""
        full, empty = await PersistentContext.create(path), PersistentContext(path)
        full["k"] = 1
        await full.save()
        path.unlink()
        with hold(path):
            calls = [asyncio.create_task(empty.save())]
            await asyncio.sleep(0.1)
            calls.append(asyncio.create_task(full.save()))
            await asyncio.sleep(0.1)
        await asyncio.gather(*calls)

        assert ({}, {}) == (stored(path), dict(full))


class TestThreads:
    def test_increments_of_many_threads_all_count(self, path):
        """The synchronous face, too, includes an unsaved change once."""
        ctx = SyncPersistentContext.create(path)
        ctx.set("n", 10)
        threads = [threading.Thread(target=ctx.incr, args=["n"]) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ({"n": 30}, 30) == (stored(path), ctx["n"])


class TestATransactionThatCallsWaitFor:
    async def test_a_save_does_not_undo_it(self, path):
        """A waiting save does not write again what the transaction saw, included, and replaced."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            with pytest.warns(UnsavedInTransactionWarning):
                ctx.set("k", "set")
            saving = asyncio.create_task(ctx.save())
            await asyncio.sleep(0)
            assert tx["k"] == "set"
            tx["k"] = "replaced"
        await saving

        assert ({"k": "replaced"}, "replaced") == (stored(path), ctx["k"])

    async def test_an_increment_builds_on_it(self, path):
        """A waiting increment adds to the transaction's value."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            with pytest.warns(UnsavedInTransactionWarning):
                ctx.set("n", 10)
            counting = asyncio.create_task(ctx.incr("n"))
            await asyncio.sleep(0)
            tx["n"] += 5

        assert (16, {"n": 16}) == (await counting, stored(path))


class TestWhatWasOnlyLookedAt:
    """A key whose value in memory is out of date, and was not changed here, is not a change of this context."""

    async def test_calls_in_one_cycle_do_not_bring_an_old_value_back(self, path, hold):
        """A key that still has the value that was read is not written, whatever calls were made and withdrawn."""
        ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)
        ctx["k"] = "old"
        await ctx.save()
        ctx["k"] = "tried"
        with hold(path), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await ctx.save()
        ctx["k"] = "old"
        await other.compare_and_set("k", "old", MISSING)
        with hold(path):
            calls = [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.incr("n"))]
            await asyncio.sleep(0.1)
            ctx["k"] = "old"
            calls += [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.add("k", "new"))]
            await asyncio.sleep(0.1)
        *_, added = await asyncio.gather(*calls)

        assert (True, {"n": 1, "k": "new"}) == (added, stored(path))

    async def test_a_load_during_a_save_does_not_undo_the_saved_change(self, path, hold):
        """A value that was loaded while a save was in flight is out of date when it ends, and is not saved over it."""
        ctx = await PersistentContext.create(path)
        ctx["k"] = 1
        await ctx.save()
        with hold(path):
            ctx["k"] = 2
            saving = asyncio.create_task(ctx.save())
            await asyncio.sleep(0.1)
            await ctx.load()
            looked = ctx["k"]
            later = asyncio.create_task(ctx.save())
            await asyncio.sleep(0.1)
        await asyncio.gather(saving, later)
        await ctx.save()

        assert (1, 2, {"k": 2}, set()) == (looked, ctx["k"], stored(path), ctx.unsaved_keys())


class TestTheTracker:
    def test_the_file_is_not_read_while_it_is_written(self):
        """A reading made during a write cannot be ordered before or after it."""
        tracker, readings = Tracker(), []
        tracker.is_writing = True

        assert (None, []) == (tracker.read_between(3, lambda: readings.append(None)), readings)

    def test_a_listener_that_is_gone_is_not_notified(self):
        """Only listeners that still exist are notified of writes."""
        tracker, told = Tracker(), []

        class Listener:
            def note(self, position, document, texts):
                told.append((position, dict(texts)))

        one, other = Listener(), Listener()
        tracker.listen(one)
        tracker.listen(other)
        del one
        gc.collect()
        tracker.note(3, FILE, {"a": Own(MISSING, 3)}, {"a": MISSING})

        assert [(3, {"a": MISSING})] == told

    def test_keys_are_forgotten_when_all_calls_know_of_them(self):
        """Writes up to the horizon are forgotten; keys that were written again since are kept."""
        tracker = Tracker()
        for position, key in zip(itertools.count(1), "aba"):
            tracker.note(position, FILE, {key: Own(b"1", position)}, {key: b"1"})
        tracker.horizon = 2
        tracker.note(4, FILE, {}, {})

        assert (0, 3) == (tracker.own("b").written, tracker.own("a").written)


class TestReadings:
    def test_one_beside_a_commit_is_older_than_that(self, path, monkeypatch):
        """A value that load() read before a call of the same context wrote does not replace the result of the call."""
        ctx = SyncPersistentContext.create(path)
        store = ctx._link.find().store
        read, overtaken = type(store).snapshot, []

        def slow(self, **how):
            document = read(self, **how)
            if threading.current_thread() is threading.main_thread() and len(overtaken) < 9:
                overtaken.append(True)
                caller = threading.Thread(target=ctx.incr, args=["n"])
                caller.start()
                caller.join(60)
            return document

        monkeypatch.setattr(type(store), "snapshot", slow)
        ctx.load()

        assert (stored(path), set()) == (dict(ctx), ctx.unsaved_keys())

    def test_one_does_not_undo_a_later_one(self, path, monkeypatch):
        """Of two overlapping loads, the reading that began later stays, even if the other load ends last."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        store = ctx._link.find().store
        read = type(store).snapshot

        def slow(self, **how):
            document = read(self, **how)
            if threading.current_thread() is threading.main_thread():
                path.write_text('{"n": 2}', encoding="utf-8")
                other = threading.Thread(target=ctx.load)
                other.start()
                other.join(60)
            return document

        monkeypatch.setattr(type(store), "snapshot", slow)
        ctx.load()

        assert 2 == ctx["n"]


class TestManyChanges:
    """Others' changes are taken over key by key where this context did something, and otherwise all at once."""

    def test_what_was_not_touched_is_taken_over_at_once(self, path, monkeypatch):
        """Of many changed keys, a save looks only at those that it has to look at."""
        ctx, other = (SyncPersistentContext.create(path, durable=False) for _ in range(2))
        other.update({f"k{number}": number for number in range(500)})
        other.save()
        ctx.save()
        settled, settle = [], type(ctx._memory)._settle
        monkeypatch.setattr(
            type(ctx._memory), "_settle", lambda self, key, *rest: _noted(settled, settle, self, key, *rest)
        )
        assert (3, 4, 5) == (ctx["k3"], ctx["k4"], ctx["k5"])
        ctx["k4"], ctx["mine"] = "mine", 1
        del ctx["k5"]
        other.update({f"k{number}": -number for number in range(300)})
        for number in range(300, 400):
            del other[f"k{number}"]
        other["new"] = 1
        other.save()
        settled.clear()
        ctx.save()
        expected = {f"k{number}": -number for number in range(300)} | {
            f"k{number}": number for number in range(400, 500)
        }
        expected = {**expected, "k4": "mine", "new": 1, "mine": 1}
        del expected["k5"]

        assert {"k3", "k4", "k5", "mine"} == {*settled}
        assert (expected, stored(path), set()) == (dict(ctx), dict(ctx), ctx.unsaved_keys())


class TestGrowth:
    """A queue whose jobs come and go takes only the space of the jobs that are there."""

    @staticmethod
    def size(ctx):
        """Return how many entries other than values the tables of a context have."""
        memory = ctx._memory
        tables = [
            memory.data,
            memory.data.touched,
            memory.data.appended,
            memory.data.moved,
            memory._ahead,
            memory._flights.calls(),
            memory._flights.keys(),
            memory.tracker._own,
            memory.tracker._log,
        ]
        return sum(map(len, tables))

    @pytest.mark.parametrize("how", ["atomic", "saved", "transacted", "never saved"])
    def test_of_a_blocking_context(self, path, how):
        """The tables do not grow, whichever calls add and remove the keys."""
        ctx = SyncPersistentContext(path, durable=False)
        for number in range(400):
            key = f"job-{number}"
            if how == "atomic":
                ctx.add(key, "x" * 100)
                ctx.compare_and_set(key, "x" * 100, MISSING)
            elif how == "saved":
                ctx[key] = number
                ctx.save()
                del ctx[key]
                ctx.save()
            elif how == "never saved":
                ctx[key] = number
                del ctx[key]
                ctx.save()
            else:
                with ctx.transaction() as tx:
                    tx[key] = number
                with ctx.transaction() as tx:
                    del tx[key]

        assert (True, {}) == (self.size(ctx) < 20, stored(path))

    async def test_of_an_asynchronous_context_that_is_never_idle(self, path):
        """The tables do not grow even if some call is always in flight."""
        ctx = PersistentContext(path, durable=False)

        async def work(worker):
            for number in range(60):
                key = f"job-{worker}-{number}"
                await ctx.add(key, "x" * 100)
                await ctx.compare_and_set(key, "x" * 100, MISSING)

        await asyncio.gather(*map(work, range(8)))
        await ctx.incr("n")
        gc.collect()

        assert (True, {"n": 1}) == (self.size(ctx) < 40, stored(path))
