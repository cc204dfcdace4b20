"""The end of a task, a loop, a fork or the interpreter, and the lack of threads: nothing is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import json
import sys

import filelock
import pytest

from persistent_context import PersistentContext, SyncPersistentContext

faces = pytest.mark.parametrize("face_name", ["async", "sync"])

FACES = """
import asyncio, json, sys, threading, time
import filelock
from persistent_context import PersistentContext, PersistentContextError, SyncPersistentContext

class OnALoop:
    cls = PersistentContext
    def __init__(self):
        self.loop = asyncio.new_event_loop()
    def do(self, call, *args, **kwargs):
        async def within():
            return await call(*args, **kwargs)
        return self.loop.run_until_complete(within())
    def transact(self, ctx, body):
        async def within():
            async with ctx.transaction() as tx:
                body(tx)
        self.loop.run_until_complete(within())

class Blocking:
    cls = SyncPersistentContext
    def do(self, call, *args, **kwargs):
        return call(*args, **kwargs)
    def transact(self, ctx, body):
        with ctx.transaction() as tx:
            body(tx)

def the_face(name):
    return OnALoop() if name == "async" else Blocking()

def stored(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)

def is_free(path):
    lock = filelock.FileLock(path + ".lock", timeout=5)
    with lock:
        return True
"""

NO_THREADS = (
    FACES
    + """
import _thread, contextlib

STARTERS = [name for name in ("_start_new_thread", "_start_joinable_thread") if hasattr(threading, name)]

@contextlib.contextmanager
def no_threads(which=lambda number: True):
    started = 0
    real = {name: getattr(threading, name) for name in STARTERS}
    def start(name):
        def refuse(*args, **kwargs):
            nonlocal started
            started += 1
            if which(started):
                raise RuntimeError("can't start new thread")
            return real[name](*args, **kwargs)
        return refuse
    try:
        for name in STARTERS:
            setattr(threading, name, start(name))
        yield lambda: started
    finally:
        for name in STARTERS:
            setattr(threading, name, real[name])
"""
)


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def cancel_when_another_task_appears(task, turns):
    """Cancel as ``asyncio.run`` does at its end, some turns of the loop after ``task`` has started another task.

    With zero turns, that task has not taken its first step yet.
    """
    loop, known = asyncio.get_running_loop(), asyncio.all_tasks()

    def look(turns):
        others = asyncio.all_tasks(loop) - known
        if others and not turns:
            for one in {task, *others}:
                one.cancel()
        elif not task.done():
            loop.call_soon(look, turns - 1 if others else turns)

    loop.call_soon(look, turns)


# ---------------------------------------- all tasks of a loop are cancelled

WORKERS = """
import asyncio, json, os, sys
from persistent_context import PersistentContext

path, shared, rounds = sys.argv[1], sys.argv[2] == "shared", int(sys.argv[3])
eager = sys.argv[4] == "eager"

async def work(ctx, number):
    try:
        while True:
            await ctx.incr("busy")
    finally:
        ctx[f"last-{number}"] = number
        await ctx.save()

async def main(path, turns):
    if eager:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    one = PersistentContext(path, lock_timeout=3, durable=False)
    others = [one if shared else PersistentContext(path, lock_timeout=3, durable=False) for _ in range(7)]
    tasks = [asyncio.create_task(work(ctx, number)) for number, ctx in enumerate([one, *others])]
    for _ in range(turns):
        await asyncio.sleep(0)

for turns in range(rounds):
    asyncio.run(main(f"{path}-{turns}", turns % 25 + 1))
    with open(f"{path}-{turns}", encoding="utf-8") as file:
        saved = json.load(file)
    lost = [number for number in range(8) if f"last-{number}" not in saved]
    assert not lost, f"after {turns} turns the last save of {lost} is lost"
