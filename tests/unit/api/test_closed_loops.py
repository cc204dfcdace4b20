"""Event loops that are closed with calls in flight: what these calls do, and what the next loop knows of them."""

import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
import time

import filelock
import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._engine.holds import open_transactions

pytestmark = pytest.mark.timeout(30)  # these tests are about hangs


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def until(condition):
    """Wait for something that happens in another thread."""
    while not condition():
        time.sleep(0.005)


@contextlib.contextmanager
def closed_inside(first):
    """Run a coroutine function in a loop, with the block after its last step, and close the loop with tasks pending."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
    loop.run_until_complete(first())
    yield
    loop.close()


@pytest.fixture
def ctx(path):
    """A context with an empty list, whose first loop is closed."""
    context = PersistentContext(path)
    context["l"] = []
    asyncio.run(context.save())
    return context


async def add_and_save(ctx, *, before=None):
    """Make a call in another loop, with which the context leaves the first one; then change a value, and save it."""
    call = asyncio.ensure_future(ctx.incr("n"))
    await asyncio.sleep(0)
    if before is not None:
        before()
    gc.collect()
    ctx["l"].append("b")
    await ctx.save()
    await call


def continue_in_another_loop(ctx, go_on, *, is_over):
    """Let a call of the closed loop end, and then begin another loop; or the other way round."""

    def end():
        go_on.set()
        until(lambda: ctx._memory._inbox)

    if is_over:
        end()
    asyncio.run(add_and_save(ctx, before=None if is_over else end))


class TestCallsInFlight:
    @pytest.mark.parametrize("is_over", [True, False])
    def test_one_that_has_begun_takes_effect(self, ctx, path, is_over):
        """The next loop learns what it did: nothing is written twice, even if it is over only later."""
        begun, go_on, tasks = threading.Event(), threading.Event(), []

        def function(value):
            begun.set()
            go_on.wait(60)
            return [*value, "x"]

        async def first():
            ctx["l"].append("a")
            tasks.append(asyncio.ensure_future(ctx.mutate("l", function)))
            await asyncio.to_thread(begun.wait)

        with closed_inside(first):
            pass
        tasks.clear()
        continue_in_another_loop(ctx, go_on, is_over=is_over)

        assert ({"l": ["a", "x", "b"], "n": 1}, ["a", "x", "b"]) == (stored(path), ctx["l"])

    @pytest.mark.parametrize("is_over", [True, False])
    def test_one_that_fails_is_forgotten(self, ctx, path, is_over):
        """A call that has begun and then fails changes nothing, and its changes are still unsaved."""
        begun, go_on, tasks = threading.Event(), threading.Event(), []

        def function(value):
            begun.set()
            go_on.wait(60)
            raise LookupError

        async def first():
            ctx["l"].append("a")
            tasks.append(asyncio.ensure_future(ctx.mutate("l", function)))
            await asyncio.to_thread(begun.wait)

        with closed_inside(first):
            pass
        tasks.clear()
        continue_in_another_loop(ctx, go_on, is_over=is_over)

        assert ({"l": ["a", "b"], "n": 1}, []) == (stored(path), ctx._memory._flights.calls())

    @pytest.mark.parametrize("is_discarded", [True, False])
    def test_one_that_has_not_begun_is_withdrawn(self, ctx, path, is_discarded):
        """It never takes effect, and its changes are still unsaved."""
        tasks = []

        async def first():
            ctx["l"].append("a")
            tasks.extend(map(asyncio.ensure_future, [ctx.save(), ctx.append("l", "x"), ctx.save()]))
            await asyncio.sleep(0.05)

        with filelock.FileLock(f"{path}.lock"):
            with closed_inside(first):
                pass
            if is_discarded:
                tasks.clear()
            second = asyncio.new_event_loop()
            call = second.create_task(add_and_save(ctx))
            second.run_until_complete(asyncio.sleep(0))
        second.run_until_complete(call)
        second.close()

        assert ({"l": ["a", "b"], "n": 1}, ["a", "b"]) == (stored(path), ctx["l"])

    async def test_one_that_is_closed_while_it_waits_is_withdrawn(self, path):
        """The same if only the coroutine is closed."""
        ctx = await PersistentContext.create(path)
        ctx["a"] = 1
        with filelock.FileLock(f"{path}.lock"):
            call = ctx.save()
            call.send(None)
            call.close()

        assert ([], {"a"}) == (ctx._memory._flights.calls(), ctx.unsaved_keys())

    @pytest.mark.parametrize("is_over", [True, False])
    def test_a_commit_that_has_begun_takes_effect(self, ctx, path, is_over, monkeypatch):
        """The same holds for the end of a transaction, which includes unsaved changes."""
        replace, begun, go_on, tasks = os.replace, threading.Event(), threading.Event(), []

        def wait(source, target):
            begun.set()
            go_on.wait(60)
            replace(source, target)

        async def commit():
            async with ctx.transaction() as tx:
                tx["l"].append("x")

        async def first():
            ctx["l"].append("a")
            tasks.append(asyncio.ensure_future(commit()))
            await asyncio.to_thread(begun.wait)

        monkeypatch.setattr(os, "replace", wait)
        with closed_inside(first):
            pass
        tasks.clear()
        continue_in_another_loop(ctx, go_on, is_over=is_over)

        assert ({"l": ["a", "x", "b"], "n": 1}, ["a", "x", "b"]) == (stored(path), ctx["l"])


class TestTurns:
    @pytest.mark.parametrize("waiting", [1, 2])
    def test_one_that_the_loop_does_not_see_any_more_is_given_up(self, ctx, path, waiting):
        """A turn that comes between the last step of a loop and its end leaves no lock, for any process."""
        tasks, entered, leave = [], threading.Event(), threading.Event()

        def hold():
            with SyncPersistentContext(path).transaction():
                entered.set()
                leave.wait(60)

        async def enter():
            async with ctx.transaction() as tx:
                tx["n"] = 1

        async def first():
            await ctx.load()
            tasks.extend(asyncio.ensure_future(enter()) for _ in range(waiting))
            await asyncio.sleep(0.05)

        holding = threading.Thread(target=hold)
        holding.start()
        entered.wait()
        with closed_inside(first):
            leave.set()
            holding.join()
            until(lambda: (hold := open_transactions.get(str(path))) and hold.owner.task is not None)
            time.sleep(0.05)  # it is on its way to the loop

        assert 1 == SyncPersistentContext(path, lock_timeout=20).incr("n")
        assert 2 == asyncio.run(ctx.incr("n"))
        for task in tasks:
            task._log_destroy_pending = False


class TestComputations:
    def test_the_thread_of_a_factory_is_waited_for(self, path):
        """Another call computes when the thread that was left behind has ended, even in the thread of the old loop."""
        running, most, begun = [], [], threading.Event()

        def factory():
            running.append(None)
            most.append(len(running))
            begun.set()
            time.sleep(0.3)
            running.pop()
            return len(most)

        async def first():
            task = asyncio.ensure_future(PersistentContext(path).compute_once("key", factory))
            task._log_destroy_pending = False
            del task
            await asyncio.to_thread(begun.wait)

        with closed_inside(first):
            pass

        assert (2, [1, 1]) == (SyncPersistentContext(path).compute_once("key", factory), most)

    def test_a_factory_of_the_loop_ends_quietly(self, path, monkeypatch):
        """A discarded computation awaits nothing any more, and the next one is made."""
        noise = []

        async def factory():
            await asyncio.sleep(100)

        async def first():
            asyncio.ensure_future(PersistentContext(path).compute_once("key", factory))._log_destroy_pending = False
            await asyncio.sleep(0.1)

        monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: noise.append(unraisable.exc_value))
        with closed_inside(first):
            pass
        gc.collect()

        assert (5, []) == (SyncPersistentContext(path, lock_timeout=20).compute_once("key", lambda: 5), noise)
