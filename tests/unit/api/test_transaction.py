"""Transactions: all or nothing, exclusive across tasks, threads, contexts and processes, on both faces."""

import asyncio
import concurrent.futures
import json
import logging
import os
import socket
import threading
from collections.abc import MutableMapping

import pytest

from persistent_context import (
    ContextUsageError,
    Holder,
    LockTimeoutError,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    UnserializableValueError,
)

TRANSFER = """
import asyncio, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, face, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

async def transfer_async():
    ctx = await PersistentContext.create(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        async with ctx.transaction() as tx:
            a, b = tx["a"], tx["b"]
            await asyncio.sleep(0)
            tx["a"] = a - 1
            tx["b"] = b + 1

def transfer_sync():
    ctx = SyncPersistentContext.create(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        with ctx.transaction() as tx:
            tx["a"] -= 1
            tx["b"] += 1

if face == "async":
    asyncio.run(transfer_async())
else:
    transfer_sync()
"""


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def identity(path):
    """What tells one writing of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


async def turns(count=50):
    """Let every other task run until it waits for something outside."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 100,\n"b": 0,\n"jobs": [1]\n}\n', encoding="utf-8")
    return face.open(path)


class TestCommit:
    def test_a_clean_exit_commits(self, face, ctx, path):
        """What the body changed is in the file and in memory, saved."""

        def body(tx):
            tx["a"] -= 10
            tx["b"] += 10

        face.inside(ctx.transaction, body)
        expected = {"a": 90, "b": 10, "jobs": [1]}

        assert (expected, expected, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())

    def test_new_and_deleted_keys(self, face, ctx, path):
        """Keys come and go in a transaction as well."""

        def body(tx):
            tx["new"] = {"x": 1}
            del tx["b"]

        face.inside(ctx.transaction, body)
        expected = {"a": 100, "jobs": [1], "new": {"x": 1}}

        assert (expected, expected) == (stored(path), dict(ctx))

    def test_a_change_in_place_commits(self, face, ctx, path):
        """What the body changed in place needs no assignment."""
        face.inside(ctx.transaction, lambda tx: tx["jobs"].append(2))

        assert ([1, 2], [1, 2], set()) == (stored(path)["jobs"], ctx["jobs"], ctx.unsaved_keys())

    def test_a_change_in_place_of_what_get_returned(self, face, ctx, path):
        """Whatever way a value was reached, its change counts."""
        face.inside(ctx.transaction, lambda tx: dict(tx.items())["jobs"].append(2))

        assert [1, 2] == stored(path)["jobs"]

    def test_a_change_in_place_of_what_was_set(self, face, ctx, path):
        """A value set by the body may be changed afterwards."""

        def body(tx):
            value = []
            tx["list"] = value
            value.append(1)

        face.inside(ctx.transaction, body)

        assert [1] == stored(path)["list"]

    def test_it_makes_a_missing_file(self, face, path):
        """A transaction may be the first to write."""
        ctx = face.open(path)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert b'{\n"a": 1\n}\n' == path.read_bytes()

    def test_the_body_reads_its_own_writes(self, face, ctx):
        """Inside, what was set is there."""

        def body(tx):
            tx["a"] = 5
            del tx["b"]
            return tx["a"], tx.get("b"), "b" in tx, sorted(tx)

        assert (5, None, False, ["a", "jobs"]) == face.inside(ctx.transaction, body)

    def test_the_body_sees_what_others_committed(self, face, ctx, path):
        """Inside, the file counts, not this context's memory of it."""
        other = face.open(path)
        other.update(a=7, new=1)
        del other["b"]
        face.do(other.save)

        assert {"a": 7, "jobs": [1], "new": 1} == face.inside(ctx.transaction, dict)

    def test_what_others_committed_is_kept(self, face, ctx, path):
        """A commit touches only what the body changed."""
        other = face.open(path)
        other.set("new", 1)
        face.do(other.save)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert {"a": 1, "b": 0, "jobs": [1], "new": 1} == stored(path)

    def test_one_after_the_other(self, face, ctx, path):
        """A context may have any number of transactions, one after the other."""
        for _ in range(5):
            face.inside(ctx.transaction, lambda tx: tx.update(a=tx["a"] - 1))

        assert 95 == stored(path)["a"]

    def test_the_corrupt_file_is_moved_aside(self, face, ctx, path, caplog):
        """A transaction on a corrupt file starts from nothing, and the corrupt one is kept."""
        path.write_bytes(b'{"a": ')
        seen = face.inside(ctx.transaction, lambda tx: (dict(tx), tx.update(new=1))[0])
        aside = [one.read_bytes() for one in path.parent.glob("state.json.corrupt-*")]

        assert ({}, {"new": 1}, [b'{"a": '], True) == (
            seen,
            stored(path),
            aside,
            any(record.levelno == logging.WARNING for record in caplog.records),
        )


