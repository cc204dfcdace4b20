"""The pool of daemon threads: a thread runs many jobs, and calls also work without one."""

import _thread
import asyncio
import threading
import time
from collections import deque

import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._engine.worker import DaemonPool, pool

STARTERS = [name for name in ("_start_new_thread", "_start_joinable_thread") if hasattr(threading, name)]


def _raise(error):
    raise error


class TestThePool:
    def test_a_thread_serves_one_job_after_the_other(self):
        """An idle thread is reused, and renamed after its job."""
        pool, names, done = DaemonPool(), [], threading.Event()
        for name in ("a", "b"):
            done.clear()
            assert pool.submit(lambda: (names.append(threading.current_thread()), done.set()), name)
            done.wait(10)
            while not pool._idle:
                time.sleep(0.001)

        assert (1, "b") == (len(set(names)), names[0].name)

    def test_a_thread_that_is_counted_on_waits_longer(self, monkeypatch):
        """A thread that was chosen for a job at the last moment waits until the job arrives."""
        monkeypatch.setattr("persistent_context._engine.worker._IDLE_SECONDS", 0.01)
        pool, done = DaemonPool(), threading.Event()
        pool.submit(int, "first")
        while not pool._idle:
            time.sleep(0.0001)
        pool._idle.pop()
        time.sleep(0.05)
        pool._jobs.put(("late", done.set))

        assert done.wait(10)

    @pytest.mark.parametrize("face_name", ["async", "sync"])
    def test_without_a_thread_the_caller_does_it(self, path, monkeypatch, face_name):
        """If no thread is idle and none can be started, the calling thread runs the call itself."""
        monkeypatch.setattr(pool, "_idle", deque())
        monkeypatch.setattr(_thread, "start_new_thread", lambda *_: _raise(RuntimeError("can't start new thread")))
        for name in STARTERS:
            monkeypatch.setattr(threading, name, lambda *_, **__: _raise(RuntimeError("can't start new thread")))
        ran = []

        def function(value):
            ran.append(threading.get_ident())
            return 1

        async def call():
            await PersistentContext(path).mutate("n", function)
            monkeypatch.undo()  # asyncio.run itself needs a thread to shut down

        if face_name == "async":
            asyncio.run(call())
        else:
            SyncPersistentContext(path).mutate("n", function)

        assert [threading.get_ident()] == ran

    def test_without_a_thread_a_transaction_is_ended_by_its_own(self, path, monkeypatch):
        """If no thread can be started, the thread that leaves a transaction commits it."""
        with SyncPersistentContext(path).transaction() as tx:
            tx["n"] = 1
            monkeypatch.setattr(DaemonPool, "submit", lambda *_: False)

        assert '{\n"n": 1\n}\n' == path.read_text(encoding="utf-8")

    def test_a_thread_that_never_gets_a_job_ends(self, monkeypatch):
        """A thread that is repeatedly chosen, but never gets a job, still ends."""
        monkeypatch.setattr("persistent_context._engine.worker._IDLE_SECONDS", 0.001)
        monkeypatch.setattr("persistent_context._engine.worker._IDLE_AT_MOST", 3)

        assert DaemonPool()._next() is None
