"""The lock between processes as users see it: it excludes all programs, names its holder, and may be lost."""

import asyncio
import json
import os
import socket
import time

import pytest

from persistent_context import Holder, LockLostError, LockTimeoutError, PersistentContext, SyncPersistentContext

TRY_FOREIGN_LOCK = """
import sys
import filelock

try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free", flush=True)
except filelock.Timeout:
    print("held", flush=True)
"""


SAVE_AND_STAY = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
ctx.set("a", 1)
ctx.save()
print("saved", flush=True)
sys.stdin.readline()
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


class TestForeignLocks:
    def test_a_foreign_lock_excludes_us(self, face, path, hold):
        """While another program holds filelock.FileLock on the lock file, no call writes anything."""
        ctx = face.open(path, lock_timeout=0)
        with hold(path), pytest.raises(LockTimeoutError):
            face.do(ctx.incr, "n")

        assert (False, 1) == (path.exists(), face.do(ctx.incr, "n"))

    def test_we_exclude_a_foreign_lock(self, face, path, spawn):
        """While a transaction is open, another program cannot get filelock.FileLock on the lock file."""
        ctx = face.open(path)
        inside = face.inside(ctx.transaction, lambda tx: spawn(TRY_FOREIGN_LOCK, path).finish())
        afterwards = spawn(TRY_FOREIGN_LOCK, path).finish()

        assert (["held"], ["free"]) == (inside, afterwards)

    def test_an_idle_context_holds_no_lock(self, face, path, spawn):
        """After a call has returned, the lock is free for other programs."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")

        assert ["free"] == spawn(TRY_FOREIGN_LOCK, path).finish()


class TestTheHolder:
    def test_it_is_named_while_it_holds(self, face, path, hold_transaction):
        """While another process holds the lock, lock_holder() returns the process and its purpose."""
        ctx = face.open(path)
        with hold_transaction(path) as held:
            holder = face.do(ctx.lock_holder)

        assert (True, held.pid, socket.gethostname(), True, True) == (
            isinstance(holder, Holder),
            holder.pid,
            holder.host,
            isinstance(holder.since, int | float) and holder.since > 1_500_000_000,
            isinstance(holder.purpose, str) and holder.purpose != "",
        )

    def test_it_is_nobody_afterwards(self, face, path, hold_transaction):
        """After the release no holder is reported, although the process still lives."""
        ctx = face.open(path)
        with hold_transaction(path):
            pass

        assert None is face.do(ctx.lock_holder)

    def test_it_is_nobody_before(self, face, path):
        """If the file was never locked, no holder is reported, and no file is made."""
        ctx = face.open(path)

        assert (None, []) == (face.do(ctx.lock_holder), os.listdir(path.parent))

    def test_it_is_this_process_inside_a_transaction(self, path):
        """Inside a transaction, lock_holder() returns the present process."""

        async def ask():
            ctx = await PersistentContext.create(path)
            async with ctx.transaction():
                return await ctx.lock_holder()

        ctx = SyncPersistentContext.create(path)
        with ctx.transaction():
            holder = ctx.lock_holder()

        assert (os.getpid(), os.getpid()) == (holder.pid, asyncio.run(ask()).pid)

    def test_it_is_nobody_after_a_call_of_ours(self, face, path):
        """After a call has returned, no holder is reported."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")

        assert None is face.do(ctx.lock_holder)

    def test_who_has_just_taken_the_lock_is_known(self, face, path, hold_transaction, hold, monkeypatch):
        """If the holder has just taken the lock and has not yet written its stamp, the stamp is read again."""
        ctx = face.open(path, lock_timeout=0)
        lock = path.with_name("state.json.lock")
        with hold_transaction(path) as holder:
            stamp = lock.read_bytes()
        nobody = lock.read_bytes()
        monkeypatch.setattr(time, "sleep", lambda seconds: seconds and lock.write_bytes(stamp))
        with hold(path):
            told = face.do(ctx.lock_holder)
            lock.write_bytes(nobody)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")

        assert (holder.pid, holder.pid) == (told.pid, caught.value.holder.pid)

    def test_a_former_holder_is_not_shown_for_a_holder_without_a_stamp(self, face, path, spawn, hold):
        """A living process that held the lock before is not shown as the present holder."""
        former = spawn(SAVE_AND_STAY, path)
        former.hear()
        ctx = face.open(path, lock_timeout=0)
        face.do(ctx.incr, "n")
        with hold(path):
            holder = face.do(ctx.lock_holder)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")

        assert [True, True] == [
            one is None or one.pid not in (former.pid, os.getpid()) for one in (holder, caught.value.holder)
        ]

    @pytest.mark.parametrize(
        "stamp",
        [
            '{"pid": "1", "start": 1, "host": "h", "space": "s", "since": 1, "for": "save"}',
            '{"pid": 1, "start": 1, "host": "h", "space": "s", "since": 1e300, "for": "save"}',
            '{"pid": 1}',
            "null",
        ],
    )
    def test_a_forged_stamp_is_not_believed(self, tmp_path, stamp, hold):
        """A stamp that makes no sense says nothing about the holder."""
        path = tmp_path / "state.json"
        with hold(path):
            (tmp_path / "state.json.lock").write_text(f'{{"persistent_context": {stamp}}}', encoding="utf-8")

            assert Holder() == SyncPersistentContext(path).lock_holder()


class TestALostLock:
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_a_transaction_whose_lock_file_went_writes_nothing(self, face, path, how):
        """If the lock file is deleted during the body, the commit raises LockLostError and writes nothing."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        lock = path.with_name("state.json.lock")

        def body(tx):
            tx["a"] = 2
            lock.unlink()
            if how == "replaced":
                lock.touch()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (b'{"a": 1}', 1, set()) == (path.read_bytes(), ctx["a"], ctx.unsaved_keys())

    def test_what_was_unsaved_stays_unsaved(self, face, path):
        """After a lost lock, the unsaved changes that the transaction included are still unsaved."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 5)

        def body(tx):
            tx["a"] += 1
            path.with_name("state.json.lock").unlink()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (b'{"a": 1}', 5, {"a"}) == (path.read_bytes(), ctx["a"], ctx.unsaved_keys())

    def test_life_goes_on_under_a_new_lock(self, face, path):
        """After a lost lock the next call works, under a new lock."""
        ctx = face.open(path)

        def body(tx):
            tx["a"] = 2
            path.with_name("state.json.lock").unlink()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (1, 2, {"n": 2}) == (face.do(ctx.incr, "n"), face.do(face.open(path).incr, "n"), stored(path))

    def test_a_lock_file_deleted_between_two_calls_is_made_again(self, face, path):
        """If the lock file of an idle context is deleted, the next call makes it again."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")
        path.with_name("state.json.lock").unlink()

        assert (2, True) == (face.do(ctx.incr, "n"), path.with_name("state.json.lock").exists())

    def test_a_call_that_waits_for_a_deleted_lock_file_excludes_the_next(self, path, hold):
        """A lock on a file that was deleted during the wait does not count: the call starts again under the new one."""

        async def wait():
            ctx = await PersistentContext.create(path)
            with hold(path):
                counting = [asyncio.create_task(ctx.incr("n")) for _ in range(5)]
                for _ in range(50):
                    await asyncio.sleep(0)
                path.with_name("state.json.lock").unlink()
            return sorted(await asyncio.gather(*counting)) + [await ctx.incr("n")]

        assert ([1, 2, 3, 4, 5, 6], True) == (asyncio.run(wait()), path.with_name("state.json.lock").exists())
