"""The commands, as a shell runs them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from commandline import COMMAND, run
from persistent_context import SyncPersistentContext

fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))  # not on Windows
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.fixture
def stored(path):
    """A file that holds a few values."""
    path.write_text('{"n": 1, "name": "älice", "jobs": ["a", {"b": null}]}', encoding="utf-8")
    return path


class TestReading:
    def test_get_prints_strings_plainly_and_all_else_as_json(self, stored):
        """A shell gets a string without quotes; --json is for scripts."""
        assert "älice\n" == run("get", stored, "name")
        assert '"älice"\n' == run("get", stored, "name", "--json")
        assert '["a", {"b": null}]\n' == run("get", stored, "jobs")

    def test_a_missing_key_is_an_error(self, stored):
        """The exit code distinguishes absence from null, and the message names both the file and the key."""
        run("get", stored, "nope", code=1, errors=f"error: {stored} has no key 'nope'\n")

    def test_show_is_made_for_pipes(self, stored):
        """Without a terminal it writes one line per key, in full; --json writes the whole object."""
        assert 'n\t1\nname\t"älice"\njobs\t["a", {"b": null}]\n' == run("show", stored)
        assert json.loads(stored.read_text(encoding="utf-8")) == json.loads(run("show", stored, "--json"))

    def test_show_is_made_for_terminals(self, path):
        """On a terminal it is a table that fits the width, with control characters escaped."""
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
        """Commands that only read do not move a corrupt file aside, unlike a program that loads it."""
        path.write_text("[1]", encoding="utf-8")
        name, *rest = command
        run(name, path, *rest, code=1, errors=rf"error: {path} is not a JSON object: [^\n]+; [^\n]*doctor[^\n]*\n")

        assert ("[1]", ["state.json"]) == (path.read_text(encoding="utf-8"), os.listdir(path.parent))

    def test_a_missing_file_is_an_error_and_stays_missing(self, path):
        """A mistyped name does not make a file."""
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
        """A closed pipe is not an error, as in `show FILE | head`."""
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
        """Control characters are escaped as in JSON, also in a pipe, so scripts get the exact value."""
        path.write_text(json.dumps({"key": [text]}), encoding="utf-8")
        printed = [run("get", path, "key"), run("show", path).partition("\t")[2], run("show", path, "--json")]

        assert [[text], [text], {"key": [text]}] == [json.loads(one) for one in printed]
        assert [] == [one for one in printed if not one.rstrip("\n").isprintable()]

    def test_a_string_is_exact_in_a_pipe_and_escaped_on_a_terminal(self, path):
        """A script gets every character; on a terminal only line ends and tabs are not escaped."""
        path.write_text(json.dumps({"key": "ä\tb\n\x1b[2J\u202e"}), encoding="utf-8")
        shown, terminal = pty.openpty()
        subprocess.run([*COMMAND, "get", path, "key"], stdout=terminal, check=True)
        os.close(terminal)
        text = os.read(shown, 65536).decode()
        os.close(shown)

        assert "ä\tb\n\x1b[2J\u202e\n" == run("get", path, "key", encoding="utf-8")
        assert "ä b\\x1b[2J\\u202e" == " ".join(text.split()).replace("b \\", "b\\")

    def test_an_encoding_that_lacks_characters(self, stored):
        """JSON and messages are escaped, and a plain string is refused, since it would not be exact."""
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
        """It is like /dev/null; and no file gets the number of a closed stream, and with it the output."""
        name, *rest = command
        line = shlex.join([*COMMAND, name, str(stored), *rest])
        before = stored.read_bytes()
        done = subprocess.run(["bash", "-c", f"{line} <&- >&- 2>&-"], capture_output=True, check=False)

        assert (0, before) == (done.returncode, stored.read_bytes())

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_an_output_that_is_full(self, stored):
        """A full device causes a one-line error."""
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
        """A value that is valid JSON is JSON, unless an option chooses one of the two."""
        run("set", path, "key", value, *options, input="ünï\n", encoding="utf-8")

        assert {"key": stored} == json.loads(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("value", ["text", "NaN", "[1"])
    def test_set_can_insist_on_json(self, stored, value):
        """A value that is not JSON is wrong usage, and changes nothing."""
        before = stored.read_bytes()
        run("set", stored, "n", value, "--json", code=2, errors=".*VALUE is not valid JSON.*")
        run("set", stored, "n", "1", "--json", "--string", code=2, errors=".*cannot be combined.*")

        assert before == stored.read_bytes()

    def test_set_needs_an_input_that_is_text(self, stored):
        """A closed standard input, or one that is not text, is wrong usage, and changes nothing."""
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
        """Such JSON is not taken for a string, unless the user says so."""
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
        """Numbers may be integers or not, positive or negative; a missing key counts as 0."""
        assert ["2", "-1", "1.5", "1"] == [
            run("incr", stored, *arguments).strip() for arguments in (["n"], ["n", "-3"], ["n", "2.5"], ["new"])
        ]

    def test_incr_of_what_is_no_number(self, stored):
        """A stored value that is not a number is an error, and such a DELTA is wrong usage."""
        run("incr", stored, "name", code=1, errors=f"error: {stored}: the value of 'name' must be a number, not str\n")
        run("incr", stored, "n", "x", code=2, errors=".*DELTA must be a number, not x.*")
        run("incr", stored, "n", "1e999", code=1, errors="error: [^\n]*\n")

    def test_commands_at_once_lose_nothing(self, path):
        """Parallel commands of a shell script lose nothing."""
        running = [subprocess.Popen([*COMMAND, "incr", path, "n"], stdout=subprocess.PIPE) for _ in range(6)]
        told = sorted(int(process.communicate()[0]) for process in running)

        assert [1, 2, 3, 4, 5, 6] == told

    def test_a_lock_that_is_not_had_has_an_exit_code_of_its_own(self, path, hold_transaction):
        """A script can try again; the message names the holder."""
        with hold_transaction(path) as held:
            errors = rf"error: {path}: could not get the lock within [^\n]* \(held by process {held.pid} on [^\n]*\n"
            run("set", path, "a", "1", "--timeout", "0.1", code=3, errors=errors)

    def test_what_is_corrupt_is_moved_aside_and_said_so(self, path):
        """The warning of the library is printed."""
        path.write_text("[1]", encoding="utf-8")
        run("set", path, "a", "1", errors=rf"WARNING: {path} is not a JSON object [^\n]* moved aside to [^\n]*\n")

        assert {"a": 1} == json.loads(path.read_text(encoding="utf-8"))

    def test_verbose_tells_what_happens(self, path):
        """It prints which holder the command waits for, and how long the lock was held."""
        run("--verbose", "incr", path, "n", errors=rf"DEBUG: {path}: incr: waited 0.0 ms, held [^\n]*\n")


class TestWatch:
    def test_it_prints_what_others_change(self, stored):
        """One object is printed per line, without absent values, and the command ends after a given number."""
        with subprocess.Popen(
            [*COMMAND, "watch", stored, "m", "--json", "--count=2"], stdout=subprocess.PIPE
        ) as watching:
            ctx = SyncPersistentContext.create(stored)
            lines = []
            os.set_blocking(watching.stdout.fileno(), False)
            while watching.poll() is None:
                ctx.incr("n")
                ctx.incr("m")  # until it is seen, since it is not known when the watch begins
                lines += watching.stdout.readlines()
            lines += watching.stdout.readlines()
        first, second = map(json.loads, lines)

        assert ({"key", "new"}, {"key", "old", "new"}, 0) >= (first.keys() & {"key", "new"}, second.keys(), 0)
        assert "m" == first["key"] == second["key"]
        assert first["new"] == second["old"] < second["new"]

    def test_a_missing_file_is_waited_for_and_said_so(self, path):
        """A mistyped name does not look like a file without changes; later changes are shown as usual."""
        with subprocess.Popen(
            [*COMMAND, "watch", path, "--count=1", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            said = watching.stderr.readline()
            before = path.exists()
            SyncPersistentContext(path).incr("n")
            output, errors = watching.communicate()

        assert (f"{path} does not exist yet: waiting for it\n", False, "") == (said, before, errors)
        assert {"key": "n", "new": 1} == json.loads(output)

    def test_an_interrupt_ends_it_quietly(self, path):
        """Ctrl-C is the intended end; everything printed before had been flushed."""
        with subprocess.Popen(
            [*COMMAND, "watch", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by processes in the background
        ) as watching:
            ctx = SyncPersistentContext.create(path)
            os.set_blocking(watching.stdout.fileno(), False)
            while not (line := watching.stdout.readline()):
                ctx.incr("n")
            watching.send_signal(signal.SIGINT)
            watching.wait()
            errors = watching.stderr.read().replace(f"{path} does not exist yet: waiting for it\n", "")

        assert re.fullmatch(r"\d\d:\d\d:\d\d  n: (absent|\d+) -> \d+\n", line)
        assert (130, "") == (watching.returncode, errors)


class TestWho:
    def test_it_names_the_holder(self, path, hold_transaction):
        """The process that holds the lock is named, or none."""
        with hold_transaction(path) as held:
            assert f"held by process {held.pid} on " in run("who", path)
            assert (held.pid, "transaction", True) == tuple(
                json.loads(run("who", path, "--json"))[name] for name in ("pid", "purpose", "verified")
            )
        assert ("no process holds the lock\n", "null\n") == (run("who", path), run("who", path, "--json"))

    def test_a_mistyped_name_is_not_taken_for_a_free_lock(self, path):
        """It says that the file does not exist; its first writer may hold the lock all the same."""
        assert f"no process holds the lock; {path} does not exist\n" == run("who", path)

    @pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="/proc shows that a process is stopped")
    def test_it_says_that_the_holder_is_stopped(self, path, hold_transaction):
        """The error of a call that timed out says so too; once continued, it is a holder like any other."""
        with hold_transaction(path) as held:
            os.kill(held.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, held.pid, os.WSTOPPED | os.WNOWAIT)
            told = (
                rf"held by process {held.pid} on \S+ \(stopped: resume it with kill -CONT {held.pid}\) for transaction"
            )
            try:
                stopped = [run("who", path), json.loads(run("who", path, "--json"))["stopped"]]
                run("incr", path, "n", "--timeout", "0", code=3, errors=f"error: [^\n]*{told} since [^\n]*\n")
            finally:
                os.kill(held.pid, signal.SIGCONT)
            os.waitid(os.P_PID, held.pid, os.WCONTINUED)
            resumed = [run("who", path), json.loads(run("who", path, "--json"))["stopped"]]

        assert (True, True) == (re.match(told, stopped[0]) is not None, stopped[1])
        assert (True, False) == ("stopped" not in resumed[0], resumed[1])


class TestTheWhole:
    def test_without_its_packages_it_says_what_to_install(self):
        """One line names the extra."""
        code = "import runpy, sys; sys.modules['typer'] = None; runpy.run_module('persistent_context')"
        done = subprocess.run(
            [sys.executable, "-c", code.replace("')", "', run_name='__main__')")],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (1, True) == (done.returncode, "pip install '.[cli]'" in done.stderr)

    def test_its_version(self):
        """The version is that of the package."""
        assert f"persistent-context {version('persistent-context')}\n" == run("--version")

    def test_completion(self):
        """A shell gets a script that completes the commands."""
        environment = {**os.environ, "_PERSISTENT_CONTEXT_COMPLETE": "source_bash"}
        command = Path(sys.executable).with_name("persistent-context")
        script = subprocess.run([command], capture_output=True, text=True, check=False, env=environment).stdout

        assert "complete -o" in script

    def test_the_page_shows_every_command(self):
        """The table on the page and the help name the same commands."""
        documented = re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE)
        helped = re.findall(r"^│ (\w+) ", run("--help").split("Commands")[1], re.MULTILINE)

        assert documented == helped

    def test_the_page_shows_what_is_printed(self, tmp_path):
        """The session on the page, typed into a shell, prints what the page shows."""
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
