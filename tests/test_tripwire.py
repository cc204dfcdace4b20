"""The tripwire itself: what blocks an event loop is seen, however it is called, and what does not is let be."""

import asyncio
import os
import threading
import time

import pytest
from blockbuster import BlockingError

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._api import aio, base


async def run_here(function, *args):
    """What a build does that has forgotten the pool."""
    return function(*args)


class TestABuildThatBlocks:
    async def test_a_file_that_is_looked_up_in_the_loop(self, path, monkeypatch):
        """Following symlinks is I/O."""
        monkeypatch.setattr(aio, "run_in_pool", run_here)

        with pytest.raises(BlockingError, match="os.lstat"):
            await PersistentContext(path).save()

    async def test_a_file_that_is_read_in_the_loop(self, path, monkeypatch):
        """So is reading."""
        ctx = await PersistentContext.create(path)
        path.write_text("{}\n")
        monkeypatch.setattr(base, "queue_of", lambda _, queue=ctx._queue: queue)
        monkeypatch.setattr(PersistentContext, "_in_executor", lambda _self, _loop, function: run_here(function))

        with pytest.raises(BlockingError, match="os.open"):
            await ctx.load()

    @pytest.mark.parametrize(
        ("wait", "name"),
        [
            (lambda _: time.sleep(0.001), "time.sleep"),
            (lambda path: os.stat(path.parent), "os.stat"),
            (lambda path: path.write_text("{}"), "io.TextIOWrapper.write"),
            (lambda _: threading.Event().wait(0.001), "threading.Condition.wait"),
        ],
        ids=["sleep", "stat", "write", "event"],
    )
    async def test_a_wait_in_the_loop(self, path, monkeypatch, wait, name):
        """Whatever blocks below the public methods is caught."""
        ctx = await PersistentContext.create(path)
        submit = ctx._queue.submit

        def blocking(request):
            wait(path)
            submit(request)

        monkeypatch.setattr(ctx._queue, "submit", blocking)

        with pytest.raises(BlockingError, match=name):
            await ctx.incr("n")

    async def test_a_callback_that_blocks(self, path, monkeypatch, tripwire):
        """What a callback of the loop raises is logged, not raised: it fails the test nevertheless."""
        ctx = await PersistentContext.create(path)
        drain = PersistentContext._drain

        def blocking(self):
            drain(self)
            os.stat(path)

        monkeypatch.setattr(PersistentContext, "_drain", blocking)
        await ctx.incr("n")

        assert 1 == len(tripwire.logged)
        assert "os.stat" in tripwire.logged.pop()


class TestWhatMayBlock:
    async def test_the_test_itself(self, path):
        """What a test does in its loop is its own business."""
        os.stat(path.parent)
        path.write_text("{}\n")
        time.sleep(0.001)

    async def test_the_sync_face_in_a_coroutine(self, path):
        """It blocks, as its name says."""
        assert 1 == SyncPersistentContext.create(path).incr("n")

    async def test_other_threads(self, path):
        """Only the thread of a loop is watched."""
        assert 1 == await asyncio.to_thread(lambda: SyncPersistentContext.create(path).incr("n"))
        assert 2 == await (await PersistentContext.create(path)).incr("n")
