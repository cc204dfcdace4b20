"""The demonstration: it shows that nothing is lost, and would show a loss."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from commandline import COMMAND, run

NO_LOCK = "import filelock\nfilelock.lock_descriptor = lambda *_, **__: True\n"


def counters(directory):
    """Return the counting processes below a directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            command = file.read_bytes()
            found += [command] if b"ctx.incr" in command and os.fsencode(directory) in command else []
    return found


@pytest.fixture
def without_locks(tmp_path):
    """The environment of a broken build, in which every lock is granted to every process."""
    directory = tmp_path / "broken"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NO_LOCK, encoding="utf-8")
    paths = [str(directory), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class TestDemo:
    def test_it_shows_that_nothing_is_lost(self):
        """Processes count, some are killed, and the verdict is good."""
        assert "Nothing was lost." in run("demo", "--processes", "2", "--seconds", "2")

    @pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="needs /proc to find processes")
    @pytest.mark.parametrize("moment", ["while it starts", "while it counts"])
    def test_ctrl_c_ends_it_quietly(self, tmp_path, moment):
        """Nothing is printed, no process survives, and no file is left, however early Ctrl-C comes."""
        with subprocess.Popen(
            [*COMMAND, "demo", "--seconds", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as demo:
            started = threading.Event()
            while not (counting := list(tmp_path.glob("*/demo.json"))) and demo.poll() is None:
                if moment == "while it starts" and list(tmp_path.iterdir()):
                    break
                started.wait(0.01)
            if counting:
                while len(counters(tmp_path)) < 4:
                    started.wait(0.01)
            os.killpg(demo.pid, signal.SIGINT)  # as a terminal does, to all of its foreground
            output, errors = demo.communicate()

        assert (130, "") == (demo.returncode, errors)
        assert "Nothing was lost" not in output
        assert ([], []) == (counters(tmp_path), os.listdir(tmp_path))

    def test_it_would_show_a_loss(self, without_locks):
        """On a build without a lock, the verdict and the exit code are bad."""
        assert "COUNTS WERE LOST" in run("demo", "--seconds", "2", code=1, errors=".*", env=without_locks)
