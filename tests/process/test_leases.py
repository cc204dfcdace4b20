"""Leases and computations among processes: one at a time, taken over at once after a kill, never held by a fork."""

import json
import os
import signal
import time

import pytest

from persistent_context import LeaseHeldError, SyncPersistentContext

HOLD = """
import sys
from persistent_context import SyncPersistentContext

with SyncPersistentContext(sys.argv[1]).lease("a") as lease:
    print(lease.token, flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

TAKE_TURNS = """
import asyncio, os, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()

def alone(lease):
    os.close(os.open(path + ".inside", os.O_CREAT | os.O_EXCL))  # fails if another is inside
    os.unlink(path + ".inside")
    print(lease.token, flush=True)

def in_threads():
    ctx = SyncPersistentContext(path)
    for _ in range(count):
        with ctx.lease("a") as lease:
            alone(lease)

async def in_tasks():
    ctx = PersistentContext(path)
    async def some():
        for _ in range(count // 5):
            async with ctx.lease("a") as lease:
                alone(lease)
    await asyncio.gather(*(some() for _ in range(5)))

in_threads() if kind == "sync" else asyncio.run(in_tasks())
"""

TOKENS = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext(sys.argv[1])
while True:
    with ctx.lease("a") as lease:
        print(lease.token, flush=True)
"""

COMPUTE = """
import asyncio, os, sys, time
from persistent_context import PersistentContext, SyncPersistentContext

path, kind, keys = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
print("ready", flush=True)
sys.stdin.readline()

def factory():
    print("computed", flush=True)
    time.sleep(0.2)
    return os.getpid()

async def in_tasks():
    ctx = PersistentContext(path)
    print(await asyncio.gather(*(ctx.compute_once(key, factory) for key in keys for _ in range(3))), flush=True)

if kind == "sync":
    ctx = SyncPersistentContext(path)
    print([ctx.compute_once(key, factory) for key in keys for _ in range(3)], flush=True)
else:
    asyncio.run(in_tasks())
"""

COMPUTE_SLOWLY = """
import sys
from persistent_context import SyncPersistentContext

def factory():
    print("computing", flush=True)
    return sys.stdin.readline()

SyncPersistentContext(sys.argv[1]).compute_once("key", factory)
print("done", flush=True)
"""

ASK = """
import sys
from persistent_context import SyncPersistentContext

print("asking", flush=True)
print(SyncPersistentContext(sys.argv[1]).compute_once("key", lambda: "mine"), flush=True)
"""

FORK = """
import os, sys, time
from persistent_context import ContextUsageError, LeaseHeldError, SyncPersistentContext

def say(line):
    os.write(1, f"{line}\\n".encode())  # in one write, since two processes print

path = sys.argv[1]
manager = SyncPersistentContext(path).lease("a")
manager.__enter__()
child = os.fork()
if child == 0:
    try:
        manager.__exit__(None, None, None)
    except ContextUsageError:
        say("refused")
    try:
        with SyncPersistentContext(path).lease("a", wait=False):
            say("taken")
    except LeaseHeldError as error:
        say("held by the parent" if error.holder.pid == os.getppid() else error)
    sys.stdin.readline()
    os._exit(0)
say(os.getpid())
time.sleep(3600)
"""


def stored(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def run_together(spawn):
    """Start children, release them at the same time, and return what each of them printed."""

    def run(*starts):
        children = [spawn(*start) for start in starts]
        for child in children:
            assert "ready" == child.hear()
        for child in children:
            child.say()
        return [child.finish() for child in children]

    return run


class TestLeases:
    @pytest.mark.parametrize(
        "kinds", [["sync"] * 4, ["async"] * 4, ["sync", "async"] * 2], ids=["sync", "async", "mixed"]
    )
    def test_one_process_at_a_time(self, path, run_together, kinds):
        """No two processes are ever inside, and no token is issued twice."""
        said = run_together(*((TAKE_TURNS, path, kind, 50) for kind in kinds))
        tokens = [[int(line) for line in lines] for lines in said]

        assert [50] * 4 == [len(some) for some in tokens]
        assert 200 == len({token for some in tokens for token in some})
        assert [sorted(some) for some in tokens] == tokens

    def test_a_killed_holder_is_replaced_at_once(self, face, path, spawn):
        """The kernel frees the lease of a killed process, and the next token is greater."""
        child = spawn(HOLD, path)
        token, ctx = int(child.hear()), face.open(path)
        with pytest.raises(LeaseHeldError) as caught:
            face.inside(ctx.lease, pytest.fail, name="a", wait=False)
        child.kill()

        assert child.pid == caught.value.holder.pid
        assert token < face.inside(ctx.lease, lambda lease: lease.token, name="a", wait=False)

    def test_a_waiting_call_gets_the_lease_of_a_killed_holder(self, face, path, spawn):
        """A waiting call gets the lease as soon as the holder dies."""
        child = spawn(HOLD, path)
        token, ctx = int(child.hear()), face.open(path)
        killer = spawn("import os, sys, time; time.sleep(0.5); os.kill(int(sys.argv[1]), 9)", child.pid)
        next_token = face.inside(ctx.lease, lambda lease: lease.token, name="a")
        killer.finish()

        assert token < next_token

    def test_a_stopped_holder_keeps_it(self, face, path, spawn):
        """A lease does not expire: a stopped holder keeps it."""
        child = spawn(HOLD, path)
        child.hear()
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(LeaseHeldError):
            face.inside(face.open(path).lease, pytest.fail, name="a", timeout=0.3)
        os.kill(child.pid, signal.SIGCONT)

        assert ["released"] == child.finish()

    def test_tokens_grow_though_holders_are_killed(self, path, spawn):
        """If holders are killed at any moment, even while they write their token, the next token is greater."""
        tokens = []
        for round_ in range(12):
            child = spawn(TOKENS, path)
            tokens += [int(child.hear()) for _ in range(1 + round_ % 3)]
            tokens += [int(line) for line in child.kill() if len(line) == len(str(tokens[0]))]

        assert sorted(set(tokens)) == tokens

    def test_a_forked_child_neither_has_nor_keeps_it(self, path, spawn):
        """A forked child cannot release its parent's lease, does not have it, and does not keep it alive."""
        child = spawn(FORK, path)
        heard = {child.hear() for _ in range(3)}
        os.kill(child.pid, signal.SIGKILL)
        child.process.wait()
        with SyncPersistentContext(path).lease("a", timeout=30) as lease:
            name = lease.name
        child.say()

        assert ({str(child.pid), "refused", "held by the parent"}, "a") == (heard, name)

    def test_a_program_that_is_started_does_not_keep_it(self, path, spawn):
        """A subprocess that outlives the block has not inherited the lease."""
        ctx = SyncPersistentContext(path)
        with ctx.lease("a"):
            child = spawn("input()")
        with ctx.lease("a", wait=False) as lease:
            name = lease.name
        child.say()

        assert ("a", []) == (name, child.finish())


class TestComputeOnce:
    @pytest.mark.parametrize(
        "kinds", [["sync"] * 4, ["async"] * 4, ["sync", "async"] * 2], ids=["sync", "async", "mixed"]
    )
    def test_one_process_computes(self, path, run_together, kinds):
        """Of all processes one computes each value, and all get it; only the values are left."""
        keys = ["a", "b", "c"]
        said = run_together(*((COMPUTE, path, kind, ",".join(keys)) for kind in kinds))
        values = [lines[-1] for lines in said]

        assert 3 == sum(lines.count("computed") for lines in said)
        assert {str([stored(path)[key] for key in keys for _ in range(3)])} == set(values)
        assert ["state.json", "state.json.lock"] == sorted(os.listdir(path.parent))

    def test_a_killed_process_is_replaced_at_once(self, path, spawn):
        """If the computing process is killed, a waiting one computes at once."""
        computing = spawn(COMPUTE_SLOWLY, path)
        assert "computing" == computing.hear()
        asking = spawn(ASK, path)
        assert "asking" == asking.hear()
        computing.kill()

        assert (["mine"], {"key": "mine"}) == (asking.finish(), stored(path))

    def test_the_lock_is_free_while_others_wait(self, face, path, spawn):
        """While one process computes and another waits for it, all others can use the file."""
        computing = spawn(COMPUTE_SLOWLY, path)
        assert "computing" == computing.hear()
        asking = spawn(ASK, path)
        assert "asking" == asking.hear()
        ctx = face.open(path, lock_timeout=30)

        assert [1, 2, 3] == [face.do(ctx.incr, "n") for _ in range(3)]

        deadline = time.monotonic() + 60
        while face.do(ctx.lock_holder) is not None:  # the other process looks for the value once, under the lock
            assert time.monotonic() < deadline
        computing.say("theirs")

        assert ["theirs"] == [line for line in asking.finish() if line]
        assert ["done"] == computing.finish()
