"""compute_once on both faces: one computation for all callers, stored as a plain value."""

import asyncio
import inspect
import json
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest

from persistent_context import (
    MISSING,
    CorruptFileError,
    PersistentContext,
    ReentrantTransactionError,
    StoreUnavailableError,
    SyncPersistentContext,
    UnserializableValueError,
)
from persistent_context._api.once import Wanted


class Factory:
    """Counts its calls; each call returns another number."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"number": self.calls}


class AsyncFactory(Factory):
    """The same, ``async``."""

    async def __call__(self):
        await asyncio.sleep(0)
        return super().__call__()


@pytest.fixture(params=[Factory, AsyncFactory])
def factory(request):
    return request.param()


def stored(path):
    return json.loads(path.read_text(encoding="utf-8"))


async def cancel_once_it_runs(call, started):
    """Cancel a call whose factory is at work in a thread."""
    task = asyncio.ensure_future(call)
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class TestBothFaces:
    def test_it_is_computed_once(self, face, path, factory):
        """Every call returns the value of the first one, through any context, and the file has it as a plain value."""
        contexts = [face.open(path) for _ in range(3)]
        values = [face.do(ctx.compute_once, "key", factory) for ctx in (*contexts, contexts[0])]

        assert ([{"number": 1}] * 4, 1) == (values, factory.calls)
        assert [{"number": 1}] * 3 == [ctx.get("key") for ctx in contexts]
        assert ({"key": {"number": 1}}, ["state.json", "state.json.lock"]) == (
            stored(path),
            sorted(os.listdir(path.parent)),
        )

    def test_values_are_copies(self, face, path):
        """Changing a returned value affects neither memory nor the next result."""
        ctx = face.open(path)
        for _ in range(3):
            face.do(ctx.compute_once, "key", lambda: [1]).append(2)

            assert ([1], set()) == (ctx.get("key"), ctx.unsaved_keys())

    def test_a_value_that_is_there_is_not_computed(self, face, path, factory):
        """A key that is set already, saved or not, is not computed; an unsaved value is saved."""
        face.do(face.open(path).add, "saved", None)
        ctx = face.open(path)
        ctx.set("unsaved", 2)

        assert [None, 2] == [face.do(ctx.compute_once, key, factory) for key in ("saved", "unsaved")]
        assert (0, {"saved": None, "unsaved": 2}, set()) == (factory.calls, stored(path), ctx.unsaved_keys())

    def test_a_deleted_value_is_computed_again(self, face, path, factory):
        """A value deleted from the file is computed again, even if memory still has it."""
        ctx, other = face.open(path), face.open(path)
        face.do(ctx.compute_once, "key", factory)
        face.do(other.compare_and_set, "key", {"number": 1}, MISSING)

        assert {"number": 2} == face.do(ctx.compute_once, "key", factory)

    def test_a_corrupt_file_is_moved_aside(self, face, path, factory):
        """A corrupt file has no value, so the value is computed."""
        ctx = face.open(path)
        path.write_text("{", encoding="utf-8")

        assert ({"number": 1}, {"key": {"number": 1}}) == (face.do(ctx.compute_once, "key", factory), stored(path))

    def test_a_factory_that_raises(self, face, path, factory):
        """The factory's error reaches the caller unchanged; nothing is stored, and the next call tries again."""
        ctx = face.open(path)
        error = ValueError("not yet")

        def fail():
            raise error

        with pytest.raises(ValueError, match="not yet") as caught:
            face.do(ctx.compute_once, "key", fail)

        assert (error, False) == (caught.value, path.exists())
        assert {"number": 1} == face.do(ctx.compute_once, "key", factory)

    def test_a_value_that_json_cannot_hold(self, face, path, factory):
        """The error names the key, the place, and the type returned by the factory; the next call computes."""
        ctx = face.open(path)
        with pytest.raises(UnserializableValueError) as caught:
            face.do(ctx.compute_once, "the key", lambda: {"when": {1}})
        error = caught.value

        assert ('["the key"]["when"]', str(path)) == (error.place, error.filepath)
        assert (
            "is a set, which JSON cannot hold; use a list; the factory of 'the key' returned {'when': {1}}"
            == error.reason
        )
        with pytest.raises(ValueError, match="JSON cannot hold; use None; the factory of 'n' returned nan"):
            face.do(ctx.compute_once, "n", lambda: float("nan"))
        assert {"number": 1} == face.do(ctx.compute_once, "the key", factory)

    def test_an_unsaved_value_that_json_cannot_hold(self, face, path, factory):
        """The error names the file, as that of every other call does."""
        ctx = face.open(path)
        ctx["key"] = {1}
        with pytest.raises(UnserializableValueError) as caught:
            face.do(ctx.compute_once, "key", factory)

        assert (str(path), 0) == (caught.value.filepath, factory.calls)

    def test_a_store_that_cannot_be_reached(self, face, factory):
        """It is waited for, as in any other call; the error is that of the other calls."""
        ctx = face.cls("etcd://127.0.0.1:1/nowhere", lock_timeout=0.2)
        with pytest.raises(StoreUnavailableError, match="127.0.0.1:1: Connection refused"):
            face.do(ctx.compute_once, "key", factory)

        assert 0 == factory.calls

    def test_a_key_that_is_not_a_string(self, face, path, factory):
        """A key that is not a string is refused before anything is computed."""
        with pytest.raises(UnserializableValueError, match=rf"{path}.*a key must be a str, not int"):
            face.do(face.open(path).compute_once, 7, factory)
        with pytest.raises(UnserializableValueError, match=rf"{path}.*tuple"):
            face.do(face.open(path).compute_once, "key", factory, version=(1, 2))

        assert 0 == factory.calls

    def test_the_lock_is_free_meanwhile(self, face, path):
        """The factory may use the file, even in transactions, and so may all others."""
        ctx = face.open(path)

        def factory():
            other = SyncPersistentContext(path, lock_timeout=5)
            with other.transaction() as tx:
                tx["in"] = True
            return other.incr("n")

        assert 1 == face.do(ctx.compute_once, "key", factory)
        assert {"in": True, "n": 1, "key": 1} == stored(path)

    def test_a_factory_may_ask_for_other_keys(self, face, path):
        """Computations may be nested."""

        def outer():
            return SyncPersistentContext(path).compute_once("inner", lambda: 1) + 1

        assert 2 == face.do(face.open(path).compute_once, "outer", outer)

    def test_a_factory_that_asks_for_its_own_key(self, face, path):
        """The call is refused instead of waiting for itself, even from another thread, context or face."""
        ctx = face.open(path)

        def sync_own():
            return SyncPersistentContext(path).compute_once("key", int)

        async def async_own():
            return await asyncio.create_task((await PersistentContext.create(path)).compute_once("key", int))

        for own in (sync_own, async_own):
            with pytest.raises(ReentrantTransactionError, match="factory of 'key' asks for 'key'"):
                face.do(ctx.compute_once, "key", own)
        assert 0 == face.do(ctx.compute_once, "key", int)

    def test_inside_a_transaction_it_is_refused(self, face, path, factory):
        """Inside a transaction the value could not be stored, so the factory does not even run."""
        ctx = face.open(path)

        async def in_a_task():
            async with ctx.transaction():
                await ctx.compute_once("key", factory)

        def in_a_thread():
            with ctx.transaction():
                ctx.compute_once("key", factory)

        with pytest.raises(ReentrantTransactionError):
            face.do(in_a_task if face.name == "async" else in_a_thread)

        assert 0 == factory.calls


