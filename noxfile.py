"""Development sessions: ``nox`` runs the checks, ``nox -s NAME`` runs one session, ``nox -l`` lists all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True  # nothing is skipped silently

PYPROJECT = nox.project.load_toml("pyproject.toml")
LOWEST = int(PYPROJECT["project"]["requires-python"].removeprefix(">=3."))
WORKERS = str(3 * (os.cpu_count() or 1))  # much of the tests' time is waiting: for the disk, for locks


def find_pythons() -> list[str]:
    """Return the supported Pythons of this machine, oldest first: 3.11 and all later versions.

    The one that runs nox is included even if it is not on the PATH. Those that cannot be started are left out.
    """
    home = str(Path(getattr(sys, "_base_executable", sys.executable)).parent)
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), home])
    select_those_of_pyenv()
    names = {name for place in os.get_exec_path() if os.path.isdir(place) for name in os.listdir(place)}
    minors = {int(found[1]) for name in names if (found := re.fullmatch(r"python3\.(\d+)(\.exe)?", name))}
    here = {minor for minor in minors if minor >= LOWEST and starts(f"python3.{minor}")}
    if sys.version_info.minor >= LOWEST:
        here.add(sys.version_info.minor)
    if not here:
        sys.exit(f"no supported Python was found: install 3.{LOWEST} or later, the newest if you can")
    return [f"3.{minor}" for minor in sorted(here)]


def select_those_of_pyenv() -> None:
    """Select every Python that pyenv has installed, since its shims refuse to run the others."""
    if shutil.which("pyenv"):
        command = ["pyenv", "versions", "--bare"]
        installed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        numbered = [version for version in installed if re.fullmatch(r"3\.\d+\.\d+\w*", version)]
        os.environ["PYENV_VERSION"] = ":".join([*numbered, "system"])


def starts(python: str) -> bool:
    """Return whether a Python can be started: a shim may exist for one that is not installed."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = find_pythons()
OLDEST, NEWEST = PYTHONS[0], PYTHONS[-1]


def groups(*names: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return [*nox.project.dependency_groups(PYPROJECT, *names)]


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Check style and formatting, and the files for GitHub against their schemas."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    workflows = map(str, sorted(Path(".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")


@nox.session(python=NEWEST)
def typing(session: nox.Session) -> None:
    """Check the types, including those of the public interface."""
    session.install(".", *groups("typing"))
    session.run("mypy")
    session.run("basedpyright")


@nox.session(python=NEWEST, default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/, treating warnings as errors; ``-- serve`` serves it instead."""
    session.install(".", *groups("docs"))
    session.run("mkdocs", *(session.posargs or ["build"]), env={"NO_MKDOCS_2_WARNING": "1"})


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest in parallel."""
    session.run("pytest", "-n", WORKERS, "--dist", "worksteal", *arguments)


@nox.session(python=[NEWEST])
def tests(session: nox.Session) -> None:
    """Run all tests on the built wheel, on the newest Python installed; arguments are passed to pytest instead."""
    session.install(".", *groups("test"))
    run_pytest(session, *session.posargs)
    session.log(f"this was Python {NEWEST}; nox -s tests-all runs every Python installed: {', '.join(PYTHONS)}")


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """Measure which branches of the library the tests cover; part of the large matrices is enough for that."""
    session.install(".", *groups("test"))
    # Coverage's tracer takes a lock that the thread interrupted by a signal handler may already hold.
    signals = [f"tests/process/test_{name}.py" for name in ("finalizers", "interrupts", "shutdown", "signals")]
    unmeasured = (*signals, "tests/stress", "tests/docs/test_docs.py", "tests/docs/test_examples.py")
    whole = ("tests/cli", "tests/plugin")
    ignored = (f"--ignore={path}" for path in (*unmeasured, *whole))
    session.run("coverage", "erase")
    for selection in (("--part", *ignored), whole):
        session.run("coverage", "run", "-m", "pytest", "-n", WORKERS, "--dist", "worksteal", *selection)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


def tests_on_another(session: nox.Session) -> None:
    """Test the built wheel on another Python, with only part of the large matrices and slow tests."""
    session.install(".", *groups("test"))
    run_pytest(session, *(session.posargs or ("--part", "--ignore=tests/stress")))


for another in PYTHONS[:-1]:
    nox.session(tests_on_another, python=another, name=f"tests-{another}", default=False)


@nox.session(name="tests-all", python=False, default=False)
def tests_all(session: nox.Session) -> None:
    """Test on every supported Python installed: fully on the newest, partly on the others."""
    for python in reversed(PYTHONS):
        session.notify(f"tests-{python}")


@nox.session(python=OLDEST)
def minimums(session: nox.Session) -> None:
    """Test with the lowest allowed versions of the dependencies, on the oldest Python installed."""
    project = PYPROJECT["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["etcd"]]
    lowest = [requirement.replace(">=", "==") for requirement in required]
    session.install(".", *lowest, *groups("test"))
    run_pytest(session, *(session.posargs or ("--part", "tests/unit")))


def run_stress(session: nox.Session, *tier: str) -> None:
    """Do a stress run; after Ctrl-C, it has time to end its processes and to report what it leaves behind."""
    session.install(".[etcd]", *groups("stress"))
    session.run("python", "-m", "stress", *tier, *session.posargs, interrupt_timeout=60)


@nox.session(python=NEWEST, default=False)
def stress(session: nox.Session) -> None:
    """Hammer one file for five minutes from randomly killed processes; ``-- --store etcd``: a cluster of etcd."""
    run_stress(session)


@nox.session(name="stress-quick", python=NEWEST, default=False)
def stress_quick(session: nox.Session) -> None:
    """The same in well under a minute."""
    run_stress(session, "--tier", "quick")


@nox.session(python=NEWEST, default=False)
def soak(session: nox.Session) -> None:
    """Hammer for hours, in rounds; stop at the first round that fails, and keep its files."""
    run_stress(session, "--tier", "soak")


@nox.session(python=NEWEST, default=False)
def faults(session: nox.Session) -> None:
    """Kill, fail or cut the power at every system call of a write, and check that every guarantee holds."""
    session.install(".", *groups("stress"))
    session.run("python", "-m", "stress.faults", *session.posargs)


@nox.session(python=NEWEST, default=False)
def mutants(session: nox.Session) -> None:
    """Break the library in every listed way, and check that a test, a stress run or a fault catches each."""
    session.install(".", *groups("test"))
    # 2 means that this machine lacks something that the rest needs; with arguments, it can also mean wrong usage.
    codes = [0] if session.posargs else [0, 2]
    session.run("python", "-m", "stress.mutants", *session.posargs, success_codes=codes)


@nox.session(python=NEWEST, default=False)
def bench(session: nox.Session) -> None:
    """Benchmark the store against the alternatives, and write tables and a plot to bench-report/."""
    session.install(".", *groups("bench"))
    session.run("python", "-m", "stress.bench", *session.posargs)
