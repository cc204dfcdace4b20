"""The queue of a file, from within: the order of calls, calls that only try, and leftovers."""

import asyncio
import errno
import json
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import filelock
import pytest

from persistent_context import (
    ContextUsageError,
    LockTimeoutError,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
)
from persistent_context._api.aio_calls import LoopCalls
from persistent_context._api.blocking_calls import BlockingCalls
from persistent_context._engine import registry as _registry
from persistent_context._engine.queue import CommitQueue
from persistent_context._engine.registry import queue_of
from persistent_context._engine.request import Request
from persistent_context._engine.turn import Turn
from persistent_context._model import values as _values
from persistent_context._model.operations import Operation
from persistent_context._stores.jsonfile.store import JsonFileStore


async def queued(path, number):
    """Wait until this many calls wait for a file."""
    while len(queue_of(str(path))._waiting) < number:
        await asyncio.sleep(0)


@pytest.fixture
def deleting(path):
    """Return a function for ``mutate`` whose first call deletes the lock file under its own cycle."""
    left = [1]

    def delete():
        if left:
            left.pop()
            os.unlink(f"{path}.lock")

    return delete


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


class TestALostCycle:
    async def test_its_calls_are_applied_again_in_their_order(self, path, deleting):
        """Calls whose cycle restarts under a new lock file are applied in the order in which they were queued."""
        contexts = [await PersistentContext.create(path) for _ in range(3)]

        def appending(number):
            def function(value):
                deleting()
                return [*value, number]

            return function

        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.mutate("log", appending(n), [])) for n, ctx in enumerate(contexts)]
            await queued(path, 3)
        await asyncio.wait_for(asyncio.gather(*calls), 10)

        assert [0, 1, 2] == (await PersistentContext.create(path))["log"]

    async def test_a_call_that_failed_in_it_is_over(self, path, deleting):
        """A call whose own function raised gets that error, even if the cycle restarts for the others."""
        ctx = await PersistentContext.create(path)

        def failing(value):
            deleting()
            raise ZeroDivisionError

        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.mutate("a", failing)), asyncio.create_task(ctx.incr("n"))]
            await queued(path, 2)
        failed, number = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)

        assert (ZeroDivisionError, 1) == (type(failed), number)


class TestACycleOfSeveral:
    @pytest.mark.parametrize("order", [(True, False), (False, True)])
    async def test_it_is_durable_if_one_of_them_is(self, path, order, monkeypatch):
        """A durable call is synced even if it shares its cycle with a call that is not durable."""
        syncs = []
        real = os.fsync
        contexts = [await PersistentContext.create(path, durable=durable) for durable in order]
        with filelock.FileLock(f"{path}.lock"):
            calls = [asyncio.create_task(ctx.incr("n")) for ctx in contexts]
            await queued(path, 2)
            monkeypatch.setattr(os, "fsync", lambda fd: (syncs.append(fd), real(fd)))
        await asyncio.gather(*calls)

        assert (1, True) == (contexts[0].statistics().commits, len(syncs) > 0)

    def test_an_error_that_names_a_file_keeps_its_name(self, path, monkeypatch):
        """A file name that the system gave in an error is kept; only an error without one gets the path."""
        ctx = SyncPersistentContext(path)
        names = ["/elsewhere", None]
        monkeypatch.setattr(JsonFileStore, "begin", lambda *_, **__: _raise(OSError(errno.EIO, "broken", names[0])))
        found = []
        for names[0] in list(names):
            with pytest.raises(OSError, match="broken") as caught:
                ctx.incr("n")
            found.append(caught.value.filename)

        assert ["/elsewhere", str(path)] == found


async def _awaited(awaitable):
    return await awaitable


