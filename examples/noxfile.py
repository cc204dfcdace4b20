"""Nox sessions that share data, also among several concurrent runs of nox.

    nox -f examples/noxfile.py & nox -f examples/noxfile.py

Every ``check`` needs an archive. The first session of any run that asks for it builds it; the others wait for it and
use it. It is rebuilt when its sources change. All runs count into the same results.
"""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import nox

from persistent_context import SyncPersistentContext

nox.options.default_venv_backend = "none"  # needs neither environments nor a network; yours will have both

HERE = Path(__file__).resolve().parent
SHARED = HERE / ".nox" / "shared"
SOURCES = sorted(path for path in HERE.glob("*.py") if path != Path(__file__).resolve())


def archive(session: nox.Session) -> str:
    """Return the archive's path. The transaction stays open during the build, so other sessions wait for its end.

    A build that fails or is killed leaves nothing behind, and the next session that asks tries again.
    """
    version = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
    with SyncPersistentContext(SHARED / "archives.json", lock_timeout=math.inf).transaction() as tx:
        if version not in tx:
            target = str(SHARED / f"{version}.zip")
            session.run(sys.executable, "-m", "zipfile", "-c", target, *map(str, SOURCES))  # stands for a long build
            tx[version] = target
        return str(tx[version])


@nox.session
@nox.parametrize("module", [path.stem for path in SOURCES])
def check(session: nox.Session, module: str) -> None:
    """Use the archive, and count what passed."""
    use = f"import {module}; print({module}.__file__)"
    session.run(sys.executable, "-P", "-c", use, env={"PYTHONPATH": archive(session)})
    SyncPersistentContext(SHARED / "results.json").incr(f"{module} passed")


@nox.session
def report(session: nox.Session) -> None:
    """Show what all runs counted."""
    for name, value in SyncPersistentContext.create(SHARED / "results.json").items():
        session.log(f"{name}: {value}")
