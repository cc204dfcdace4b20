"""Real runs of pytest with real workers."""

import os
from pathlib import Path

import pytest

import persistent_context

LOG = """
import contextlib, os, pathlib, pytest, signal, time
LOG = pathlib.Path({log!r})

def log(line):
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)

def wait_for(line):
    until = time.monotonic() + 60
    while not LOG.exists() or line not in LOG.read_text().split():
        assert time.monotonic() < until, line
        time.sleep(0.01)
"""

INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
"""


class Runs:
    """Runs pytest on a file of tests, in a separate process, and reads what the tests have logged."""

    def __init__(self, pytester):
        self._pytester = pytester
        self._log = pytester.path / "the.log"

    def run(self, tests, *options, ini="", asyncio_mode="auto", plugins=()):
        unwanted = {"hypothesispytest", "timeout", "anyio", *([] if "async def test" in tests else ["asyncio"])}
        left_out = "".join(f" -p no:{name}" for name in sorted(unwanted - {*plugins}))
        self._pytester.makeini(f"""
[pytest]
addopts = -ra -p no:cacheprovider{left_out}
asyncio_mode = {asyncio_mode}
asyncio_default_fixture_loop_scope = function
{ini}
""")
        self._pytester.makeconftest(INTERRUPTIBLE)
        self._pytester.makepyfile(test_it=LOG.format(log=str(self._log)) + tests)
        return self._pytester.runpytest_subprocess(*options, timeout=100)

    @property
    def log(self):
        return self._log.read_text(encoding="utf-8").split()


@pytest.fixture
def runs(pytester, monkeypatch):
    """Runs of pytest that are independent of the one around them."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    paths = [str(Path(persistent_context.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return Runs(pytester)


@pytest.fixture(params=["each of 3", "alone"])
def each(request):
    """Three workers that each run all tests, and a pytest without pytest-xdist."""
    return ("--dist", "each", "--tx", "3*popen") if request.param == "each of 3" else ("-p", "no:xdist")


@pytest.fixture(params=[("-n", "3"), ("-p", "no:xdist")], ids=" ".join)
def workers(request):
    """Three workers, and a pytest without pytest-xdist."""
    return request.param
