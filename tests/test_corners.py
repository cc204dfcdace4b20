"""Corners that a user meets once in a long while."""

import asyncio
import json
import os
import pickle
import signal
import struct
import threading
import time

import filelock
import pytest

from persistent_context import (
    MISSING,
    ContextUsageError,
    DurabilityUnknownError,
    Holder,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    UnserializableValueError,
)
from persistent_context._api import base as _base
from persistent_context._stores.jsonfile import parse as _parse
from persistent_context._stores.jsonfile import stamp as _stamp
from persistent_context._stores.jsonfile import syncing as _syncing
from persistent_context._stores.jsonfile.access import Access
from persistent_context._stores.jsonfile.lock import FileLock
from persistent_context._stores.jsonfile.parse import parse
from persistent_context._stores.protocol import CorruptStateError


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

        assert ({"a": 1}, {"a": 1}) == (dict(ctx), json.loads(path.read_text(encoding="utf-8")))

    async def test_a_load_that_an_increment_overtakes_keeps_its_result(self, tmp_path, monkeypatch):
        """What an atomic call returned is not undone in memory by a reading from before it."""
        ctx = await PersistentContext.create(tmp_path / "state.json")
        load, loop = ctx._sync_load_internal, asyncio.get_running_loop()

        def overtaken():
            loaded = load()
            asyncio.run_coroutine_threadsafe(ctx.incr("n"), loop).result(60)
            return loaded

        monkeypatch.setattr(ctx, "_sync_load_internal", overtaken)
        monkeypatch.setattr(ctx, "_lock", _Free())
        await ctx.load()

        assert {"n": 1} == dict(ctx)

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
        with pytest.raises(CorruptStateError):
            _parsed(text)

    def test_a_lone_surrogate_is_refused_in_a_big_file_of_any_layout(self):
        """What cannot be written back is not read, however the file is cut."""
        with pytest.raises(CorruptStateError, match="surrogate"):
            _parsed('{"a": "\\ud800", "b": "' + "x" * 100_000 + '"}')

    def test_braces_on_lines_of_their_own_do_not_make_our_layout(self):
        """A big file whose entries share lines is read, whatever its first and last lines look like."""
        data = {f"key-{number}": number for number in range(20_000)}
        document = _parsed("{\n" + json.dumps(data)[1:-1] + "\n}\n")

        assert json.dumps(data) == json.dumps(json.loads(b"".join(document.pieces())))

    def test_a_caller_without_stack_left_is_not_told_that_the_file_is_corrupt(self, monkeypatch):
        """Too little stack is the caller's trouble, and no reason to move a file aside."""
        monkeypatch.setattr(_parse, "deeper_than", lambda limit, text: False)
        with pytest.raises(RecursionError):
            _parsed('{"a": ' + "[" * 200_000)

    def test_a_file_that_is_read_in_short_pieces_is_read_whole(self, tmp_path, monkeypatch):
        """A read may return less than was asked for."""
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"a": "b" * 100}), encoding="utf-8")
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))

        assert {"a": "b" * 100} == SyncPersistentContext.create(path).get_all_data()


def _parsed(text):
    return parse(lambda offset, length: text.encode()[offset : offset + length], len(text))


