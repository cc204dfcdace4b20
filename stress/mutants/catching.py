"""One run of a catcher against one build, and its result."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stress.mutants.model import Catcher, Suite

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 150.0
"""Seconds after which a catcher is killed; this is not a verdict, and catches nothing."""
FAILED = 1
"""The exit code of pytest, and of the programs here, if something was found; all others above 0 are accidents."""

_FAILED = re.compile(r"^FAILED tests/(?:\w+/)*test_(\S+(?: \S+)*?)(?: - .*)?$", re.MULTILINE)
_STARTED = re.compile(r"^tests/(?:\w+/)*test_(\S+::.*?) *(?:PASSED.*|\++ Timeout .*)?$", re.MULTILINE)
_TIMEOUT = re.compile(r"^\++ Timeout \++$", re.MULTILINE)
_SKIPPED = re.compile(r"^SKIPPED (?:\[\d+\] )?\S+ (.*)$", re.MULTILINE)
_COUNT = re.compile(r"\b(\d+) (passed|skipped|xfailed)\b")
_FINDING = re.compile(r"^(?:FAILED .*\n .*|(?!FAIL$|the |seed |\s)[^:\n]+: [\w ]+: .*)$", re.MULTILINE)
_ACCIDENT = re.compile(
    r"^(?:E +)?((?:NameError|UnboundLocalError|AttributeError|ImportError|ModuleNotFoundError|SyntaxError): .*)$",
    re.MULTILINE,
)


class Sight(Enum):
    """The result of a catcher's run on a build."""

    BROKEN = "something failed"
    SOUND = "nothing failed"
    NOTHING = "it cannot be shown here"
    ACCIDENT = "the run proves nothing"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a catcher."""

    sight: Sight
    words: str
    """The test that failed, or what was found, or why nothing was shown."""
    seconds: float = 0.0


def judge(catcher: Catcher, code: int, output: str) -> Run:
    """Judge a run that ended by itself, by its exit code and its output.

    A failure counts if the catcher reports it and names what failed. A build with a programming error in the replaced
    lines would fail every test: such a failure does not count.
    """
    if code == FAILED and (slip := _ACCIDENT.search(output)):
        return Run(Sight.ACCIDENT, f"a programming error in the build itself: {slip[1]}")
    if isinstance(catcher, Suite):
        return _judge_tests(code, output)
    return _judge_program(code, output)


def _judge_program(code: int, output: str) -> Run:
    if code == FAILED and (finding := _FINDING.search(output)):
        return Run(Sight.BROKEN, " ".join(finding[0].split()))
    if skipped := _SKIPPED.search(output):
        return Run(Sight.NOTHING, skipped[1])
    if code != 0:
        return Run(Sight.ACCIDENT, f"exit {code}: {_end_of(output)}")
    return Run(Sight.SOUND, "nothing was found")


def _judge_tests(code: int, output: str) -> Run:
    if code == FAILED and (failed := _FAILED.search(output)):
        return Run(Sight.BROKEN, failed[1])
    if code == FAILED and _TIMEOUT.search(output) and (started := _STARTED.findall(output)):
        return Run(Sight.BROKEN, f"{started[-1]} (hung, and pytest-timeout says so)")
    if code != 0:
        return Run(Sight.ACCIDENT, f"pytest ended with {code} and names no failed test: {_end_of(output)}")
    counts = {kind: int(number) for number, kind in _COUNT.findall(output)}
    if counts.get("skipped"):
        return Run(Sight.NOTHING, "; ".join(sorted(set(_SKIPPED.findall(output)))) or "skipped")
    if not counts.get("passed"):
        return Run(Sight.ACCIDENT, f"no test passed: {_end_of(output)}")
    return Run(Sight.SOUND, f"{counts['passed']} passed")


def _end_of(output: str) -> str:
    """Return the last lines of an output, in one line."""
    return " / ".join(line.strip() for line in output.strip().splitlines()[-6:] if line.strip())


def run(catcher: Catcher, build: Path, directory: Path, *, limit: float = LIMIT) -> Run:
    """Run a catcher against a build; its output is kept in the directory, which no other run may use."""
    if isinstance(catcher, Suite):
        command = ["pytest", "-x", "-v", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
        # The library is already imported in the child; pytest would have rewritten its assertions, as it has a plugin.
        command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        command += ["-o", f"timeout={catcher.limit}", "--basetemp", str(directory / "tests"), *catcher.nodes]
    else:
        command = [catcher.module, *catcher.arguments]
    began = time.monotonic()
    with (directory / "output").open("xb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stress.mutants.child", str(build), *command],
            cwd=ROOT,
            env=_environment(build, directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # including what a failed test may have left running
            process.wait()
    seconds = time.monotonic() - began
    words = (directory / "output").read_text(encoding="utf-8", errors="replace")
    if code is None:
        return Run(Sight.ACCIDENT, f"killed after {limit:g} seconds without a verdict", seconds)
    judged = judge(catcher, code, words)
    return Run(judged.sight, judged.words, seconds)


def _environment(build: Path, directory: Path) -> dict[str, str]:
    """Return the environment: the build first in the path, and nothing of a pytest or coverage that runs the gate."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    path = os.pathsep.join([str(build), *filter(None, [inherited.get("PYTHONPATH")])])
    return {
        **inherited,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(directory),
        "COLUMNS": "1000",
    }
