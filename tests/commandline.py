"""Runs the command line, as a shell does."""

import atexit
import functools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = [sys.executable, "-m", "persistent_context"]
SERVER = Path(__file__).with_name("commandserver.py")
READ_AT_THE_START = ("PYTHON", "LANG", "LC_")
"""How the names of variables begin that an interpreter reads when it starts."""
ENVIRONMENT = dict(os.environ)
CAN_FORK = hasattr(os, "fork") and "COVERAGE_PROCESS_CONFIG" not in ENVIRONMENT
"""Forks of a process that coverage measures would all write into its file."""


@functools.cache
def _server():
    """Start the process that carries out commands in forks of it; return a connection to it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, SERVER, str(its.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])

    def stop():
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def _needs_an_interpreter(environment):
    changed = dict(environment.items() ^ ENVIRONMENT.items())
    return any(name.startswith(READ_AT_THE_START) for name in changed)


def outcome(*arguments, env=None, cwd=None, encoding=None, **options):
    """Run a command, and return its exit code, its output and its errors.

    It is carried out in a fork of a process that has imported the library, unless the interpreter itself would start
    otherwise, with the variables of ``env`` or with ``options``, which are those of ``subprocess.run()``.
    """
    environment = os.environ if env is None else env
    words = list(map(str, arguments))
    if options or not CAN_FORK or _needs_an_interpreter(environment):
        done = subprocess.run(
            [*COMMAND, *words],
            capture_output=True, text=True, check=False, env=env, cwd=cwd, encoding=encoding, **options,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    request = {"arguments": words, "environment": dict(environment), "directory": str(cwd or os.getcwd())}
    connection = _server()
    captured = functools.partial(tempfile.TemporaryFile, "w+", encoding=encoding)
    with captured() as output, captured() as errors:
        socket.send_fds(connection, [json.dumps(request).encode()], [output.fileno(), errors.fileno()])
        code = int(connection.recv(16))
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()


def run(*arguments, code=0, errors="", **options):
    """Run a command, check its exit code and its standard error, and return its output."""
    returned, output, said = outcome(*arguments, **options)

    assert (code, True) == (returned, re.fullmatch(errors, said, re.DOTALL) is not None), said
    return output