class TestLoops:
    def test_a_transaction_whose_loop_is_closed_before_its_turn_holds_no_lock(self, tmp_path):
        """A turn that comes to a loop which is gone is given back."""
        path = tmp_path / "state.json"
        loop = asyncio.new_event_loop()
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            tasks = [loop.create_task(call) for call in (ctx.incr("n"), ctx.transaction().__aenter__(), ctx.save())]
            loop.run_until_complete(asyncio.sleep(0.1))
            loop.close()
        for task in tasks:
            task._log_destroy_pending = False

        assert 2 == SyncPersistentContext(path, lock_timeout=60).incr("n")

    async def test_an_executor_that_is_shut_down_fails_no_call_that_has_begun(self, tmp_path):
        """A call that a cycle has taken ends as its cycle does, whatever becomes of the executor."""
        ctx = await PersistentContext.create(tmp_path / "state.json")
        taken = []

        def function(value):
            taken.extend(request.fail(RuntimeError("no executor")) for request in ctx._in_flight)
            return 1

        assert (1, [False]) == (await ctx.mutate("n", function), taken)

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
        with pytest.raises(ReentrantTransactionError, match="under the lock of this file"):
            ctx.mutate("n", lambda value: ctx.incr("m"))

        assert {"n": 1} == {"n": ctx.incr("n")}

    @pytest.mark.parametrize("fn", [None, 1, "upper"])
    def test_what_is_no_function_is_refused_at_once(self, tmp_path, fn):
        """A mistake in the call is told before anything is locked or written."""
        with pytest.raises(TypeError, match="fn must be a callable"):
            SyncPersistentContext(tmp_path / "state.json").mutate("a", fn)

        assert [] == list(tmp_path.iterdir())

    def test_a_value_that_json_cannot_hold_stays_in_memory_while_others_are_taken_over(self, tmp_path):
        """What cannot be saved is no loss for an atomic call on the same key that is under way."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        bad = {1, 2}

        def function(value):
            ctx["k"] = bad
            return 1

        assert 1 == ctx.mutate("k", function)
        assert (bad, {"k"}) == (ctx["k"], ctx.unsaved_keys())


class TestInterrupting:
    """Ctrl-C while the synchronous face waits."""

    @pytest.fixture(autouse=True)
    def interrupts(self):
        """Raise KeyboardInterrupt in the main thread on SIGINT, and tell when that is done."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled in the main thread, and the tests run in another")
        handled = threading.Event()

        def handle(number, frame):
            handled.set()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handle)
        yield handled
        signal.signal(signal.SIGINT, before)

    def test_a_call_that_waits_is_withdrawn(self, tmp_path):
        """An interrupted wait leaves nothing behind that would happen later."""
        path = tmp_path / "state.json"
        ctx = SyncPersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                ctx.incr("n")

        assert 1 == SyncPersistentContext(path, lock_timeout=60).incr("n")

    @pytest.mark.parametrize("moment", ["submit", "timed_out"])
    def test_a_call_that_does_not_wait_is_given_up(self, tmp_path, monkeypatch, moment):
        """What comes before a call is queued, or after it has given up, has nothing to wait for."""
        path = tmp_path / "state.json"

        def interrupt(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, filelock.FileLock(f"{path}.lock"):
            patch.setattr(f"persistent_context._engine.queue.CommitQueue.{moment}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                SyncPersistentContext(path, lock_timeout=0.05).incr("n")

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_a_call_that_has_begun_is_finished_first(self, tmp_path, interrupts):
        """An interrupted call whose cycle has begun takes effect as a whole."""
        ctx = SyncPersistentContext(tmp_path / "state.json")

        def function(value):
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.wait(60)
            return "done"

        with pytest.raises(KeyboardInterrupt):
            ctx.mutate("a", function)

        assert '{\n"a": "done"\n}\n' == (tmp_path / "state.json").read_text(encoding="utf-8")

    def test_a_transaction_that_got_its_turn_gives_it_back(self, tmp_path, interrupts, monkeypatch):
        """A turn that comes at the moment of the interruption does not stay taken."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        deliver = ctx._deliver

        def interrupted(requests):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.wait(60)
            deliver(requests)

        monkeypatch.setattr(ctx, "_deliver", interrupted)
        with pytest.raises(KeyboardInterrupt), ctx.transaction():
            pass

        assert 1 == SyncPersistentContext(tmp_path / "state.json", lock_timeout=60).incr("n")

    def test_a_call_that_began_in_time_may_take_longer_than_its_timeout(self, tmp_path, monkeypatch):
        """The timeout is for the wait: a cycle that has begun is waited for, and its result returned."""
        monkeypatch.setattr("persistent_context._api.blocking._NAP_SECONDS", 0.02)
        ctx = SyncPersistentContext(tmp_path / "state.json", lock_timeout=0.05)

        def slow(value):
            time.sleep(0.3)
            return "done"

        assert "done" == ctx.mutate("a", slow)


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
        "stamp",
        [
            '{"pid": "1", "start": 1, "host": "h", "space": "s", "since": 1, "for": "save"}',
            '{"pid": 1, "start": 1, "host": "h", "space": "s", "since": 1e300, "for": "save"}',
            '{"pid": 1}',
            "null",
        ],
    )
    def test_a_forged_stamp_is_not_believed(self, tmp_path, stamp):
        """What makes no sense as a stamp says nothing about the holder."""
        path = tmp_path / "state.json"
        (tmp_path / "state.json.lock").write_text(f'{{"persistent_context": {stamp}}}', encoding="utf-8")
        with filelock.FileLock(f"{path}.lock"):
            assert Holder() == SyncPersistentContext(path).lock_holder()

    def test_without_proc_a_process_is_asked_for_by_a_signal(self, monkeypatch):
        """Where nothing tells when a process began, a pid that nobody has is dead, and any other one lives."""
        monkeypatch.setattr(_stamp, "_process", lambda pid: None)
        monkeypatch.setattr(os.path, "exists", lambda path: False)

        def answer(pid, number):
            if pid == 1:
                raise PermissionError
            if pid == 2:
                raise ProcessLookupError

        monkeypatch.setattr(os, "kill", answer)

        assert [True, False, True] == [_stamp._is_alive(pid, None) for pid in (1, 2, 3)]

    def test_without_proc_nothing_tells_one_numbering_of_processes_from_another(self, monkeypatch):
        """On a system that has no /proc the stamp says less, and the lock works."""

        def fail(path):
            raise FileNotFoundError(path)

        monkeypatch.setattr(os, "readlink", fail)

        assert _stamp._pid_space() is None

    def test_a_lock_file_that_another_process_makes_at_the_same_moment_is_the_one(self, tmp_path, monkeypatch):
        """Of two processes that find no lock file, both take the one that the faster of them made."""
        path, real = tmp_path / "state.json", os.open

        def too_late(name, flags, mode=0o777, **options):
            if str(name).endswith(".lock") and flags & os.O_EXCL:
                os.close(real(name, flags, mode))
            return real(name, flags, mode, **options)

        monkeypatch.setattr(os, "open", too_late)

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_a_forked_child_that_holds_nothing_releases_nothing(self, tmp_path):
        """Releasing what is not held is no error, and no other's loss."""
        path = tmp_path / "state.json"
        lock = FileLock(f"{path}.lock", str(path))
        held = lock.acquire("test", wait=False)
        lock.after_fork_in_child()
        held.release()

        assert 1 == SyncPersistentContext(path).incr("n")

    def test_calls_by_a_name_that_was_turned_elsewhere_are_sent_on_and_others_are_not(self, tmp_path):
        """A symlink that is turned while calls wait takes those along that were made through it."""
        first, second, link = (tmp_path / name for name in ("first.json", "second.json", "link.json"))
        for path in (first, second):
            path.write_text("{}", encoding="utf-8")
        link.symlink_to(first)
        by_link, by_name = SyncPersistentContext(link), SyncPersistentContext(first)
        with filelock.FileLock(f"{first}.lock"):
            callers = [threading.Thread(target=ctx.incr, args=["n"]) for ctx in (by_link, by_name)]
            for caller in callers:
                caller.start()
            while len(by_name._attach()._waiting) < len(callers):
                time.sleep(0.001)
            link.unlink()
            link.symlink_to(second)
        for caller in callers:
            caller.join(60)

        assert ({"n": 1}, {"n": 1}) == (json.loads(first.read_text()), json.loads(second.read_text()))

    @pytest.mark.parametrize(
        ("holder", "text"),
        [
            (Holder(), "an unidentified program"),
            (Holder(7, "h", verified=True), "process 7 on h"),
            (
                Holder(7, "h\x1b[2J", 0.0, "save"),
                r"process 7 on h\x1b[2J for save since 1970-01-01 00:00:00.000000Z (unverified)",
            ),
        ],
    )
    def test_a_holder_is_described_in_one_safe_line(self, holder, text):
        """What a stranger wrote into the lock file is escaped, and marked as its own word."""
        assert text == str(holder)


class TestAccess:
    """Another user's file, as the kernel refuses what only root may do."""

    @pytest.fixture
    def model(self, tmp_path):
        """A file of mode 0664."""
        path = tmp_path / "model"
        path.write_bytes(b"")
        path.chmod(0o664)
        return path

    @pytest.fixture
    def mine(self, tmp_path):
        """A new file, open."""
        fd = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT, 0o600)
        yield fd
        os.close(fd)

    def as_seen(self, monkeypatch, path, **fields):
        """Have the file at a path seem to belong to somebody else."""
        stat = os.lstat

        def seen(wanted, **options):
            status = stat(wanted, **options)
            if str(wanted) != str(path):
                return status
            values = list(status)
            for name, value in fields.items():
                values[("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid").index(name)] = value
            return os.stat_result(values)

        monkeypatch.setattr(os, "lstat", seen)

    def test_where_the_group_cannot_be_given_it_gets_no_more_than_everybody(self, tmp_path, model, mine, monkeypatch):
        """Write access for the file's group is no write access for the writer's own group."""
        self.as_seen(monkeypatch, model, st_gid=os.getgid() + 1)

        def refuse(fd, uid, gid):
            raise PermissionError

        monkeypatch.setattr(os, "fchown", refuse)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o644 == os.fstat(mine).st_mode & 0o777

    def test_a_lock_file_of_somebody_else_is_left_as_it_is(self, model, mine, monkeypatch):
        """Only its owner gives a lock file other access rights."""
        self.as_seen(monkeypatch, model, st_uid=os.getuid() + 1)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 2)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o600 == os.fstat(mine).st_mode & 0o777


