"""The development sessions run on the Pythons that are installed, however many, and never silently run nothing."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THIS = f"3.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("nox") is None, reason="nox is not installed"),
    pytest.mark.skipif(os.name == "nt", reason="the Pythons of the test are shell scripts"),
]


class Machine:
    """A machine that has the Python of the tests, and fake ones."""

    def __init__(self, place):
        self._bin = place / "bin"
        self._bin.mkdir()
        self.project = place / "project"
        self.project.mkdir()
        for name in ("noxfile.py", "pyproject.toml"):
            (self.project / name).write_bytes((ROOT / name).read_bytes())

    def install(self, name, command):
        """Add a program."""
        program = self._bin / name
        program.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        program.chmod(0o755)

    def nox(self, *arguments):
        """Run nox, in the Python of the tests."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NOX", "PYENV"))}
        return subprocess.run(
            [sys.executable, "-m", "nox", *arguments],
            cwd=self.project,
            env=inherited | {"PATH": str(self._bin), "PIP_NO_INDEX": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def pythons(self, *names):
        """Return the Pythons on which sessions would run."""
        done = self.nox("--list", "--json", "-s", *names)
        return [one["python"] for one in json.loads(done.stdout)]


@pytest.fixture
def machine(tmp_path):
    """A machine whose PATH is empty."""
    return Machine(tmp_path)


class TestPythons:
    def test_every_session_runs_on_the_newest_that_is_here(self, machine):
        """The newest Python is used, whatever its number; the lowest dependencies are tested on the oldest."""
        machine.install("python3.97", "exit 0")

        assert ["3.97"] * 4 == machine.pythons("lint", "tests", "stress", "faults")
        assert [THIS] == machine.pythons(f"tests-{THIS}")
        assert "3.97" not in machine.pythons("minimums")

    def test_a_single_one_is_enough(self, machine):
        """The Python that runs nox is used, even if it is not on the PATH."""
        (python,) = set(machine.pythons("lint", "tests", "stress", "faults"))

        assert [THIS] == machine.pythons(f"tests-{THIS}")
        assert int(python.removeprefix("3.")) >= sys.version_info.minor  # others may be installed beside it

    @pytest.mark.parametrize("version", ["3.10", "3.98", "3.99"], ids=["too old", "a shim for nothing", "absent"])
    def test_one_that_cannot_be_used_is_a_failure(self, machine, version):
        """A session for an unusable Python fails instead of silently doing nothing."""
        machine.install("python3.10", "exit 0")
        machine.install("python3.98", "exit 127")

        assert 0 != machine.nox("-s", f"tests-{version}").returncode

    def test_without_any_it_fails(self, machine):
        """Without any Python the error says what to install."""
        settings = machine.project / "pyproject.toml"
        text = settings.read_text(encoding="utf-8")
        settings.write_text(text.replace('requires-python = ">=3.11"', 'requires-python = ">=3.98"'), encoding="utf-8")
        done = machine.nox("-s", "tests")

        assert (1, "no supported Python was found: install 3.98 or later") == (done.returncode, done.stderr[:52])

    def test_the_long_matrix_comes_after_the_short_one(self, machine):
        """tests-all runs on every Python, and on the newest only once if tests was asked for as well."""
        machine.install("python3.97", "exit 0")
        done = machine.nox("-s", "tests", "tests-all")  # all of them fail, since nothing can be installed
        ran = re.findall(r"Running session (\S+)", done.stderr)

        assert (["tests-3.97", "tests-all"], True) == (ran[:2], f"tests-{THIS}" in ran), done.stderr
        assert len(set(ran)) == len(ran)
