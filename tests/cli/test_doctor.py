"""The doctor: its findings about a file, its directory and its lock."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from commandline import run
from persistent_context import SyncPersistentContext

NOBODY = 65534


NO_LOCK = "import filelock\nfilelock.lock_descriptor = lambda *_, **__: True\n"


def findings(path, code=0, **options):
    """Return the doctor's problems and warnings: by subject the level, the text, and the advice."""
    found = json.loads(run("doctor", path, "--json", code=code, **options))
    return {
        f["subject"]: (f["level"], f["text"], f["advice"])
        for f in found
        if f["level"] != "ok" and (f["subject"] != "file system" or not str(path).startswith(tempfile.gettempdir()))
    }  # the machine determines whether temporary files are in memory


@pytest.fixture
def stored(path):
    """A file that holds a few values."""
    path.write_text('{"n": 1, "name": "älice", "jobs": ["a", {"b": null}]}', encoding="utf-8")
    return path


@pytest.fixture
def without_locks(tmp_path):
    """The environment of a broken build, in which every lock is granted to every process."""
    directory = tmp_path / "broken"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NO_LOCK, encoding="utf-8")
    paths = [str(directory), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class TestDoctor:
    def test_all_is_well(self, stored):
        """A healthy file has no findings; nothing is changed, and nothing is left behind."""
        SyncPersistentContext(stored).incr("n")
        before = {name: (stored.parent / name).read_bytes() for name in os.listdir(stored.parent)}

        assert {} == findings(stored)
        assert before == {name: (stored.parent / name).read_bytes() for name in os.listdir(stored.parent)}
        assert "a second process was kept out" in run("doctor", stored)

    def test_the_worst_comes_last(self, path):
        """No positive result is printed after a problem, in a terminal or for a script."""
        path.write_text("[1]", encoding="utf-8")
        path.parent.chmod(0o777)
        severity = ["ok", "warning", "problem"]
        said = [line.split()[0] for line in run("doctor", path, code=1).splitlines() if line[0] != " "]
        told = [one["level"] for one in json.loads(run("doctor", path, "--json", code=1))]

        assert severity == sorted(set(said), key=severity.index)
        assert said == told == sorted(said, key=severity.index)

    def test_a_file_that_is_not_there_yet_is_well(self, path):
        """A missing file is fine, and a missing directory only causes a warning."""
        assert {} == findings(path)
        assert {"directory"} == findings(path / "new" / "state.json").keys()

    def test_a_corrupt_file(self, path):
        """A corrupt file is reported with the position of the error, before a program moves it aside."""
        text = '{"a": "NaN \\" NaN",\n"b": [-Infinity, NaN]}'
        path.write_text(text, encoding="utf-8")
        level, found, advice = findings(path, code=1)["file"]

        assert ("problem", text) == (level, path.read_text(encoding="utf-8"))
        assert ("-Infinity is not a JSON value: line 2 column 7" in found, "repair it" in advice) == (True, True)

    def test_a_file_that_repeats_keys(self, path):
        """The values that another program would lose are reported."""
        path.write_text('{"a": 1, "a": 2}', encoding="utf-8")
        found = findings(path, errors="WARNING: [^\n]* contains duplicate keys[^\n]*\n")

        assert ("warning", True) == (found["file"][0], "contains duplicate keys" in found["file"][1])

    def test_a_large_file(self, path):
        """A file of more than 16 MB should be a database."""
        path.write_text('{"a": "' + "x" * 17_000_000 + '"}', encoding="utf-8")

        assert "SQLite" in findings(path)["file"][2]

    def test_no_file(self, path):
        """A directory in the place of the file is a problem."""
        path.mkdir()

        assert "problem" == findings(path, code=1)["file"][0]

    def test_a_link_leads_on(self, stored, tmp_path):
        """The file that the link leads to is examined."""
        link = tmp_path / "link.json"
        link.symlink_to(stored)
        stored.write_text("[]", encoding="utf-8")

        assert "file" in findings(link, code=1)
        assert f"points to {os.path.realpath(stored)}" in run("doctor", link, code=1)

    def test_links_that_lead_in_a_circle(self, path):
        """Only the loop of links is reported, and nothing about a lock file."""
        path.symlink_to(path.with_name("other"))
        path.with_name("other").symlink_to(path)
        (found,) = findings(path, code=1).items()

        assert ("link", "problem", True) == (found[0], found[1][0], "loop" in found[1][1])
        assert {"link"} == findings(path / "state.json", code=1).keys()

    def test_a_directory_that_cannot_be_made(self, stored):
        """A file in the place of a directory is reported."""
        level, text, _ = findings(stored / "new" / "state.json", code=1)["directory"]

        assert ("problem", True) == (level, f"{os.path.realpath(stored)} is not a directory" in text)

    def test_hard_links(self, stored, tmp_path):
        """Hard links are reported, since a save would separate the names without a warning."""
        os.link(stored, tmp_path / "other.json")
        level, text, _ = findings(stored)["hard links"]

        assert ("warning", True) == (level, "2 names" in text)

    def test_a_file_that_is_mounted_by_itself(self, stored, tmp_path):
        """A file that is itself a mount cannot be replaced, which is reported before the first save fails."""
        point = tmp_path / "mounted.json"
        point.touch()
        if subprocess.run(["mount", "--bind", stored, point], capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a file")
        try:
            found = findings(point, code=1)
            with pytest.raises(OSError, match="busy"):
                SyncPersistentContext(point).incr("n")
        finally:
            subprocess.run(["umount", point], check=True)

        assert ("problem", True) == (found["mount"][0], "directory" in found["mount"][2])

    @pytest.mark.parametrize(
        ("flag", "name", "where"),
        [("i", "immutable", "file"), ("i", "immutable", "directory"), ("a", "append-only", "directory")],
    )
    def test_attributes_that_forbid_to_replace(self, stored, flag, name, where):
        """The attributes are named, with the command that removes them, and nothing is left behind."""
        place = stored if where == "file" else stored.parent
        if not shutil.which("chattr") or subprocess.run(["chattr", f"+{flag}", place], check=False).returncode:
            pytest.skip("needs root, chattr and a file system that has attributes")
        try:
            level, text, advice = findings(stored, code=1)["attributes"]
            left = os.listdir(stored.parent)
        finally:
            subprocess.run(["chattr", f"-{flag}", place], check=True)

        assert ("problem", True, ["state.json"]) == (level, f"is {name}" in text, left)
        assert f"chattr -{flag} {os.path.realpath(place)}" == advice

    def test_what_was_moved_aside(self, path):
        """Copies are reported, with a command that adds missing keys, and never one that replaces a file in use."""
        path.write_text('{"old": 1, "n": 7', encoding="utf-8")
        SyncPersistentContext.create(path).incr("n")
        _, text, advice = findings(path)["moved aside"]
        command = advice.partition("lacks: ")[2].partition(";")[0]
        (copy,) = path.parent.glob("*.corrupt-*")
        copy.write_text(copy.read_text(encoding="utf-8") + "}", encoding="utf-8")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(command, shell=True, check=True, env=environment)

        assert f"{copy}, 17 bytes" in text
        assert {"n": 1, "old": 1} == json.loads(path.read_text(encoding="utf-8"))
        assert "mv " not in run("doctor", path)

    def test_what_a_crashed_writer_left(self, stored, spawn):
        """Leftovers are reported, but not the temporary file of a living writer."""
        crashed, living = (stored.with_name(f".state.json.{n:016x}.tmp") for n in range(2))
        crashed.touch()
        stored.with_name(f".state.json.{2:016x}.tmp").mkdir()
        child = spawn(
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2), print('held'), sys.stdin.read()", living
        )
        child.hear()
        _, text, _ = findings(stored)["leftover"]

        assert (True, False) == (crashed.name in text, living.name in text)

    def test_a_lock_file_that_is_a_link(self, stored):
        """A lock file that is a link is never followed, so no program can save."""
        Path(f"{stored}.lock").symlink_to(stored)
        found = findings(stored, code=1)

        assert {"lock file", "lock"} == found.keys()
        assert f"rm {os.path.realpath(stored)}.lock" in found["lock file"][2]

    def test_a_lock_file_with_two_names(self, stored, tmp_path):
        """A lock file with two names works, but does not name its holder."""
        (tmp_path / "other").touch()
        os.link(tmp_path / "other", f"{stored}.lock")

        assert {"lock file"} == findings(stored).keys()

    def test_a_holder_that_is_stopped(self, stored, hold_transaction):
        """A stopped holder is named, with the command that continues it, and the command works."""
        with hold_transaction(stored) as held:
            os.kill(held.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, held.pid, os.WSTOPPED | os.WNOWAIT)
            level, text, advice = findings(stored, code=1)["lock"]
            subprocess.run(advice.partition(": ")[2].split(), check=True)

        assert ("problem", True) == (level, f"process {held.pid}" in text)

    def test_a_holder_that_holds_for_long(self, stored, hold_transaction):
        """A holder of more than a minute causes a warning."""
        with hold_transaction(stored):
            lock = Path(f"{stored}.lock")
            stamp = re.sub(rb'("since": ?)\d+', rb"\g<1>1000000000", lock.read_bytes())
            with lock.open("r+b") as file:
                file.write(stamp)
            level, text, _ = findings(stored)["lock"]

        assert ("warning", True) == (level, "held for " in text)

    def test_a_holder_that_says_nothing(self, stored, hold):
        """A lock held by another program without a stamp is not a problem."""
        with hold(stored):
            assert {} == findings(stored)
            assert "held by an unidentified program" in run("doctor", stored)

    def test_a_directory_that_everybody_may_write_to(self, stored):
        """A directory in which any user may replace the lock file is reported."""
        stored.parent.chmod(0o777)

        assert ("warning", True) == (findings(stored)["access"][0], "chmod o-w" in findings(stored)["access"][2])

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
    def test_a_directory_and_a_lock_file_that_this_user_may_not_write(self, stored):
        """Both are reported, with respect to the user who runs the command."""
        for directory in stored.parents:
            if not directory.stat().st_mode & stat.S_IXOTH:
                directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
        SyncPersistentContext(stored).incr("n")
        stored.chmod(0o644)
        Path(f"{stored}.lock").chmod(0o644)
        code = (
            "import os, sys; from persistent_context._cli import doctor\n"
            f"os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
            "for level, subject, *_ in doctor.examine(sys.argv[1]): print(level, subject)"
        )
        done = subprocess.run([sys.executable, "-c", code, stored], capture_output=True, text=True, check=True)
        problems = {line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("problem")}

        assert {"access", "permission", "lock file", "lock"} >= problems >= {"access", "permission", "lock file"}

    @pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is not mounted")
    def test_the_kind_of_file_system(self):
        """A file system in memory is reported, and so is an unknown one."""
        name = f"/dev/shm/persistent-context-{os.getpid()}.json"

        assert ("warning", True) == (findings(name)["file system"][0], "reboot" in findings(name)["file system"][1])
        unknown = findings("/proc/state.json", code=1)
        assert ("warning", "problem") == (unknown["file system"][0], unknown["trial"][0])

    def test_a_lock_that_does_not_lock(self, stored, without_locks):
        """If two processes can hold the lock at once, the trial finds it."""
        level, text, _ = findings(stored, code=1, env=without_locks)["trial"]

        assert ("problem", True) == (level, "at once" in text)

    def test_a_second_process_that_cannot_lock(self, stored, tmp_path):
        """A trial that could not be made is a problem, not a success."""
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nif '-c' in sys.orig_argv: raise SystemExit", encoding="utf-8"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        level, text, _ = findings(stored, code=1, env=environment)["trial"]

        assert ("problem", True) == (level, "second process could not" in text)

    def test_a_disk_that_is_full(self, stored, tmp_path):
        """A save needs space for a second copy; this is tried on a real small file system."""
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("needs the right to mount a file system")
        try:
            (small / "state.json").write_text(json.dumps({"a": "x" * 40_000}), encoding="utf-8")
            found = findings(small / "state.json", code=1)
        finally:
            subprocess.run(["umount", small], check=True)

        assert "problem" == found["space"][0]
