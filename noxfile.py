"""The sessions of development: ``nox`` runs the checks, ``nox -s NAME`` one of them, ``nox -l`` lists all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import nox

nox.needs_version = ">=2025.2.9"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False  # tests run on those Pythons that are here

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
LOWEST, NEWEST = PYTHONS[0], PYTHONS[-1]
WORKERS = str(3 * (os.cpu_count() or 1))  # much of the tests' time is waiting: for the disk, for locks

if shutil.which("pyenv"):  # its shims refuse to run a Python that is installed but not selected
    installed = subprocess.run(
        ["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True
    ).stdout.split()
    supported = [version for version in installed if version.rpartition(".")[0] in PYTHONS]
    os.environ["PYENV_VERSION"] = ":".join([*supported, "system"])


def groups(*names: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return [*nox.project.dependency_groups(PYPROJECT, *names)]


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Check style and formatting, and the workflow of GitHub against its schema."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/ci.yml")


@nox.session(python=NEWEST)
def typing(session: nox.Session) -> None:
    """Check the types, the public interface's among them."""
    session.install(".", *groups("typing"))
    session.run("mypy")


@nox.session(python=NEWEST, default=False)
def docs(session: nox.Session) -> None:
    """Build the site of the documentation into site/, where a warning is an error; ``-- serve`` shows it instead."""
    session.install(".", *groups("docs"))
    session.run("mkdocs", *(session.posargs or ["build"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test the built wheel in parallel; arguments go to pytest.

    On the newest Python also the tools of stress/, and the branch coverage of the library.
    """
    session.install(".", *groups("test"))
    parallel = ("-n", WORKERS, "--dist", "worksteal")
    if session.posargs:
        session.run("pytest", *parallel, *session.posargs)
    elif session.python != NEWEST:
        session.run("pytest", *parallel, "--ignore", "tests/stress")
    else:
        unmeasured = ("tests/stress", "tests/test_docs.py", "tests/test_examples.py")
        session.run("coverage", "erase")
        session.run("coverage", "run", "-m", "pytest", *parallel, *(f"--ignore={path}" for path in unmeasured))
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")
        session.run("pytest", *parallel, *unmeasured)


@nox.session(python=LOWEST)
def minimums(session: nox.Session) -> None:
    """Test with the lowest versions of the dependencies that are allowed."""
    lowest = [re.sub(r">=", "==", requirement) for requirement in PYPROJECT["project"]["dependencies"]]
    session.install(".", *lowest, *groups("test"))
    files = [f"tests/test_{name}.py" for name in ("memory", "save_and_load", "atomic", "transactions", "executor")]
    session.run("pytest", "-n", WORKERS, *(session.posargs or files))


@nox.session(python=NEWEST, default=False)
def stress(session: nox.Session) -> None:
    """Hammer one file for five minutes from processes that are killed at random, and check that nothing was lost."""
    session.install(".", *groups("stress"))
    session.run("python", "-m", "stress", *session.posargs)


@nox.session(name="stress-quick", python=NEWEST, default=False)
def stress_quick(session: nox.Session) -> None:
    """The same in well under a minute."""
    session.install(".", *groups("stress"))
    session.run("python", "-m", "stress", "--tier", "quick", *session.posargs)


@nox.session(python=NEWEST, default=False)
def soak(session: nox.Session) -> None:
    """Hammer for hours, in rounds; a round that fails ends it, and stays."""
    session.install(".", *groups("stress"))
    session.run("python", "-m", "stress", "--tier", "soak", *session.posargs)


@nox.session(python=NEWEST, default=False)
def faults(session: nox.Session) -> None:
    """Kill, fail or cut the power at every system call of a write, and check that every promise is kept."""
    session.install(".", *groups("stress"))
    session.run("python", "-m", "stress.faults", *session.posargs)


@nox.session(python=NEWEST, default=False)
def mutants(session: nox.Session) -> None:
    """Break the library in every way on the list, and see a test, a stress run or a fault catch each."""
    session.install(".", *groups("test"))
    session.run("python", "-m", "stress.mutants", *session.posargs)


@nox.session(python=NEWEST, default=False)
def bench(session: nox.Session) -> None:
    """Measure the store against its peers, and write the tables and a plot to bench-report/."""
    session.install(".", *groups("bench"))
    session.run("python", "-m", "stress.bench", *session.posargs)