class TestDiscard:
    def test_an_exception_discards(self, face, ctx, path):
        """After an exception the file and memory are as before, and the exception goes on."""
        before = identity(path)

        def body(tx):
            tx["a"] = 0
            tx["new"] = 1
            del tx["b"]
            tx["jobs"].append("spoilt")
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            face.inside(ctx.transaction, body)

        assert (before, {"a": 100, "b": 0, "jobs": [1]}, set()) == (identity(path), dict(ctx), ctx.unsaved_keys())

    def test_the_lock_is_free_afterwards(self, face, ctx, path):
        """After a discard others can go on, and so can this context."""
        with pytest.raises(ZeroDivisionError):
            face.inside(ctx.transaction, lambda tx: 1 / 0)
        numbers = [face.do(face.open(path, lock_timeout=10).incr, "n"), face.do(ctx.incr, "n")]

        assert [1, 2] == numbers

    def test_a_value_that_json_cannot_hold_discards(self, face, ctx, path):
        """What cannot be written is refused at the commit, and nothing of the transaction is written."""
        before = identity(path)

        def body(tx):
            tx["a"] = 0
            tx["bad"] = [{1}]

        with pytest.raises(UnserializableValueError) as caught:
            face.inside(ctx.transaction, body)

        assert (before, True, {"a": 100, "b": 0, "jobs": [1]}, set()) == (
            identity(path),
            '["bad"][0]: set' in str(caught.value),
            dict(ctx),
            ctx.unsaved_keys(),
        )

    def test_the_lock_is_free_after_a_refused_commit(self, face, ctx, path):
        """After a refused commit others can go on."""
        with pytest.raises(UnserializableValueError):
            face.inside(ctx.transaction, lambda tx: tx.update(bad=object()))

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")

    def test_a_key_that_is_no_str_is_refused_at_once(self, face, ctx, path):
        """A bad key is refused where it is set; the transaction goes on."""

        def body(tx):
            with pytest.raises(UnserializableValueError):
                tx[1] = 1
            tx["a"] = 1

        face.inside(ctx.transaction, body)

        assert {"a": 1, "b": 0, "jobs": [1]} == stored(path)


class TestNothingChanged:
    @pytest.mark.parametrize("body", [
        lambda tx: None,
        dict,
        lambda tx: tx.update(a=100, jobs=[1]),
        lambda tx: tx.update(a=tx.pop("a")) if False else tx.get("a"),
        lambda tx: (tx["jobs"].append(2), tx["jobs"].pop()),
    ], ids=["nothing", "reading", "the-same", "get", "there-and-back"])  # fmt: skip
    def test_it_writes_nothing(self, face, ctx, path, body):
        """A transaction that changed nothing leaves the file the same file."""
        before = identity(path)
        face.inside(ctx.transaction, body)

        assert before == identity(path)

    def test_it_makes_no_file(self, face, path):
        """A transaction that changed nothing makes no file."""
        ctx = face.open(path)
        face.inside(ctx.transaction, dict)

        assert False is path.exists()

    def test_true_in_place_of_one_is_a_change(self, face, ctx, path):
        """True, 1 and 1.0 are three values here too."""
        face.inside(ctx.transaction, lambda tx: tx.update(b=False))

        assert "False" == repr(stored(path)["b"])