print("all kept")
"""

eager_or_not = pytest.mark.parametrize(
    "tasks",
    [
        "plain",
        pytest.param(
            "eager",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12), reason="needs eager tasks: run on Python 3.12 or later"
            ),
        ),
    ],
)


class TestAllTasksAreCancelled:
    @pytest.mark.parametrize("call", ["incr", "save", "transaction", "load"])
    async def test_a_context_goes_on_after_all_tasks_were_cancelled(self, tmp_path, call):
        """If all tasks are cancelled, including a call's internal ones, begun or not, the context still works."""

        async def one(ctx):
            if call == "transaction":
                async with ctx.transaction() as tx:
                    tx["n"] = 1
            else:
                ctx["k"] = 1
                await (ctx.incr("n") if call == "incr" else getattr(ctx, call)())

        for turns in range(6):
            ctx = PersistentContext(tmp_path / f"{turns}.json", lock_timeout=2)
            task = asyncio.create_task(one(ctx))
            cancel_when_another_task_appears(task, turns)
            await asyncio.wait({task})

            assert 1 == await ctx.incr("probe"), turns

    @eager_or_not
    @pytest.mark.parametrize("contexts", ["shared", "own"])
    def test_no_worker_loses_the_save_in_its_finally(self, path, run, contexts, tasks):
        """Workers that save in ``finally`` when ``asyncio.run`` ends lose nothing that they saved."""
        assert ["all kept"] == run(WORKERS, path, contexts, 100, tasks)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks: run on Python 3.12 or later")
    async def test_all_calls_under_an_eager_task_factory(self, path):
        """A loop with eager tasks serves single calls, and many together."""
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        ctx = await PersistentContext.create(path, lock_timeout=2)
        for number in range(5):
            ctx[f"k{number}"] = number
            await ctx.save()
            await ctx.incr("n")
            async with ctx.transaction() as tx:
                tx["m"] = number
        await asyncio.gather(*(ctx.incr("n") for _ in range(20)))
        await ctx.load()

        assert {**{f"k{number}": number for number in range(5)}, "n": 25, "m": 4} == stored(path)


# ---------------------------------------- a loop that is discarded

THROWN_AWAY = """
import asyncio, gc, sys
import filelock
from persistent_context import PersistentContext, SyncPersistentContext

path = sys.argv[1]
ctx = PersistentContext(path, lock_timeout=3)

async def work():
    async with ctx.transaction() as tx:
        tx["n"] = 1
        await asyncio.Event().wait()

async def begin():
    task = asyncio.ensure_future(work())
    while not await ctx.lock_holder():
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)

loop = asyncio.new_event_loop()
loop.run_until_complete(begin())
loop.close()
del loop
gc.collect()
with filelock.FileLock(path + ".lock", timeout=5):
    print("free")
print(SyncPersistentContext(path, lock_timeout=3).incr("probe"))
print(asyncio.run(ctx.incr("probe")))
print("n" in ctx._data or "n" in SyncPersistentContext.create(path))
"""

TWO_LOOPS = """
import asyncio, gc, sys, threading
import filelock
from persistent_context import PersistentContext, SyncPersistentContext

path, collected = sys.argv[1], sys.argv[2] == "collected"

async def begin(call):
    task = asyncio.ensure_future(call)
    for _ in range(200):
        await asyncio.sleep(0)
    return task

async def go_on(ctx, lock):
    calls = [await begin(ctx.incr("n")), await begin(ctx.incr("n"))]
    lock.release()
    return await asyncio.gather(*calls)

def move(path):
    ctx = PersistentContext(path, lock_timeout=60)
    lock = filelock.FileLock(path + ".lock", thread_local=False)
    lock.acquire()
    first = asyncio.new_event_loop()
    abandoned = first.run_until_complete(begin(ctx.incr("abandoned")))
    first.close()
    if collected:
        del first, abandoned
        gc.collect()
    assert asyncio.run(go_on(ctx, lock)) == [1, 2]
    assert SyncPersistentContext(path, lock_timeout=5).incr("n") == 3

for number in range(10):
    move(f"{path}-{number}")
print("moved")
"""


class TestALoopIsThrownAway:
    def test_an_open_transaction_goes_with_its_loop(self, path, run):
        """A task that is discarded inside a transaction, with its closed loop, leaves no lock and no change."""
        assert ["free", "1", "2", "False"] == run(THROWN_AWAY, path)

    @pytest.mark.parametrize("task", ["collected", "referenced"])
    def test_the_next_loop_does_not_wait_for_the_calls_of_the_last(self, path, run, task):
        """A context that moves to a second loop works there, whatever call it abandoned on the first."""
        assert ["moved"] == run(TWO_LOOPS, path, task)


# ---------------------------------------- no thread can be started

