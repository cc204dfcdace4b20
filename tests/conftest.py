"""Fixtures for all tests: both faces of a context, child processes, and checks for leaks and blocking."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError
from hypothesis import HealthCheck, settings

import persistent_context
from persistent_context import PersistentContext, SyncPersistentContext

pytest.register_assert_rewrite("cancelling", "commandline")  # their failed assertions are explained, as in a test

settings.register_profile("no-times", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-times")  # slowness on a busy machine is not a failure

IMPORT_ROOT = Path(persistent_context.__file__).resolve().parent.parent
OPEN_FILES = Path("/proc/self/fd")
LARGE = 5  # cases of one test
LONG = {
    f"test_{name}.py"
    for name in ("big_files", "compute_once", "demo", "docs", "doctor", "examples", "main", "plugin", "teardown")
}

HOLD_AS_A_FOREIGN_PROGRAM = """
import sys
import filelock

with filelock.FileLock(sys.argv[1] + ".lock"):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

HOLD_IN_A_TRANSACTION = """
import sys
from persistent_context import SyncPersistentContext

ctx = SyncPersistentContext.create(sys.argv[1])
with ctx.transaction() as tx:
    tx["holder"] = "child"
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


WATCHDOG = "import faulthandler; faulthandler.dump_traceback_later(60, exit=True)\n"


class Child:
    """A real Python process that exchanges lines over its standard streams."""

    def __init__(self, code: str, arguments: tuple[object, ...], errors: Path) -> None:
        """Start ``code``; its standard error is shown when it fails."""
        self._errors = errors
        environment = dict(os.environ, PYTHONUNBUFFERED="1")
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])],
        )
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        self.pid = self.process.pid

    def hear(self) -> str:
        """Wait for one line of the child."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            pytest.fail(f"the child ended with {self.process.returncode}:\n{self._errors.read_text(errors='replace')}")
        return line.rstrip("\n")

    def say(self, line: str = "") -> None:
        """Send one line to the child."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def finish(self) -> list[str]:
        """Wait for the child to end successfully; return the remaining lines."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        rest = self.process.stdout.read().splitlines()
        if self.process.wait() != 0:
            pytest.fail(f"the child ended with {self.process.returncode}:\n{self._errors.read_text(errors='replace')}")
        return rest

    def running(self) -> bool:
        """Whether the child has not ended yet."""
        return self.process.poll() is None

    def kill(self) -> list[str]:
        """Kill the child with SIGKILL; return the lines that it had written until then."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        rest = self.process.stdout.read().splitlines()
        self.process.wait()
        return rest

    def discard(self) -> None:
        """Kill the child if it still runs, and close the pipes."""
        if self.running():
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class Held:
    """A lock that another process holds until it is told to release it."""

    def __init__(self, child: Child) -> None:
        """Wait until the child holds the lock."""
        self.child = child
        self.pid = child.pid
        assert child.hear() == "held"

    def release(self) -> None:
        """Let the child go on, and wait until it has released the lock."""
        self.child.say()
        assert self.child.hear() == "released"

    def __enter__(self) -> Self:
        """Hold the lock for the length of a block."""
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Release the lock, if the child still lives."""
        if self.child.running():
            self.release()


class AsyncFace:
    """Drives a ``PersistentContext`` from a test that is not a coroutine."""

    name = "async"
    cls = PersistentContext

    def __init__(self) -> None:
        """Keep one event loop for the whole test."""
        self._runner = asyncio.Runner()

    def do(self, call, /, *args, **kwargs):
        """Call ``call`` inside the loop and await what it returns."""

        async def within_the_loop():
            return await call(*args, **kwargs)

        return self._runner.run(within_the_loop())

    def open(self, filepath, **options):
        """Create and load a context."""
        return self.do(self.cls.create, filepath, **options)

    def inside(self, manager, body, /, **options):
        """Run ``body(entered)`` inside ``async with manager(**options)``, all in one task."""

        async def within_the_loop():
            async with manager(**options) as entered:
                return body(entered)

        return self._runner.run(within_the_loop())

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


