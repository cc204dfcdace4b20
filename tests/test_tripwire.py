"""The tripwire itself: it detects whatever in the library blocks an event loop, and nothing else."""

import asyncio
import os
import threading
import time

import pytest
from blockbuster import BlockingError

from persistent_context import PersistentContext, SyncPersistentContext


class ReadsInTheLoop(PersistentContext):
    """A faulty build that does not leave the loop's thread."""

    async def load(self):
        self._sync_load_internal()


def blocking_in(call):
    """Return a build whose calls first do something in the loop's thread."""

    class Blocks(PersistentContext):
        async def _perform(self, *args, **kwargs):
            call()
            return await super()._perform(*args, **kwargs)

    return Blocks


class TestABuildThatBlocks:
    async def test_a_file_that_is_looked_up(self, path):
        """Following symlinks is I/O, and is detected."""
        with pytest.raises(BlockingError, match="os.lstat"):
            await ReadsInTheLoop.create(path)

    async def test_a_file_that_is_read(self, path):
        """Reading is detected, by a context that knows its file."""
        ctx = ReadsInTheLoop(path)
        await ctx.save()

        with pytest.raises(BlockingError, match="os.lstat|os.open"):
            await ctx.load()

    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda: time.sleep(0.001), "time.sleep"),
            (lambda: os.stat("."), "os.stat"),
            (lambda: os.open(".", os.O_RDONLY), "os.open"),
            (lambda: os.fsync(1), "os.fsync"),
            (lambda: threading.Event().wait(0.001), "threading.Condition.wait"),
            (lambda: threading.Thread().join(), "threading.Thread.join"),
        ],
        ids=["sleep", "stat", "open", "fsync", "wait", "join"],
    )
    async def test_a_call_that_blocks(self, path, call, name):
        """Blocking calls anywhere below the library are detected."""
        with pytest.raises(BlockingError, match=name):
            await blocking_in(call)(path).incr("n")

    async def test_a_callback_that_blocks(self, path, tripwire):
        """A blocking callback of the loop only logs an error, and fails the test nevertheless."""
        ctx = await PersistentContext.create(path)
        asyncio.get_running_loop().call_soon(ctx._sync_load_internal)
        await asyncio.sleep(0)

        assert 1 == len(tripwire.logged)
        assert "Blocking call to os." in tripwire.logged.pop()


class TestWhatMayBlock:
    async def test_the_test_itself(self, path):
        """A test may block its own loop."""
        os.stat(path.parent)
        path.write_text("{}\n")
        time.sleep(0.001)

    async def test_the_sync_face_in_a_coroutine(self, path):
        """The synchronous face may block, even in a coroutine."""
        assert 1 == SyncPersistentContext.create(path).incr("n")

    async def test_other_threads(self, path):
        """Only the threads of loops are watched."""
        assert 1 == await asyncio.to_thread(lambda: SyncPersistentContext.create(path).incr("n"))
        assert 2 == await (await PersistentContext.create(path)).incr("n")
