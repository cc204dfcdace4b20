"""After a replacement: syncing the directory, whose failure is raised, and freeing the old file."""

import asyncio
import contextlib
import errno
import json
import os
import threading

import filelock
import pytest

from persistent_context import DurabilityUnknownError, PersistentContext, SyncPersistentContext
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile.lock import FileLock, HeldLock
from persistent_context._stores.jsonfile.store import JsonFileStore


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


TRY_THE_LOCK = """
import sys
import filelock

try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free", flush=True)
except filelock.Timeout:
    print("locked", flush=True)
"""


@pytest.fixture
def at_the_sync_of_the_directory(path, monkeypatch):
    """Arrange for a function to be called whenever the file's directory is to be synced."""

    def arrange(function):
        real, directory = os.fsync, path.parent.stat()

        def sync(fd):
            if os.path.samestat(os.fstat(fd), directory):
                function()
            real(fd)

        monkeypatch.setattr(os, "fsync", sync)

    return arrange


def _fail_to_sync():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


CALLS = {
    "incr": lambda face, ctx: face.do(ctx.incr, "a"),
    "save": lambda face, ctx: (ctx.set("a", 1), face.do(ctx.save)),
    "transaction": lambda face, ctx: face.inside(ctx.transaction, lambda tx: tx.update(a=1)),
    "nothing to write": lambda face, ctx: face.do(ctx.compare_and_set, "there", 1, 1),
}


