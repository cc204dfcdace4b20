"""Group commit: calls that wait together share one write, each gets its own result or error, and none is lost."""

import asyncio
import concurrent.futures
import json
import threading

import filelock

from persistent_context import PersistentContext, SyncPersistentContext, UnserializableValueError


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def identity(path):
    """Return what distinguishes one write of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


async def turns(count=50):
    """Let every other task run until it waits for something external."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestManyAtOnce:
    async def test_no_task_loses_a_count(self, path):
        """200 increments by many tasks and several contexts all count, and each returned number is unique."""
        contexts = [await PersistentContext.create(path) for _ in range(4)]
        numbers = await asyncio.gather(*(contexts[number % 4].incr("n") for number in range(200)))

        assert (list(range(1, 201)), {"n": 200}) == (sorted(numbers), stored(path))

    async def test_tasks_that_call_in_turn_lose_no_count(self, path):
        """All increments count when each task makes them one after the other."""
        contexts = [await PersistentContext.create(path) for _ in range(4)]

        async def count(number):
            return [await contexts[number % 4].incr("n") for _ in range(10)]

        parts = await asyncio.gather(*(count(number) for number in range(20)))

        assert (list(range(1, 201)), True) == (
            sorted(number for part in parts for number in part),
            all(part == sorted(part) for part in parts),
        )

    async def test_memory_of_every_context_is_up_to_date_with_its_results(self, path):
        """After all calls, each context's memory has at least the highest number that it got as a result."""
        contexts = [await PersistentContext.create(path) for _ in range(4)]
        calls = [asyncio.create_task(contexts[number % 4].incr("n")) for number in range(200)]
        numbers = await asyncio.gather(*calls)

        assert [True] * 4 == [ctx["n"] >= max(numbers[start::4]) for start, ctx in enumerate(contexts)]

    async def test_appending_loses_nothing(self, path):
        """Items that many tasks append by mutate are all there, each once."""
        contexts = [await PersistentContext.create(path) for _ in range(4)]
        await asyncio.gather(
            *(contexts[number % 4].mutate("log", lambda log, n=number: [*log, n], default=[]) for number in range(200)),
        )

        assert list(range(200)) == sorted(stored(path)["log"])

    async def test_operations_of_one_context_keep_their_order(self, path):
        """Calls of one task are applied in their order."""
        ctx = await PersistentContext.create(path)
        calls = [
            asyncio.create_task(ctx.mutate("log", lambda log, n=number: [*log, n], default=[])) for number in range(100)
        ]
        await asyncio.gather(*calls)

        assert list(range(100)) == stored(path)["log"]

    async def test_saves_and_operations_mixed(self, path):
        """Concurrent saves and operations of many contexts lose nothing."""
        contexts = [await PersistentContext.create(path) for _ in range(4)]

        async def work(number):
            ctx = contexts[number % 4]
            ctx.set(f"key-{number}", number)
            await asyncio.gather(ctx.save(), ctx.incr("n"), ctx.mutate("log", lambda log: [*log, number], default=[]))

        await asyncio.gather(*(work(number) for number in range(60)))
        data = stored(path)

        assert (60, list(range(60)), list(range(60))) == (
            data.pop("n"),
            sorted(data.pop("log")),
            sorted(data[f"key-{number}"] for number in range(60)),
        )

    def test_threads_with_a_context_each(self, path):
        """Threads with a context each lose no count."""

        def count(_):
            ctx = SyncPersistentContext.create(path)
            return [ctx.incr("n") for _ in range(25)]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            numbers = [number for part in pool.map(count, range(8)) for number in part]

        assert (list(range(1, 201)), {"n": 200}) == (sorted(numbers), stored(path))

    def test_threads_that_share_a_context(self, path):
        """Threads that share one context lose no count."""
        ctx = SyncPersistentContext.create(path)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda _: ctx.incr("n"), range(200)))

        assert (list(range(1, 201)), {"n": 200}, 200) == (sorted(numbers), stored(path), ctx["n"])

    def test_threads_that_save_different_keys_of_a_shared_context(self, path):
        """Threads that set and save different keys of one context lose nothing."""
        ctx = SyncPersistentContext.create(path)

        def work(number):
            ctx.set(f"key-{number}", number)
            ctx.save()
            return stored(path).get(f"key-{number}")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(work, range(100)))

        assert (list(range(100)), 100) == (seen, len(stored(path)))

    async def test_threads_and_tasks(self, path):
        """Increments from threads and from tasks of the loop all count."""
        ctx = await PersistentContext.create(path)

        def count():
            worker = SyncPersistentContext.create(path)
            return [worker.incr("n") for _ in range(25)]

        parts = await asyncio.gather(
            asyncio.to_thread(count),
            asyncio.to_thread(count),
            *(ctx.incr("n") for _ in range(50)),
        )
        numbers = [*parts[0], *parts[1], *parts[2:]]

        assert (list(range(1, 101)), {"n": 100}) == (sorted(numbers), stored(path))


