"""Corners that a user meets once in a long while."""

import asyncio
import json
import os
import pickle
import struct
import threading
import time

import filelock
import pytest

from persistent_context import (
    ContextUsageError,
    Holder,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    _base,
)
from persistent_context._parse import CorruptDocumentError, parse


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


class TestCallables:
    def test_a_function_that_calls_the_same_file_is_told_so(self, tmp_path):
        """A function under the lock that asks for the lock would wait for itself: it gets an error at once."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        with pytest.raises(ReentrantTransactionError, match="under the lock"):
            ctx.mutate("n", lambda value: ctx.incr("m"))

        assert {"n": 1} == {"n": ctx.incr("n")}

    def test_a_value_that_json_cannot_hold_stays_in_memory_while_others_are_taken_over(self, tmp_path):
        """What cannot be saved is no loss for an atomic call on the same key that is under way."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        bad = {1, 2}

        def function(value):
            ctx["k"] = bad
            return 1

        assert 1 == ctx.mutate("k", function)
        assert (bad, {"k"}) == (ctx["k"], ctx.unsaved_keys())


class TestTheLockFile:
    def test_a_lock_file_that_is_deleted_while_we_wait_for_it_is_left_for_the_new_one(self, tmp_path):
        """A lock on a file that is no longer there excludes nobody: the wait goes on at the one that is."""
        path = tmp_path / "state.json"
        held = filelock.FileLock(f"{path}.lock")
        held.acquire()
        caller = threading.Thread(target=SyncPersistentContext(path).incr, args=["n"])
        caller.start()
        time.sleep(0.2)
        (tmp_path / "state.json.lock").unlink()
        held.release()
        caller.join(60)

        assert (True, {"n": 1}) == ((tmp_path / "state.json.lock").exists(), json.loads(path.read_text()))

    @pytest.mark.parametrize(
        ("holder", "text"),
        [
            (Holder(), "a program that does not say who it is"),
            (Holder(7, "h", verified=True), "process 7 on h"),
            (
                Holder(7, "h\x1b[2J", 0.0, "save"),
                r"process 7 on h\x1b[2J for save since 1970-01-01 00:00:00.000000Z, by its own word",
            ),
        ],
    )
    def test_a_holder_is_described_in_one_safe_line(self, holder, text):
        """What a stranger wrote into the lock file is escaped, and marked as its own word."""
        assert text == str(holder)


class TestAccessLists:
    def test_an_access_list_is_kept(self, tmp_path):
        """Whoever could read the file by its access list can read it after a save, and nobody else."""
        path = tmp_path / "state.json"
        path.write_text("{}", encoding="utf-8")
        entries = [
            (1, 6, -1),
            (2, 4, 12345),
            (4, 0, -1),
            (16, 4, -1),
            (32, 0, -1),
        ]  # user, a named user, group, mask, other
        wanted = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        try:
            os.setxattr(path, "system.posix_acl_access", wanted)
        except OSError as error:
            pytest.skip(f"this file system keeps no access lists ({error}): run on ext4 or XFS")
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")

        assert wanted == os.getxattr(path, "system.posix_acl_access")


class TestTheLiveDictionary:
    def test_it_is_a_dictionary_in_every_way(self, tmp_path):
        """In-place union, pickling and printing show values, not what they are kept as."""
        path = tmp_path / "state.json"
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        data = ctx._data
        data |= {"b": 2}

        assert ("{'a': [1], 'b': 2}", {"a": [1], "b": 2}, {"b"}) == (
            repr(data),
            pickle.loads(pickle.dumps(data)),
            ctx.unsaved_keys(),
        )
