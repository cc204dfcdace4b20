"""Many processes on one file: nothing lost, nothing torn, no lock that outlives its holder, no help from a fork."""

import asyncio
import json
import os
import socket
import time

import pytest

from persistent_context import (
    Holder,
    LockLostError,
    LockTimeoutError,
    PersistentContext,
    SyncPersistentContext,
)

WORK = """
import asyncio, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, kind, name, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def ready():
    print("ready", flush=True)
    sys.stdin.readline()

def sync_incr():
    ctx = SyncPersistentContext.create(path)
    ready()
    for _ in range(count):
        print(ctx.incr("n"), flush=True)

def sync_save():
    ctx = SyncPersistentContext.create(path)
    ready()
    for number in range(count):
        ctx.set(f"{name}-{number}", number)
        ctx.save()

def sync_append():
    ctx = SyncPersistentContext.create(path)
    ready()
    for number in range(count):
        ctx.mutate("log", lambda log: [*log, [name, number]], default=[])

async def async_incr():
    ctx = await PersistentContext.create(path)
    ready()
    async def some():
        for _ in range(count // 5):
            print(await ctx.incr("n"), flush=True)
    await asyncio.gather(*(some() for _ in range(5)))

async def async_save():
    ctx = await PersistentContext.create(path)
    ready()
    for number in range(count):
        ctx.set(f"{name}-{number}", number)
        await ctx.save()

async def async_append():
    ctx = await PersistentContext.create(path)
    ready()
    for number in range(count):
        await ctx.mutate("log", lambda log: [*log, [name, number]], default=[])

result = globals()[kind]()
if result is not None:
    asyncio.run(result)
"""

BY_HAND = """
import json, os, sys
import filelock

path, count = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(count):
    with filelock.FileLock(path + ".lock"):
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        data["n"] += 1
        with open(path + ".by-hand", "w", encoding="utf-8") as file:
            json.dump(data, file)
        os.replace(path + ".by-hand", path)
"""

TWINS = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    with ctx.transaction() as tx:
        twin = [number] * (number * 7 % 300)
        tx["first"] = twin
        tx["last"] = twin
"""

TRY_FOREIGN_LOCK = """
import sys
import filelock

try:
    with filelock.FileLock(sys.argv[1] + ".lock", timeout=0):
        print("free", flush=True)
except filelock.Timeout:
    print("held", flush=True)
"""

SAVE_AND_STAY = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
ctx.set("a", 1)
ctx.save()
print("saved", flush=True)
sys.stdin.readline()
"""


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def run_together(spawn):
    """Start processes, let them begin at the same moment, and wait for all; what each of them said."""

    def run(*commands):
        children = [spawn(*command) for command in commands]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        return [child.finish() for child in children]

    return run


