"""An unsaved change goes to the file once, with the first call that takes it along: later calls build on that one."""

import asyncio
import json
import threading

from persistent_context import PersistentContext, SyncPersistentContext


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


class TestCallsMadeAtOnce:
    async def test_two_increments_of_a_key_that_was_just_set_both_count(self, path):
        """Both increments count, though both were called while the value was unsaved."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)

        assert ([11, 12], {"n": 12}) == (await asyncio.gather(ctx.incr("n"), ctx.incr("n")), stored(path))

    async def test_a_save_does_not_undo_an_increment_that_was_called_before_it(self, path):
        """A save leaves alone a change that an earlier call has taken along: what that call made of it stays."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)

        assert [11, None] == await asyncio.gather(ctx.incr("n"), ctx.save())
        assert ({"n": 11}, 11) == (stored(path), ctx["n"])

    async def test_a_key_that_is_set_again_between_two_calls_is_set_twice(self, path):
        """Setting a key to the value that an earlier call has taken along is another change, and not the same."""
        ctx = await PersistentContext.create(path)
        ctx.set("n", 10)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        ctx.set("n", 10)

        assert (11, 11) == (await ctx.incr("n"), await first)
        assert {"n": 11} == stored(path)

    async def test_a_call_made_before_the_result_of_another_arrives_builds_on_it(self, path):
        """What is written already, but not known in memory yet, is not written once more."""
        written, go_on = threading.Event(), threading.Event()

        class Slow(PersistentContext):
            def _deliver(self, requests):
                written.set()
                go_on.wait(60)
                super()._deliver(requests)

        ctx = await Slow.create(path)
        ctx.set("n", 10)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.to_thread(written.wait, 60)
        second = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        go_on.set()

        assert (11, 12, {"n": 12}) == (await first, await second, stored(path))

    async def test_what_others_make_of_it_meanwhile_is_built_on_too(self, path, hold):
        """A change that was taken along is in the file: whoever writes it next wins, as with every key."""
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


class TestThreads:
    def test_increments_of_many_threads_all_count(self, path):
        """The synchronous face takes an unsaved change along once, too."""
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
        """A save that waits does not write again what the transaction saw, took along, and replaced."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            ctx.set("k", "set")
            saving = asyncio.create_task(ctx.save())
            await asyncio.sleep(0)
            assert tx["k"] == "set"
            tx["k"] = "replaced"
        await saving

        assert ({"k": "replaced"}, "replaced") == (stored(path), ctx["k"])

    async def test_an_increment_builds_on_it(self, path):
        """An increment that waits adds to what the transaction made of the value."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            ctx.set("n", 10)
            counting = asyncio.create_task(ctx.incr("n"))
            await asyncio.sleep(0)
            tx["n"] += 5

        assert (16, {"n": 16}) == (await counting, stored(path))
