"""The commands that change keys, and values that look like options."""

import json
import subprocess
from pathlib import Path

import pytest

from commandline import COMMAND, run

pytest.importorskip("fcntl")  # not on Windows


@pytest.fixture
def stored(path):
    """A file that holds a few values."""
    path.write_text('{"n": 1, "name": "älice", "jobs": ["a", {"b": null}]}', encoding="utf-8")
    return path


def values(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


class TestValuesThatLookLikeOptions:
    @pytest.mark.parametrize(
        ("value", "stored"), [("-5", -5), ("-0.5", -0.5), ("-x", "-x"), ("--flag", "--flag"), ("-f5", "-f5")]
    )
    @pytest.mark.parametrize("options", [[], ["--timeout", "5"], ["--string"]], ids=" ".join)
    def test_they_are_values(self, path, value, stored, options):
        """A value that begins with - needs no -- before it, and options after it are options."""
        stored = value if "--string" in options else stored
        run("set", path, "key", value, *options)
        run("append", path, "list", value, *options)

        assert {"key": stored, "list": [stored]} == values(path)

    def test_a_mistyped_option_is_an_error(self, stored):
        """An unknown option is not silently taken for a value."""
        before = stored.read_bytes()
        run("set", stored, "n", "2", "--jsno", code=2, errors=".*--jsno.*")
        run("set", stored, "n", "--json", code=2, errors=".*VALUE.*")

        assert before == stored.read_bytes()

    @pytest.mark.parametrize("command", ["set", "append"])
    def test_a_value_that_would_lose_a_part(self, stored, command):
        """A value with a repeated key is refused, since only one of the two members could be stored."""
        before = stored.read_bytes()
        run(command, stored, "jobs", '[{"a": 1, "a": 2}]', code=2, errors=".*cannot be stored.*'a' twice.*")

        assert before == stored.read_bytes()


class TestAppend:
    def test_it_appends_and_prints_the_length(self, stored):
        """The item is appended to the existing list, or to an empty one."""
        assert ["3\n", "1\n"] == [run("append", stored, "jobs", "[1]"), run("append", stored, "new", "text")]
        assert {"jobs": ["a", {"b": None}, [1]], "new": ["text"]}.items() <= values(stored).items()

    def test_what_is_no_list(self, stored):
        """Appending to a value that is not a list fails and changes nothing."""
        before = stored.read_bytes()
        errors = f"error: {stored}: the value of 'name' must be a list, not str\n"
        run("append", stored, "name", "b", code=1, errors=errors)

        assert before == stored.read_bytes()

    def test_several_at_once_lose_nothing(self, path):
        """Parallel appends of a shell script are not lost."""
        running = [
            subprocess.Popen([*COMMAND, "append", path, "jobs", str(n)], stdout=subprocess.PIPE) for n in range(6)
        ]
        told = sorted(int(process.communicate()[0]) for process in running)

        assert ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]) == (told, sorted(values(path)["jobs"]))


class TestTake:
    def test_it_deletes_and_prints(self, stored):
        """The value is printed as JSON, including strings; the exit code for a missing key is that of get."""
        assert ['"älice"\n', '["a", {"b": null}]\n'] == [run("take", stored, key) for key in ("name", "jobs")]
        assert {"n": 1} == values(stored)
        run("take", stored, "name", code=1, errors=f"error: {stored} has no key 'name'\n")

    def test_of_several_at_once_one_gets_it(self, stored):
        """Only one of several commands gets the value; the others find the key missing."""
        running = [
            subprocess.Popen([*COMMAND, "take", stored, "n"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(4)
        ]
        told = sorted((process.communicate()[0], process.returncode) for process in running)

        assert [(b"", 1)] * 3 + [(b"1\n", 0)] == told

    @pytest.mark.parametrize("command", ["take", "delete"])
    def test_a_mistyped_file_is_not_created(self, path, command):
        """No file, directory or lock file is created under a mistyped name."""
        missing = path.parent / "no" / "state.json"
        run(command, missing, "n", code=1, errors=f"error: {missing} does not exist\n")

        assert [] == list(path.parent.iterdir())


class TestKeys:
    def test_one_a_line(self, stored):
        """Keys are printed in the order of the file; --json is for scripts."""
        assert "n\nname\njobs\n" == run("keys", stored)
        assert ["n", "name", "jobs"] == json.loads(run("keys", stored, "--json"))

    def test_no_terminal_obeys_a_key(self, path):
        """Characters that could control a terminal, or make one key look like two, are escaped."""
        path.write_text(json.dumps({"a\nb": 1, "\x1b[2J": 2}), encoding="utf-8")

        assert "a\\nb\n\\x1b[2J\n" == run("keys", path)
        assert ["a\nb", "\x1b[2J"] == json.loads(run("keys", path, "--json"))


class TestRestore:
    def test_it_adds_what_is_missing(self, stored, tmp_path):
        """Newer values in the file are kept; the copy is unchanged."""
        copy = tmp_path / "copy"
        copy.write_text('{"old": [1], "n": 0}', encoding="utf-8")

        assert "keys added: 1; keys already present: 1\n" == run("restore", stored, copy)
        assert {"n": 1, "old": [1]}.items() <= values(stored).items()
        assert '{"old": [1], "n": 0}' == copy.read_text(encoding="utf-8")

    def test_a_copy_that_is_still_corrupt(self, stored, tmp_path):
        """A corrupt copy is named and left in place, and nothing is changed."""
        copy = tmp_path / "copy"
        copy.write_text('{"old": [1]', encoding="utf-8")
        before = stored.read_bytes()
        run("restore", stored, copy, code=1, errors=f"error: {copy} is not a JSON object[^\n]*\n")

        assert (before, True) == (stored.read_bytes(), Path(copy).exists())


class TestAnEmptyPath:
    @pytest.mark.parametrize(
        "command", ["show", "get k", "set k 1", "incr k", "append k 1", "who", "doctor", "journal"]
    )
    def test_it_is_refused(self, command):
        """The error says what is wrong."""
        name, *arguments = command.split()
        run(name, "", *arguments, code=2, errors="(?s).*FILE must not be empty.*")