class TestNothingIsLost:
    @pytest.mark.parametrize("kinds", [
        ["sync_incr"] * 4, ["async_incr"] * 4, ["sync_incr", "async_incr"] * 2,
    ], ids=["sync", "async", "mixed"])  # fmt: skip
    def test_increments(self, path, run_together, kinds):
        """Every increment of every process is counted, and no number is handed out twice."""
        said = run_together(*((WORK, path, kind, number, 50) for number, kind in enumerate(kinds)))

        assert (list(range(1, 201)), {"n": 200}) == (
            sorted(int(line) for lines in said for line in lines),
            stored(path),
        )

    @pytest.mark.parametrize("kinds", [["sync_save"] * 4, ["async_save"] * 4], ids=["sync", "async"])
    def test_saves(self, path, run_together, kinds):
        """Every saved key of every process is there."""
        run_together(*((WORK, path, kind, number, 30) for number, kind in enumerate(kinds)))

        assert {f"{name}-{number}": number for name in range(4) for number in range(30)} == stored(path)

    @pytest.mark.parametrize("kinds", [["sync_append"] * 4, ["async_append"] * 4], ids=["sync", "async"])
    def test_appends(self, path, run_together, kinds):
        """Every appended entry is there once, those of each process in its order."""
        run_together(*((WORK, path, kind, number, 30) for number, kind in enumerate(kinds)))
        log = stored(path)["log"]

        assert [[[str(name), number] for number in range(30)] for name in range(4)] == [
            [entry for entry in log if entry[0] == str(name)] for name in range(4)
        ]

    def test_everything_at_once(self, path, run_together):
        """Increments, saves and appends of several processes lose nothing to each other."""
        kinds = ["sync_incr", "async_incr", "sync_save", "async_save", "sync_append", "async_append"]
        run_together(*((WORK, path, kind, number, 20) for number, kind in enumerate(kinds)))
        data = stored(path)

        assert (40, 40, {f"{name}-{number}" for name in (2, 3) for number in range(20)}) == (
            data.pop("n"),
            len(data.pop("log")),
            set(data),
        )

    def test_together_with_a_program_that_uses_filelock_by_hand(self, path, run_together):
        """A foreign program that takes the same lock loses nothing to us, nor we to it."""
        path.write_text('{"n": 0}', encoding="utf-8")
        run_together((BY_HAND, path, 50), (WORK, path, "sync_incr", 1, 50), (WORK, path, "async_incr", 2, 50))

        assert {"n": 150} == stored(path)

    def test_nothing_is_left_beside_the_file(self, path, run_together):
        """After a storm of writers there is the file and its lock."""
        run_together(*((WORK, path, "sync_save", number, 20) for number in range(4)))

        assert ["state.json", "state.json.lock"] == sorted(os.listdir(path.parent))


class TestNothingIsTorn:
    def test_a_reader_never_sees_half_a_document(self, path, spawn):
        """Whoever opens the file at any moment reads one whole document, of one moment."""
        path.write_text('{"first": [], "last": []}', encoding="utf-8")
        children = [spawn(TWINS, path, 150) for _ in range(2)]
        for child in children:
            child.hear()
        for child in children:
            child.say()
        differing, read = [], 0
        while any(child.running() for child in children) or not read:
            with path.open(encoding="utf-8") as file:
                data = json.load(file)
            read += 1
            if data["first"] != data["last"]:
                differing.append(data)
        for child in children:
            child.finish()

        assert [] == differing

    def test_a_context_that_loads_never_sees_half_a_document(self, face, path, spawn):
        """Loading beside writers is always whole, and moves nothing aside."""
        path.write_text('{"first": [], "last": []}', encoding="utf-8")
        child = spawn(TWINS, path, 150)
        child.hear()
        child.say()
        ctx = face.open(path)
        differing = []
        while child.running():
            face.do(ctx.load)
            if ctx["first"] != ctx["last"]:
                differing.append(dict(ctx))
        child.finish()

        assert ([], []) == (differing, list(path.parent.glob("*.corrupt-*")))


class TestKilling:
    def test_a_killed_holder_frees_the_lock(self, face, path, hold_transaction):
        """SIGKILL of the process that holds the lock frees it, and what it had begun is not there."""
        path.write_text('{"a": 1}', encoding="utf-8")
        held = hold_transaction(path)
        held.child.kill()
        number = face.do(face.open(path).incr, "n")

        assert (1, {"a": 1, "n": 1}) == (number, stored(path))

    def test_who_waits_behind_a_killed_holder_gets_its_turn(self, path, hold_transaction):
        """A wait ends when the holder is killed."""

        async def wait():
            ctx = await PersistentContext.create(path)
            counting = asyncio.create_task(ctx.incr("n"))
            for _ in range(50):
                await asyncio.sleep(0)
            waited = not counting.done()
            held.child.kill()
            return waited, await counting

        held = hold_transaction(path)

        assert (True, 1) == asyncio.run(wait())

    @pytest.mark.parametrize("kind", ["sync_incr", "async_incr"])
    def test_what_a_killed_process_was_told_is_counted(self, path, spawn, kind):
        """Every number that a process was told before it was killed is in the file, and hardly one more."""
        victim, others = spawn(WORK, path, kind, 0, 100_000), [spawn(WORK, path, kind, name, 50) for name in (1, 2)]
        for child in (victim, *others):
            child.hear()
            child.say()
        told = [victim.hear() for _ in range(20)]
        told += victim.kill()
        for child in others:
            told += child.finish()
        numbers = sorted(int(line) for line in told if line)
        unknown = stored(path)["n"] - len(numbers)

        assert (True, len(numbers)) == (0 <= unknown <= 5, len(set(numbers)))

    def test_a_process_killed_again_and_again_leaves_a_whole_file(self, face, path, spawn):
        """However often writers are killed, the file is whole and the next writer goes on."""
        for _ in range(5):
            child = spawn(TWINS, path, 100_000)
            child.hear()
            child.say()
            while not path.exists():
                os.sched_yield()
            child.kill()
        data = stored(path)
        face.do(face.open(path).incr, "n")

        assert (data.get("last"), [], 1) == (
            data.get("first"),
            list(path.parent.glob("*.corrupt-*")),
            stored(path)["n"],
        )


