"""Runs the command line, as a shell does."""

import re
import subprocess
import sys

COMMAND = [sys.executable, "-m", "persistent_context"]


def run(*arguments, code=0, errors="", **options):
    """Run a command, check its exit code and its standard error, and return its output."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **options)

    assert (code, True) == (done.returncode, re.fullmatch(errors, done.stderr, re.DOTALL) is not None), done.stderr
    return done.stdout