class TestExpiry:
    def age(self, path, seconds):
        """Make the value of "key" older, as if its record had been written earlier."""
        data = stored(path)
        moment = datetime.fromisoformat(data["key:computed"]["at"]) - timedelta(seconds=seconds)
        data["key:computed"]["at"] = moment.isoformat()
        path.write_text(json.dumps(data), encoding="utf-8")

    def test_nothing_expires_unless_asked(self, face, path, factory):
        """Without an age limit, a value of any age is returned."""
        ctx = face.open(path)
        face.do(ctx.compute_once, "key", factory, expires=1)
        self.age(path, 10**9)

        assert {"number": 1} == face.do(ctx.compute_once, "key", factory)

    def test_it_expires_when_it_is_too_old_for_the_caller(self, face, path, factory):
        """Each caller says how old a value may be; the time is recorded beside the value, which stays plain."""
        ctx, before = face.open(path), datetime.now(UTC)
        face.do(ctx.compute_once, "key", factory, expires=100)
        record = stored(path)["key:computed"]
        self.age(path, 50)
        values = [face.do(ctx.compute_once, "key", factory, expires=seconds) for seconds in (60, 40, 40)]

        assert [{"number": number} for number in (1, 2, 2)] == values
        assert (["at"], True) == (list(record), before <= datetime.fromisoformat(record["at"]) <= datetime.now(UTC))
        assert {"number": 2} == stored(path)["key"]

    @pytest.mark.parametrize("record", [None, [], {}, {"at": None}, {"at": "soon"}, {"at": 5}, "future"])
    def test_a_record_that_says_nothing(self, face, path, factory, record):
        """A value of unknown age, or from the future, is computed again if the caller limits the age."""
        future = {"at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        content = {"key": 0} if record is None else {"key": 0, "key:computed": future if record == "future" else record}
        path.write_text(json.dumps(content), encoding="utf-8")
        ctx = face.open(path)

        assert 0 == face.do(ctx.compute_once, "key", factory)
        assert [{"number": 1}] * 2 == [face.do(ctx.compute_once, "key", factory, expires=60) for _ in range(2)]

    def test_a_value_without_record_has_none_left_of_an_older_one(self, face, path, factory):
        """A new value stored without an age does not keep the record of the old one."""
        ctx = face.open(path)
        face.do(ctx.compute_once, "key", factory, expires=60, version=1)
        face.do(ctx.compare_and_set, "key", {"number": 1}, MISSING)
        face.do(ctx.compute_once, "key", factory)

        assert {"key": {"number": 2}} == stored(path)

    def test_another_version_is_computed_again(self, face, path, factory):
        """Versions are compared as JSON; a caller without a version accepts any."""
        ctx = face.open(path)
        versions = [[1, {"a": 2, "b": 3}], [1, {"b": 3, "a": 2}], None, [1], [1.0], [1.0]]
        values = [face.do(ctx.compute_once, "key", factory, version=version) for version in versions]

        assert [1, 1, 1, 2, 3, 3] == [value["number"] for value in values]
        assert [1.0] == stored(path)["key:computed"]["version"]

    @pytest.mark.parametrize(
        ("expires", "error"), [("1", TypeError), (True, TypeError), (0, ValueError), (float("nan"), ValueError)]
    )
    def test_impossible_arguments(self, face, path, factory, expires, error):
        """Invalid arguments are refused before anything is computed."""
        with pytest.raises(error, match="expires must be"):
            face.do(face.open(path).compute_once, "key", factory, expires=expires)
        with pytest.raises(UnserializableValueError, match="version"):
            face.do(face.open(path).compute_once, "key", factory, version={1})

        assert 0 == factory.calls


class TestTasks:
    async def test_tasks_share_one_computation(self, path, factory):
        """However many tasks and contexts ask, one of them computes."""
        contexts = [await PersistentContext.create(path) for _ in range(3)]
        values = await asyncio.gather(*(contexts[number % 3].compute_once("key", factory) for number in range(30)))

        assert ([{"number": 1}] * 30, 1) == (values, factory.calls)

    async def test_a_factory_that_blocks_does_not_block_the_loop(self, path):
        """A factory that is not ``async`` runs in another thread, with the context variables of the call."""
        ctx, ticked = await PersistentContext.create(path), threading.Event()
        asyncio.get_running_loop().call_later(0.05, ticked.set)

        assert await ctx.compute_once("key", lambda: ticked.wait(60))

    async def test_keys_are_computed_side_by_side(self, path):
        """One computation does not delay another."""
        ctx, met = await PersistentContext.create(path), asyncio.Barrier(3)

        async def factory():
            await met.wait()
            return 1

        assert [1, 1, 1] == await asyncio.gather(*(ctx.compute_once(key, factory) for key in "abc"))

    async def test_the_computing_call_is_cancelled(self, path, factory):
        """The factory is cancelled, and a waiting call takes over."""
        ctx, started = await PersistentContext.create(path), asyncio.Event()

        async def slow():
            started.set()
            await asyncio.sleep(3600)

        computing = asyncio.create_task(ctx.compute_once("key", slow))
        await started.wait()
        waiting = asyncio.create_task(ctx.compute_once("key", factory))
        await asyncio.sleep(0.05)
        computing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await computing

        assert {"number": 1} == await waiting

    async def test_a_waiting_call_is_cancelled(self, path, factory):
        """The call ends at once, and its factory never runs."""
        ctx, started, go_on = await PersistentContext.create(path), asyncio.Event(), asyncio.Event()

        async def slow():
            started.set()
            await go_on.wait()
            return 1

        computing = asyncio.create_task(ctx.compute_once("key", slow))
        await started.wait()
        waiting = asyncio.create_task(ctx.compute_once("key", factory))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert not computing.done()
        go_on.set()
        assert (1, 0) == (await computing, factory.calls)

    async def test_a_thread_outlives_the_cancelled_call(self, path, factory):
        """A thread cannot be cancelled: the call ends at once, and others compute when the factory has ended."""
        ctx, started, go_on, ended = await PersistentContext.create(path), *(threading.Event() for _ in range(3))

        def slow():
            started.set()
            go_on.wait(60)
            ended.set()
            return "dropped"

        def next_one():
            return ended.is_set() and factory.calls == 0

        computing = asyncio.create_task(ctx.compute_once("key", slow))
        await asyncio.to_thread(started.wait)
        waiting = asyncio.create_task(ctx.compute_once("key", next_one))
        await asyncio.sleep(0.05)
        computing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await computing
        await asyncio.sleep(0.1)

        assert not waiting.done()
        go_on.set()
        assert await waiting is True

    async def test_a_cancelled_call_may_be_repeated(self, path):
        """In the same task, too: the repeated call waits until the thread of the first one has ended."""
        ctx, started, go_on = await PersistentContext.create(path), threading.Event(), threading.Event()
        runs = []

        def slow():
            runs.append(None)
            started.set()
            return go_on.wait(60) and len(runs)

        await cancel_once_it_runs(ctx.compute_once("key", slow), started)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ctx.compute_once("key", slow)
        asyncio.get_running_loop().call_later(0.1, go_on.set)

        assert 2 == await ctx.compute_once("key", slow)

    async def test_a_thread_that_was_left_behind_may_not_ask_for_its_own_key(self, path):
        """The thread of a cancelled call still has the key: it would wait for itself."""
        ctx, started, go_on = await PersistentContext.create(path), threading.Event(), threading.Event()
        raised = asyncio.get_running_loop().create_future()

        def asks():
            started.set()
            go_on.wait(60)
            try:
                SyncPersistentContext(path).compute_once("key", int)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                raised.get_loop().call_soon_threadsafe(raised.set_result, error)

        await cancel_once_it_runs(ctx.compute_once("key", asks), started)
        go_on.set()

        assert isinstance(await raised, ReentrantTransactionError)
        assert 0 == await ctx.compute_once("key", int)

    async def test_what_a_factory_started_may_ask_for_the_value(self, path):
        """A server or a task that the factory started asks for the value, once it has been computed."""
        ctx, go_on = await PersistentContext.create(path), asyncio.Event()
        tasks = []

        async def ask():
            await go_on.wait()
            return await ctx.compute_once("key", dict)

        async def factory():
            tasks.append(asyncio.create_task(ask()))
            return "computed"

        assert "computed" == await ctx.compute_once("key", factory)
        go_on.set()
        assert ["computed"] == await asyncio.gather(*tasks)

    async def test_a_factory_that_raises_stop_iteration(self, path):
        """StopIteration, which a future cannot hold, becomes a RuntimeError, as in a coroutine, and the call ends."""

        def factory():
            return next(iter(()))

        with pytest.raises(RuntimeError, match="the factory raised StopIteration"):
            await (await PersistentContext.create(path)).compute_once("key", factory)

    async def test_a_factory_that_returns_an_awaitable(self, path):
        """If any callable returns an awaitable, it is awaited in the event loop."""

        async def value():
            return asyncio.get_running_loop() is loop

        loop = asyncio.get_running_loop()

        assert await (await PersistentContext.create(path)).compute_once("key", lambda: value()) is True

    async def test_an_awaitable_that_a_cancelled_call_leaves(self, path, recwarn):
        """Nobody awaits it, so it is closed, whether the thread or the call ends first."""
        ctx, begun, go_on, made = await PersistentContext.create(path), threading.Event(), threading.Event(), []

        async def value():
            """Return nothing: it is never awaited."""

        def factory():
            begun.set()
            go_on.wait(60)
            made.append(value())
            return made[0]

        computing = asyncio.create_task(ctx.compute_once("key", factory))
        await asyncio.to_thread(begun.wait)
        computing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await computing
        go_on.set()

        assert 5 == await ctx.compute_once("key", lambda: 5)
        assert (inspect.CORO_CLOSED, []) == (inspect.getcoroutinestate(made[0]), list(recwarn))

    async def test_the_first_value_stored_is_everybody_s(self, path):
        """A value that another caller sets while the factory runs is kept: all callers get the same one."""
        ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)

        async def factory():
            await other.add("key", "theirs")
            return "mine"

        assert ("theirs", {"key": "theirs"}) == (await ctx.compute_once("key", factory), stored(path))


