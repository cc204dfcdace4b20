"""The fault run: a sample of it passes on this library, and it finds each kind of broken build that it is made for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import persistent_context

if sys.platform != "linux":
    pytest.skip("needs Linux: strace, FUSE and loop mounts make the faults", allow_module_level=True)

import fcntl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the fault run is not installed

from stress.faults.errors import retried, swallowed
from stress.faults.lab import Lab
from stress.faults.locks import holds, waits
from stress.faults.model import Findings, Result, Series
from stress.faults.run import Choice, explore, results_of
from stress.faults.scenarios import scenarios
from stress.faults.strace import Call, Trace

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(persistent_context.__file__).resolve().parent

SAMPLED = [
    "limit:save:async",
    "full:transaction:sync",
    "kill:save:async",
    "kill:commit:sync",
    "kill:create:async",
    "lossy:transaction:async",
    "lossy:create:sync",
    "power:xfs:save:async",
    "power:ext4:create:sync",
    "slow:lossy:async",
    "slow:xfs:async",
    "pair:lossy:incr:incr",
    "pair:lossy:save:resave",
    "pair:lossy:create:neighbour",
    "pair:xfs:incr-volatile:resave",
    "pair:ext4:incr:incr",
    "error:save:sync",
    "error:commit:async",
    "error:create:sync",
    "error:resave:sync",
    "error:several:sync",
    "limit:append-save:sync",
    "kill:checkpoint:async",
    "kill:end:async",
    "lossy:append:sync",
    "lossy:begin:sync",
    "power:ext4:checkpoint:async",
    "pair:lossy:append:append",
    "pair:lossy:checkpoint:append",
    "error:append:sync",
    "error:checkpoint:async",
]

COMPLETE = "            complete(self._file.path, new_directory=self.lock.in_new_directory)\n"
SYNC = "        os.fsync(fd)\n"
BROKEN = {
    "the file is not synced": (
        "atomic.py",
        "        if durable:\n            sync(fd)\n",
        "",
        [
            "lossy:save:async acknowledged:1",
            "power:xfs:save:async acknowledged:1",
            "power:ext4:incr:sync acknowledged:1",
        ],
        "the file is torn",
    ),
    "the file is synced after the rename": (
        "atomic.py",
        "        if durable:\n            sync(fd)\n        check()\n",
        "        check(); os.link(temporary, path + '~'); os.rename(path + '~', path); sync(fd)\n",
        ["lossy:save:async step-names-first:5"],
        "the file is torn",
    ),
    "the directory is not synced": (
        "syncing.py",
        "    fd = open_fd(path, _DIRECTORY)\n    try:\n        sync(fd)\n",
        "    fd = open_fd(path, _DIRECTORY)\n    try:\n        pass\n",
        [
            "lossy:save:async acknowledged:1",
            "power:xfs:save:async acknowledged:1",
            "power:ext4:incr:sync acknowledged:1",
            "pair:lossy:incr:incr killed:2",
            "pair:ext4:incr:incr continued:2",
        ],
        "the call said done",
    ),
    "the directory is not synced where there is nothing to write": (
        "syncing.py",
        "        _sync_name(path, new_directory=new_directory)\n    except FileNotFoundError",
        "    except FileNotFoundError",
        ["pair:lossy:save:resave killed:2", "pair:lossy:incr:rewrite killed:2"],
        "the call said done to first and second",
    ),
    "nothing is synced where there is nothing to write": (
        "jsonfile/session.py",
        "            self._complete = make_durable\n        return",
        "            pass\n        return",
        [
            "pair:lossy:save-volatile:rewrite acknowledged:1",
            "pair:xfs:incr-volatile:resave acknowledged:1",
            "pair:ext4:commit:rewrite killed:2",
        ],
        "the call said done to first and second",
    ),
    "a call is acknowledged while the directory is being synced": (
        "jsonfile/session.py",
        "            self._complete = make_name_durable\n",
        "            self._complete = lambda *a, **k: __import__('_thread').start_new_thread(make_durable, a, k)\n",
        ["slow:lossy:async acknowledged:1", "slow:xfs:async acknowledged:1", "slow:ext4:sync acknowledged:1"],
        "the call said done",
    ),
    "a writer that waited for the lock leaves the directory to the one before": (
        "jsonfile/session.py",
        "        if durable:\n            self._complete = make_name_durable\n",
        "        if durable and not self.lock.waited:\n            self._complete = make_name_durable\n",
        ["pair:lossy:incr:incr killed:2"],
        "the call said done to first and second",
    ),
    "a writer that was overtaken after unlocking leaves the directory to the next one": (
        "jsonfile/session.py",
        COMPLETE,
        f"            if self._file.document() is self._document:\n    {COMPLETE}",
        ["pair:lossy:incr:incr overtaken:1", "pair:lossy:commit:transaction overtaken:1"],
        "the call said done to first",
    ),
    "a write that is not durable replaces one that is being made durable after unlocking": (
        "lock.py",
        "        self.promised = tells_of_promises(before) or is_erased or not self._is_stamped\n",
        "        self.promised = False\n",
        ["pair:lossy:incr:incr-volatile continued:4", "pair:xfs:incr:incr-volatile overtaken:1"],
        "the file is torn",
    ),
    "the lock is released before the rename": (
        "atomic.py",
        "        check()\n",
        "        check()\n        check.__self__.release()\n",
        ["pair:lossy:incr:incr continued:1", "pair:xfs:save:incr continued:1", "pair:ext4:incr:incr continued:1"],
        "the call said done to first and second",
    ),
    "the lock file says too early that the new directory is synced": (
        "lock.py",
        "return UNSYNCED_STAMP if self.in_new_directory else EMPTY_STAMP",
        "return EMPTY_STAMP",
        ["pair:lossy:create:neighbour killed:4", "pair:lossy:create:resave killed:4"],
        "the file holds no file",
    ),
    "a dead holder is taken for one that had synced the new directory": (
        "lock.py",
        "before != EMPTY_STAMP and not",
        "before in {b'', VOLATILE_STAMP, UNSYNCED_STAMP} and not",
        ["pair:lossy:create:neighbour killed:2", "pair:lossy:create:resave killed:2"],
        "the file holds no file",
    ),
    "a new directory is not synced": (
        "syncing.py",
        "        _sync_parent(directory)\n",
        "        pass\n",
        ["lossy:create:sync acknowledged:1"],
        "the call said done, and the file holds no file",
    ),
    "the file is written in place": (
        "atomic.py",
        "    temporary = temporary_name(path)\n",
        "    with open(path, 'wb') as file:\n        return sum(file.write(piece) for piece in pieces)\n",
        ["kill:save:async write:2", "full:save:sync tmpfs-bytes:1", "limit:save:async bytes=4096:1"],
        "the file is torn",
    ),
    "a short write is taken for a whole one": (
        "atomic.py",
        "            rest = rest[os.write(fd, rest) :]\n",
        "            os.write(fd, rest)\n            break\n",
        ["limit:save:async bytes=4096:1", "full:save:sync tmpfs-bytes:1"],
        "the file is torn",
    ),
    "an error leaves the temporary": (
        "atomic.py",
        "                os.unlink(temporary)\n            raise\n",
        "                pass\n            raise\n",
        ["error:save:sync fsync=EIO:1", "error:commit:async rename=ENOSPC:1", "full:save:sync tmpfs-bytes:1"],
        "left behind after the error",
    ),
    "the leftover of a killed writer stays": (
        "names.py",
        "    removed = []\n",
        "    return []\n",
        ["kill:save:async rename:1", "power:xfs:save:async rename:1"],
        "left behind after the next write",
    ),
    "a failed sync is tried again": (
        "syncing.py",
        SYNC,
        "        try:\n            os.fsync(fd)\n        except OSError:\n            os.fsync(fd)\n",
        ["error:save:sync fsync=EIO:1", "error:commit:async fsync=EIO:2"],
        "a failed sync was tried again",
    ),
    "a failed sync is swallowed": (
        "syncing.py",
        SYNC,
        "        try:\n            os.fsync(fd)\n        except OSError:\n            pass\n",
        ["error:save:sync fsync=EIO:1", "error:commit:async fsync=EIO:2", "error:create:sync fsync=EIO+:1"],
        "the call said done, although this failed",
    ),
    "a failed sync of the directory is swallowed": (
        "syncing.py",
        "    fd = open_fd(path, _DIRECTORY)\n    try:\n        sync(fd)\n",
        "    fd = open_fd(path, _DIRECTORY)\n    try:\n        try: sync(fd)\n        except OSError: pass\n",
        ["error:save:sync fsync=EIO:2", "error:resave:sync fsync=EIO:2"],
        "the call said done, although this failed",
    ),
    "a failed sync is swallowed where there is nothing to write": (
        "syncing.py",
        '        raise durability_unknown(path, "there was nothing to write", error) from error\n',
        "        return\n",
        ["error:resave:sync fsync=EIO:1", "error:resave:sync fsync=EIO:2"],
        "the call said done, although this failed",
    ),
    "only one caller gets the error of a failed sync": (
        "cycle.py",
        "        fail(batch, failure, name)\n",
        "        fail(batch[:1], failure, name)\n",
        ["error:several:async fsync-of-directory=EIO:1", "error:several:sync fsync-of-directory=EIO:1"],
        "said done instead of unknown",
    ),
    "a failed rename is swallowed": (
        "atomic.py",
        "        _rename(temporary, path)\n",
        "        with contextlib.suppress(OSError):\n            _rename(temporary, path)\n",
        ["error:save:sync rename=EIO:1"],
        "the call said done, and the file holds",
    ),
    "a late error does not say that the file is replaced": (
        "syncing.py",
        '        raise durability_unknown(path, "the file was replaced", error) from error\n',
        "        raise\n",
        ["error:save:sync fsync=EIO:2"],
        "the call said done, although this failed",
    ),
    "a dead holder keeps the lock": (
        "lock.py",
        "        before = read_at(file.fd, 0, STAMP_BYTES)\n",
        "        before = read_at(file.fd, 0, STAMP_BYTES)\n        assert not is_of_holder(before)\n",
        ["kill:save:async rename:1"],
        "another process could not go on",
    ),
    "others' changes are not read under the lock": (
        "jsonfile/session.py",
        "        self._document, self._old = self._file.read_finished()\n",
        "        self._document, self._old = self._file._known, None\n",
        ["kill:save:async flock:9", "error:save:sync fsync=EIO:9"],
        "the call said done, and the file holds",
    ),
    "what is appended to the journal is not synced": (
        "journal/session.py",
        "                self._unsynced = state\n",
        "                pass\n",
        [
            "lossy:append:sync acknowledged:1",
            "power:xfs:append:sync acknowledged:1",
            "pair:lossy:append:append killed:4",
        ],
        "the call said done",
    ),
    "a failed sync of the journal is swallowed": (
        "journal/session.py",
        "            raise durability_unknown(self._journal.data_path, what, error) from error\n",
        "            return\n",
        ["error:append:sync fdatasync=EIO:1", "error:append-save:async fdatasync=EIO+:1"],
        "the call said done, although this failed",
    ),
    "a writer that appends to a new journal leaves its name to the one that made it": (
        "journal/file.py",
        "        if not self.name_is_durable:\n",
        "        if False:\n",
        ["pair:lossy:begin:append killed:8", "pair:lossy:checkpoint:append killed:7"],
        "the call said done to first and second",
    ),
    "a checkpoint is not announced in the journal": (
        "journal/session.py",
        "                announced = journal.announce_fold(state, author, becomes, ends=ends)\n",
        "                announced = True\n",
        ["kill:checkpoint:async rename:2", "lossy:checkpoint:async step:10", "kill:end:async unlink:1"],
        "the JSON file does not match the journal",
    ),
    "a call is acknowledged before it is written": (
        "cycle.py",
        "            with draft.committing():\n",
        "            from .waiting import deliver; deliver(applied)\n            with draft.committing():\n",
        ["kill:incr:sync rename:1", "lossy:incr:sync step:5", "error:save:async rename=EIO:1"],
        "FAILED",
    ),
}


def skip_unless_possible(name: str) -> None:
    """Skip the test if the scenario cannot run here, and say how to get what is missing."""
    (scenario,) = Choice(only=name).scenarios()
    if lacks := scenario.missing():
        pytest.skip(f"{name}: {lacks[0]}; to run it: {lacks[1]}")


def run(*arguments: str, library: Path = LIBRARY.parent, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "stress.faults", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class TestThisLibrary:
    @pytest.mark.parametrize("name", SAMPLED)
    def test_it_keeps_its_promises_at_a_sample_of_points(self, name):
        """Whatever call fails, or is the last before a kill or a power loss, no promise is broken."""
        skip_unless_possible(name)
        findings = explore(Choice(only=name, sample=True))
        for skipped in findings.skipped:
            pytest.skip(f"{skipped.why}; to run it: {skipped.remedy}")

        assert [] == [(result.command, result.problems) for result in findings.results if not result.passed]
        assert findings.passed

    def test_a_series_ends_when_the_fault_has_no_call_to_befall(self):
        """All points of a call are tried, one after the other, until there is a run without the fault."""
        skip_unless_possible("kill:save:sync")
        (scenario,) = Choice(only="kill:save:sync").scenarios()
        with Lab() as lab:
            calls = {series.fault: series.expected for series in scenario.series(lab)}
            last = scenario.attempt(lab, "rename", calls["rename"])
            clean = scenario.attempt(lab, "rename", calls["rename"] + 1)

        assert (True, ()) == (last.hit, last.problems)
        assert (False, ()) == (clean.hit, clean.problems)
        assert calls.keys() >= {"openat", "write", "fsync", "rename", "flock", "close"}


class TestBrokenBuilds:
    @pytest.mark.parametrize("what", BROKEN)
    def test_each_is_found(self, what, tmp_path):
        """A build that breaks a promise fails at the points chosen for it, for the right reason."""
        module, old, new, points, reason = BROKEN[what]
        library = tmp_path / "library"
        shutil.copytree(LIBRARY, library / LIBRARY.name, ignore=shutil.ignore_patterns("__pycache__"))
        (source,) = (library / LIBRARY.name).rglob(module)
        text = source.read_text(encoding="utf-8")
        assert 1 == text.count(old), "the library was changed: break it in another way"
        source.write_text(text.replace(old, new), encoding="utf-8")
        tried = 0
        for scenario, _, point in (one.partition(" ") for one in points):
            (chosen,) = Choice(only=scenario).scenarios()
            if chosen.missing():
                continue
            done = run("--only", scenario, "--point", point, library=library)
            tried += "SKIPPED" not in done.stdout

            assert "SKIPPED" in done.stdout or reason in done.stdout, (scenario, point, done.stdout + done.stderr)
            assert 1 == done.returncode
        if not tried:
            pytest.skip(f"nothing here can show that {what}: see python -m stress.faults --list for what is missing")


class TestTheCommand:
    def test_a_run_that_could_try_nothing_is_no_success(self, tmp_path):
        """The output says what the machine lacks and how to get it, and a run that tried nothing does not pass."""
        done = run("--only", "kill:save:async", PATH=str(tmp_path))

        assert 1 == done.returncode
        assert "SKIPPED kill:save:async: strace is not installed; to run it: apt-get install strace" in done.stdout
        assert "NOTHING WAS TRIED" in done.stdout

    def test_it_writes_what_it_found_for_programs(self, tmp_path):
        """The results are written as JSON, each with the command that repeats it."""
        done = run("--only", "limit:save:sync", "--point", "bytes=4096:1", "--json", str(tmp_path / "found.json"))
        found = json.loads((tmp_path / "found.json").read_text())

        assert 0 == done.returncode, done.stdout + done.stderr
        assert found["passed"]
        assert [("refused", True, "python -m stress.faults --only limit:save:sync --point bytes=4096:1")] == [
            (result["seen"], result["passed"], result["command"]) for result in found["results"]
        ]

    def test_it_lists_every_scenario(self):
        """All scenarios that can be chosen are listed."""
        done = run("--list")

        assert 0 == done.returncode
        assert [scenario.name for scenario in scenarios()] == [line.split()[0] for line in done.stdout.splitlines()]

    @pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--only", "kill", "--point", "rename:1"]])
    def test_a_wrong_choice_is_refused(self, arguments):
        """A scenario that does not exist, or a point of several scenarios, is refused."""
        done = run(*arguments)

        assert 2 == done.returncode
        assert "error" in done.stderr


class Harmless:
    """A scenario whose faults never take place."""

    name = "harmless"
    about = "nothing"

    def missing(self):
        return None

    def series(self, lab):
        return [Series("rename", 2)]

    def attempt(self, lab, fault, number):
        return Result(self.name, fault, number, hit=False, seen="clean")


class TestTheModel:
    def test_a_fault_that_should_have_come_to_pass_and_did_not_fails_the_run(self):
        """A tool that injects nothing is not taken for a library that withstands everything."""
        (result,) = results_of(Harmless(), None, Choice(), print)

        assert ("the fault did not take place: nothing is shown",) == result.problems

    def test_a_point_that_fails_fails_the_run(self):
        """One broken promise is enough, even if the fault had no call left to hit."""
        good = Result("kill:save:sync", "rename", 1, hit=True, seen="killed")
        bad = Result("kill:save:sync", "rename", 2, hit=False, seen="clean", problems=("torn",))

        assert Findings([good]).passed
        assert not Findings([good, bad]).passed
        assert not Findings([bad]).passed
        assert not Findings([]).passed
        (tally,) = Findings([good, bad]).tallies()
        assert (2, (bad,)) == (tally.tried, tally.failures)


class TestLocks:
    def test_who_holds_a_lock_and_who_waits_for_it_is_told_apart(self, tmp_path):
        """Holders and waiting processes are read from the kernel: a stopped process cannot be asked."""
        path = tmp_path / "lock"
        path.touch()
        with path.open() as held, path.open() as other:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = subprocess.Popen(["flock", str(path), "true"])
            try:
                while not waits(waiting.pid, path):
                    assert waiting.poll() is None
                    time.sleep(0.001)

                assert (True, False) == (holds(os.getpid(), path), waits(os.getpid(), path))
                assert (False, True) == (holds(waiting.pid, path), waits(waiting.pid, path))
            finally:
                fcntl.flock(held, fcntl.LOCK_UN)
                waiting.wait()
            assert not holds(os.getpid(), path)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert holds(os.getpid(), path)


class TestReadingTheTrace:
    LOG = """\
