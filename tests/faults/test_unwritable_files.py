"""A file that its user may not write is not replaced, although its directory would allow it; and the reverse."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from journals import journal_of
from persistent_context import SyncPersistentContext

NOBODY = 65534

AS_NOBODY = """
import asyncio, json, os, sys
from persistent_context import PersistentContext, SyncPersistentContext

path, face, act = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def work(ctx):
    ctx["mine"] = 1
    return {
        "save": lambda: ctx.save(), "incr": lambda: ctx.incr("n"), "checkpoint": lambda: ctx.checkpoint(),
        "unchanged": lambda: ctx.add("n", 2), "transaction": lambda: transact(ctx),
    }[act]()

def transact(ctx):
    with ctx.transaction() as tx:
        tx["n"] += 1

async def main():
    ctx = await PersistentContext.create(path, durable=False)
    print(json.dumps(ctx.get_all_data()), flush=True)
    if act != "transaction":
        return await work(ctx)
    async with ctx.transaction() as tx:
        tx["n"] += 1

def blocking():
    ctx = SyncPersistentContext.create(path, durable=False)
    print(json.dumps(ctx.get_all_data()), flush=True)
    return work(ctx)

try:
    result = asyncio.run(main()) if face == "async" else blocking()
except OSError as error:
    print(json.dumps([type(error).__name__, error.errno, error.filename]))
else:
    print(json.dumps(["ok", result]))
"""

LEAVE_A_JOURNAL = """
import os, sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext(sys.argv[1], journal=True)
for _ in range(2):
    ctx.incr("n")
os._exit(0)  # or it would be folded
"""


@pytest.fixture
def path():
    """A file in a directory that every user can reach and write."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    yield directory / "state.json"
    shutil.rmtree(directory)


@pytest.fixture
def attempt(path, run):
    """Load and then make a call as an ordinary user: return what was read, and the outcome of the call."""
    return lambda face, act: [json.loads(line) for line in run(AS_NOBODY, path, face, act)]


def protect(path, content=b'{"n": 1}'):
    """Make a file that belongs to the ordinary user, who may only read it."""
    path.write_bytes(content)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(0o444)


@pytest.mark.parametrize("face", ["async", "sync"])
class TestAReadOnlyFile:
    @pytest.mark.parametrize("act", ["save", "incr", "transaction"])
    def test_is_read_and_not_replaced(self, path, attempt, face, act):
        """Reading works; a write raises PermissionError with errno and file name, and changes nothing."""
        protect(path)
        before = path.stat()
        read, outcome = attempt(face, act)
        after = path.stat()

        assert ({"n": 1}, ["PermissionError", errno.EACCES, str(path)]) == (read, outcome)
        assert (b'{"n": 1}', before.st_ino, before.st_mode) == (path.read_bytes(), after.st_ino, after.st_mode)
        assert {path.name, f"{path.name}.lock"} == set(os.listdir(path.parent))

    def test_calls_that_change_nothing_work(self, path, attempt, face):
        """A call that finds nothing to write needs no permission to write."""
        protect(path, b'{"n": 1, "mine": 1}')

        assert ["ok", False] == attempt(face, "unchanged")[1]

    def test_a_corrupt_one_is_not_moved_aside(self, path, run, face):
        """A corrupt file that may not be written is not moved aside either."""
        protect(path, b"{ corrupt")
        [line] = run(AS_NOBODY, path, face, "save")

        assert (["PermissionError", errno.EACCES, str(path)], b"{ corrupt") == (json.loads(line), path.read_bytes())

    @pytest.mark.parametrize("act", ["save", "incr", "transaction", "checkpoint"])
    def test_its_journal_is_not_appended_to_or_folded(self, path, attempt, run, face, act):
        """The mode protects the data, even if the next change would go into the journal."""
        run(LEAVE_A_JOURNAL, path)
        for name in os.listdir(path.parent) if os.geteuid() == 0 else ():
            os.chown(path.parent / name, NOBODY, NOBODY)
        path.chmod(0o444)
        before = path.read_bytes(), journal_of(path).read_bytes()
        read, outcome = attempt(face, act)

        assert ({"n": 2}, ["PermissionError", errno.EACCES, str(path)]) == (read, outcome)
        assert before == (path.read_bytes(), journal_of(path).read_bytes())


@pytest.mark.parametrize("face", ["async", "sync"])
class TestAReadOnlyDirectory:
    def test_is_what_the_error_names(self, path, attempt, face):
        """Not a temporary file, which the user does not know."""
        path.write_bytes(b'{"n": 1}')
        SyncPersistentContext(path).incr("n")  # makes the lock file
        for name in os.listdir(path.parent):
            (path.parent / name).chmod(0o666)
        path.parent.chmod(0o555)
        outcome = attempt(face, "incr")[1]
        path.parent.chmod(0o777)

        assert ["PermissionError", errno.EACCES, str(path.parent)] == outcome
        assert {path.name, f"{path.name}.lock"} == set(os.listdir(path.parent))


class TestRoot:
    def test_is_exempt(self, path):
        """Root may write every file, and does."""
        if os.geteuid() != 0:
            pytest.skip("needs root: run the tests as root, in a container")
        protect(path)

        assert (2, 0o444) == (SyncPersistentContext(path).incr("n"), path.stat().st_mode & 0o777)