class TestTeardown:
    def test_a_value_is_torn_down_if_what_is_stored_cannot_be_read(self, path):
        """The error is that of storing it, not that of looking whether it is stored."""
        ctx, torn_down = SyncPersistentContext(path, on_corrupt="raise"), []

        def factory():
            path.write_text("{", encoding="utf-8")
            return "server"

        wanted = Wanted.of(str(path), "key", factory, None, None)
        with pytest.raises(CorruptFileError):
            ctx._once().value(wanted, factory, torn_down.append)

        assert ["server"] == torn_down


class TestThreads:
    def test_threads_share_one_computation(self, path, factory):
        """Threads of one context wait for the one that computes."""
        ctx, values = SyncPersistentContext(path), []
        threads = [threading.Thread(target=lambda: values.append(ctx.compute_once("key", factory))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ([{"number": 1}] * 8, 1) == (values, factory.calls)


class TestTheFactory:
    @pytest.mark.parametrize("is_there", [False, True])
    @pytest.mark.parametrize("factory", [5, None], ids=repr)
    def test_one_that_is_not_a_function_is_refused(self, face, path, factory, is_there):
        """At once, whether or not the value has to be computed."""
        ctx = face.open(path)
        if is_there:
            face.do(ctx.add, "k", 1)
        with pytest.raises(
            TypeError, match=r"the factory of 'k' must be a function, not .*: pass fetch, not fetch\(\)"
        ):
            face.do(ctx.compute_once, "k", factory)

    def test_a_coroutine_is_refused_and_closed(self, face, path):
        """The call was meant to be the function."""

        async def fetch():
            return 1

        with pytest.raises(TypeError, match="not coroutine"):
            face.do(face.open(path).compute_once, "k", fetch())