class TestForeignLocks:
    def test_a_foreign_lock_excludes_us(self, face, path, hold):
        """While another program holds filelock.FileLock on the lock file, nothing of ours is written."""
        ctx = face.open(path, lock_timeout=0)
        with hold(path), pytest.raises(LockTimeoutError):
            face.do(ctx.incr, "n")

        assert (False, 1) == (path.exists(), face.do(ctx.incr, "n"))

    def test_we_exclude_a_foreign_lock(self, face, path, spawn):
        """While our transaction is open, another program does not get filelock.FileLock on the lock file."""
        ctx = face.open(path)
        inside = face.inside(ctx.transaction, lambda tx: spawn(TRY_FOREIGN_LOCK, path).finish())
        afterwards = spawn(TRY_FOREIGN_LOCK, path).finish()

        assert (["held"], ["free"]) == (inside, afterwards)

    def test_an_idle_context_holds_no_lock(self, face, path, spawn):
        """After a call has returned, nobody is kept waiting."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")

        assert ["free"] == spawn(TRY_FOREIGN_LOCK, path).finish()

    def test_the_lock_file_is_never_deleted(self, face, path):
        """The lock file stays the same file over all calls."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")
        before = path.with_name("state.json.lock").stat().st_ino
        for _ in range(3):
            face.do(ctx.incr, "n")
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))

        assert before == path.with_name("state.json.lock").stat().st_ino


