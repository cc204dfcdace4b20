"""The demonstration: it shows that nothing is lost, and would show a loss."""

import os
import re
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "persistent_context"]


NO_LOCK = "import filelock\nfilelock.lock_descriptor = lambda *_, **__: True\n"


def run(*arguments, code=0, errors="", **options):
    """Run a command, check its exit code and what it says on standard error, and return its output."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **options)

    assert (code, True) == (done.returncode, re.fullmatch(errors, done.stderr, re.DOTALL) is not None), done.stderr
    return done.stdout


@pytest.fixture
def without_locks(tmp_path):
    """The environment of a broken build, in which every lock is free for everybody."""
    directory = tmp_path / "broken"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NO_LOCK, encoding="utf-8")
    paths = [str(directory), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class TestDemo:
    def test_it_shows_that_nothing_is_lost(self):
        """Processes count, some are killed, and the verdict is good."""
        assert "Nothing was lost." in run("demo", "--processes", "2", "--seconds", "2")

    def test_it_would_show_a_loss(self, without_locks):
        """On a build without a lock, the verdict is bad, and so is the exit code."""
        assert "COUNTS WERE LOST" in run("demo", "--seconds", "2", code=1, errors=".*", env=without_locks)