class TestGroups:
    async def test_a_function_that_raises_fails_only_its_own_call(self, path, hold):
        """Of calls that share a cycle, one that fails fails alone."""
        ctx = await PersistentContext.create(path)
        other = await PersistentContext.create(path)
        other.set("saved", True)
        with hold(path):
            calls = [
                asyncio.create_task(call)
                for call in (
                    ctx.incr("n"),
                    ctx.mutate("n", lambda _: 1 / 0),
                    other.mutate("log", lambda log: [*log, 1], default=[]),
                    ctx.mutate("n", lambda _: {1}),
                    other.save(),
                    ctx.add("bad", object()),
                    other.incr("log"),
                    other.incr("n"),
                    ctx.add("leader", 1),
                )
            ]
            await turns()
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [
            isinstance(results[1], ZeroDivisionError),
            isinstance(results[3], UnserializableValueError),
            isinstance(results[5], UnserializableValueError),
            isinstance(results[6], TypeError),
        ]

        assert (
            [True] * 4,
            [1, [1], None, 2, True],
            {"n": 2, "log": [1], "saved": True, "leader": 1},
        ) == (failures, [results[number] for number in (0, 2, 4, 7, 8)], stored(path))

    async def test_a_raising_function_leaves_no_trace_in_the_value(self, path, hold):
        """Changes that a failed call made in place are not seen by the next call of the group."""
        path.write_text('{"log": [1]}', encoding="utf-8")
        ctx = await PersistentContext.create(path)

        def spoil(log):
            log.append("spoilt")
            raise LookupError

        with hold(path):
            calls = [
                asyncio.create_task(ctx.mutate("log", lambda log: [*log, 2])),
                asyncio.create_task(ctx.mutate("log", spoil)),
                asyncio.create_task(ctx.mutate("log", lambda log: [*log, 3])),
            ]
            await turns()
        results = await asyncio.gather(*calls, return_exceptions=True)

        assert ([1, 2], LookupError, [1, 2, 3], {"log": [1, 2, 3]}) == (
            results[0],
            type(results[1]),
            results[2],
            stored(path),
        )

    async def test_calls_that_wait_together_are_carried_together(self, path, hold):
        """Fifty calls that wait for the same lock take two cycles at most."""
        ctx = await PersistentContext.create(path)
        before = ctx.statistics()
        with hold(path):
            calls = [asyncio.create_task(ctx.incr("n")) for _ in range(50)]
            await turns()
        await asyncio.gather(*calls)
        after = ctx.statistics()

        assert (50, True, {"n": 50}) == (
            after.operations - before.operations,
            1 <= after.commits - before.commits <= 2,
            stored(path),
        )

    async def test_a_failed_group_of_nothing_but_failures_writes_nothing(self, path, hold):
        """If every call of a group fails, the file is unchanged."""
        path.write_text('{"s": "text"}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        before = identity(path)
        with hold(path):
            calls = [asyncio.create_task(ctx.incr("s")) for _ in range(5)]
            await turns()
        results = await asyncio.gather(*calls, return_exceptions=True)

        assert ([True] * 5, before) == ([isinstance(result, TypeError) for result in results], identity(path))

    def test_threads_of_the_sync_face_keep_their_own_errors(self, path):
        """Among threads, too, a call that fails fails alone."""
        ctx = SyncPersistentContext.create(path)
        start = threading.Barrier(8)

        def work(number):
            start.wait()
            try:
                return ctx.mutate("n", lambda value: value + 1 if number % 2 else value / 0, default=0)
            except ZeroDivisionError:
                return None

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(8)))

        assert ([1, 2, 3, 4], [None] * 4, {"n": 4}) == (sorted(results[1::2]), results[::2], stored(path))


