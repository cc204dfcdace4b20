"""Every step of a write may fail, and every moment may be the last: the file is the old or the new one, whole."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import persistent_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

IMPORT_ROOT = Path(persistent_context.__file__).resolve().parent.parent

BEFORE = {"n": 1, "filler": "x" * 10_000}
NEW = "y" * 10_000

ZYGOTE = '''
"""Forks a child for each run. A child changes a file while it is made to fail; it talks only through a socket, so that
no system calls but the library's own are counted, failed or killed."""

import asyncio, inspect, json, os, resource, socket, sys, tempfile
from persistent_context import DurabilityUnknownError, PersistentContext, SyncPersistentContext

channel = socket.socket(fileno=int(sys.argv[1]))
rest = b""

def hear():
    global rest
    while b"\\n" not in rest:
        more = channel.recv(65536)
        if not more:
            os._exit(0)
        rest += more
    line, rest = rest.split(b"\\n", 1)
    return json.loads(line)

def say(**what):
    channel.sendall(json.dumps(what).encode() + b"\\n")

async def done(result):
    return await result if inspect.isawaitable(result) else result

async def change(ctx, operation, value):
    if operation == "save":
        ctx.set("new", value)
        await done(ctx.save())
    elif operation == "incr":
        await done(ctx.incr("n"))
    elif operation == "transaction":
        if isinstance(ctx, SyncPersistentContext):
            with ctx.transaction() as tx:
                tx["n"] += 1
                tx["new"] = value
        else:
            async with ctx.transaction() as tx:
                tx["n"] += 1
                tx["new"] = value
    elif operation == "load":
        await done(ctx.load())

async def attempt(ctx, operation, value):
    try:
        await change(ctx, operation, value)
    except DurabilityUnknownError as error:
        outcome = "unknown", error.errno, str(error)
    except OSError as error:
        outcome = "refused", error.errno, str(error)
    except BaseException as error:
        outcome = "wrong: " + type(error).__name__, None, repr(error)
    else:
        outcome = "done", None, ""
    say(outcome=outcome[0], errno=outcome[1], message=outcome[2], unsaved=sorted(ctx.unsaved_keys()),
        n=ctx.get("n"), new=ctx.get("new") is not None and len(ctx.get("new")))

def limit(what, soft):
    if what is not None:
        what = getattr(resource, what)
        resource.setrlimit(what, (resource.getrlimit(what)[1] if soft is None else soft, resource.getrlimit(what)[1]))

async def child(context, order):
    with tempfile.TemporaryDirectory() as warm:  # late imports, threads and caches come before the faults
        ctx = context(os.path.join(warm, "warm.json"), lock_timeout=20)
        for operation in ("save", "incr", "transaction", "load"):
            await change(ctx, operation, "y")
    ctx = context(order["path"], lock_timeout=20)
    await done(ctx.load())
    say(ready=os.getpid())
    while True:
        step = hear()
        if "limit" in step:
            held = []
            limit(*step["limit"])
            if step.get("exhaust"):
                try:
                    while True:
                        held.append(os.dup(0))
                except OSError:
                    pass
            await attempt(ctx, step["operation"], "y" * step["size"])
            for descriptor in held:
                os.close(descriptor)
            limit(step["limit"][0], None)
        elif "operation" in step:
            await attempt(ctx, step["operation"], "y" * step["size"])
        elif "again" in step:
            ctx = context(order["path"], lock_timeout=20)
            await done(ctx.load())
            say(loaded=True)
        else:
            os._exit(0)

def begin(order):
    if order["face"] == "async":
        asyncio.run(child(PersistentContext, order))
    else:
        child(SyncPersistentContext, order).send(None)

