"""The command line, as a shell runs it."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from persistent_context import SyncPersistentContext

fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))  # not on Windows
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMAND = [sys.executable, "-m", "persistent_context"]
NOBODY = 65534
NO_LOCK = "import filelock\nfilelock.lock_descriptor = lambda *_, **__: True\n"


def run(*arguments, code=0, errors="", **options):
    """Run a command, check its exit code and what it says on standard error, and return its output."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **options)

    assert (code, True) == (done.returncode, re.fullmatch(errors, done.stderr, re.DOTALL) is not None), done.stderr
    return done.stdout


def findings(path, code=0, **options):
    """Return what the doctor finds that is not well: by subject the level, the text, and the advice."""
    found = json.loads(run("doctor", path, "--json", code=code, **options))
    return {
        f["subject"]: (f["level"], f["text"], f["advice"])
        for f in found
        if f["level"] != "ok" and (f["subject"] != "file system" or not str(path).startswith(tempfile.gettempdir()))
    }  # that temporary files are in memory is this machine's business


@pytest.fixture
def stored(path):
    """A file that holds a few values."""
    path.write_text('{"n": 1, "name": "älice", "jobs": ["a", {"b": null}]}', encoding="utf-8")
    return path


@pytest.fixture
def without_locks(tmp_path):
    """The environment of a broken build, in which every lock is free for everybody."""
    directory = tmp_path / "broken"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NO_LOCK, encoding="utf-8")
    paths = [str(directory), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class TestReading:
    def test_get_prints_strings_plainly_and_all_else_as_json(self, stored):
        """A shell gets a string without quotes; --json is for scripts."""
        assert "älice\n" == run("get", stored, "name")
        assert '"älice"\n' == run("get", stored, "name", "--json")
        assert '["a", {"b": null}]\n' == run("get", stored, "jobs")

    def test_a_missing_key_is_an_error(self, stored):
        """The exit code tells absence from a null, and the message names both the file and the key."""
        run("get", stored, "nope", code=1, errors=f"error: {stored} has no key 'nope'\n")

    def test_show_is_made_for_pipes(self, stored):
        """Without a terminal it writes a line for each key, in full; --json writes the whole object."""
        assert 'n\t1\nname\t"älice"\njobs\t["a", {"b": null}]\n' == run("show", stored)
        assert json.loads(stored.read_text(encoding="utf-8")) == json.loads(run("show", stored, "--json"))

    def test_show_is_made_for_terminals(self, path):
        """On a terminal it is a table no wider than that, in which nothing steers the terminal."""
        path.write_text(json.dumps({"a": "x" * 200, "\x1b[2J": "\x1b[2J"}), encoding="utf-8")
        shown, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, b"\x18\0\x40\0\0\0\0\0")  # 24 lines of 64 columns
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": ""}
        subprocess.run([*COMMAND, "show", path], stdout=terminal, env=environment, check=True)
        os.close(terminal)
        text = re.sub("\x1b\\[[0-9;]*m", "", os.read(shown, 65536).decode())
        os.close(shown)

        assert "…" in text
        assert "\\x1b[2J" in text
        assert "\x1b[2J" not in text
        assert 64 == max(map(len, text.splitlines()))

    @pytest.mark.parametrize("command", [["show"], ["get", "a"], ["watch"]], ids=" ".join)
    def test_what_is_corrupt_is_left_where_it_is(self, path, command):
        """Who only looks does not move the file aside, as a program that loads it does."""
        path.write_text("[1]", encoding="utf-8")
        name, *rest = command
        run(name, path, *rest, code=1, errors=rf"error: {path} is not a JSON object: [^\n]+; [^\n]*doctor[^\n]*\n")

        assert ("[1]", ["state.json"]) == (path.read_text(encoding="utf-8"), os.listdir(path.parent))

    def test_a_missing_file_is_an_error_and_stays_missing(self, path):
        """A mistyped name makes no file."""
        run("show", path, code=1, errors=f"error: {path} does not exist\n")

        assert [] == os.listdir(path.parent)

    def test_what_is_no_file_is_named(self, path):
        """The error is one line, without a traceback."""
        run(
            "get",
            path.parent,
            "a",
            code=1,
            errors=f"error: {path.parent}: expected a regular file, found a directory[^\n]*\n",
        )

    @pytest.mark.parametrize("command", ["show", "doctor", "who", "watch"])
    def test_output_that_nobody_reads_is_no_crash(self, path, command):
        """As in `show FILE | head`."""
        path.write_text(json.dumps({str(n): "x" * 100 for n in range(5000)}), encoding="utf-8")
        reading, writing = os.pipe()
        os.close(reading)
        with subprocess.Popen([*COMMAND, command, path], stdout=writing, stderr=subprocess.PIPE) as running:
            os.close(writing)
            ctx = SyncPersistentContext(path)
            while command == "watch" and running.poll() is None:
                ctx.incr("n")  # until it has something to print
            errors = running.stderr.read()

        assert (1, b"") == (running.returncode, errors)

    @pytest.mark.parametrize("text", ["\x9b2J", "\x7f", "\u202etxt.exe", "a\u2028b"], ids=ascii)
    def test_no_terminal_obeys_a_value(self, path, text):
        """What could steer it is escaped in JSON's own way, in a pipe as well, so scripts have the very value."""
        path.write_text(json.dumps({"key": [text]}), encoding="utf-8")
        printed = [run("get", path, "key"), run("show", path).partition("\t")[2], run("show", path, "--json")]

        assert [[text], [text], {"key": [text]}] == [json.loads(one) for one in printed]
        assert [] == [one for one in printed if not one.rstrip("\n").isprintable()]

    def test_a_string_is_exact_in_a_pipe_and_escaped_on_a_terminal(self, path):
        """A script gets each character; a terminal shows lines and tabs, and obeys nothing."""
        path.write_text(json.dumps({"key": "ä\tb\n\x1b[2J\u202e"}), encoding="utf-8")
        shown, terminal = pty.openpty()
        subprocess.run([*COMMAND, "get", path, "key"], stdout=terminal, check=True)
        os.close(terminal)
        text = os.read(shown, 65536).decode()
        os.close(shown)

        assert "ä\tb\n\x1b[2J\u202e\n" == run("get", path, "key", encoding="utf-8")
        assert "ä b\\x1b[2J\\u202e" == " ".join(text.split()).replace("b \\", "b\\")

    def test_an_encoding_that_lacks_characters(self, stored):
        """JSON is escaped, a message is, too, and a string, which would not be exact, is refused."""
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        told = "error: the output encoding, ascii, cannot represent '.xe4': [^\n]*--json[^\n]*\n"
        run("get", stored, "name", code=1, errors=told, env=environment)
        link = stored.with_name("älice.json")
        link.symlink_to(stored)

        assert '"\\u00e4lice"\n' == run("get", stored, "name", "--json", env=environment)
        assert 'name\t"\\u00e4lice"\n' in run("show", stored, env=environment)
        assert "ok" in run("doctor", link, env=environment)
        assert "Usage" in run("--help", env=environment)

    @pytest.mark.parametrize("command", [["show"], ["get", "name"], ["who"], ["doctor"]], ids=" ".join)
    def test_a_closed_output_is_no_crash(self, stored, command):
        """As with /dev/null; and no file gets the number of what was closed, and with it what is printed."""
        name, *rest = command
        line = shlex.join([*COMMAND, name, str(stored), *rest])
        before = stored.read_bytes()
        done = subprocess.run(["bash", "-c", f"{line} <&- >&- 2>&-"], capture_output=True, check=False)

        assert (0, before) == (done.returncode, stored.read_bytes())

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_an_output_that_is_full(self, stored):
        """It is an error of one line."""
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, "show", stored], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )

        assert (1, "error: [Errno 28] No space left on device\n") == (done.returncode, done.stderr)


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "options", "stored"),
        [
            ('{"a": [1, 2.5, null]}', [], {"a": [1, 2.5, None]}),
            ("text", [], "text"),
            ("007", [], "007"),
            ("NaN", [], "NaN"),
            ("12", ["--string"], "12"),
            ("12", ["--json"], 12),
            ("-", [], "ünï\n"),
        ],
    )
    def test_a_value_is_json_or_else_a_string(self, path, value, options, stored):
        """What can be read as JSON is, unless the user insists on one of the two."""
        run("set", path, "key", value, *options, input="ünï\n", encoding="utf-8")

        assert {"key": stored} == json.loads(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("value", ["text", "NaN", "[1"])
    def test_set_can_insist_on_json(self, stored, value):
        """What is none is wrong usage, and changes nothing."""
        before = stored.read_bytes()
        run("set", stored, "n", value, "--json", code=2, errors=".*VALUE is not valid JSON.*")
        run("set", stored, "n", "1", "--json", "--string", code=2, errors=".*cannot be combined.*")

        assert before == stored.read_bytes()

    def test_set_needs_an_input_that_is_text(self, stored):
        """A closed one, and one that is none, are wrong usage, and change nothing."""
        before = stored.read_bytes()
        line = shlex.join([*COMMAND, "set", str(stored), "n", "-"])
        done = subprocess.run(["bash", "-c", f"{line} <&-"], capture_output=True, text=True, check=False)
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        told = subprocess.run(
            ["bash", "-c", f"printf '\\377' | {line}"], env=environment, capture_output=True, text=True, check=False
        )

        assert (2, True) == (done.returncode, "standard input is closed" in done.stderr)
        assert (2, True) == (told.returncode, "standard input is not valid utf-8 text" in told.stderr)
        assert before == stored.read_bytes()

    @pytest.mark.parametrize("value", ["[" * 30_000 + "]" * 30_000, "9" * 5_000], ids=["nesting", "digits"])
    def test_json_that_cannot_be_stored(self, stored, value):
        """It is not taken for a string, unless the user says so."""
        before = stored.read_bytes()
        run("set", stored, "n", value, code=2, errors=".*VALUE cannot be stored.*")
        run("incr", stored, "n", value, code=2, errors=".*DELTA must be a number, not .*")

        assert before == stored.read_bytes()
        run("set", stored, "n", value, "--string")
        assert value == json.loads(stored.read_text(encoding="utf-8"))["n"]

    def test_delete_is_all_or_nothing(self, stored):
        """If one key is missing, the others stay."""
        before = stored.read_bytes()
        run("delete", stored, "n", "nope", code=1, errors=f"error: {stored} has no key 'nope'\n")

        assert before == stored.read_bytes()
        run("delete", stored, "n", "name")
        assert ["jobs"] == list(json.loads(stored.read_text(encoding="utf-8")))

    def test_incr_adds_and_prints(self, stored):
        """Whole or not, positive or negative, from 0 if there is nothing."""
        assert ["2", "-1", "1.5", "1"] == [
            run("incr", stored, *arguments).strip() for arguments in (["n"], ["n", "-3"], ["n", "2.5"], ["new"])
        ]

    def test_incr_of_what_is_no_number(self, stored):
        """A value that is none fails, a DELTA that is none is wrong usage."""
        run("incr", stored, "name", code=1, errors=f"error: {stored}: the value of 'name' must be a number, not str\n")
        run("incr", stored, "n", "x", code=2, errors=".*DELTA must be a number, not x.*")
        run("incr", stored, "n", "1e999", code=1, errors="error: [^\n]*\n")

    def test_commands_at_once_lose_nothing(self, path):
        """A shell script may use it in parallel."""
        running = [subprocess.Popen([*COMMAND, "incr", path, "n"], stdout=subprocess.PIPE) for _ in range(6)]
        told = sorted(int(process.communicate()[0]) for process in running)

        assert [1, 2, 3, 4, 5, 6] == told

    def test_a_lock_that_is_not_had_has_an_exit_code_of_its_own(self, path, hold_transaction):
        """A script may try again; the message names the holder."""
        with hold_transaction(path) as held:
            errors = (
                rf"error: {path}: could not acquire the lock within [^\n]* \(held by process {held.pid} on [^\n]*\n"
            )
            run("set", path, "a", "1", "--timeout", "0.1", code=3, errors=errors)

    def test_what_is_corrupt_is_moved_aside_and_said_so(self, path):
        """A warning of the library is not lost."""
        path.write_text("[1]", encoding="utf-8")
        run("set", path, "a", "1", errors=rf"WARNING: {path} is not a JSON object [^\n]* moved aside to [^\n]*\n")

        assert {"a": 1} == json.loads(path.read_text(encoding="utf-8"))

    def test_verbose_tells_what_happens(self, path):
        """For whom it waits, and how long the lock was held."""
        run("--verbose", "incr", path, "n", errors=rf"DEBUG: {path}: incr: waited 0.0 ms, held [^\n]*\n")


class TestWatch:
    def test_it_prints_what_others_change(self, stored):
        """One object a line, with what is absent left out, and an end after so many changes."""
        with subprocess.Popen(
            [*COMMAND, "watch", stored, "m", "--json", "--count=2"], stdout=subprocess.PIPE
        ) as watching:
            ctx = SyncPersistentContext.create(stored)
            lines = []
            os.set_blocking(watching.stdout.fileno(), False)
            while watching.poll() is None:
                ctx.incr("n")
                ctx.incr("m")  # until it is seen: nobody can know when the watch has begun
                lines += watching.stdout.readlines()
            lines += watching.stdout.readlines()
        first, second = map(json.loads, lines)

        assert ({"key", "new"}, {"key", "old", "new"}, 0) >= (first.keys() & {"key", "new"}, second.keys(), 0)
        assert "m" == first["key"] == second["key"]
        assert first["new"] == second["old"] < second["new"]

    def test_an_interrupt_ends_it_quietly(self, path):
        """Ctrl-C is how it is meant to end; what it printed until then was not held back."""
        with subprocess.Popen(
            [*COMMAND, "watch", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
        ) as watching:
            ctx = SyncPersistentContext.create(path)
            os.set_blocking(watching.stdout.fileno(), False)
            while not (line := watching.stdout.readline()):
                ctx.incr("n")
            watching.send_signal(signal.SIGINT)
            watching.wait()
            errors = watching.stderr.read()

        assert re.fullmatch(r"\d\d:\d\d:\d\d  n: (absent|\d+) -> \d+\n", line)
        assert (130, "") == (watching.returncode, errors)


class TestWho:
    def test_it_names_the_holder(self, path, hold_transaction):
        """The process that holds the lock, or nobody."""
        with hold_transaction(path) as held:
            assert f"held by process {held.pid} on " in run("who", path)
            assert (held.pid, "transaction", True) == tuple(
                json.loads(run("who", path, "--json"))[name] for name in ("pid", "purpose", "verified")
            )
        assert ("nobody holds the lock\n", "null\n") == (run("who", path), run("who", path, "--json"))


class TestDoctor:
    def test_all_is_well(self, stored):
        """A healthy file has no findings; nothing is changed, and nothing stays behind."""
        SyncPersistentContext(stored).incr("n")
        before = {name: (stored.parent / name).read_bytes() for name in os.listdir(stored.parent)}

        assert {} == findings(stored)
        assert before == {name: (stored.parent / name).read_bytes() for name in os.listdir(stored.parent)}
        assert "a second process was kept out" in run("doctor", stored)

    def test_a_file_that_is_not_there_yet_is_well(self, path):
        """So is a directory that is not, but for a warning."""
        assert {} == findings(path)
        assert {"directory"} == findings(path / "new" / "state.json").keys()

    def test_a_corrupt_file(self, path):
        """It says so before a program moves it aside, and how to find the place."""
        path.write_text('{"a": 1', encoding="utf-8")
        level, _, advice = findings(path, code=1)["file"]

        assert ("problem", True, '{"a": 1') == (level, "json.tool" in advice, path.read_text(encoding="utf-8"))

    def test_a_file_that_repeats_keys(self, path):
        """What another program would lose is said."""
        path.write_text('{"a": 1, "a": 2}', encoding="utf-8")
        found = findings(path, errors="WARNING: [^\n]* contains duplicate keys[^\n]*\n")

        assert ("warning", True) == (found["file"][0], "contains duplicate keys" in found["file"][1])

    def test_a_large_file(self, path):
        """More than 16 MB want a database."""
        path.write_text('{"a": "' + "x" * 17_000_000 + '"}', encoding="utf-8")

        assert "SQLite" in findings(path)["file"][2]

    def test_no_file(self, path):
        """A directory in its place."""
        path.mkdir()

        assert "problem" == findings(path, code=1)["file"][0]

    def test_a_link_leads_on(self, stored, tmp_path):
        """What is examined is the file that the link leads to."""
        link = tmp_path / "link.json"
        link.symlink_to(stored)
        stored.write_text("[]", encoding="utf-8")

        assert "file" in findings(link, code=1)
        assert f"points to {os.path.realpath(stored)}" in run("doctor", link, code=1)

    def test_links_that_lead_in_a_circle(self, path):
        """That is all there is to say, and of the links, not of a lock file."""
        path.symlink_to(path.with_name("other"))
        path.with_name("other").symlink_to(path)
        (found,) = findings(path, code=1).items()

        assert ("link", "problem", True) == (found[0], found[1][0], "loop" in found[1][1])
        assert {"link"} == findings(path / "state.json", code=1).keys()

    def test_a_directory_that_cannot_be_made(self, stored):
        """A file stands where a directory is wanted."""
        level, text, _ = findings(stored / "new" / "state.json", code=1)["directory"]

        assert ("problem", True) == (level, f"{os.path.realpath(stored)} is not a directory" in text)

    def test_hard_links(self, stored, tmp_path):
        """A save would part the names, of which nobody is told otherwise."""
        os.link(stored, tmp_path / "other.json")
        level, text, _ = findings(stored)["hard links"]

        assert ("warning", True) == (level, "2 names" in text)

    def test_a_file_that_is_mounted_by_itself(self, stored, tmp_path):
        """It cannot be replaced, which is told before the first save fails."""
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
        """They are named, with the command that removes them, and nothing is left behind."""
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
        """It is found, with a command that puts it back and works."""
        path.write_text("[1]", encoding="utf-8")
        SyncPersistentContext.create(path)
        _, text, advice = findings(path)["moved aside"]
        command = advice.partition("back: ")[2].partition(";")[0]
        assert "4 bytes" not in text
        if not shutil.which("flock"):
            pytest.skip("flock(1) of util-linux is not here")
        subprocess.run(command, shell=True, check=True)

        assert "[1]" == path.read_text(encoding="utf-8")

    def test_what_a_crashed_writer_left(self, stored, spawn):
        """It is found, while the temporary of a living writer is its own business."""
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
        """It is never followed, so nobody can save."""
        Path(f"{stored}.lock").symlink_to(stored)
        found = findings(stored, code=1)

        assert {"lock file", "lock"} == found.keys()
        assert f"rm {os.path.realpath(stored)}.lock" in found["lock file"][2]

    def test_a_lock_file_with_two_names(self, stored, tmp_path):
        """It locks, and does not name its holder."""
        (tmp_path / "other").touch()
        os.link(tmp_path / "other", f"{stored}.lock")

        assert {"lock file"} == findings(stored).keys()

    def test_a_holder_that_is_stopped(self, stored, hold_transaction):
        """It is named, with the command that lets it go on; the command works."""
        with hold_transaction(stored) as held:
            os.kill(held.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, held.pid, os.WSTOPPED | os.WNOWAIT)
            level, text, advice = findings(stored, code=1)["lock"]
            subprocess.run(advice.partition(": ")[2].split(), check=True)

        assert ("problem", True) == (level, f"process {held.pid}" in text)

    def test_a_holder_that_holds_for_long(self, stored, hold_transaction):
        """More than a minute is worth a word."""
        with hold_transaction(stored):
            lock = Path(f"{stored}.lock")
            stamp = re.sub(rb'("since": ?)\d+', rb"\g<1>1000000000", lock.read_bytes())
            with lock.open("r+b") as file:
                file.write(stamp)
            level, text, _ = findings(stored)["lock"]

        assert ("warning", True) == (level, "held for " in text)

    def test_a_holder_that_says_nothing(self, stored, hold):
        """Another program's lock is no problem."""
        with hold(stored):
            assert {} == findings(stored)
            assert "held by an unidentified program" in run("doctor", stored)

    def test_a_directory_that_everybody_may_write_to(self, stored):
        """Whoever may replace the lock file may break it."""
        stored.parent.chmod(0o777)

        assert ("warning", True) == (findings(stored)["access"][0], "chmod o-w" in findings(stored)["access"][2])

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
    def test_a_directory_and_a_lock_file_that_this_user_may_not_write(self, stored):
        """Both are said, as seen by the user who asks."""
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

        assert {"access", "lock file", "lock"} >= problems >= {"access", "lock file"}

    @pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is not mounted")
    def test_the_kind_of_file_system(self):
        """What is in memory only is said to be, and what is unknown as well."""
        name = f"/dev/shm/persistent-context-{os.getpid()}.json"

        assert ("warning", True) == (findings(name)["file system"][0], "reboot" in findings(name)["file system"][1])
        unknown = findings("/proc/state.json", code=1)
        assert ("warning", "problem") == (unknown["file system"][0], unknown["trial"][0])

    def test_a_lock_that_does_not_lock(self, stored, without_locks):
        """Where two processes can hold one lock, the trial finds it."""
        level, text, _ = findings(stored, code=1, env=without_locks)["trial"]

        assert ("problem", True) == (level, "at once" in text)

    def test_a_second_process_that_cannot_lock(self, stored, tmp_path):
        """That the trial was in vain is no success."""
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nif '-c' in sys.orig_argv: raise SystemExit", encoding="utf-8"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        level, text, _ = findings(stored, code=1, env=environment)["trial"]

        assert ("problem", True) == (level, "second process could not" in text)

    def test_a_disk_that_is_full(self, stored, tmp_path):
        """Space for a second copy is what a save needs; tried on a real small file system."""
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


class TestDemo:
    def test_it_shows_that_nothing_is_lost(self):
        """Processes count, some are killed, and the verdict is good."""
        assert "Nothing was lost." in run("demo", "--processes", "2", "--seconds", "2")

    def test_it_would_show_a_loss(self, without_locks):
        """On a build without a lock, the verdict is bad, and so is the exit code."""
        assert "COUNTS WERE LOST" in run("demo", "--seconds", "2", code=1, errors=".*", env=without_locks)


class TestTheWhole:
    def test_without_its_packages_it_says_what_to_install(self):
        """The extra is named, in one line."""
        code = "import runpy, sys; sys.modules['typer'] = None; runpy.run_module('persistent_context')"
        done = subprocess.run(
            [sys.executable, "-c", code.replace("')", "', run_name='__main__')")],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (1, True) == (done.returncode, "pip install 'persistent-context[cli]'" in done.stderr)

    def test_its_version(self):
        """It is the package's."""
        assert f"persistent-context {version('persistent-context')}\n" == run("--version")

    def test_completion(self):
        """A shell gets a script that completes its commands."""
        environment = {**os.environ, "_PERSISTENT_CONTEXT_COMPLETE": "source_bash"}
        command = Path(sys.executable).with_name("persistent-context")
        script = subprocess.run([command], capture_output=True, text=True, check=False, env=environment).stdout

        assert "complete -o" in script

    def test_the_page_shows_every_command(self):
        """The table of the page and the help name the same commands."""
        documented = re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE)
        helped = re.findall(r"^│ (\w+) ", run("--help").split("Commands")[1], re.MULTILINE)

        assert documented == helped

    def test_the_page_shows_what_is_printed(self, tmp_path):
        """The session on the page, typed into a shell, prints what the page says."""
        session, doctor = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
        commands = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        printed = "".join(
            f"$ {command}\n"
            + subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                text=True,
                check=False,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ).stdout
            for command in commands
        )
        subjects = [line[9:].split(":")[0] for line in run("doctor", "run.json", cwd=tmp_path).splitlines()]

        assert session == printed
        assert subjects == [line[9:].split(":")[0] for line in doctor.splitlines()[1:]]