class TestGroupCommit:
    async def test_calls_that_wait_share_one_write(self, tmp_path):
        """Saves and atomic calls of many contexts that wait for the lock share a few writes."""
        path = tmp_path / "state.json"
        contexts = [await PersistentContext.create(path) for _ in range(100)]
        with filelock.FileLock(f"{path}.lock"):
            calls = []
            for n, ctx in enumerate(contexts):
                ctx.set(f"key-{n}", n)
                calls += [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.incr("n"))]
            await asyncio.sleep(0.1)
        results = await asyncio.gather(*calls)

        assert set(range(1, 101)) == set(results[1::2])
        assert {f"key-{n}": n for n in range(100)} | {"n": 100} == stored(path)
        assert 200 == contexts[0].statistics().operations
        assert 4 > contexts[0].statistics().commits

    async def test_calls_of_other_loops_and_threads_share_it_too(self, tmp_path):
        """One queue serves all event loops and threads of a process."""
        path = tmp_path / "state.json"

        def in_a_loop():
            async def work():
                ctx = PersistentContext(path, lock_timeout=100)
                await asyncio.gather(*(ctx.incr("n") for _ in range(50)))

            asyncio.run(work())

        def in_a_thread():
            ctx = SyncPersistentContext(path, lock_timeout=100)
            for _ in range(10):
                ctx.incr("n")

        await asyncio.gather(*(asyncio.to_thread(job) for job in [in_a_loop, in_a_thread] * 4))

        assert {"n": 240} == stored(path)

    async def test_every_call_gets_its_own_error(self, tmp_path):
        """Each call gets its own error, and a failed call changes nothing."""
        path = tmp_path / "state.json"
        path.write_text('{"text": "x"}', encoding="utf-8")
        ctx = PersistentContext(path)
        with filelock.FileLock(f"{path}.lock"):
            names = ["a", "text", "b", "text"]
            calls = [asyncio.create_task(ctx.incr(name)) for name in names]
            await asyncio.sleep(0.05)
        results = await asyncio.gather(*calls, return_exceptions=True)

        assert ([1, 1], {"text": "x", "a": 1, "b": 1}) == (results[::2], stored(path))
        assert [TypeError, TypeError] == [type(error) for error in results[1::2]]
        assert results[1] is not results[3]

    async def test_an_earlier_call_of_the_same_context_is_not_a_conflict(self, tmp_path):
        """A context does not conflict with its own calls in flight."""
        ctx = await PersistentContext.create(tmp_path / "state.json", on_conflict="raise")
        ctx["k"] = 1
        await ctx.save()
        with filelock.FileLock(f"{tmp_path}/state.json.lock"):
            calls = [asyncio.create_task(ctx.incr("k"))]
            await asyncio.sleep(0)
            ctx["k"] = 10
            calls.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
            ctx["k"] = 20
            calls.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0.05)
        await asyncio.gather(*calls)

        assert ({"k": 20}, set()) == (stored(tmp_path / "state.json"), ctx.unsaved_keys())
