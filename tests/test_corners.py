"""Corners that a user meets once in a long while."""

import asyncio
import json

import filelock
import pytest

from persistent_context import ContextUsageError, PersistentContext, SyncPersistentContext, _base
from persistent_context._document import CorruptDocumentError, parse


class TestLoading:
    async def test_a_load_that_a_save_overtakes_is_not_taken_for_newer(self, tmp_path, monkeypatch):
        """A reading from before a save does not undo in memory what the save made of it."""
        path = tmp_path / "state.json"
        ctx = await PersistentContext.create(path)
        load, loop = ctx._sync_load_internal, asyncio.get_running_loop()

        def overtaken():
            loaded = load()
            ctx.set("a", ctx.get("a", 0) + 1)
            asyncio.run_coroutine_threadsafe(ctx.save(), loop).result(60)
            return loaded

        monkeypatch.setattr(ctx, "_sync_load_internal", overtaken)
        monkeypatch.setattr(ctx, "_lock", _Free())
        await ctx.load()

        assert ({"a": 3}, {"a": 3}) == (dict(ctx), json.loads(path.read_text(encoding="utf-8")))

    async def test_a_failure_on_the_way_into_memory_is_the_calls_error(self, tmp_path, monkeypatch):
        """A call whose result cannot be worked out fails loudly, and the next one works."""
        ctx = await PersistentContext.create(tmp_path / "state.json")

        def fail(self, requests):
            raise MemoryError

        with monkeypatch.context() as broken:
            broken.setattr(_base.BaseContext, "_arrival", fail)
            with pytest.raises(MemoryError):
                await ctx.incr("n")

        assert 2 == await ctx.incr("n")

    @pytest.mark.parametrize("text", ["{1: 2}", '{"a" 1}', '{"a": 1,}', '{"a": 1} {}', "{,}", "[]", '{"a": 1'])
    def test_what_is_nearly_an_object_is_refused(self, text):
        """Only whole JSON objects are read."""
        with pytest.raises(CorruptDocumentError):
            parse(lambda offset, length: text.encode()[offset : offset + length], len(text))


class TestLoops:
    def test_a_transaction_whose_loop_is_closed_before_its_turn_holds_no_lock(self, tmp_path):
        """A turn that comes to a loop which is gone is given back."""
        path = tmp_path / "state.json"
        loop = asyncio.new_event_loop()
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            task = loop.create_task(ctx.transaction().__aenter__())
            loop.run_until_complete(asyncio.sleep(0.1))
            loop.close()
        task._log_destroy_pending = False

        assert 1 == SyncPersistentContext(path, lock_timeout=60).incr("n")

    async def test_a_context_of_an_open_loop_is_refused_elsewhere(self, tmp_path):
        """Two loops at a time cannot share a context."""
        ctx = await PersistentContext.create(tmp_path / "state.json")

        async def elsewhere():
            with pytest.raises(ContextUsageError, match="another event loop"):
                await ctx.incr("n")

        await asyncio.to_thread(asyncio.run, elsewhere())

    def test_a_context_goes_from_a_closed_loop_to_the_next(self, tmp_path):
        """A context may be used by one ``asyncio.run`` after the other."""
        ctx = PersistentContext(tmp_path / "state.json")

        assert [1, 2] == [asyncio.run(_incr(ctx)), asyncio.run(_incr(ctx))]


async def _incr(ctx):
    return await ctx.incr("n")


class _Free:
    """A lock that everybody gets."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        return None