class TestUnsavedChanges:
    def test_a_touched_key_is_taken_along(self, face, ctx, path):
        """What this context did first comes first: the body sees it, and it is committed with the body's change."""
        ctx.set("a", 50)

        def body(tx):
            tx["a"] -= 10

        face.inside(ctx.transaction, body)

        assert ({"a": 40, "b": 0, "jobs": [1]}, 40, set()) == (stored(path), ctx["a"], ctx.unsaved_keys())

    @pytest.mark.parametrize("look", [
        lambda tx: tx["a"],
        lambda tx: tx.get("a"),
        lambda tx: tx.pop("a"),
        lambda tx: tx.setdefault("a", 1),
        lambda tx: dict(tx.items())["a"],
        lambda tx: dict(tx)["a"],
    ], ids=["subscript", "get", "pop", "setdefault", "items", "dict"])  # fmt: skip
    def test_every_way_of_reading_a_key_sees_it(self, face, ctx, look):
        """However the body looks at a key, it sees what this context set before."""
        ctx.set("a", 50)

        assert 50 == face.inside(ctx.transaction, look)

    def test_a_change_in_place_is_taken_along(self, face, ctx, path):
        """A change in place before the transaction is there inside."""
        ctx["jobs"].append(2)
        face.inside(ctx.transaction, lambda tx: tx["jobs"].append(3))

        assert ([1, 2, 3], [1, 2, 3], set()) == (stored(path)["jobs"], ctx["jobs"], ctx.unsaved_keys())

    def test_a_deletion_is_taken_along(self, face, ctx, path):
        """What this context deleted before is absent inside."""
        del ctx["b"]

        def body(tx):
            present = "b" in tx
            tx["b"] = 7
            return present

        assert (False, 7) == (face.inside(ctx.transaction, body), stored(path)["b"])

    def test_a_new_key_is_taken_along(self, face, ctx, path):
        """What this context added before is there inside."""
        ctx.set("new", 1)

        def body(tx):
            tx["new"] += 1

        face.inside(ctx.transaction, body)

        assert (2, set()) == (stored(path)["new"], ctx.unsaved_keys())

    def test_others_stay_unsaved(self, face, ctx, path):
        """What the body did not touch is neither written nor lost."""
        ctx.set("a", 50)
        ctx["jobs"].append(2)
        ctx.set("new", 1)

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)

        assert (
            {"a": 100, "b": 1, "jobs": [1]},
            {"a", "jobs", "new"},
            {"a": 50, "b": 1, "jobs": [1, 2], "new": 1},
        ) == (stored(path), ctx.unsaved_keys(), dict(ctx))

    def test_those_are_saved_by_the_next_save(self, face, ctx, path):
        """What stayed unsaved is saved later, and undoes nothing of the transaction."""
        ctx.set("a", 50)

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)
        face.do(ctx.save)

        assert {"a": 50, "b": 1, "jobs": [1]} == stored(path)

    def test_a_discard_leaves_them_unsaved(self, face, ctx, path):
        """A change that was taken along into a discarded transaction is as unsaved as before."""
        ctx.set("a", 50)
        ctx["jobs"].append(2)

        def body(tx):
            tx["a"] -= 10
            tx["jobs"].append("spoilt")
            raise LookupError

        with pytest.raises(LookupError):
            face.inside(ctx.transaction, body)

        assert ({"a": 100, "b": 0, "jobs": [1]}, 50, [1, 2], {"a", "jobs"}) == (
            stored(path),
            ctx["a"],
            ctx["jobs"],
            ctx.unsaved_keys(),
        )

    def test_a_bad_value_in_an_untouched_key_does_no_harm(self, face, ctx, path):
        """Only what is written must be writable."""
        ctx.set("bad", object())

        def body(tx):
            tx["b"] = 1

        face.inside(ctx.transaction, body)

        assert (1, {"bad"}) == (stored(path)["b"], ctx.unsaved_keys())

    def test_a_set_inside_the_body_but_on_the_context_stays_unsaved(self, face, ctx, path):
        """Memory is memory, also while a transaction is open."""

        def body(tx):
            tx["b"] = 1
            ctx.set("a", 5)

        face.inside(ctx.transaction, body)

        assert (100, 5, {"a"}) == (stored(path)["a"], ctx["a"], ctx.unsaved_keys())


class TestMapping:
    def test_it_is_a_mutable_mapping(self, face, ctx):
        """Whoever takes any MutableMapping takes a transaction."""

        assert True is face.inside(ctx.transaction, lambda tx: isinstance(tx, MutableMapping))

    def test_reading(self, face, ctx):
        """All ways of reading work as in a dict."""

        def body(tx):
            return (
                list(tx), list(tx.keys()), list(tx.values()), list(tx.items()), len(tx), "a" in tx, "z" in tx, 1 in tx,
                tx.get("z"), tx.get("z", 3), dict(tx),
            )  # fmt: skip

        plain = {"a": 100, "b": 0, "jobs": [1]}

        assert body(plain) == face.inside(ctx.transaction, body)

    def test_writing(self, face, ctx, path):
        """All ways of writing work as in a dict."""

        def body(tx):
            results = [tx.pop("b"), tx.pop("z", 4), tx.setdefault("a", 5), tx.setdefault("c", 6)]
            tx.update({"d": 7}, e=8)
            del tx["d"]
            tx["f"] = 9
            return results

        plain = {"a": 100, "b": 0, "jobs": [1]}

        assert (body(plain), plain, list(plain)) == (
            face.inside(ctx.transaction, body),
            stored(path),
            list(stored(path)),
        )

    def test_absent_keys(self, face, ctx):
        """Absent keys raise KeyError."""

        def body(tx):
            with pytest.raises(KeyError):
                tx["z"]
            with pytest.raises(KeyError):
                del tx["z"]
            with pytest.raises(KeyError):
                tx.pop("z")
            return True

        assert True is face.inside(ctx.transaction, body)

    def test_clear(self, face, ctx, path):
        """clear empties the file."""
        face.inside(ctx.transaction, lambda tx: tx.clear())

        assert (b"{}\n", {}) == (path.read_bytes(), dict(ctx))

    def test_a_value_read_twice_is_one_object(self, face, ctx):
        """Inside, a value is live."""

        assert True is face.inside(ctx.transaction, lambda tx: tx["jobs"] is tx["jobs"])


