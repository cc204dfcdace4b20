"""The same API in etcd: both faces, watches, leases, computations, forks, and several processes and clusters."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import pytest

import etcd
from persistent_context import MISSING, PersistentContext, SyncPersistentContext
from persistent_context._stores.etcd import subscription as subscription_module
from persistent_context._stores.etcd.client import get

INCREMENT = """
import sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1], lock_timeout=60)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    ctx.incr("n")
print("done", flush=True)
"""
COMPUTE = """
import sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1], lock_timeout=60)
def compute():
    ctx.incr("computed")
    return {"value": 42}
sys.stdin.readline()
print(ctx.compute_once("answer", compute), flush=True)
"""
FORK = """
import os, sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1], lock_timeout=60)
ctx.incr("n")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(10):
            ctx.incr("n")
        os._exit(0)
    children.append(child)
    for _ in range(10):
        ctx.incr("n")
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(SyncPersistentContext.create(sys.argv[1])["n"], flush=True)
"""

HANDLER = """
import random, signal, sys
from persistent_context import SyncPersistentContext
ctx, calls = SyncPersistentContext(sys.argv[1], lock_timeout=20), 0
ctx.incr("n")
def handle(*_):
    global calls
    calls += 1
    ctx.incr("n")
signal.signal(signal.SIGALRM, handle)
for _ in range(600):
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
    ctx.lock_holder()
signal.setitimer(signal.ITIMER_REAL, 0)
print(calls > 0, calls + 1 == ctx.incr("n", 0), flush=True)
"""
STRIKES = """
import signal, sys
from persistent_context import SyncPersistentContext
from persistent_context._stores.etcd import namespace
ctx, other, strikes = SyncPersistentContext(sys.argv[1]), SyncPersistentContext(sys.argv[1]), 0
ctx.incr("n")
def handle(*_):
    global strikes
    strikes += 1
    other.load()
def trace(frame, event, _):
    if frame.f_code.co_filename == namespace.__file__:
        signal.raise_signal(signal.SIGALRM)
        return trace
signal.signal(signal.SIGALRM, handle)
sys.settrace(trace)
ctx.load()
sys.settrace(None)
print(strikes > 10, other["n"], ctx.incr("n"), flush=True)
"""
FORK_OF_A_WATCH = """
import os, sys, threading, time
from persistent_context import SyncPersistentContext
changes, seen = SyncPersistentContext.create(sys.argv[1]).watch("n"), []
following = threading.Thread(target=lambda: seen.extend(next(changes)), daemon=True)
following.start()
while changes._subscribed is None or (stream := changes._subscribed[1]._stream) is None:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    changes._subscribed[1].close()  # as the watch's finalizer does
    os._exit(0)
