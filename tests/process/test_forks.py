"""Forks: a child uses its own contexts, threads and locks, and neither helps nor harms its parent."""

import json

import pytest

TRY_FOREIGN_LOCK = """
import sys
import filelock

try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free", flush=True)
except filelock.Timeout:
    print("held", flush=True)
"""


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


FORK_PRELUDE = """
import asyncio, gc, os, subprocess, sys, threading
from persistent_context import (
    ContextUsageError, LockTimeoutError, PersistentContext, PersistentContextError, SyncPersistentContext,
)

path = sys.argv[1]

def in_a_child(work):
    "Run ``work`` in a fork; its exit code: 7 for an error of ours, 97 a timeout, 98 after a minute, 99 any other."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    import signal
    signal.signal(signal.SIGALRM, lambda *_: os._exit(98))
    signal.alarm(60)
    try:
        code = work() or 0
    except LockTimeoutError:
        code = 97
    except PersistentContextError:
        code = 7
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 99
    os._exit(code)

def others_find():
    "Return whether another program finds the lock held or free."
    code = '''
import sys, filelock
try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free")
except filelock.Timeout:
    print("held")
'''
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout.strip()

def say(*words):
    print(*words, flush=True)
"""


class TestForks:
    def test_a_child_uses_an_inherited_context(self, path, spawn):
        """A child can use an inherited synchronous context, and no change of the child or its parent is lost."""
        code = """
ctx = SyncPersistentContext.create(path)
ctx.incr("n")
say(in_a_child(lambda: ctx.incr("n") and 0))
ctx.incr("n")
"""

        assert (["0"], {"n": 3}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_child_saves_what_it_inherited_unsaved(self, path, spawn):
        """Changes that were unsaved at the fork are unsaved in both processes, and each may save them."""
        code = """
ctx = SyncPersistentContext.create(path)
ctx.set("both", 1)
def work():
    ctx.set("child", 1)
    ctx.save()
say(in_a_child(work))
ctx.set("parent", 1)
ctx.save()
"""

        assert (["0"], {"both": 1, "child": 1, "parent": 1}) == (
            spawn(FORK_PRELUDE + code, path).finish(),
            stored(path),
        )

    def test_many_children_at_once(self, path, spawn):
        """Many children of one context, and their parent, lose none of each other's changes."""
        code = """
ctx = SyncPersistentContext.create(path)
def work():
    for _ in range(20):
        ctx.incr("n")
pids = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    pids.append(pid)
work()
say(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""

        assert (["0 0 0 0"], {"n": 100}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_child_made_while_threads_work(self, path, spawn):
        """A child forked during other threads' calls works or is refused with an error, and never hangs."""
        code = """
ctx = SyncPersistentContext.create(path, durable=False)
stop = threading.Event()
counts = [0] * 3
def hammer(number):
    while not stop.is_set():
        ctx.incr("n")
        counts[number] += 1
threads = [threading.Thread(target=hammer, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
codes = [in_a_child(lambda: ctx.incr("n") and 0) for _ in range(20)]
stop.set()
for thread in threads:
    thread.join()
say(sorted(set(codes) - {0, 7}), ctx.incr("n") == sum(counts) + codes.count(0) + 1)
"""

        assert ["[] True"] == spawn(FORK_PRELUDE + code, path).finish()

    def test_no_call_imports_a_module(self, path, spawn):
        """No call imports a module, since a fork by another thread would leave the module half imported in the child.

        The module was filelock, at the first lock: it registers a fork handler, possibly in the middle of a fork.
        """
        code = """
before = set(sys.modules)
ctx = SyncPersistentContext.create(path)
ctx["a"] = [1]
ctx.save()
ctx.incr("n")
ctx.mutate("a", sorted)
with ctx.transaction() as tx:
    tx["n"] += 1
ctx.load()
say(sorted(set(sys.modules) - before), ctx.lock_holder(), ctx.filepath.name)
"""

        assert ["[] None state.json"] == spawn(FORK_PRELUDE + code, path).finish()

    def test_a_child_of_a_running_loop(self, path, spawn):
        """A child forked inside a running loop uses the context in a new loop, or is refused with an error."""
        code = """
async def main():
    ctx = await PersistentContext.create(path)
    await ctx.incr("n")
    code = in_a_child(lambda: asyncio.run(ctx.incr("n")) and 0)
    return code, await ctx.incr("n")
code, number = asyncio.run(main())
say(code in (0, 7), number == 2 + (code == 0))
"""

        assert ["True True"] == spawn(FORK_PRELUDE + code, path).finish()

    @pytest.mark.parametrize("use", ["tx['a']", "tx.update(a=2)", "len(tx)", "dict(tx)"])
    def test_a_child_cannot_use_its_parents_transaction(self, path, spawn, use):
        """A transaction that was inherited by a fork is not usable in the child."""
        code = f"""
ctx = SyncPersistentContext.create(path)
def work():
    try:
        {use}
    except ContextUsageError:
        return 5
with ctx.transaction() as tx:
    tx["a"] = 1
    say(in_a_child(work))
"""

        assert (["5"], {"a": 1}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    @pytest.mark.parametrize("leaving", ["return", "raise", "collect", "exit", "call"])
    def test_a_child_cannot_release_its_parents_lock(self, path, spawn, leaving):
        """However a child leaves its parent's transaction, the parent keeps the lock and commits."""
        code = """
leaving = sys.argv[2]
ctx = SyncPersistentContext.create(path, lock_timeout=0.05)
manager = ctx.transaction(timeout=30)
tx = manager.__enter__()
tx["a"] = 1
def work():
    global manager, tx, ctx
    try:
        if leaving == "return":
            manager.__exit__(None, None, None)
        elif leaving == "raise":
            error = LookupError()
            manager.__exit__(LookupError, error, None)
        elif leaving == "call":
            ctx.incr("n")
    except PersistentContextError:
        pass
    if leaving == "exit":
        manager.__exit__(SystemExit, SystemExit(0), None)
    del manager, tx, ctx
    gc.collect()
in_a_child(work)
say(others_find())
tx["b"] = 1
manager.__exit__(None, None, None)
say(others_find())
"""

        assert (["held", "free"], {"a": 1, "b": 1}) == (
            spawn(FORK_PRELUDE + code, path, leaving).finish(),
            stored(path),
        )

    def test_a_child_that_ends_normally_does_not_release_its_parents_lock(self, path, spawn):
        """A child that runs to the end of the interpreter, including exit handlers, does not release the lock."""
        code = """
ctx = SyncPersistentContext.create(path)
with ctx.transaction() as tx:
    tx["a"] = 1
    pid = os.fork()
    if not pid:
        sys.exit(0)
    os.waitpid(pid, 0)
    say(others_find())
say("parent", others_find())
"""

        assert (["held", "parent free"], {"a": 1}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_child_of_an_async_transaction_cannot_release_its_parents_lock(self, path, spawn):
        """The same holds for the async face."""
        code = """
async def main():
    ctx = await PersistentContext.create(path)
    async with ctx.transaction() as tx:
        tx["a"] = 1
        def work():
            global ctx, tx
            try:
                tx["a"] = 2
            except ContextUsageError:
                gc.collect()
                return 5
        globals().update(ctx=ctx, tx=tx)
        say(in_a_child(work), others_find())
    say(others_find())
asyncio.run(main())
"""

        assert (["5 held", "free"], {"a": 1}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_child_that_lives_on_does_not_keep_the_lock(self, path, spawn):
        """After the parent's commit the lock is free, although a child that was forked inside still lives."""
        code = """
ctx = SyncPersistentContext.create(path)
hold, release = os.pipe()
with ctx.transaction() as tx:
    tx["a"] = 1
    pid = os.fork()
    if not pid:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
say(others_find(), ctx.incr("n"))
os.close(release)
os.waitpid(pid, 0)
"""

        assert (["free 1"], {"a": 1, "n": 1}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_subprocess_started_inside_does_not_keep_the_lock(self, path, spawn):
        """After the commit the lock is free, although a program that was started inside still runs."""
        code = """
ctx = SyncPersistentContext.create(path)
with ctx.transaction() as tx:
    tx["a"] = 1
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
say(others_find())
other.communicate(b"\\n")
"""

        assert ["free"] == spawn(FORK_PRELUDE + code, path).finish()

    def test_a_subprocess_started_inside_does_not_outlast_a_killed_holder(self, path, spawn):
        """A holder that was killed frees the lock, although a program that it started still runs."""
        code = """
ctx = SyncPersistentContext.create(path)
with ctx.transaction() as tx:
    tx["a"] = 1
    reading = "import os; os.read(0, 1)"
    other = subprocess.Popen([sys.executable, "-c", reading], stdout=subprocess.DEVNULL, close_fds=False)
    say(others_find())
    threading.Event().wait()
"""
        child = spawn(FORK_PRELUDE + code, path)
        heard = child.hear()
        child.process.kill()
        child.process.wait()

        assert ("held", ["free"]) == (heard, spawn(TRY_FOREIGN_LOCK, path).finish())

    def test_a_forked_child_does_not_outlast_a_killed_holder(self, path, spawn):
        """A holder that was killed frees the lock, although a child that it forked still lives."""
        code = """
ctx = SyncPersistentContext.create(path)
with ctx.transaction() as tx:
    tx["a"] = 1
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.read(0, 1)
        os._exit(0)
    say(others_find())
    threading.Event().wait()
"""
        child = spawn(FORK_PRELUDE + code, path)
        heard = child.hear()
        child.process.kill()
        child.process.wait()

        assert ("held", ["free"]) == (heard, spawn(TRY_FOREIGN_LOCK, path).finish())