class TestTheEnd:
    @pytest.mark.parametrize("use", [
        lambda tx: tx["a"],
        lambda tx: tx.get("a"),
        lambda tx: tx.update(a=1),
        lambda tx: tx.pop("a"),
        lambda tx: tx.__delitem__("a"),
        lambda tx: "a" in tx,
        list,
        len,
    ], ids=["read", "get", "write", "pop", "delete", "in", "iterate", "len"])  # fmt: skip
    @pytest.mark.parametrize("how", ["committed", "discarded"])
    def test_a_finished_transaction_cannot_be_used(self, face, ctx, use, how):
        """A transaction that was carried out of its block is of no use, and says so."""
        kept = []

        def body(tx):
            kept.append(tx)
            tx["b"] = 1
            if how == "discarded":
                raise LookupError

        try:
            face.inside(ctx.transaction, body)
        except LookupError:
            pass
        with pytest.raises(ContextUsageError):
            use(kept[0])

        assert (1 if how == "committed" else 0) == ctx["b"]

    def test_a_value_kept_from_it_does_not_reach_the_file(self, face, ctx, path):
        """What the body kept and changes later is at most unsaved."""
        jobs = face.inside(ctx.transaction, lambda tx: tx.setdefault("list", []))
        jobs.append("late")
        face.do(ctx.incr, "n")

        assert [] == stored(path)["list"]


class TestTimeout:
    def test_it_names_the_holder(self, face, ctx, path, hold_transaction):
        """A wait that ends in a timeout says who held the lock: pid, host, since when, what for."""
        with hold_transaction(path) as held:
            with pytest.raises(LockTimeoutError) as caught:
                face.inside(ctx.transaction, dict, timeout=0.05)
        holder = caught.value.holder

        assert (held.pid, socket.gethostname(), True, True, True) == (
            holder.pid,
            holder.host,
            isinstance(holder, Holder),
            isinstance(holder.since, int | float),
            isinstance(holder.purpose, str) and holder.purpose != "",
        )

    def test_it_carries_its_data(self, face, ctx, path, hold_transaction):
        """The error says which file and how long, and is a TimeoutError."""
        with hold_transaction(path) as held:
            with pytest.raises(LockTimeoutError) as caught:
                face.inside(ctx.transaction, dict, timeout=0.05)
        error = caught.value

        assert (str(path), True, True, True, True) == (
            str(error.filepath),
            isinstance(error, TimeoutError),
            isinstance(error.waited, int | float) and error.waited >= 0,
            "state.json" in str(error),
            str(held.pid) in str(error),
        )

    def test_a_plain_foreign_lock(self, face, ctx, path, hold):
        """Behind a program that leaves no stamp the wait ends as well, naming nobody else."""
        with hold(path), pytest.raises(LockTimeoutError) as caught:
            face.inside(ctx.transaction, dict, timeout=0)

        assert caught.value.holder is None or caught.value.holder.pid is None

    def test_the_contexts_lock_timeout_is_the_default(self, face, ctx, path, hold):
        """Without a timeout of its own a transaction waits as long as the context says."""
        impatient = face.open(path, lock_timeout=0)
        with hold(path), pytest.raises(LockTimeoutError):
            face.inside(impatient.transaction, dict)

    def test_its_own_timeout_counts(self, face, path, hold):
        """A transaction's own timeout overrides the context's."""
        patient = face.open(path, lock_timeout=1e6)
        with hold(path), pytest.raises(LockTimeoutError):
            face.inside(patient.transaction, dict, timeout=0)

    def test_after_a_timeout_the_context_works(self, face, ctx, path, hold):
        """A wait that was given up leaves nothing behind."""
        with hold(path), pytest.raises(LockTimeoutError):
            face.inside(ctx.transaction, dict, timeout=0.05)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_a_senseless_timeout(self, face, ctx, timeout):
        """A negative number of seconds, or none at all, is a ValueError."""
        with pytest.raises(ValueError, match="timeout"):
            face.inside(ctx.transaction, dict, timeout=timeout)

    @pytest.mark.parametrize("timeout", ["1", True])
    def test_a_timeout_that_is_no_number(self, face, ctx, timeout):
        """A timeout that is no number is a TypeError."""
        with pytest.raises(TypeError, match="timeout"):
            face.inside(ctx.transaction, dict, timeout=timeout)