class TestSyncingTheDirectory:
    @pytest.fixture(autouse=True)
    def there(self, path):
        """A file with some content."""
        path.write_text('{"there": 1}', encoding="utf-8")

    @pytest.mark.parametrize("call", CALLS)
    def test_the_lock_is_free_meanwhile(self, face, path, run, at_the_sync_of_the_directory, call):
        """Another process may have its turn while the disk is slow, and finds the new file."""
        found = []
        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: found.append((*run(TRY_THE_LOCK, path), stored(path).get("a"))))
        CALLS[call](face, ctx)

        assert [("free", None if call == "nothing to write" else 1)] == found

    @pytest.mark.parametrize("call", CALLS)
    def test_nothing_is_acknowledged_before_it_is_done(self, face, path, at_the_sync_of_the_directory, call):
        """A call returns when its change would survive a power loss, although the change is visible earlier."""
        returned, early = threading.Event(), []
        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: early.append(returned.wait(0.3)))
        caller = threading.Thread(target=lambda: (CALLS[call](face, ctx), returned.set()))
        caller.start()
        caller.join(60)

        assert ([False], True) == (early, returned.is_set())

    @pytest.mark.parametrize("call", CALLS)
    def test_a_failure_is_raised_and_the_change_is_there(self, face, path, at_the_sync_of_the_directory, call):
        """The file and memory have the change, and the error says that it may not survive."""
        ctx = face.open(path)
        at_the_sync_of_the_directory(_fail_to_sync)
        with pytest.raises(DurabilityUnknownError, match=r"unknown.*Input/output error") as caught:
            CALLS[call](face, ctx)

        assert (errno.EIO, str(path)) == (caught.value.errno, caught.value.filename)
        assert (stored(path), set()) == (dict(ctx), ctx.unsaved_keys())
        assert {"there": 1} | ({} if call == "nothing to write" else {"a": 1}) == stored(path)

    async def test_a_failure_is_raised_by_every_call_of_the_cycle(self, path, at_the_sync_of_the_directory):
        """Each call gets an error of its own, even one that is not durable; the next cycle is not affected."""
        contexts = [await PersistentContext.create(path, durable=durable) for durable in (True, False, True)]
        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.incr("n")) for ctx in contexts]
            while not (queue := contexts[0]._link.here()) or len(queue._waiting) < len(calls):
                await asyncio.sleep(0)
            failures = [_fail_to_sync]
            at_the_sync_of_the_directory(lambda: failures and failures.pop()())
        errors = await asyncio.gather(*calls, return_exceptions=True)

        assert [DurabilityUnknownError] * 3 == [*map(type, errors)]
        assert (3, 1) == (len({*map(id, errors)}), contexts[0].statistics().cycles)
        assert ({"there": 1, "n": 3}, [3, 3, 3]) == (stored(path), [ctx["n"] for ctx in contexts])
        assert 4 == await contexts[0].incr("n")

    @pytest.mark.parametrize("call", ["incr", "nothing to write"])
    def test_it_is_done_though_the_lock_could_not_be_released_cleanly(
        self, face, path, at_the_sync_of_the_directory, monkeypatch, call
    ):
        """If memory runs out while the lock is released, the acknowledged call is durable all the same."""
        synced, release = [], HeldLock.release

        def failing(held):
            release(held)
            raise MemoryError

        ctx = face.open(path)
        at_the_sync_of_the_directory(lambda: synced.append(True))
        monkeypatch.setattr(HeldLock, "release", failing)
        CALLS[call](face, ctx)

        assert [True] == synced

    @pytest.mark.parametrize("call", ["incr", "nothing to write"])
    def test_any_error_leaves_durability_unknown(self, face, path, at_the_sync_of_the_directory, call):
        """With an error other than the system's, too, no call succeeds whose directory was not synced."""

        def fail():
            raise MemoryError

        ctx = face.open(path)
        at_the_sync_of_the_directory(fail)
        with pytest.raises(DurabilityUnknownError, match="MemoryError"):
            CALLS[call](face, ctx)

    def test_the_time_that_it_takes_does_not_count_as_held(self, path, at_the_sync_of_the_directory):
        """The hold time is known before the sync, and the reported figure does not change later."""
        held = []
        session = JsonFileStore(str(path)).begin("test", wait=False)
        at_the_sync_of_the_directory(lambda: held.append(session.held))
        session.commit(Changes({"n": b"1"}), durable=True)
        session.close()

        assert [session.held] == held
        assert session.held > 0

    def test_one_that_failed_is_made_up_for_by_the_next(self, tmp_path, synced, monkeypatch):
        """A created directory whose name could not be synced is synced by the process's next durable call."""
        path = tmp_path / "new" / "state.json"
        ctx = SyncPersistentContext(path)
        real, failures = os.fsync, []

        def fail_once(fd):
            if os.path.samestat(os.fstat(fd), tmp_path.stat()) and path.exists() and not failures:
                failures.append(True)
                _fail_to_sync()
            real(fd)

        monkeypatch.setattr(os, "fsync", fail_once)
        with pytest.raises(DurabilityUnknownError):
            ctx.incr("n")
        counts = []
        for _ in range(2):
            before = synced.count(str(tmp_path))
            ctx.incr("n")
            counts.append(synced.count(str(tmp_path)) - before)

        assert [1, 0] == counts


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc/self/fd to see what is open: run on Linux")
class TestTheReplacedFile:
    """Freeing the blocks of the old file takes longer than replacing it, and others do not wait for that."""

    def is_open(self, path):
        """Whether this process has the previous file at the path open."""
        targets = []
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
                targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return f"{path} (deleted)" in targets

    @pytest.mark.parametrize("call", [call for call in CALLS if call != "nothing to write"])
    def test_it_is_open_until_the_lock_is_released(self, face, path, monkeypatch, call):
        """The old file is still open when the lock is released."""
        path.write_text('{"there": 1}', encoding="utf-8")
        give_back, found = FileLock.give_back, []
        monkeypatch.setattr(
            FileLock, "give_back", lambda lock, file: (found.append(self.is_open(path)), give_back(lock, file))
        )
        CALLS[call](face, face.open(path))

        assert [True] == found

    @pytest.mark.parametrize("call", CALLS)
    def test_it_is_freed_when_the_call_is_over(self, face, path, call):
        """When the call is over, only the lock file stays open."""
        path.write_text('{"there": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            CALLS[call](face, ctx)

        assert (False, True) == (self.is_open(path), len(os.listdir("/proc/self/fd")) <= before + 1)

    def test_it_is_freed_after_an_error_as_well(self, path, at_the_sync_of_the_directory):
        """The old file is closed even if the directory could not be synced."""
        path.write_text('{"there": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        at_the_sync_of_the_directory(_fail_to_sync)
        with pytest.raises(DurabilityUnknownError):
            ctx.incr("a")

        assert not self.is_open(path)
