"""What a shell completes: keys from the file, at once or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl")  # not on Windows
PROGRAM = Path(sys.executable).with_name("persistent-context")
COMPLETE = """
eval "$(_PERSISTENT_CONTEXT_COMPLETE=source_bash "$1")"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_persistent_context_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words):
    """Return what bash offers for the last of the words after the program's name, and what it prints besides."""
    if not (bash := shutil.which("bash")):
        pytest.skip("needs bash")
    done = subprocess.run(
        [bash, "--norc", "-c", COMPLETE, "bash", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "" == done.stderr
    return done.stdout.split("\n")[:-1]


class TestKeys:
    @pytest.mark.parametrize("command", ["get", "set", "append", "take", "incr", "delete", "edit", "watch"])
    def test_they_are_those_of_the_file(self, path, command):
        """For every KEY argument, the keys that begin with the typed text are offered."""
        path.write_text('{"alpha": 1, "älice": 2, "all-1": 3}', encoding="utf-8")

        assert ["alpha", "all-1"] == complete(command, path, "al")

    def test_those_that_are_there_already_are_not_offered(self, path):
        """Keys that the command line already has are not offered again."""
        path.write_text('{"a": 1, "b": 2, "c": 3}', encoding="utf-8")

        assert ["b", "c"] == complete("delete", path, "a", "")

    def test_those_that_a_shell_would_split_or_obey_are_not_offered(self, path):
        """Keys that the shell would split or interpret are not offered."""
        keys = ["plain", "a b", "$(id)", "x\ny", "\x1b[2J", "q'", "", "~", "*", "j:1"]
        path.write_text(json.dumps(dict.fromkeys(keys, 1)), encoding="utf-8")

        assert ["plain", "j:1"] == complete("get", path, "")

    @pytest.mark.parametrize(
        "content", [None, "[1]", '{"a": 1', '{"a": 1, "a": 2}', '{"a": ' + "9" * 5000 + "}", "directory", "pipe"]
    )
    def test_a_file_that_cannot_be_read_is_no_error(self, path, content):
        """Nothing is printed while the user types, nothing is changed, and completion does not wait."""
        if content == "directory":
            path.mkdir()
        elif content == "pipe":
            os.mkfifo(path)
        elif content is not None:
            path.write_text(content, encoding="utf-8")
        before = os.listdir(path.parent)
        expected = ["a"] if content == '{"a": 1, "a": 2}' else [""]

        assert (expected, before) == (complete("get", path, ""), os.listdir(path.parent))

    def test_it_is_bounded(self, path):
        """A file of more than 16 MiB is not read, and of many keys only the first thousand are offered."""
        path.write_text(json.dumps({f"k{n}": n for n in range(1500)}), encoding="utf-8")
        assert 1000 == len(complete("get", path, "k"))
        path.write_text('{"key": "' + "x" * (17 * 2**20) + '"}', encoding="utf-8")
        assert [""] == complete("get", path, "k")

    def test_a_journal_counts(self, path):
        """Keys that are only in the journal are offered."""
        from persistent_context import SyncPersistentContext

        ctx = SyncPersistentContext(path, journal=True)
        ctx.incr("first")
        ctx.incr("second")

        assert ["first", "second"] == complete("get", path, "")