CALLS = {
    "save": lambda ctx: ctx.save(),
    "incr": lambda ctx: ctx.incr("n"),
    "add": lambda ctx: ctx.add("n", 1),
    "compare_and_set": lambda ctx: ctx.compare_and_set("n", 1, 2),
    "mutate": lambda ctx: ctx.mutate("n", lambda _: 1),
}


class TestReentrancyOfTheAsyncFace:
    @pytest.mark.parametrize("which", ["same", "other", "linked", "sync"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_call_inside_raises_at_once(self, path, call, which):
        """A call on the same file by the same task, through whichever context, is an error and no deadlock."""
        path.write_text('{"n": 1}', encoding="utf-8")
        link = path.with_name("link.json")
        link.symlink_to(path)
        ctx = await PersistentContext.create(path)
        used = {
            "same": lambda: ctx,
            "other": lambda: PersistentContext(path),
            "linked": lambda: PersistentContext(link),
            "sync": lambda: SyncPersistentContext(path),
        }[which]()
        used.set("x", 1)
        async with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                result = call(used)
                if which != "sync":
                    await result
            tx["n"] = 5

        assert {"n": 5} == stored(path)

    @pytest.mark.parametrize("which", ["same", "other"])
    async def test_a_second_transaction_raises_at_once(self, path, which):
        """A transaction inside a transaction on the same file is an error; the outer one goes on."""
        ctx = await PersistentContext.create(path)
        used = ctx if which == "same" else await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(ReentrantTransactionError):
                async with used.transaction() as inner:
                    inner["a"] = 2
            tx["b"] = 1

        assert {"a": 1, "b": 1} == stored(path)

    async def test_a_sync_transaction_inside_raises_at_once(self, path):
        """The other face does not lead around it."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                with SyncPersistentContext(path).transaction() as inner:
                    inner["a"] = 2
            tx["a"] = 1

        assert {"a": 1} == stored(path)

    async def test_a_group_around_the_call_does_not_hide_it(self, path):
        """A plain await through other coroutines is still the same task."""
        ctx = await PersistentContext.create(path)

        async def far_away():
            async with asyncio.timeout(60):
                await ctx.save()

        async with ctx.transaction():
            with pytest.raises(ReentrantTransactionError):
                await far_away()

    async def test_load_inside_works(self, path):
        """Reading needs no lock: load inside sees the committed state."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 2
            await ctx.load()
            inside = ctx["a"]

        assert (1, 2, 2) == (inside, stored(path)["a"], ctx["a"])

    async def test_loading_another_context_inside_works(self, path):
        """Another context can be made and loaded inside."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["a"] = 2
            other = await PersistentContext.create(path)

        assert 1 == other["a"]

    async def test_another_file_inside_works(self, path):
        """Only the same file is forbidden."""
        ctx = await PersistentContext.create(path)
        other = await PersistentContext.create(path.with_name("other.json"))
        async with ctx.transaction() as tx:
            tx["n"] = await other.incr("n")
            async with other.transaction() as inner:
                inner["m"] = 1

        assert ({"n": 1}, {"n": 1, "m": 1}) == (stored(path), stored(path.with_name("other.json")))

    async def test_after_the_end_calls_work_again(self, path):
        """The same task may call again when its transaction is over."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            tx["n"] = 1
        with pytest.raises(LookupError):
            async with ctx.transaction():
                raise LookupError

        assert 2 == await ctx.incr("n")

    async def test_it_is_a_usage_error(self, path):
        """Who catches RuntimeError or ContextUsageError catches it."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction():
            with pytest.raises(ContextUsageError) as caught:
                await ctx.save()

        assert (True, True) == (isinstance(caught.value, RuntimeError), "state.json" in str(caught.value))


class TestTasks:
    @pytest.mark.parametrize("which", ["same", "other"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_task_started_inside_waits(self, path, call, which):
        """A task that was started inside is another task: its timeout names this process."""
        ctx = await PersistentContext.create(path, lock_timeout=0.05)
        used = ctx if which == "same" else await PersistentContext.create(path, lock_timeout=0.05)
        used.set("x", 1)
        async with ctx.transaction(timeout=30) as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(call(used))

        assert (os.getpid(), {"a": 1}) == (caught.value.holder.pid, stored(path))

    async def test_a_transaction_of_a_task_started_inside_waits(self, path):
        """The same holds for a transaction."""
        ctx = await PersistentContext.create(path)

        async def inner():
            async with ctx.transaction(timeout=0.05) as tx:
                tx["a"] = 2

        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.create_task(inner())

        assert (os.getpid(), {"a": 1}) == (caught.value.holder.pid, stored(path))

    async def test_a_thread_started_inside_waits(self, path):
        """A thread that was started inside is no part of the task: its timeout names this process."""
        ctx = await PersistentContext.create(path)
        worker = SyncPersistentContext.create(path, lock_timeout=0.05)
        async with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(LockTimeoutError) as caught:
                await asyncio.to_thread(worker.incr, "n")

        assert os.getpid() == caught.value.holder.pid

    async def test_a_task_that_waited_goes_on_afterwards(self, path):
        """Who waits for a transaction of the same process gets its turn."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction() as tx:
            waiting = asyncio.create_task(ctx.incr("n"))
            await turns()
            waited = not waiting.done()
            tx["n"] = 10

        assert (True, 11) == (waited, await waiting)

    async def test_a_task_started_inside_may_outlive_it(self, path):
        """What a task started inside does after the end, it does like any other task."""
        ctx = await PersistentContext.create(path)
        ended = asyncio.Event()

        async def later():
            await ended.wait()
            async with ctx.transaction() as tx:
                tx["a"] += 1
            return await ctx.incr("a")

        async with ctx.transaction() as tx:
            task = asyncio.create_task(later())
            tx["a"] = 1
        ended.set()

        assert 3 == await task

    async def test_the_holder_can_always_finish(self, path):
        """However many wait, and with one executor thread, the task that holds the transaction commits."""
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        contexts = [await PersistentContext.create(path) for _ in range(5)]
        async with contexts[0].transaction() as tx:
            waiting = [asyncio.create_task(contexts[number % 5].incr("n")) for number in range(50)]
            for number, ctx in enumerate(contexts):
                ctx.set(f"key-{number}", number)
                waiting.append(asyncio.create_task(ctx.save()))
            await turns()
            await contexts[1].load()
            tx["n"] = 100
        await asyncio.gather(*waiting)

        assert 150 == stored(path)["n"]

    async def test_transactions_of_tasks_exclude_each_other(self, path):
        """Between a read and a write in one task's transaction, no other task's comes."""
        path.write_text('{"n": 0}', encoding="utf-8")
        contexts = [await PersistentContext.create(path) for _ in range(3)]

        async def count(ctx):
            for _ in range(5):
                async with ctx.transaction() as tx:
                    number = tx["n"]
                    await turns(5)
                    tx["n"] = number + 1

        await asyncio.gather(*(count(contexts[number % 3]) for number in range(12)))

        assert {"n": 60} == stored(path)

    async def test_transactions_and_calls_exclude_each_other(self, path):
        """Atomic calls and saves of other tasks come before or after a transaction, never inside."""
        path.write_text('{"n": 0}', encoding="utf-8")
        ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)

        async def transact():
            for _ in range(10):
                async with ctx.transaction() as tx:
                    number = tx["n"]
                    await turns(5)
                    tx["n"] = number + 1

        async def call(number):
            for turn in range(10):
                await other.incr("n")
                other.set(f"key-{number}", turn)
                await other.save()

        await asyncio.gather(transact(), transact(), *(call(number) for number in range(3)))

        assert {"n": 50, "key-0": 9, "key-1": 9, "key-2": 9} == stored(path)

    async def test_only_one_is_open_at_a_time(self, path):
        """At no moment two transactions on a file are open in one process."""
        contexts = [await PersistentContext.create(path) for _ in range(3)]
        open_now, most = 0, 0

        async def transact(ctx):
            nonlocal open_now, most
            async with ctx.transaction():
                open_now += 1
                most = max(most, open_now)
                await turns(5)
                open_now -= 1

        await asyncio.gather(*(transact(contexts[number % 3]) for number in range(30)))

        assert 1 == most


class TestCancelling:
    async def test_a_cancel_in_the_body_discards_and_releases(self, path):
        """A cancelled body has written nothing, and the lock does not outlive it."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        before = identity(path)
        entered = asyncio.Event()

        async def body():
            async with ctx.transaction() as tx:
                tx["a"] = 2
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        unchanged = identity(path) == before
        number = await (await PersistentContext.create(path, lock_timeout=10)).incr("n")

        assert (True, 1, {"a": 1, "n": 1}, set()) == (unchanged, number, stored(path), ctx.unsaved_keys())

    async def test_a_timeout_around_the_body_discards_and_releases(self, path):
        """asyncio.timeout is a cancel like any."""
        ctx = await PersistentContext.create(path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), ctx.transaction() as tx:
                tx["a"] = 2
                await asyncio.Event().wait()

        assert (1, {"n": 1}) == (await ctx.incr("n"), stored(path))

    async def test_a_cancel_while_waiting_withdraws(self, path, hold):
        """A transaction cancelled before it began never begins."""
        ctx = await PersistentContext.create(path)
        entered = []

        async def body():
            async with ctx.transaction() as tx:
                entered.append(True)
                tx["a"] = 2

        with hold(path):
            task = asyncio.create_task(body())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        assert (1, [], {"n": 1}) == (await ctx.incr("n"), entered, stored(path))

    async def test_a_cancel_behind_another_task_withdraws(self, path):
        """A transaction cancelled while another task's is open never begins, and the open one goes on."""
        ctx = await PersistentContext.create(path)

        async def body():
            async with ctx.transaction() as tx:
                tx["a"] = 2

        async with ctx.transaction() as tx:
            task = asyncio.create_task(body())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            tx["b"] = 1

        assert ({"b": 1}, 1) == (stored(path), await ctx.incr("n"))

    async def test_a_cancel_at_any_turn_leaves_all_or_nothing(self, path):
        """However far a transaction has come when it is cancelled, all of it is in the file or nothing."""
        path.write_text('{"a": 0, "b": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)

        async def body():
            async with ctx.transaction() as tx:
                tx["a"] += 1
                await turns(3)
                tx["b"] += 1

        finished = 0
        for count in range(60):
            task = asyncio.create_task(body())
            await turns(count)
            task.cancel()
            try:
                await task
                finished += 1
            except asyncio.CancelledError:
                pass
        await ctx.add("probe", 1)
        data = stored(path)

        assert (True, True) == (data["a"] == data["b"], finished <= data["a"] <= 60)

    async def test_cancelling_a_task_that_waits_behind_leaves_the_others(self, path):
        """Of many that wait for a transaction to end, only the cancelled ones are withdrawn."""
        ctx = await PersistentContext.create(path)
        async with ctx.transaction():
            waiting = [asyncio.create_task(ctx.incr("n")) for _ in range(10)]
            await turns()
            for task in waiting[1::2]:
                task.cancel()
            await turns()
        results = await asyncio.gather(*waiting, return_exceptions=True)

        assert ([1, 2, 3, 4, 5], {"n": 5}) == (
            sorted(result for result in results if isinstance(result, int)),
            stored(path),
        )


class TestTheSyncFace:
    @pytest.mark.parametrize("which", ["same", "other", "linked"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_a_call_inside_raises_at_once(self, path, call, which):
        """A call on the same file by the same thread, through whichever context, is an error and no deadlock."""
        path.write_text('{"n": 1}', encoding="utf-8")
        link = path.with_name("link.json")
        link.symlink_to(path)
        ctx = SyncPersistentContext.create(path)
        used = {"same": ctx, "other": SyncPersistentContext(path), "linked": SyncPersistentContext(link)}[which]
        used.set("x", 1)
        with ctx.transaction() as tx:
            with pytest.raises(ReentrantTransactionError):
                call(used)
            tx["n"] = 5

        assert {"n": 5} == stored(path)

    def test_a_second_transaction_raises_at_once(self, path):
        """A transaction inside a transaction on the same file is an error; the outer one goes on."""
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            tx["a"] = 1
            with pytest.raises(ReentrantTransactionError):
                with ctx.transaction() as inner:
                    inner["a"] = 2
            tx["b"] = 1

        assert {"a": 1, "b": 1} == stored(path)

    def test_load_inside_works(self, path):
        """Reading needs no lock: load inside sees the committed state."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        with ctx.transaction() as tx:
            tx["a"] = 2
            ctx.load()
            inside = ctx["a"]

        assert (1, 2, 2) == (inside, stored(path)["a"], ctx["a"])

    def test_another_file_inside_works(self, path):
        """Only the same file is forbidden."""
        ctx = SyncPersistentContext.create(path)
        other = SyncPersistentContext.create(path.with_name("other.json"))
        with ctx.transaction() as tx:
            tx["n"] = other.incr("n")
            with other.transaction() as inner:
                inner["m"] = 1

        assert ({"n": 1}, {"n": 1, "m": 1}) == (stored(path), stored(path.with_name("other.json")))

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_another_thread_waits(self, path, call):
        """Another thread waits, and its timeout names this process."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0.05)
        ctx.set("x", 1)
        with ctx.transaction(timeout=30) as tx, concurrent.futures.ThreadPoolExecutor(1) as pool:
            tx["a"] = 1
            error = pool.submit(call, ctx).exception()

        assert (True, os.getpid()) == (isinstance(error, LockTimeoutError), error.holder.pid)

    def test_another_thread_goes_on_afterwards(self, path):
        """A thread that waited gets its turn."""
        ctx = SyncPersistentContext.create(path)
        begun = threading.Event()

        def count():
            begun.set()
            return ctx.incr("n")

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with ctx.transaction() as tx:
                waiting = pool.submit(count)
                begun.wait()
                tx["n"] = 10

            assert 11 == waiting.result()

    def test_a_loop_in_another_thread_waits(self, path):
        """A task of a loop waits for a thread's transaction, and its timeout names this process."""
        ctx = SyncPersistentContext.create(path)

        async def count():
            return await PersistentContext(path, lock_timeout=0.05).incr("n")

        with ctx.transaction(), concurrent.futures.ThreadPoolExecutor(1) as pool:
            error = pool.submit(asyncio.run, count()).exception()

        assert (True, os.getpid()) == (isinstance(error, LockTimeoutError), error.holder.pid)

    def test_transactions_of_threads_exclude_each_other(self, path):
        """Between a read and a write in one thread's transaction, no other thread's comes."""
        path.write_text('{"n": 0}', encoding="utf-8")
        shared = SyncPersistentContext.create(path)

        def count(number):
            ctx = shared if number % 2 else SyncPersistentContext.create(path)
            for _ in range(10):
                with ctx.transaction() as tx:
                    value = tx["n"]
                    os.sched_yield()
                    tx["n"] = value + 1

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(count, range(6)))

        assert {"n": 60} == stored(path)


class TestProcesses:
    @pytest.mark.parametrize("faces", [("sync", "sync"), ("async", "async"), ("sync", "async")], ids="-".join)
    def test_transactions_of_processes_exclude_each_other(self, path, spawn, faces):
        """What several processes move between two keys is all moved, and nothing appears or vanishes."""
        path.write_text('{"a": 1000, "b": 0}', encoding="utf-8")
        children = [spawn(TRANSFER, path, face, 40) for face in (*faces, faces[0])]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        for child in children:
            child.finish()

        assert {"a": 880, "b": 120} == stored(path)

    def test_who_waits_behind_a_process_gets_its_turn(self, face, path, hold_transaction, spawn):
        """A transaction of another process is waited for, and its result is seen."""
        ctx = face.open(path)
        waiter = (
            "import sys\n"
            "from persistent_context import SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1])\n"
            "print('ready', flush=True)\n"
            "with ctx.transaction() as tx:\n"
            "    print(tx['holder'], flush=True)\n"
            "    tx['waiter'] = 'was here'\n"
        )
        with hold_transaction(path):
            child = spawn(waiter, path)
            child.hear()
        heard = child.finish()
        seen = face.inside(ctx.transaction, dict)

        assert (["child"], {"holder": "child", "waiter": "was here"}) == (heard, seen)

    def test_a_transaction_of_ours_excludes_another_process(self, face, path, spawn):
        """While a transaction of this process is open, another process gets a timeout that names this process."""
        code = (
            "import sys\n"
            "from persistent_context import LockTimeoutError, SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1], lock_timeout=0.05)\n"
            "try:\n"
            "    ctx.incr('n')\n"
            "except LockTimeoutError as error:\n"
            "    print(error.holder.pid, flush=True)\n"
        )
        ctx = face.open(path)
        said = face.inside(ctx.transaction, lambda tx: spawn(code, path).finish())

        assert ([str(os.getpid())], False) == (said, path.exists())