WITHOUT_THREADS = (
    NO_THREADS
    + """
path, name, call, warm = sys.argv[1:5]
face = the_face(name)
ctx = face.cls(path, lock_timeout=3)
if warm == "warm":
    face.do(ctx.incr, "warm")
with no_threads():
    if call == "incr":
        face.do(ctx.incr, "n")
    elif call == "save":
        ctx["n"] = 1
        face.do(ctx.save)
    elif call == "load":
        face.do(ctx.load)
        ctx["n"] = 1
        face.do(ctx.save)
    else:
        face.transact(ctx, lambda tx: tx.update(n=1))
    assert stored(path)["n"] == 1
    assert is_free(path)
print(face.do(ctx.incr, "n"), stored(path)["n"])
"""
)

NONE_TO_LEAVE = (
    NO_THREADS
    + """
path, name, error = sys.argv[1], sys.argv[2], sys.argv[3] == "error"
face = the_face(name)
ctx = face.cls(path, lock_timeout=3)
with no_threads(lambda number: wanting):
    wanting = False
    def body(tx):
        global wanting
        tx["n"] = 1
        wanting = True
        if error:
            raise KeyError
    try:
        face.transact(ctx, body)
    except KeyError:
        assert error
    assert is_free(path)
print(face.do(ctx.incr, "n"), stored(path)["n"])
"""
)

ONE_OF_THEM = (
    NO_THREADS
    + """
path, name = sys.argv[1:3]

def work(face, ctx):
    done = 0
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            face.do(ctx.incr, "n")
            done += 1
        with contextlib.suppress(RuntimeError):
            face.transact(ctx, lambda tx: tx.update(n=tx.get("n", 0) + 1))
            done += 1
    return done

number, starts = 0, 1
while number < starts:
    number += 1
    face = the_face(name)
    file = f"{path}-{number}"
    ctx = face.cls(file, lock_timeout=2)
    with no_threads(lambda started: started == number) as started:
        done = work(face, ctx)
        starts = started()
    assert is_free(file)
    done += work(face, ctx)
    assert face.do(ctx.incr, "probe") == 1
    assert stored(file)["n"] == done, (number, done, stored(file))
print("none wedged")
"""
)

REFUSED = (
    NO_THREADS
    + """
path, name, timeout = sys.argv[1], sys.argv[2], float(sys.argv[3])
face = the_face(name)
ctx = face.cls(path, lock_timeout=timeout)
with filelock.FileLock(path + ".lock"):
    with no_threads():
        try:
            face.do(ctx.incr, "n")
        except (PersistentContextError, RuntimeError):
            print("refused")
later = face.cls(path, lock_timeout=3)
print(face.do(later.incr, "m"), face.do(later.incr, "m"))
time.sleep(0.2)  # time for a refused call that wrongly takes effect later
print(stored(path))
"""
)

AT_EXIT = """
import asyncio, atexit, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, used = sys.argv[1], sys.argv[3] == "used"

if sys.argv[2] == "sync":
    ctx = SyncPersistentContext(path, lock_timeout=3)
    if used:
        ctx.incr("before")
    def leave():
        ctx.save()
        ctx.incr("calls")
        with ctx.transaction() as tx:
            tx["calls"] += 1
        print(*(SyncPersistentContext.create(path)[key] for key in ("last", "calls")), flush=True)
else:
    ctx = PersistentContext(path, lock_timeout=3)
    if used:
        asyncio.run(ctx.incr("before"))
    async def leave_in_a_loop():
        await ctx.save()
        await ctx.incr("calls")
        async with ctx.transaction() as tx:
            tx["calls"] += 1
        fresh = await PersistentContext.create(path)
        print(fresh["last"], fresh["calls"], flush=True)
    def leave():
        asyncio.run(leave_in_a_loop())
ctx["last"] = 1
atexit.register(leave)
"""

ONE_SHOTS = """
import sys, threading
from persistent_context import SyncPersistentContext

most = 0
for _ in range(300):
    SyncPersistentContext(sys.argv[1], durable=False).incr("n")
    most = max(most, threading.active_count())
assert most < 20, f"{most} threads"
print("few")
"""


