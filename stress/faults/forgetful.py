"""Power loss at every step of an operation, on a file system that keeps only what was synced."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stress.faults.image import unmount
from stress.faults.lab import CannotSetUpError, Lab
from stress.faults.model import Result, Series
from stress.faults.nursery import ROOT
from stress.faults.power import ACKNOWLEDGED
from stress.faults.trial import Trial
from stress.faults.wire import Wire

STEP = "step"
NAMES_FIRST = "step-names-first"
"""The fault that keeps names, but loses the content of unsynced files: a disk may write names early."""
NEVER = 0
"""The number of a step that never comes."""
PATIENCE = 20.0
"""Seconds within which the file system must answer."""
REMEDY = "apt-get install fuse3; pip install mfusepy; a container also needs --device /dev/fuse --cap-add SYS_ADMIN"


class LossyMount:
    """The lossy file system, mounted: `stress.faults.lossy` in its own process."""

    def __init__(self, root: Path) -> None:
        """Mount it on an empty directory.

        Raises:
            CannotSetUpError: it cannot be mounted here.
        """
        self.root = root
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        self._wire = Wire(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stress.faults.lossy", str(root), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        if self._wire.hear() is None:
            ours.close()
            words = self._process.communicate()[1].splitlines() or ["it ended without a message"]
            msg = f"FUSE cannot be mounted: {next((line for line in words if line.startswith('fuse')), words[-1])}"
            raise CannotSetUpError(msg, REMEDY)

    @contextmanager
    def losing(self, before: int) -> Iterator[None]:
        """Let the power fail before that step of the block."""
        self._ask(lose_before=before)
        yield

    def steps(self) -> int:
        """Return the number of steps since the power was last made to fail."""
        return int(self._ask()["steps"])

    def restore(self, *, names_kept: bool) -> bool:
        """Forget what was not synced, except names if they are kept, and go on; return whether the power had failed."""
        off = bool(self._ask()["off"])
        self._ask(restore=True, names_kept=names_kept)
        return off

    def cut_power(self) -> None:
        """Forget everything that was not synced, and go on."""
        self.restore(names_kept=False)

    def close(self) -> None:
        """Unmount it."""
        unmount(self.root)
        self._wire.channel.close()
        self._process.kill()
        self._process.communicate()

    def _ask(self, **what: Any) -> dict[str, Any]:
        self._wire.say(**what)
        if (answer := self._wire.hear()) is None:
            msg = f"the lossy file system ended with {self._process.wait()}"
            raise RuntimeError(msg)
        return answer


def missing() -> tuple[str, str] | None:
    """Return what this machine lacks for the lossy file system, and how to get it."""
    try:
        importlib.import_module("mfusepy")
    except (ImportError, OSError) as error:  # OSError: libfuse is missing
        return f"FUSE from Python: {error}", REMEDY
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse", REMEDY
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is not installed", REMEDY
    return None


class Forgetful:
    """Does one operation of one face on the lossy file system, and loses power before each step in turn."""

    def __init__(self, operation: str, face: str) -> None:
        """Choose the operation and the face."""
        self.name = f"lossy:{operation}:{face}"
        self.about = "power loss where only what was synced is kept"
        self._operation = operation
        self._face = face
        self._mount: LossyMount

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Mount it, and count the steps of the operation."""
        root = lab.fresh().parent
        self._mount = lab.keep(LossyMount(root))
        with Trial(lab, self._operation, self._face, lab.fresh(root)) as trial:
            trial.strike(lambda _: self._mount.losing(NEVER))
            steps = self._mount.steps()
        return [Series(ACKNOWLEDGED, 1, once=True), Series(STEP, steps), Series(NAMES_FIRST, steps)]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Lose power before that step, look at what is left, and let another process go on."""
        with Trial(lab, self._operation, self._face, lab.fresh(self._mount.root)) as trial:
            answer = trial.strike(lambda _: self._mount.losing(NEVER if fault == ACKNOWLEDGED else number))
            trial.end()
            hit = self._mount.restore(names_kept=fault == NAMES_FIRST) or fault == ACKNOWLEDGED
            trial.judge_file(answer, power_lost=True)
            seen = f"{answer['outcome'] if answer else 'died'}: {trial.state}"
            with lab.nursery.fork(trial.path, self._face) as neighbour:
                trial.follow_up(neighbour)
        return Result(self.name, fault, number, hit, seen, tuple(trial.problems))