class TestTheHolder:
    def test_it_is_named_while_it_holds(self, face, path, hold_transaction):
        """While another process holds the lock, lock_holder says who and what for."""
        ctx = face.open(path)
        with hold_transaction(path) as held:
            holder = face.do(ctx.lock_holder)

        assert (True, held.pid, socket.gethostname(), True, True) == (
            isinstance(holder, Holder),
            holder.pid,
            holder.host,
            isinstance(holder.since, int | float) and holder.since > 1_500_000_000,
            isinstance(holder.purpose, str) and holder.purpose != "",
        )

    def test_it_is_nobody_afterwards(self, face, path, hold_transaction):
        """After the release nobody is named, though the holder still lives."""
        ctx = face.open(path)
        with hold_transaction(path):
            pass

        assert None is face.do(ctx.lock_holder)

    def test_it_is_nobody_before(self, face, path):
        """Where nobody ever locked, nobody is named, and no file is made."""
        ctx = face.open(path)

        assert (None, []) == (face.do(ctx.lock_holder), os.listdir(path.parent))

    def test_it_is_this_process_inside_a_transaction(self, path):
        """Inside a transaction of one's own, one is told of oneself."""

        async def ask():
            ctx = await PersistentContext.create(path)
            async with ctx.transaction():
                return await ctx.lock_holder()

        ctx = SyncPersistentContext.create(path)
        with ctx.transaction():
            holder = ctx.lock_holder()

        assert (os.getpid(), os.getpid()) == (holder.pid, asyncio.run(ask()).pid)

    def test_it_is_nobody_after_a_call_of_ours(self, face, path):
        """After a call has returned, nobody is named."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")

        assert None is face.do(ctx.lock_holder)

    def test_who_has_just_taken_the_lock_is_known(self, face, path, hold_transaction, hold, monkeypatch):
        """A process that has taken the lock, and has not said yet who it is, is asked again."""
        ctx = face.open(path, lock_timeout=0)
        lock = path.with_name("state.json.lock")
        with hold_transaction(path) as holder:
            stamp = lock.read_bytes()
        nobody = lock.read_bytes()
        monkeypatch.setattr(time, "sleep", lambda seconds: seconds and lock.write_bytes(stamp))
        with hold(path):
            told = face.do(ctx.lock_holder)
            lock.write_bytes(nobody)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")

        assert (holder.pid, holder.pid) == (told.pid, caught.value.holder.pid)

    def test_a_dead_process_is_not_shown(self, face, path, hold_transaction):
        """The stamp that a killed process left is not shown."""
        ctx = face.open(path)
        hold_transaction(path).child.kill()

        assert None is face.do(ctx.lock_holder)

    def test_a_dead_process_is_not_shown_for_a_holder_without_a_stamp(self, face, path, hold_transaction, hold):
        """The stamp of a killed process is not shown as whoever holds the lock now."""
        ctx = face.open(path, lock_timeout=0)
        dead = hold_transaction(path)
        dead.child.kill()
        with hold(path):
            holder = face.do(ctx.lock_holder)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")

        assert [True, True] == [
            one is None or one.pid not in (dead.pid, os.getpid()) for one in (holder, caught.value.holder)
        ]

    def test_a_former_holder_is_not_shown_for_a_holder_without_a_stamp(self, face, path, spawn, hold):
        """A living process that held the lock before is not shown as whoever holds it now."""
        former = spawn(SAVE_AND_STAY, path)
        former.hear()
        ctx = face.open(path, lock_timeout=0)
        face.do(ctx.incr, "n")
        with hold(path):
            holder = face.do(ctx.lock_holder)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")

        assert [True, True] == [
            one is None or one.pid not in (former.pid, os.getpid()) for one in (holder, caught.value.holder)
        ]

    @pytest.mark.parametrize("planted", [
        b"", b"\0" * 100, b"\xff" * 100, b"{", b"[]", b"null", b"1", b"x" * 5_000_000, b"[" * 1_000_000,
        b'{"pid": "x", "host": 1, "since": "never", "purpose": []}', b'{"pid": -1}', b'{"pid": 0}', b'{"pid": true}',
        b'{"pid": ' + b"9" * 5000 + b"}", b'{"pid": 1e400}', b'{"pid": NaN, "since": Infinity}',
        b'{"pid": 1, "host": "\\u001b[31mred", "purpose": "\\u001b]0;title\\u0007", "since": 1}',
        b"1\nhost\n1.0\n\x1b[31mpurpose\n", b'{"pid": 1, "host": "\\ud800", "since": 1, "purpose": "\\ud800"}',
    ], ids=lambda planted: ascii(planted)[:40])  # fmt: skip
    def test_what_stands_in_the_lock_file_is_not_trusted(self, face, path, hold, planted):
        """Whatever somebody wrote into the lock file, a timeout is a timeout and prints as plain text."""
        ctx = face.open(path, lock_timeout=0)
        with hold(path):
            path.with_name("state.json.lock").write_bytes(planted)
            holder = face.do(ctx.lock_holder)
            with pytest.raises(LockTimeoutError) as caught:
                face.do(ctx.incr, "n")
        text = str(caught.value)

        assert (True, True, True) == (
            holder is None or isinstance(holder, Holder),
            text.replace("\n", "").isprintable(),
            len(text) < 10_000,
        )

    def test_what_stood_in_the_lock_file_does_not_hinder(self, face, path):
        """Rubbish in the lock file hinders nobody from locking."""
        path.with_name("state.json.lock").write_bytes(b"\xff\0{" * 1000)

        assert 1 == face.do(face.open(path).incr, "n")


class TestALostLock:
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_a_transaction_whose_lock_file_went_writes_nothing(self, face, path, how):
        """Somebody deleted the lock file during the body: the commit raises LockLostError, and nothing is written."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        lock = path.with_name("state.json.lock")

        def body(tx):
            tx["a"] = 2
            lock.unlink()
            if how == "replaced":
                lock.touch()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (b'{"a": 1}', 1, set()) == (path.read_bytes(), ctx["a"], ctx.unsaved_keys())

    def test_what_was_unsaved_stays_unsaved(self, face, path):
        """A lost lock leaves what was taken along as unsaved as it was."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 5)

        def body(tx):
            tx["a"] += 1
            path.with_name("state.json.lock").unlink()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (b'{"a": 1}', 5, {"a"}) == (path.read_bytes(), ctx["a"], ctx.unsaved_keys())

    def test_life_goes_on_under_a_new_lock(self, face, path):
        """After a lost lock the next call works."""
        ctx = face.open(path)

        def body(tx):
            tx["a"] = 2
            path.with_name("state.json.lock").unlink()

        with pytest.raises(LockLostError):
            face.inside(ctx.transaction, body)

        assert (1, 2, {"n": 2}) == (face.do(ctx.incr, "n"), face.do(face.open(path).incr, "n"), stored(path))

    def test_a_lock_file_deleted_between_two_calls_is_made_again(self, face, path):
        """An idle context does not mind that its lock file is deleted."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")
        path.with_name("state.json.lock").unlink()

        assert (2, True) == (face.do(ctx.incr, "n"), path.with_name("state.json.lock").exists())

    def test_a_call_that_waits_for_a_deleted_lock_file_excludes_the_next(self, path, hold):
        """A lock taken on a file that is deleted by then is no lock: the call starts again under the new one."""

        async def wait():
            ctx = await PersistentContext.create(path)
            with hold(path):
                counting = [asyncio.create_task(ctx.incr("n")) for _ in range(5)]
                for _ in range(50):
                    await asyncio.sleep(0)
                path.with_name("state.json.lock").unlink()
            return sorted(await asyncio.gather(*counting)) + [await ctx.incr("n")]

        assert ([1, 2, 3, 4, 5, 6], True) == (asyncio.run(wait()), path.with_name("state.json.lock").exists())


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
    "Whether another program finds the lock held or free."
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
        """A child may use the sync context that it inherited, and loses nothing to its parent."""
        code = """
ctx = SyncPersistentContext.create(path)
ctx.incr("n")
say(in_a_child(lambda: ctx.incr("n") and 0))
ctx.incr("n")
"""

        assert (["0"], {"n": 3}) == (spawn(FORK_PRELUDE + code, path).finish(), stored(path))

    def test_a_child_saves_what_it_inherited_unsaved(self, path, spawn):
        """What was unsaved at the fork is unsaved in both, and each may save."""
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
        """Many children of one context, and their parent, lose nothing to each other."""
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
        """A fork in the middle of other threads' calls gives a child that works or says why not, and never hangs."""
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
        """No call imports a module, of which a fork in another thread would make half of one in the child.

        It was filelock, at the first lock: it registers what is to be done at forks, in the midst of one of them.
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
        """A child forked inside a running loop uses the context in a loop of its own, or is told why not."""
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
        """A transaction that was inherited through fork is not the child's."""
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
        """However a child leaves its parent's transaction, the lock stays the parent's and the parent commits."""
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
        """A child that runs to the end of the interpreter, exit handlers and all, leaves the lock alone."""
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
        """The same for the async face."""
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
        """After the parent's commit the lock is free, though a child that was forked inside still lives."""
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
        """After the commit the lock is free, though a program that was started inside still runs."""
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
        """A holder that was killed frees the lock, though a program that it had started still runs."""
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
        """A holder that was killed frees the lock, though a child that it had forked still lives."""
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