async def _outcome(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return error


class _Gone:
    pass


def _raise(error):
    raise error


class TestCallsThatOnlyTry:
    def test_it_gets_its_try_though_others_had_to_wait(self, path):
        """After a cycle that had to wait, a call that only tries gets a free lock."""
        patient = SyncPersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            caller = threading.Thread(target=patient.incr, args=["n"])
            caller.start()
            while not queue_of(str(path)).store.is_waiting():
                time.sleep(0.001)
        caller.join()

        assert queue_of(str(path)).is_contended
        assert 2 == SyncPersistentContext(path, lock_timeout=0).incr("n")

    def test_it_is_tried_however_slow_the_thread_that_begins_the_cycle(self, path, monkeypatch):
        """A call that only tries is not refused because a thread on its way to the free lock is slow."""
        begins, go_on, begin = threading.Event(), threading.Event(), JsonFileStore.begin

        def slow(store, purpose, *, wait):
            if wait:
                begins.set()
                go_on.wait(60)
            return begin(store, purpose, wait=wait)

        monkeypatch.setattr(JsonFileStore, "begin", slow)
        ctx, queue = SyncPersistentContext(path, lock_timeout=0), queue_of(str(path))
        queue.is_contended = True  # so that a patient call does not try before it waits
        patient = threading.Thread(target=SyncPersistentContext(path).incr, args=["n"])
        patient.start()
        begins.wait(60)
        counts = []
        impatient = threading.Thread(target=lambda: counts.append(ctx.incr("n")))
        impatient.start()
        impatient.join(0.1)  # in which it would be refused
        go_on.set()
        patient.join()
        impatient.join()

        assert [2] == counts

    @pytest.mark.parametrize("face_name", ["async", "sync"])
    def test_it_leaves_no_waiting_thread(self, path, face_name):
        """A call that only tries leaves no thread waiting for the lock, and nothing in the queue."""
        with filelock.FileLock(f"{path}.lock"), pytest.raises(LockTimeoutError):
            if face_name == "async":
                asyncio.run(PersistentContext(path, lock_timeout=0).incr("n"))
            else:
                SyncPersistentContext(path, lock_timeout=0).incr("n")

        assert queue_of(str(path))._waiting_since is None


class TestWhatIsLeftBehind:
    async def test_a_withdrawn_call_is_not_kept(self, path):
        """A cancelled call leaves nothing in its context."""
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            call = asyncio.create_task(ctx.incr("n"))
            await queued(path, 1)
            call.cancel()
            await asyncio.wait([call])

            assert {} == ctx._home.calls._in_flight

    @pytest.mark.parametrize("face_name", ["async", "sync"])
    def test_calls_that_only_tried_are_not_kept(self, path, face_name):
        """While a thread waits for another process's lock, calls that only try leave nothing in the queue."""
        impatient = {"async": PersistentContext, "sync": SyncPersistentContext}[face_name](path, lock_timeout=0)
        patient = threading.Thread(target=SyncPersistentContext(path).incr, args=["n"])
        with filelock.FileLock(f"{path}.lock"):
            patient.start()
            while queue_of(str(path))._waiting_since is None:
                time.sleep(0.001)
            for _ in range(5):
                with pytest.raises(LockTimeoutError):
                    if face_name == "async":
                        asyncio.run(_awaited(impatient.incr("n")))
                    else:
                        impatient.incr("n")
            left = len(queue_of(str(path))._waiting)
        patient.join()

        assert 1 == left

    @pytest.mark.parametrize("face_name", ["async", "sync"])
    def test_a_refused_call_is_not_kept(self, path, face_name, monkeypatch):
        """A call that fails before it is queued leaves nothing in its context."""
        ctx = {"async": PersistentContext, "sync": SyncPersistentContext}[face_name](path)
        ctx["n"] = 1

        async def elsewhere():
            await ctx.load()
            ctx["n"] = 1
            refused = await asyncio.to_thread(asyncio.run, _outcome(ctx.save()))
            return type(refused)

        if face_name == "async":
            assert ContextUsageError is asyncio.run(elsewhere())
        else:
            monkeypatch.setattr(ctx._link, "find", lambda: _raise(OSError(errno.EMFILE, "too many open files")))
            with pytest.raises(OSError, match="too many"):
                ctx.save()

        assert [] == ctx._memory._flights.calls()

    def test_an_error_while_waiting_is_over_with_its_cycle(self, path, monkeypatch):
        """A thread whose wait failed does not count as waiting: the next call gets its try."""
        begin = JsonFileStore.begin
        failing = [True]

        def failing_once(store, purpose, *, wait):
            if wait and failing.pop():
                raise OSError(errno.ENOLCK, "no locks available")
            return begin(store, purpose, wait=wait)

        monkeypatch.setattr(JsonFileStore, "begin", failing_once)
        with filelock.FileLock(f"{path}.lock"), pytest.raises(OSError, match="no locks"):
            SyncPersistentContext(path).incr("n")

        assert queue_of(str(path))._waiting_since is None

    async def test_a_call_is_completed_once(self, path):
        """A call that ends in the same turn in which it is cancelled is not completed twice."""
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            call = asyncio.create_task(ctx.incr("n"))
            await queued(path, 1)
            (request,) = ctx._home.calls._in_flight
            call.cancel()
            ctx._home.calls._tell(request)
            await asyncio.wait([call])

        assert call.cancelled()

    def test_a_transaction_that_cannot_be_opened_is_given_back(self, path, monkeypatch):
        """When memory runs out for a granted turn, the turn is ended, and the file is free."""
        ctx = SyncPersistentContext(path, lock_timeout=20)
        monkeypatch.setattr(ctx, "_workspace", lambda snapshot: _raise(MemoryError()))
        with pytest.raises(MemoryError):
            ctx.transaction().__enter__()

        assert 1 == SyncPersistentContext(path, lock_timeout=20).incr("n")

    async def test_an_exception_in_a_parents_transaction_is_the_childs(self, path, monkeypatch):
        """In a forked child, an exception propagates and leaves the parent's transaction open."""
        ctx = PersistentContext(path)
        manager = ctx.transaction()
        async with manager:
            with monkeypatch.context() as child:
                child.setattr(Turn, "is_inherited", True)
                assert not await manager.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
            assert (await ctx.lock_holder()).pid == os.getpid()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on a POSIX system")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_forked_child_has_threads_and_a_queue_of_its_own(self, path):
        """A child uses neither its parent's idle threads nor its parent's queue, even if the queue was busy."""
        ctx = SyncPersistentContext(path, lock_timeout=0.9)
        with ctx.transaction() as tx:
            tx["n"] = 1
        queue_of(str(path))._busy.acquire()
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(SyncPersistentContext(path, lock_timeout=0.9).incr("n") - 2)
        queue_of(str(path))._busy.release()

        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on a POSIX system")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_forked_child_has_statistics_of_its_own(self, path):
        """A child does not inherit its parent's statistics, even in a context from before the fork."""
        ctx = SyncPersistentContext(path)
        ctx.incr("n")
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(ctx.statistics().commits)

        assert (0, 1) == (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ctx.statistics().commits)


class TestATurnedLink:
    async def test_a_call_that_waits_is_not_left_behind(self, tmp_path, monkeypatch):
        """A save that waits when load() finds the symlink turned goes through promptly, to the new file."""
        link = tmp_path / "link.json"
        for name in ("a", "b"):
            (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
        link.symlink_to("a.json")
        ctx = await PersistentContext.create(link, lock_timeout=20)
        await ctx.incr("n")
        await ctx._home.calls._driver  # which would otherwise run the next call in the old file's queue
        link.unlink()
        link.symlink_to("b.json")
        ctx["m"] = 1
        load, run, submit = ctx._sync_load_internal, ctx._sync_save_internal, ctx._link.here().submit
        queued, runs = threading.Event(), []

        def load_once_the_save_waits():
            queued.wait(10)
            return load()

        monkeypatch.setattr(ctx._link.here(), "submit", lambda request: (submit(request), queued.set()))
        monkeypatch.setattr(ctx, "_sync_load_internal", load_once_the_save_waits)
        monkeypatch.setattr(ctx, "_sync_save_internal", lambda: (runs.append(True), run()))
        await asyncio.wait_for(asyncio.gather(ctx.load(), ctx.save()), 15)
        await asyncio.wait_for(ctx.incr("n"), 15)

        assert len(runs) <= 2
        assert [{"n": 1}, {"n": 1, "m": 1}] == [
            json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("a", "b")
        ]

    def test_calls_by_a_name_that_was_turned_elsewhere_are_sent_on_and_others_are_not(self, tmp_path):
        """When a symlink is turned while calls wait, only the calls made through it move to the new file."""
        first, second, link = (tmp_path / name for name in ("first.json", "second.json", "link.json"))
        for path in (first, second):
            path.write_text("{}", encoding="utf-8")
        link.symlink_to(first)
        by_link, by_name = SyncPersistentContext(link), SyncPersistentContext(first)
        with filelock.FileLock(f"{first}.lock"):
            callers = [threading.Thread(target=ctx.incr, args=["n"]) for ctx in (by_link, by_name)]
            for caller in callers:
                caller.start()
            while len(by_name._link.find()._waiting) < len(callers):
                time.sleep(0.001)
            link.unlink()
            link.symlink_to(second)
        for caller in callers:
            caller.join(60)

        assert ({"n": 1}, {"n": 1}) == (json.loads(first.read_text()), json.loads(second.read_text()))


class TestWhoIsInside:
    def test_a_thread_that_entered_in_another_request_is_not(self, path):
        """A thread that entered a transaction in one request waits for its end in another request."""
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            manager = SyncPersistentContext(path).transaction()
            first.submit(copy_context().run, manager.__enter__).result(10)
            call = first.submit(copy_context().run, SyncPersistentContext(path, lock_timeout=20).incr, "n")
            while not queue_of(str(path))._waiting and not call.done():
                time.sleep(0.001)
            second.submit(manager.__exit__, None, None, None).result(10)

            assert 1 == call.result(10)


class TestAnInterrupt:
    def test_it_is_raised_when_the_transaction_has_ended(self, path, monkeypatch):
        """Ctrl-C while a transaction is being committed is raised after the file has been written."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled in the main thread, and this is another thread")
        handled = threading.Event()

        def handle(number, frame):
            handled.set()
            raise KeyboardInterrupt

        real = os.fsync

        def interrupting(fd):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            handled.wait(20)
            time.sleep(0.2)  # during which a build that does not wait would go on
            real(fd)

        before = signal.signal(signal.SIGINT, handle)
        try:
            with pytest.raises(KeyboardInterrupt), SyncPersistentContext(path).transaction() as tx:
                tx["n"] = 1
                monkeypatch.setattr(os, "fsync", interrupting)
            found = path.read_text(encoding="utf-8")
        finally:
            signal.signal(signal.SIGINT, before)

        assert '{\n"n": 1\n}\n' == found

    def test_one_more_while_it_waits_is_raised_at_the_end(self, path):
        """An exception during the wait for a call is raised when the call's outcome has arrived."""
        ctx = SyncPersistentContext(path)
        request = ctx._calls._request(Operation("save"), Request, patient=True)

        class Struck:
            def acquire(self, timeout):
                request.arrived = True
                raise KeyboardInterrupt

        request.waiter = Struck()
        with pytest.raises(KeyboardInterrupt):
            ctx._calls._wait_out(request)

    def test_a_call_behind_the_transaction_that_its_thread_waits_for_is_refused(self, path, monkeypatch):
        """A handler that makes a call while its thread waits for a transaction gets an error at once."""
        ctx, other = SyncPersistentContext(path, lock_timeout=20), SyncPersistentContext(path)
        wait = BlockingCalls._wait

        def interrupted(self, queue, request, deadline):
            monkeypatch.undo()
            with pytest.raises(ReentrantTransactionError, match="interrupts a thread"):
                other.incr("n")
            held.release()
            wait(self, queue, request, deadline)

        monkeypatch.setattr(BlockingCalls, "_wait", interrupted)
        held = filelock.FileLock(f"{path}.lock")
        held.acquire()
        with ctx.transaction() as tx:
            tx["n"] = 7

        assert 8 == other.incr("n")

    def test_what_is_raised_while_a_sound_value_is_encoded_goes_on(self, path, monkeypatch):
        """A signal handler's exception during encoding is raised unchanged, not as an error of the value."""

        def interrupted(value):
            monkeypatch.undo()
            raise InterruptedError

        monkeypatch.setattr(_values, "_written", interrupted)
        ctx = SyncPersistentContext(path)
        ctx["a"] = [1]
        with pytest.raises(InterruptedError):
            ctx.save()


class TestOneThreadAtATime:
    async def test_a_transaction_that_only_tries_gets_its_turn_behind_a_call(self, path):
        """A transaction that only tries, behind another call, is tried in the cycle after that call's."""
        ctx = PersistentContext(path)
        await ctx.load()

        async def enter():
            async with ctx.transaction(timeout=0) as tx:
                return dict(tx)

        assert [1, {"n": 1}] == await asyncio.gather(ctx.incr("n"), enter())

    def test_a_wait_that_another_thread_has_taken_over_goes_on(self, path, monkeypatch):
        """A thread whose wait was abandoned does not mark the queue as no longer waiting: the other thread does."""
        queue = queue_of(str(path))
        monkeypatch.setattr(JsonFileStore, "begin", lambda *_, **__: None)

        assert queue._begin("test", wait=True, exclusive=True) is None
        assert queue._waiting_since is not None

    def test_a_wait_for_the_current_file_is_left_alone(self, path):
        """A wait is abandoned only if its lock file is gone."""
        queue = queue_of(str(path))
        queue._abandon_wait()

        assert not queue._busy.locked()

    def test_a_wait_for_a_deleted_file_is_taken_over(self, path):
        """A thread that notices that the lock file is gone waits for its successor, and runs all calls."""
        ctx, queue, lock = SyncPersistentContext(path), queue_of(str(path)), Path(f"{path}.lock")
        ctx.incr("n")
        with filelock.FileLock(lock):
            caller = threading.Thread(target=ctx.incr, args=["n"])
            caller.start()
            while queue._waiting_since is None:
                time.sleep(0.001)
            lock.unlink()
            while caller.is_alive():
                queue._abandon_wait()
                time.sleep(0.001)

        assert {"n": 2} == json.loads(path.read_text(encoding="utf-8"))

    def test_a_call_that_is_delivered_twice_is_completed_once(self, path):
        """A cycle that fails after completing a call does not complete it again."""
        ctx = SyncPersistentContext(path)
        request = ctx._calls._request(Operation("save"), Request, patient=True)
        ctx._calls._deliver([request])
        ctx._calls._deliver([request])

        assert (True, False) == (request.waiter.acquire(blocking=False), request.waiter.acquire(blocking=False))

    def test_a_forked_child_ignores_a_queue_that_is_gone(self, path, monkeypatch):
        """A queue that was garbage-collected just before the fork is ignored in the child."""
        queues = {str(path): weakref.ref(_Gone())}
        monkeypatch.setattr(_registry, "_queues", queues)
        _registry._after_fork_in_child()

        assert {} == queues

    def test_a_queue_that_is_gone_is_created_again(self, path):
        """If the queue of a file has just been garbage-collected, perhaps in another thread, a new one is created."""
        known = weakref.ref(_Gone())
        _registry._queues[str(path)] = known
        queue = queue_of(str(path))
        _registry._forget(str(path), known)

        assert queue_of(str(path)) is queue

    def test_a_queue_that_another_thread_has_just_made_is_taken(self, path, monkeypatch):
        """When two threads create the queue of a file at the same time, both use the first one."""
        first = []
        real = CommitQueue.__init__

        def overtaken(self, *arguments):
            real(self, *arguments)
            if not first:
                first.append(self)
                first.append(queue_of(str(path)))

        monkeypatch.setattr(CommitQueue, "__init__", overtaken)

        assert queue_of(str(path)) is first[1]

    def test_only_one_waits_for_the_lock(self, path, monkeypatch):
        """However many threads call, only one of them is in the kernel's queue, and it runs the calls of all."""
        inside, most = [], []
        real = JsonFileStore.begin

        def begin(store, purpose, *, wait):
            inside.append(None)
            most.append(len(inside))
            try:
                return real(store, purpose, wait=wait)
            finally:
                inside.pop()

        monkeypatch.setattr(JsonFileStore, "begin", begin)
        callers = [threading.Thread(target=SyncPersistentContext(path).incr, args=["n"]) for _ in range(5)]
        with filelock.FileLock(f"{path}.lock"):
            for caller in callers:
                caller.start()
            while len(queue_of(str(path))._waiting) < len(callers):
                time.sleep(0.001)
        for caller in callers:
            caller.join()

        assert 1 == max(most)


class TestOneCycleAtATime:
    async def test_calls_of_both_faces_never_run_at_the_same_time(self, path):
        """While a call of one thread changes the file, a call of another thread of the same process waits."""
        begun, second_ran = threading.Event(), threading.Event()

        def first(value):
            begun.set()
            return [*value, "first", second_ran.wait(0.3)]

        def second(value):
            second_ran.set()
            return [*value, "second"]

        ctx, other = PersistentContext(path), SyncPersistentContext(path)
        calling = asyncio.create_task(ctx.mutate("log", first, default=[]))
        await asyncio.to_thread(begun.wait)
        last = await asyncio.to_thread(other.mutate, "log", second, [])
        await calling

        assert ["first", False, "second"] == last == stored(path)["log"]


class TestDelivery:
    async def test_memory_gets_changes_in_the_order_in_which_they_were_made(self, path, monkeypatch):
        """A result that arrives late does not replace that of a later call."""
        arriving, overtaken = threading.Event(), threading.Event()

        deliver = LoopCalls._deliver

        def slow_once(calls, requests):
            if not arriving.is_set():
                arriving.set()
                overtaken.wait(60)
            deliver(calls, requests)

        monkeypatch.setattr(LoopCalls, "_deliver", slow_once)
        ctx = PersistentContext(path)
        first = asyncio.create_task(ctx.incr("n"))
        await asyncio.to_thread(arriving.wait)
        second = asyncio.create_task(ctx.incr("n"))
        await asyncio.sleep(0)
        third = asyncio.create_task(asyncio.to_thread(SyncPersistentContext(path).incr, "n"))
        early, _ = await asyncio.wait([second, third], timeout=0.5)
        overtaken.set()

        assert (set(), [1, 2, 3]) == (early, await asyncio.gather(first, second, third))
        assert ({"n": 3}, 3) == (stored(path), ctx["n"])