while True:
    order = hear()
    pid = os.fork()
    if pid == 0:
        try:
            begin(order)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(70)
    say(ended=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
'''


class Zygote:
    """A process that has imported everything that is needed, and forks one child after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel = ours
        self.lines = ours.makefile("rb")
        self.child: int | None = None
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(IMPORT_ROOT), os.environ.get("PYTHONPATH")]))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ZYGOTE, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment
            )

    def say(self, **what: Any) -> None:
        self.channel.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        line = self.lines.readline()
        assert line, f"the zygote ended with {self.process.wait()}"
        message = dict(json.loads(line))
        if "ended" in message:
            self.child = None
        return message

    def begin(self, path: Path, face: str) -> int:
        """Let a child load the file; return its process id when it is ready for its first change."""
        if self.child is not None:  # left by a test that failed halfway
            os.kill(self.child, signal.SIGKILL)
            while "ended" not in self.hear():
                pass
        self.say(path=str(path), face=face)
        self.child = int(self.hear()["ready"])
        return self.child

    def end(self) -> int:
        """Let the child end; return its exit status."""
        self.say(end=True)
        return int(self.hear()["ended"])

    def attempt(self, operation: str, size: int = 0, **more: Any) -> dict[str, Any]:
        self.say(operation=operation, size=size, **more)
        return self.hear()

    def close(self) -> None:
        self.channel.shutdown(socket.SHUT_RDWR)
        self.lines.close()
        self.channel.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    one = Zygote()
    yield one
    one.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def make(directory: Path) -> Path:
    """Return a fresh file in its own directory."""
    directory.mkdir()
    path = directory / "state.json"
    path.write_text("{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in BEFORE.items()) + "\n}\n")
    return path


def temporaries(path: Path) -> list[str]:
    """Return the names beside the file and its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, path.name + ".lock"})


def after(operation: str, size: int, times: int = 1) -> dict[str, Any]:
    """Return the content of the file after `operation` was done this number of times on `BEFORE`."""
    changed = dict(BEFORE)
    if operation != "save":
        changed["n"] += times
    if operation != "incr":
        changed["new"] = "y" * size
    return changed


def shorten(data: dict[str, Any]) -> dict[str, Any]:
    """Return a form that a failed assertion can show."""
    return {key: len(value) if isinstance(value, str) else value for key, value in data.items()}


def check_outcome(path: Path, operation: str, size: int, result: dict[str, Any]) -> None:
    """Check that the file, the memory and the outcome of the call agree, and that nothing is left behind."""
    found = json.loads(path.read_bytes())
    refused = result["outcome"] == "refused"
    unsaved = ["new"] if refused and operation == "save" else []

    assert result["outcome"] in {"refused", "unknown", "done"}, result
    assert shorten(BEFORE if refused else after(operation, size)) == shorten(found), result
    assert found == (BEFORE if refused else after(operation, size))
    assert unsaved == result["unsaved"], result
    assert found["n"] == result["n"], result
    assert (size if "new" in found or unsaved else False) == result["new"], result
    assert [] == temporaries(path), result


# ---------------------------------------- real limits


@pytest.mark.parametrize("face", ["async", "sync"])
@pytest.mark.parametrize("operation", ["save", "transaction"])
class TestRealLimits:
    SIZE = 200_000

    def check(self, zygote: Zygote, path: Path, operation: str, number: int, result: dict[str, Any]) -> None:
        """Check that the refused change left no trace but in memory, and that the next one works."""
        check_outcome(path, operation, self.SIZE, result)

        assert ("refused", number) == (result["outcome"], result["errno"]), result
        assert path.name in result["message"], result

        again = zygote.attempt(operation, self.SIZE)
        status = zygote.end()

        assert "done" == again["outcome"], again
        assert after(operation, self.SIZE) == json.loads(path.read_bytes())
        assert [] == temporaries(path)
        assert 0 == status

    @pytest.mark.parametrize("limit", [0, 1, 4096, 10_000, 100_000, 210_000])
    def test_a_limit_on_the_size_of_files(
        self, zygote: Zygote, path: Path, operation: str, face: str, limit: int
    ) -> None:
        """A write that is cut short by a limit on file sizes changes nothing, and works when the limit is lifted."""
        zygote.begin(path, face)
        result = zygote.attempt(operation, self.SIZE, limit=["RLIMIT_FSIZE", limit])

        self.check(zygote, path, operation, errno.EFBIG, result)

    def test_no_descriptor_left(self, zygote: Zygote, path: Path, operation: str, face: str) -> None:
        """A process that has no descriptor left gets an error, and saves once it has some again."""
        zygote.begin(path, face)
        result = zygote.attempt(operation, self.SIZE, limit=["RLIMIT_NOFILE", 64], exhaust=True)

        self.check(zygote, path, operation, errno.EMFILE, result)

    @pytest.mark.parametrize("options", ["size=128k", "nr_inodes=4"])
    def test_a_full_disk(self, zygote: Zygote, tmp_path: Path, operation: str, face: str, options: str) -> None:
        """On a disk without room for the data, or for one more file, nothing changes; later the write works."""
        directory = tmp_path / "small"
        directory.mkdir()
        if os.geteuid() != 0:
            pytest.skip("needs root to mount a small tmpfs: run the tests as root, in a container")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], check=False).returncode:
            pytest.skip("needs the right to mount (CAP_SYS_ADMIN): run the container with --privileged")
        try:
            path = make(directory / "data")
            zygote.begin(path, face)
            if options.startswith("nr_inodes"):
                Path(f"{path}.lock").touch(mode=0o644)
                number = 0
                with suppress(OSError):
                    while True:
                        (directory / f"filler {number}").touch()
                        number += 1
            result = zygote.attempt(operation, self.SIZE)
            loaded = zygote.attempt("load")
            subprocess.run(["mount", "-o", "remount,size=10m,nr_inodes=100", directory], check=True)
            again = zygote.attempt(operation, self.SIZE)
            status = zygote.end()
            after_all = json.loads(path.read_bytes())
            left = temporaries(path)
        finally:
            subprocess.run(["umount", directory], check=True)

        assert ("refused", errno.ENOSPC) == (result["outcome"], result["errno"]), result
        assert (["new"] if operation == "save" else []) == result["unsaved"]
        assert 1 == result["n"]
        assert "done" == loaded["outcome"], loaded
        assert "done" == again["outcome"], again
        assert after(operation, self.SIZE) == after_all
        assert [] == left
        assert 0 == status


# ---------------------------------------- injected faults

FAILING: dict[str, list[str]] = {
    "openat": ["ENOSPC", "EIO"],
    "read": ["EIO"],
    "pread64": ["EIO"],
    "newfstatat": ["EIO"],
    "fstat": ["EIO"],
    "flock": ["ENOLCK"],
    "write": ["ENOSPC", "EIO", "EINTR"],
    "pwrite64": ["ENOSPC"],
    "writev": ["ENOSPC"],
    "fchmod": ["EPERM"],
    "fchown": ["EPERM"],
    "fsync": ["EIO", "ENOSPC"],
    "fdatasync": ["EIO"],
    "close": ["EIO"],
    "rename": ["ENOSPC", "EIO"],
    "renameat": ["ENOSPC", "EIO"],
    "renameat2": ["ENOSPC", "EIO"],
}
READING = {"read", "pread64", "newfstatat", "fstat"}
KILLING = [*FAILING, "ftruncate", "unlink", "unlinkat", "getdents64"]


def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace to fail system calls: apt-get install strace")


class Strace:
    """strace, attached to a running process for the length of a block."""

    def __init__(self, pid: int, calls: Iterable[str], inject: str | None = None, log: Path | None = None) -> None:
        command = ["strace", "-f", "-p", str(pid), "-o", str(log or os.devnull)]
        command += ["-e", "trace=" + ",".join("?" + call for call in calls)]
        self.command = command if inject is None else [*command, "-e", f"inject={inject}"]

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if b"attached" not in line:
            self.process.kill()
            self.process.communicate()
            if b"ermitted" in line:
                pytest.skip("needs the right to trace a process (CAP_SYS_PTRACE): run as root, or ptrace_scope=0")
            pytest.fail(f"strace says {line!r}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


def steps(zygote: Zygote, directory: Path, operation: str, face: str, *, first: bool = True) -> Counter[str]:
    """Return how often such an operation makes each call: the maximum over its threads, as strace counts.

    The first operation of a context may make more calls than later ones.
    """
    path = make(directory / "steps")
    log = directory / "steps.log"
    pid = zygote.begin(path, face)
    if not first:
        zygote.attempt(operation, 100)
    with Strace(pid, KILLING, log=log):
        result = zygote.attempt(operation, 200)
    zygote.end()
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), flags=re.MULTILINE))
    most: Counter[str] = Counter()
    for (_, call), times in by_thread.items():
        most[call] = max(most[call], times)

    assert "done" == result["outcome"], result
    return most


@pytest.mark.parametrize(
    ("operation", "face"),
    [("save", "async"), ("incr", "async"), ("transaction", "async"), ("save", "sync"), ("transaction", "sync")],
)
class TestFaultsAtEveryStep:
    def test_an_error_changes_nothing_or_says_that_it_cannot_know(
        self, zygote: Zygote, tmp_path: Path, operation: str, face: str
    ) -> None:
        """Whichever step of a write fails, the call says whether the file is old or new, and the next call works."""
        needs_strace()
        outcomes: Counter[tuple[str, str]] = Counter()
        counted = steps(zygote, tmp_path, operation, face)
        points: list[tuple[str, str, int | str]] = [
            (call, error, number)
            for call, errors in FAILING.items()
            for error in errors
            for number in range(1, counted[call] + 1)
            if call not in READING or number <= 3 or number > counted[call] - 2
            if call != "flock" or number == 1  # not the one that unlocks: a lock that cannot be released stays held
        ]
        lasting = ("openat", "write", "fsync", "fdatasync", "rename", "renameat", "renameat2")
        points += [(call, "EIO", "1+") for call in lasting if counted[call]]
        for point, (call, error, number) in enumerate(points):
            path = make(tmp_path / str(point))
            pid = zygote.begin(path, face)
            with Strace(pid, FAILING, f"{call}:error={error}:when={number}"):
                result = zygote.attempt(operation, 100)
            outcomes[call, result["outcome"]] += 1
            try:
                check_outcome(path, operation, 100, result)
                again = zygote.attempt(operation, 200)
                assert "done" == again["outcome"], again
                times = 2 if result["outcome"] != "refused" else 1
                assert after(operation, 200, times) == json.loads(path.read_bytes())
                assert [] == temporaries(path)
            except AssertionError as failed:
                failed.add_note(f"{operation} ({face}), {error} at {call} number {number} of {counted[call]}: {result}")
                raise
            assert 0 == zygote.end()

        renames = sum(outcomes[call, "refused"] for call in ("rename", "renameat", "renameat2"))
        assert outcomes["openat", "refused"], outcomes
        assert outcomes["write", "refused"], outcomes
        assert outcomes["fsync", "refused"] + outcomes["fdatasync", "refused"], outcomes
        assert outcomes["fsync", "unknown"] + outcomes["fdatasync", "unknown"], outcomes
        assert renames, outcomes

    def test_a_kill_leaves_a_whole_file_with_all_that_was_acknowledged(
        self, zygote: Zygote, tmp_path: Path, operation: str, face: str
    ) -> None:
        """Whenever a writer is killed, the file is whole, has all that was acknowledged, and the next one cleans up."""
        needs_strace()
        counted = steps(zygote, tmp_path, operation, face, first=False)
        ends: Counter[str] = Counter()
        points = [(call, number) for call in KILLING for number in range(1, counted[call] + 1)]
        # Calls that only read change nothing, so of a long series of them only the first and the last ones are tried.
        points = [
            (call, number) for call, number in points if call not in READING or number <= 1 or number == counted[call]
        ]
        for point, (call, number) in enumerate(points):
            path = make(tmp_path / str(point))
            pid = zygote.begin(path, face)
            acknowledged = zygote.attempt(operation, 100)
            assert "done" == acknowledged["outcome"], acknowledged
            with Strace(pid, KILLING, f"{call}:signal=KILL:when={number}"):
                zygote.say(operation=operation, size=200)
                heard = zygote.hear()
            killed = "ended" in heard
            if not killed:
                assert 0 == zygote.end()
            found = json.loads(path.read_bytes())
            old, new = after(operation, 100), after(operation, 200, times=2)
            which = "old" if found == old else "new" if found == new else "neither"
            note = f"{operation} ({face}), killed at {call} {number} of {counted[call]}: {shorten(found)}, {heard}"
            ends[which, killed] += 1
            ends["leftovers"] += bool(temporaries(path))

            assert -9 == heard["ended"] if killed else "done" == heard["outcome"], note
            assert which in ({"old", "new"} if killed else {"new"}), note

            zygote.begin(path, face)
            next_one = zygote.attempt("transaction", 300)
            assert 0 == zygote.end()
            assert "done" == next_one["outcome"], (note, next_one)
            assert {**found, "n": found["n"] + 1, "new": "y" * 300} == json.loads(path.read_bytes()), note
            assert [] == temporaries(path), note

        assert ends["old", True] > 3, ends
        assert ends["new", True], ends
        assert ends["leftovers"], ends


class TestAWriterThatIsStopped:
    @pytest.mark.parametrize("face", ["async", "sync"])
    def test_it_keeps_its_temporary_file_and_goes_on(
        self, zygote: Zygote, path: Path, tmp_path: Path, face: str
    ) -> None:
        """A writer stopped during a write, whose lock file is then deleted, keeps its temporary and loses no update."""
        needs_strace()
        log = tmp_path / "stopped.log"
        second = Zygote()
        try:
            pid = zygote.begin(path, face)
            with Strace(pid, ["fsync", "fdatasync"], "fsync,fdatasync:signal=STOP:when=1", log):
                zygote.say(operation="incr", size=0)
                while not log.exists() or "stopped by SIGSTOP" not in log.read_text():
                    pass
            mine = temporaries(path)
            os.unlink(f"{path}.lock")
            second.begin(path, face)
            other = second.attempt("incr")
            still_mine = temporaries(path)
            os.kill(pid, signal.SIGCONT)
            first = zygote.hear()
            assert 0 == second.end()
            assert 0 == zygote.end()
        finally:
            second.close()

        assert 1 == len(mine)
        assert mine == still_mine
        assert ("done", 2) == (other["outcome"], other["n"]), other
        assert ("done", 3) == (first["outcome"], first["n"]), first
        assert 3 == json.loads(path.read_bytes())["n"]
        assert [] == temporaries(path)


class TestFaultsOfReading:
    @pytest.mark.parametrize("face", ["async", "sync"])
    def test_a_file_that_cannot_be_read_is_not_taken_for_an_empty_or_bad_one(
        self, zygote: Zygote, tmp_path: Path, face: str
    ) -> None:
        """A load during disk errors raises an OSError or succeeds: it moves nothing aside, and memory stays whole."""
        needs_strace()
        counted = steps(zygote, tmp_path, "load", face)
        outcomes: Counter[str] = Counter()
        points = [(call, number) for call in ("openat", *READING) for number in range(1, counted[call] + 1)]
        for point, (call, number) in enumerate(points):
            path = make(tmp_path / str(point))
            before = path.read_bytes()
            pid = zygote.begin(path, face)
            with Strace(pid, FAILING, f"{call}:error=EIO:when={number}"):
                result = zygote.attempt("load")
            outcomes[result["outcome"]] += 1
            assert 0 == zygote.end()

            assert result["outcome"] in {"done", "refused"}, (call, number, result)
            assert 1 == result["n"], (call, number, result)
            assert before == path.read_bytes(), (call, number, result)
            assert [] == temporaries(path), (call, number, result)

        assert outcomes["refused"], outcomes
