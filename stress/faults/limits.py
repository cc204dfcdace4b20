"""Real limits, without a tracer: files that may not grow, and a small tmpfs that is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stress.faults import image
from stress.faults.document import JOURNALED, SIZE
from stress.faults.lab import Lab
from stress.faults.model import Result, Series
from stress.faults.trial import Trial

SIZES = {0: SIZE, 1: SIZE, 511: SIZE, 4_096: SIZE, 10_000: SIZE, 100_000: 2_500_000, 1_500_000: 2_500_000}
"""The greatest size of a file, and the length of the value to write: some cut short the lock's stamp, some a document
of one write, some one of several writes.
"""
SMALLEST_JOURNAL = 5_000
"""File sizes that cut a record short."""
LARGE = 400_000
"""Characters of a value that does not fit into the tmpfs, and would be one write."""


class FileSize:
    """Lets no file grow beyond a limit: RLIMIT_FSIZE, with SIGXFSZ ignored, makes real short writes and EFBIG."""

    def __init__(self, operation: str, face: str) -> None:
        """Choose the operation and the face."""
        self.name = f"limit:{operation}:{face}"
        self.about = "a real limit on the size of files"
        self._operation = operation
        self._face = face

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks: nothing."""
        return None

    def series(self, lab: Lab) -> Sequence[Series]:
        """Return one series for each limit."""
        del lab
        sizes = {SMALLEST_JOURNAL, *SIZES} - {10_000} if self._operation in JOURNALED else SIZES
        return [Series(f"bytes={size}", 1, once=True) for size in sorted(sizes)]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Write under the limit; once it is lifted, everything works again."""
        limit = int(fault.partition("=")[2])
        with Trial(lab, self._operation, self._face, size=SIZES.get(limit, SIZE)) as trial:
            seen = be_refused(trial, limit=limit)
            trial.go_on()
            trial.follow_up()
            return Result(self.name, fault, number, hit=True, seen=seen, problems=tuple(trial.problems))


class FullDisk:
    """Writes to a tmpfs that has no room for the data, or for one more file; afterwards there is room again."""

    def __init__(self, operation: str, face: str) -> None:
        """Choose the operation and the face."""
        self.name = f"full:{operation}:{face}"
        self.about = "a real disk that is full"
        self._operation = operation
        self._face = face

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return image.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Return one series for bytes, and one for files."""
        del lab
        needed = ("bytes",) if self._operation in JOURNALED else ("bytes", "files")  # an append makes no file
        return [Series(f"tmpfs-{what}", 1, once=True) for what in needed]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Write on the full disk; once there is room, everything works again."""
        root = lab.fresh().parent
        with image.mounted(root, "-t", "tmpfs", "-o", "size=256k,nr_inodes=30", "none"):
            large = LARGE if fault == "tmpfs-bytes" else 100
            with Trial(lab, self._operation, self._face, root / "data" / "state.json", large) as trial:
                with full_of_files(root, full=fault == "tmpfs-files"):
                    seen = be_refused(trial)
                subprocess.run(["mount", "-o", "remount,size=10m", root], check=True)
                trial.go_on()
                trial.follow_up()
                return Result(self.name, fault, number, hit=True, seen=seen, problems=tuple(trial.problems))


def be_refused(trial: Trial, **more: Any) -> str:
    """Let the victim write what cannot be written; return the outcome that it reported."""
    answer = trial.strike(**more)
    if answer is None:
        trial.problems.append(f"the process died: exit status {trial.victim.end()}")
        return "died"
    trial.judge_file(answer)
    trial.judge_memory(answer)
    trial.judge_tidiness("after the error")
    if answer["outcome"] != "refused":
        trial.problems.append(f"there was no room, and the call said {answer['outcome']}")
    return str(answer["outcome"])


@contextmanager
def full_of_files(root: Path, *, full: bool) -> Iterator[None]:
    """Fill a file system with empty files for the length of a block."""
    fillers: list[Path] = []
    with suppress(OSError):
        while full:
            filler = root / f"filler {len(fillers)}"
            filler.touch()
            fillers.append(filler)
    yield
    for filler in fillers:
        os.unlink(filler)
