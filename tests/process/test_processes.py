"""Many processes on one file: nothing is lost or torn, and a killed one leaves a whole file and a free lock."""

import asyncio
import json
import os

import pytest

from persistent_context import PersistentContext, SyncPersistentContext

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


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def run_together(spawn):
    """Start processes, release them at the same moment, and wait for all; return what each of them printed."""

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
        """Every increment of every process is counted, and no number is returned twice."""
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
        """Every appended entry is there once, in the order of its process."""
        run_together(*((WORK, path, kind, number, 30) for number, kind in enumerate(kinds)))
        log = stored(path)["log"]

        assert [[[str(name), number] for number in range(30)] for name in range(4)] == [
            [entry for entry in log if entry[0] == str(name)] for name in range(4)
        ]

    def test_everything_at_once(self, path, run_together):
        """Increments, saves and appends of several processes do not lose each other's changes."""
        kinds = ["sync_incr", "async_incr", "sync_save", "async_save", "sync_append", "async_append"]
        run_together(*((WORK, path, kind, number, 20) for number, kind in enumerate(kinds)))
        data = stored(path)

        assert (40, 40, {f"{name}-{number}" for name in (2, 3) for number in range(20)}) == (
            data.pop("n"),
            len(data.pop("log")),
            set(data),
        )

    def test_together_with_a_program_that_uses_filelock_by_hand(self, path, run_together):
        """A foreign program that takes the same lock and this library lose none of each other's changes."""
        path.write_text('{"n": 0}', encoding="utf-8")
        run_together((BY_HAND, path, 50), (WORK, path, "sync_incr", 1, 50), (WORK, path, "async_incr", 2, 50))

        assert {"n": 150} == stored(path)

    def test_nothing_is_left_beside_the_file(self, path, run_together):
        """After many concurrent writes there are only the file and its lock."""
        run_together(*((WORK, path, "sync_save", number, 20) for number in range(4)))

        assert ["state.json", "state.json.lock"] == sorted(os.listdir(path.parent))


class TestNothingIsTorn:
    def test_a_reader_never_sees_half_a_document(self, path, spawn):
        """Every read of the file, at any moment, sees one whole document."""
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
        """A context that loads during writes always reads a whole document, and moves nothing aside."""
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
        """SIGKILL of the process that holds the lock frees it, and its unfinished work is not in the file."""
        path.write_text('{"a": 1}', encoding="utf-8")
        held = hold_transaction(path)
        held.child.kill()
        number = face.do(face.open(path).incr, "n")

        assert (1, {"a": 1, "n": 1}) == (number, stored(path))

    def test_who_waits_behind_a_killed_holder_gets_its_turn(self, path, hold_transaction):
        """A waiting call gets its turn when the holder is killed."""

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
        """Every number returned to a process before it was killed is in the file, and at most a few more."""
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

    def test_a_process_killed_again_and_again_leaves_a_whole_file(self, path, spawn):
        """If writers are killed again and again, the file is always whole and the next writer works."""
        for _ in range(5):
            child = spawn(TWINS, path, 100_000)
            child.hear()
            child.say()
            while not path.exists():
                os.sched_yield()
            child.kill()
        data = stored(path)
        SyncPersistentContext.create(path).incr("n")

        assert (data.get("last"), [], 1) == (
            data.get("first"),
            list(path.parent.glob("*.corrupt-*")),
            stored(path)["n"],
        )
