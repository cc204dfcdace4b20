"""The garbage collector calls the library, from a finalizer, during a blocking call or a cycle: nothing hangs."""

from __future__ import annotations

import pytest

from striking import START

COLLECTED = (
    START
    + """
how = sys.argv[2]
ctx = SyncPersistentContext.create(path, lock_timeout=60, durable=False)
called = slow = 0
errors = set()

def call(*_):
    global called, slow
    called += 1
    began = time.monotonic()
    try:
        ctx.incr("collected")
    except PersistentContextError as error:
        errors.add(type(error))
    slow = max(slow, time.monotonic() - began)

class Node:
    def __init__(self):
        self.me = self
        if how == "weakref":
            weakrefs.append(weakref.ref(self, call))
    if how == "del":
        def __del__(self):
            call()

weakrefs = []
ctx.incr("n", 0)
gc.set_threshold(20)
until, number = time.monotonic() + 1, 0
while time.monotonic() < until or called <= 10:
    Node()
    number += 1
    ctx["k"] = number
    ctx.get_all_data()
    assert ctx.incr("n") == number
    ctx.save()
    with ctx.transaction() as tx:
        tx["t"] = number
gc.set_threshold(0)
assert LockTimeoutError not in errors
assert slow < 10
ctx.save()
assert_free()
assert stored()["n"] == number
print("ended")
"""
)

IN_THE_CYCLES_THREAD = (
    START
    + """
how, face = sys.argv[2:4]
import asyncio
outcome = []

def call():
    began = time.monotonic()
    try:
        SyncPersistentContext(path, lock_timeout=12).incr("inner")
    except PersistentContextError as error:
        outcome.append(type(error).__name__)
    outcome.append(time.monotonic() - began < 6)

class Dying:
    def __del__(self):
        call()

class Calling(logging.Handler):
    def emit(self, record):
        if not outcome:
            call()

def count(value):
    if how == "del":
        Dying()
    return value + 1

if how == "logging":
    logging.getLogger().addHandler(Calling())
    with open(path, "w") as file:
        file.write("{ corrupt")

async def on_a_loop():
    return await PersistentContext(path, lock_timeout=60).mutate("n", count, default=0)

if face == "async":
    assert asyncio.run(on_a_loop()) == 1
else:
    assert SyncPersistentContext(path, lock_timeout=60).mutate("n", count, default=0) == 1
assert outcome[-1], "the inner call hung until its timeout"
assert "LockTimeoutError" not in outcome
assert SyncPersistentContext(path, lock_timeout=3).incr("n") == 2
assert_free()
print("ended")
"""
)


class TestTheGarbageCollectorCalls:
    @pytest.mark.parametrize("how", ["del", "weakref"])
    def test_a_finaliser_that_calls_works_or_is_refused(self, path, run, how):
        """A ``__del__`` or weakref callback that makes a call, in any thread, works or is refused; nothing hangs."""
        assert ["ended"] == run(COLLECTED, path, how)

    @pytest.mark.parametrize("face_name", ["async", "sync"])
    @pytest.mark.parametrize("how", ["del", "logging"])
    def test_in_the_thread_of_the_cycle(self, path, run, how, face_name):
        """A call to the same file from the thread that holds its lock is refused at once, or works."""
        assert ["ended"] == run(IN_THE_CYCLES_THREAD, path, how, face_name)