class TestAfterTheReplacing:
    def test_whatever_fails_after_the_replacing_leaves_durability_unknown(self, tmp_path, monkeypatch):
        """Not only an error of the system: the file is replaced, and memory knows so."""

        def fail(path):
            raise MemoryError

        ctx = SyncPersistentContext(tmp_path / "state.json")
        monkeypatch.setattr(_syncing, "sync_directory", fail)
        ctx["a"] = 1
        with pytest.raises(DurabilityUnknownError, match="MemoryError") as caught:
            ctx.save()
        again = pickle.loads(pickle.dumps(caught.value))

        assert (set(), None, str(tmp_path / "state.json")) == (ctx.unsaved_keys(), again.errno, again.filename)

    def test_the_copy_of_a_file_that_repeats_keys_is_as_durable_as_the_rest(self, tmp_path, monkeypatch):
        """``durable=False`` syncs nothing, also where the file as it was is kept aside."""
        path = tmp_path / "state.json"
        path.write_text('{"a": 1, "a": 2}', encoding="utf-8")
        monkeypatch.setattr(os, "fsync", None)
        SyncPersistentContext(path, durable=False).incr("a")
        (aside,) = tmp_path.glob("state.json.corrupt-*")

        assert ('{"a": 1, "a": 2}', '{\n"a": 3\n}\n') == (aside.read_text(), path.read_text())


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