class SyncFace:
    """The same for a ``SyncPersistentContext``, which needs no loop."""

    name = "sync"
    cls = SyncPersistentContext

    def do(self, call, /, *args, **kwargs):
        """Call ``call``."""
        return call(*args, **kwargs)

    def open(self, filepath, **options):
        """Create and load a context."""
        return self.cls.create(filepath, **options)

    def inside(self, manager, body, /, **options):
        """Run ``body(entered)`` inside ``with manager(**options)``."""
        with manager(**options) as entered:
            return body(entered)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture(params=[AsyncFace, SyncFace], ids=["async", "sync"])
def face(request):
    """Each of the two faces in turn."""
    one = request.param()
    yield one
    one.close()


@pytest.fixture
def path(tmp_path):
    """The file of a test's context, in an otherwise empty directory."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory / "state.json"


@pytest.fixture
def spawn(tmp_path):
    """Start Python code as a separate process: ``spawn(code, *arguments)``."""
    children: list[Child] = []

    def start(code: str, *arguments: object) -> Child:
        child = Child(code, arguments, tmp_path / f"child-{len(children)}.stderr")
        children.append(child)
        return child

    yield start
    for child in children:
        child.discard()


@pytest.fixture
def run(spawn):
    """Run Python code as a separate process, and return what it printed; a hang fails, with all stacks."""
    return lambda code, *arguments: spawn(WATCHDOG + code, *arguments).finish()


@pytest.fixture
def hold(spawn):
    """Let another program hold the lock: ``with hold(path):``."""
    return lambda filepath: Held(spawn(HOLD_AS_A_FOREIGN_PROGRAM, filepath))


@pytest.fixture
def hold_transaction(spawn):
    """Let another process hold a transaction open: ``with hold_transaction(path) as held:``."""
    return lambda filepath: Held(spawn(HOLD_IN_A_TRANSACTION, filepath))


@pytest.fixture
def nobody_folds(monkeypatch):
    """Let no journal be folded automatically, however long a test takes."""
    monkeypatch.setattr("persistent_context._stores.journal.idle.Idle.touch", lambda *_arguments, **_options: None)


@pytest.fixture
def nobody_repairs_it(monkeypatch):
    """Let a bad document be read a second time at once, and not again: no program is about to finish it."""
    monkeypatch.setattr("persistent_context._stores.jsonfile.file._LOOKS", 1)
    monkeypatch.setattr("persistent_context._stores.jsonfile.file._LOOK_SECONDS", 0)


def _open_below(directory: str) -> set[str]:
    """Return the names of all open files below ``directory``, including deleted ones."""
    names = set()
    for descriptor in OPEN_FILES.iterdir():
        with contextlib.suppress(OSError):
            name = os.readlink(descriptor).removesuffix(" (deleted)")
            if name.startswith(directory):
                names.add(name)
    return names


def _lasting(look, *, seconds: float = 60.0):
    """Return what ``look`` still finds after finding something for ``seconds`` without a break."""
    deadline = time.monotonic() + seconds
    while found := look():
        if time.monotonic() > deadline:
            return found
        gc.collect()
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module", autouse=True)
def no_lock_stays_open(request, tmp_path_factory):
    """Fail if a lock file of any test of the module stays open; an idle thread may keep one for about a second.

    After a failed test there is no need to look: its traceback keeps contexts, and so their files.
    """
    yield
    if OPEN_FILES.exists() and not request.session.testsfailed:
        base = str(tmp_path_factory.getbasetemp())

        assert set() == _lasting(lambda: _open_below(base))


@pytest.fixture(autouse=True)
def no_leaks(request, tmp_path, caplog):
    """Fail a test that leaves behind a thread that keeps the interpreter alive, or an open file other than a lock."""
    before = set(threading.enumerate())
    yield
    if request.session.testsfailed:  # as above
        return
    request.node.funcargs.clear()  # pytest would release contexts only after no_lock_stays_open has looked
    for phase in ("setup", "call"):
        caplog.get_records(phase).clear()  # and logged errors, whose tracebacks refer to contexts
    threads = _lasting(lambda: [one for one in threading.enumerate() if not one.daemon and one not in before])

    assert [] == threads
    if OPEN_FILES.exists():
        files = _lasting(lambda: {name for name in _open_below(str(tmp_path)) if not name.endswith(".lock")})

        assert set() == files


def _sync_face() -> dict[str, set[str]]:
    """Return the names of all functions of the sync face, by the end of their file's name."""
    found = {}
    for file in (IMPORT_ROOT / "persistent_context" / "_api").glob("blocking*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        found[file.relative_to(IMPORT_ROOT).as_posix()] = names
    return found


class Tripwire(logging.Handler):
    """Raises BlockingError if the library makes a blocking call in the thread of an event loop.

    An error in a callback of the loop, or at the end of a cycle, goes to a log instead of to the test: those are
    recorded.
    """

    LIBRARY = ("persistent_context._api", "persistent_context.runtime", "pytest_persistent_context")
    """The functions that programs call. A test that calls what is below them in a loop blocks that loop itself."""

    MORE = ("os.open", "os.lstat", "os.fsync", "threading.Condition.wait", "threading.Thread.join")
    """Unknown to blockbuster. Events, queues and futures wait in a condition; every cycle opens files."""

    NOT_PATCHED = ("threading.Lock.acquire", "threading.Lock.acquire_lock")
    """Taking a lock is one step of the interpreter, which signals do not interrupt; a Python function has many."""

    EXCEPTIONS = (
        # The sync face blocks its thread by design, even in a coroutine.
        *_sync_face().items(),
        # If no thread can be started, the loop's thread does the work, as documented, and only tries to take the lock.
        ("persistent_context/_engine/worker.py", {"run_in_pool"}),
        ("persistent_context/_api/aio_executor.py", {"run"}),
        # Starting a thread waits until it runs, as the loop's own run_in_executor() does.
        ("concurrent/futures/thread.py", {"submit"}),
        # Measuring coverage looks for source files.
        ("coverage/control.py", {"_should_trace"}),
    )
    """Functions, by the end of their file's name, that may block, and why."""

    def __init__(self) -> None:
        """Prepare the list of functions that block."""
        super().__init__()
        self.logged: list[str] = []
        self._blockbuster = BlockBuster(self.LIBRARY)
        functions = self._blockbuster.functions
        functions.update({name: BlockBusterFunction(None, name, scanned_modules=self.LIBRARY) for name in self.MORE})
        for name in self.NOT_PATCHED:
            del functions[name]
        for function in functions.values():
            for file, names in self.EXCEPTIONS:
                function.can_block_in(file, names)
        # sleep(0) lets other threads run, and returns.
        functions["time.sleep"].can_block_predicate = lambda seconds: seconds == 0
        # The constructor of a context makes its path absolute; the kernel has the current directory in memory.
        for name in ("os.path.abspath", "os.getcwd"):
            functions[name].can_block_in("persistent_context/_stores/factory.py", "locate")

    def emit(self, record: logging.LogRecord) -> None:
        """Record an error that was logged."""
        if record.exc_info and isinstance(record.exc_info[1], BlockingError):
            self.logged.append(f"{record.getMessage()}: {record.exc_info[1]}")

    def __enter__(self) -> Self:
        """Watch all loops of this process."""
        self._blockbuster.activate()
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Stop watching."""
        logging.getLogger().removeHandler(self)
        self._blockbuster.deactivate()


@pytest.fixture(scope="session")
def tripwire():
    """The tripwire of this process: it recognises loop threads by itself, so it need not know which test runs."""
    with Tripwire() as tripwire:
        yield tripwire


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(tripwire):
    """Fail a test in which the library blocks the thread of an event loop."""
    yield
    logged, tripwire.logged = tripwire.logged, []

    assert [] == logged


def pytest_addoption(parser):
    """Add the options to run less, or to search longer."""
    parser.addoption("--part", action="store_true", help="run a part of the large matrices and of the slow files")
    parser.addoption("--thorough", action="store_true", help="let the random searches take ten times as long")


def pytest_collection_modifyitems(config, items):
    """With ``--part``, divide slow tests that depend little on the version among the Pythons.

    This runs a third of each large matrix, and an eighth of the slow files, which start many programs or write much.
    The Python version determines which part, so that three of them run the whole matrices.
    """
    if not config.getoption("--part"):
        return
    matrices = {}
    for item in items:
        matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = {
        item
        for matrix in matrices.values()
        if len(matrix) > LARGE
        for number, item in enumerate(matrix)
        if number % 3 != sys.version_info.minor % 3
    }
    long = [item for item in items if item.path.name in LONG]
    left_out.update(set(long) - set(long[sys.version_info.minor % 8 :: 8]))
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