7 fsync(8</d/.s.json.tmp>) = -1 EIO (Input/output error) (INJECTED)
7 write(9</d/s.json.lock>, ""..., 512) = -1 EIO (Input/output error) (INJECTED)
8 openat(AT_FDCWD</cwd>, "/d/s.json", O_RDONLY <unfinished ...>
7 fsync(9</d>) = 0
8 <... openat resumed>) = 3</d/s.json>
7 fsync(8</d/.s.json.tmp>) = 0
7 +++ exited with 0 +++
"""

    @pytest.fixture
    def calls(self, tmp_path):
        """The calls of a log in the format of strace."""
        log = tmp_path / "log"
        log.write_text(self.LOG)
        return Trace(1, log).calls()

    def test_calls_that_were_cut_in_two_are_whole(self, calls):
        """Each call is read once, with the file that it was made on."""
        assert [
            ("fsync", "/d/.s.json.tmp"),
            ("write", "/d/s.json.lock"),
            ("fsync", "/d"),
            ("openat", "/d/s.json"),
            ("fsync", "/d/.s.json.tmp"),
        ] == [(call.name, call.on) for call in calls]
        assert [True, True, False, False, False] == [call.injected for call in calls]

    def test_a_second_sync_of_the_same_file_is_found(self, calls):
        """A file must not be synced again after a failed sync; another file may be."""
        assert retried(calls)
        assert not retried(calls[:-1])

    def test_a_directory_that_could_not_be_opened_had_to_be_told_unless_it_is_someone_elses(self):
        """A failure to open a directory for a sync must be reported; a directory to list is opened with O_NONBLOCK."""
        text = 'openat(AT_FDCWD</cwd>, "/d", O_RDONLY|O_CLOEXEC|O_DIRECTORY) = -1 EIO (Input/output error) (INJECTED)'
        calls = [
            Call("openat", text.replace(*change), "7")
            for change in (("", ""), ("EIO", "EACCES"), ("O_C", "O_NONBLOCK|O_C"))
        ]

        assert [1, 0, 0] == [len(swallowed([call], "done")) for call in calls]

    def test_a_failure_that_had_to_be_told_is_found(self, calls):
        """An operation that reports success although its sync failed is found; the stamp in the lock file may fail."""
        assert swallowed(calls[:1], "done")
        assert not swallowed(calls[:1], "refused")
        assert not swallowed(calls[1:2], "done")