os.waitpid(child, 0)
SyncPersistentContext(sys.argv[1].replace("127.0.0.1", "localhost")).incr("n")
following.join()
print(seen, changes._subscribed[1]._stream is stream, flush=True)
"""


@pytest.fixture
def url():
    """The URL of a namespace that nobody has used."""
    etcd.require_etcd()
    return etcd.url()


class TestBothFaces:
    async def test_they_share_a_state(self, url):
        """What one face commits the other one sees, whatever kind of call it was."""
        ctx, blocking = PersistentContext(url), SyncPersistentContext(url)
        ctx["settings"] = {"a": {"b": 1}}
        await ctx.save()
        await asyncio.to_thread(blocking.load)
        blocking["settings"]["a"]["c"] = 2
        ctx["settings"]["a"]["b"] = 3
        await asyncio.gather(asyncio.to_thread(blocking.save), ctx.save())
        await ctx.refresh()

        assert {"a": {"b": 3, "c": 2}} == ctx["settings"]
        assert [1, True, 2, 5] == [
            await ctx.append("log", "x"),
            await ctx.compare_and_set("state", MISSING, 5),
            await asyncio.to_thread(blocking.append, "log", "y"),
            await ctx.take("state"),
        ]

    async def test_many_tasks_share_cycles(self, url):
        """Hundreds of calls at the same time take few requests, and none is lost."""
        ctx = PersistentContext(url)
        await asyncio.gather(*(ctx.incr("n") for _ in range(500)))

        assert 500 == await ctx.incr("n", 0)
        assert ctx.statistics().commits < 50

    async def test_transactions_of_tasks_take_turns(self, url):
        """Transactions and calls of tasks and threads, in several contexts, lose nothing."""
        contexts = [PersistentContext(url, lock_timeout=60) for _ in range(3)]

        async def work(ctx):
            for _ in range(5):
                async with ctx.transaction() as tx:
                    number = tx.get("n", 0)
                    await asyncio.sleep(0)
                    tx["n"] = number + 1
                await ctx.incr("n")

        await asyncio.gather(*(work(ctx) for ctx in contexts))

        assert 30 == (await PersistentContext.create(url))["n"]


class TestWatching:
    def test_a_watch_keeps_what_it_follows(self, url):
        """A watch whose context is gone follows one store, through one stream."""
        other = SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
        with contextlib.closing(SyncPersistentContext.create(url).watch("n")) as changes:
            following = set()
            for number in range(1, 5):
                other.incr("n")
                assert number == next(changes)["n"].new
                following.add(changes._subscribed[0])

        assert 1 == len(following)

    @pytest.fixture
    async def waiting(self, url):
        """A watch of ``n`` that waits for a change, and the stream that it follows."""
        ctx = await PersistentContext.create(url)
        changes = ctx.watch("n")
        task = asyncio.create_task(anext(changes))
        while changes._subscribed is None or changes._subscribed[1]._stream is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # until it has looked for the last time
        yield task, changes._subscribed[1]
        task.cancel()
        await changes.aclose()

    async def test_changes_of_others_arrive(self, url):
        """A watch yields what others set and delete, and not its own writes."""
        ctx, other = await PersistentContext.create(url), SyncPersistentContext(url)
        changes = ctx.watch("a", "b")
        for number in range(3):
            await ctx.incr("a")
            await asyncio.to_thread(other.mutate, "b", lambda old: (old or 0) + 1)
            async with asyncio.timeout(60):
                seen = await anext(changes)

            assert (["b"], number + 1) == (list(seen), seen["b"].new)
        await asyncio.to_thread(other.delete, "b")
        async with asyncio.timeout(60):
            seen = await anext(changes)

        assert MISSING is seen["b"].new
        await changes.aclose()

    async def test_a_stream_that_breaks_is_followed_again(self, url, waiting):
        """A change that comes after the stream was cut off and opened again is seen."""
        task, subscription = waiting
        broken = subscription._stream
        broken.interrupt()
        while subscription._stream in {None, broken}:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(SyncPersistentContext(url).incr, "n")
        async with asyncio.timeout(20):
            assert 1 == (await task)["n"].new

    async def test_a_change_that_comes_while_the_stream_is_down_is_seen(self, url, waiting, monkeypatch):
        """A change between two streams is seen, even if its history was compacted."""
        monkeypatch.setattr(subscription_module, "_RETRY_SECONDS", 1.0)
        task, subscription = waiting
        subscription._stream.interrupt()
        while subscription._stream is not None:
            await asyncio.sleep(0.01)
        other = SyncPersistentContext(url)
        await asyncio.to_thread(other.incr, "n")
        client = other._link.find().store._namespace.client
        revision = (await asyncio.to_thread(client.read, get(b"none"))).revision
        await asyncio.to_thread(client.gateway.call, "/v3/kv/compaction", {"revision": str(revision)}, repeatable=True)
        async with asyncio.timeout(20):
            assert 1 == (await task)["n"].new


class TestProcesses:
    def test_none_loses_a_change(self, url, spawn):
        """Processes that increment one number lose nothing."""
        others = [spawn(INCREMENT, url, 25) for _ in range(4)]
        for other in others:
            other.say()
        for other in others:
            assert ["done"] == other.finish()

        assert 100 == SyncPersistentContext.create(url)["n"]

    def test_a_value_is_computed_once(self, url, spawn):
        """Of several processes that need a value, one computes it."""
        others = [spawn(COMPUTE, url) for _ in range(4)]
        for other in others:
            other.say()

        assert [["{'value': 42}"]] * 4 == [other.finish() for other in others]
        assert 1 == SyncPersistentContext.create(url)["computed"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2): run on Linux")
    def test_forked_children_go_on(self, url, spawn):
        """A context can be used in forked children and their parent at the same time."""
        assert ["61"] == spawn(FORK, url).finish()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2): run on Linux")
    def test_a_forked_child_leaves_the_stream_of_a_watch_alone(self, url, run):
        """A forked child whose copy of a watch is finalized does not cut off the stream that its parent follows."""
        assert ["['n'] True"] == run(FORK_OF_A_WATCH, url)

    @pytest.mark.skipif(os.name == "nt", reason="needs SIGALRM: run on Linux")
    def test_a_signal_handler_may_make_calls(self, url, run):
        """A handler that strikes while the main thread sends a request can make calls itself."""
        assert ["True True"] == run(HANDLER, url)

    @pytest.mark.skipif(os.name == "nt", reason="needs SIGALRM: run on Linux")
    def test_a_signal_handler_may_read_at_any_moment(self, url, run):
        """A handler that strikes at any line of the code that remembers what is known can read the state itself."""
        assert ["True 1 2"] == run(STRIKES, url)

    def test_leases_exclude_each_other(self, url):
        """A lease has one holder at a time, and a number that grows."""
        ctx, tokens, inside = SyncPersistentContext(url), [], threading.Lock()

        def work():
            own = SyncPersistentContext(url.replace("127.0.0.1", "localhost"))
            for _ in range(5):
                with own.lease("job") as lease:
                    assert inside.acquire(blocking=False)
                    tokens.append(lease.token)
                    inside.release()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (15, sorted(tokens)) == (len(set(tokens)), tokens)
        assert ctx.lock_holder() is None


class TestACluster:
    @pytest.fixture
    def members(self, tmp_path):
        """Three members."""
        with etcd.cluster(3, tmp_path) as members:
            yield members

    def test_it_goes_on_without_one_member(self, members, spawn):
        """While members are killed and restarted one after the other, no acknowledged change is lost or made twice."""
        url = f"etcd://{','.join(member.endpoint for member in members)}/app"
        others = [spawn(INCREMENT, url, 60) for _ in range(3)]
        for other in others:
            other.say()
        ctx, number = SyncPersistentContext(url, lock_timeout=60), 0
        for member in members:
            member.kill()
            for _ in range(5):
                ctx.incr("n")
                number += 1
            member.start().until_healthy()
        for other in others:
            assert ["done"] == other.finish()

        assert 180 + number == SyncPersistentContext.create(url)["n"]