class TestValues:
    def test_a_value_that_compares_unlike_what_comes_back_is_refused(self, tmp_path):
        """What JSON gives back must be equal to what was saved."""

        class Odd(dict):
            __hash__ = None

            def __eq__(self, other):
                return False

        ctx = SyncPersistentContext(tmp_path / "state.json")
        ctx["a"] = Odd()
        with pytest.raises(UnserializableValueError, match="does not compare equal"):
            ctx.save()

    def test_much_that_is_nested_little_is_accepted(self, tmp_path):
        """The bound is for how deep values nest, and not for how many there are."""
        value = []
        for _ in range(20):
            value = [value, [], {"a": value}] if len(json.dumps(value)) < 10_000 else [value, "[" * 1000]
        ctx = SyncPersistentContext(tmp_path / "state.json")
        ctx["a"] = value
        ctx.save()

        assert value == SyncPersistentContext.create(tmp_path / "state.json")["a"]

    def test_missing_says_what_it_is_and_is_false(self):
        """MISSING reads well in a message, and in a condition."""
        assert ("MISSING", False) == (repr(MISSING), bool(MISSING))


class TestTheLiveDictionary:
    def test_it_is_a_dictionary_in_every_way(self, tmp_path):
        """In-place union, pickling and printing show values, not what they are kept as."""
        path = tmp_path / "state.json"
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        data = ctx._data
        data |= {"b": 2}

        assert {"z": 0, "a": [1], "b": 2} == {"z": 0} | data

        assert ("{'a': [1], 'b': 2}", {"a": [1], "b": 2}, {"b"}) == (
            repr(data),
            pickle.loads(pickle.dumps(data)),
            ctx.unsaved_keys(),
        )

    def test_a_key_that_a_transaction_only_asked_for_is_left_as_it_is(self, tmp_path):
        """Asking whether a key is there changes nothing, and writes nothing."""
        path = tmp_path / "state.json"
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            known = "a" in tx, "b" in tx
            shown = repr(tx)

        assert ((True, False), '{"a": [1]}') == (known, path.read_text(encoding="utf-8"))
        assert ("open" in shown, "over" in repr(tx), "1 keys" in repr(ctx)) == (True, True, True)