class TestNoThreadCanBeStarted:
    @pytest.mark.parametrize("call", ["incr", "save", "transaction", "load"])
    @pytest.mark.parametrize("threads", ["cold", "warm"])
    @faces
    def test_the_call_is_served_all_the_same(self, path, run, face_name, threads, call):
        """If no thread can be started, a call does its work in the calling thread, and the next calls work."""
        assert ["2 2"] == run(WITHOUT_THREADS, path, face_name, call, threads)

    @pytest.mark.parametrize("how", ["clean", "error"])
    @faces
    def test_a_transaction_is_left_without_a_new_thread(self, path, run, face_name, how):
        """If no thread can be started, an open transaction still commits or discards, and frees the lock."""
        assert ["2 2" if how == "clean" else "1 1"] == run(NONE_TO_LEAVE, path, face_name, how)

    @faces
    def test_whichever_thread_it_was(self, path, run, face_name):
        """Whichever start of a thread fails, the call works or has no effect, the lock is free and later calls work."""
        assert ["none wedged"] == run(ONE_OF_THEM, path, face_name)

    @pytest.mark.parametrize("timeout", [0, 0.2])
    @faces
    def test_a_call_that_was_refused_has_no_effect_later(self, path, run, face_name, timeout):
        """A call that could get neither the lock nor a thread fails, and has no effect when there is a thread again."""
        assert ["refused", "1 2", "{'m': 2}"] == run(REFUSED, path, face_name, timeout)

    @pytest.mark.parametrize("before", ["used", "new"])
    @faces
    def test_at_the_interpreters_exit(self, path, run, face_name, before):
        """A function registered with ``atexit`` can save, count and transact, also by ``asyncio.run``."""
        assert ["1 2"] == run(AT_EXIT, path, face_name, before)
        assert 1 == stored(path)["last"]

    def test_short_lived_contexts_leave_no_crowd_of_threads(self, path, run):
        """Hundreds of contexts that are used once do not each leave a thread behind."""
        assert ["few"] == run(ONE_SHOTS, path)


# ---------------------------------------- a forked child

FORKED = """
import os, signal, sys
from persistent_context import SyncPersistentContext

path, kind = sys.argv[1:3]
signal.alarm(14)  # ends a hang; a faulthandler watchdog would itself hang at the end of a forked child

def part():
    child = os.fork()
    if not child:
        signal.alarm(10)
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

if kind == "transaction":
    with SyncPersistentContext(path).transaction() as tx:
        tx["status"] = part()
else:
    with SyncPersistentContext(path) as ctx:
        ctx["status"] = part()
print(SyncPersistentContext.create(path)["status"])
"""


class TestAForkedChildEnds:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("kind", ["transaction", "context"])
    def test_inside_its_parents_block(self, path, spawn, kind):
        """A child that exits inside its parent's block exits with its own status, and the parent continues."""
        assert ["3"] == spawn(FORKED, path, kind).finish()


# ---------------------------------------- assumptions of the tests


def test_a_foreign_lock_excludes_us(path):
    """The lock that the tests use as another program's lock excludes the library."""
    with filelock.FileLock(f"{path}.lock"), pytest.raises(TimeoutError):
        SyncPersistentContext(path, lock_timeout=0).incr("n")


class TestTheInterpreter:
    def test_it_ends_while_a_sync_call_waits_in_a_thread(self, path, spawn, hold):
        """A program can exit while a call in a daemon thread waits for a hung holder."""
        code = (
            "import sys, threading\n"
            "from persistent_context import SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1])\n"
            "threading.Thread(target=ctx.incr, args=('n',), daemon=True).start()\n"
            "print('ending', flush=True)\n"
        )
        with hold(path):
            said = spawn(code, path).finish()

        assert (["ending"], False) == (said, path.exists())

    def test_it_ends_while_a_loop_is_waiting(self, path, spawn, hold):
        """A program whose loop is stopped while it waits for the lock exits at once."""
        code = (
            "import asyncio, sys\n"
            "from persistent_context import PersistentContext\n"
            "async def main():\n"
            "    ctx = await PersistentContext.create(sys.argv[1])\n"
            "    tasks = [asyncio.create_task(ctx.incr('n')) for _ in range(3)]\n"
            "    await asyncio.wait(tasks, timeout=0.05)\n"
            "asyncio.run(main())\n"
            "print('ending', flush=True)\n"
        )
        with hold(path):
            said = spawn(code, path).finish()

        assert (["ending"], False) == (said, path.exists())
