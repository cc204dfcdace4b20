"""All scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stress.faults.document import OPERATIONS
from stress.faults.errors import Errors
from stress.faults.forgetful import Forgetful
from stress.faults.image import KINDS
from stress.faults.kill import Kill
from stress.faults.lab import Lab
from stress.faults.limits import FileSize, FullDisk
from stress.faults.model import Result, Series
from stress.faults.pair import Pair
from stress.faults.power import PowerLoss
from stress.faults.several import FailingDisk, SlowDisk

FACES = ("async", "sync")
LIMITED = ("save", "transaction", "append-save")
POWERED = (("save", "async"), ("incr", "sync"), ("transaction", "async"), ("create", "sync"))
"""Below the faces, both make the same calls: the disk cannot tell them apart."""
WITH_JOURNAL = (
    ("append", "sync"),
    ("append-save", "async"),
    ("checkpoint", "async"),
    ("begin", "sync"),
    ("end", "async"),
)
SLOW = (("lossy", "async"), ("lossy", "sync"), ("xfs", "async"), ("ext4", "sync"))
PAIRS = {
    "lossy": (
        *(("incr", "incr"), ("save", "resave"), ("commit", "transaction"), ("incr", "rewrite")),
        *(("incr-volatile", "resave"), ("save-volatile", "rewrite"), ("incr", "incr-volatile")),
        *(("create", "neighbour"), ("create", "resave")),
        *(("append", "append"), ("append", "resave"), ("append", "checkpoint"), ("checkpoint", "append")),
        *(("append-volatile", "append"), ("begin", "append"), ("end", "append")),
    ),
    "xfs": (("save", "incr"), ("incr-volatile", "resave"), ("incr", "incr-volatile")),
    "ext4": (("commit", "rewrite"), ("incr", "incr")),
}
"""File systems, and the operations of the first and the second writer there: most are on the cheapest one."""


class Scenario(Protocol):
    """One kind of fault that strikes one operation."""

    name: str
    about: str
    """What is done, in a few words."""

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks, and how to get it."""

    def series(self, lab: Lab) -> Sequence[Series]:
        """Prepare, and return the points to try.

        Raises:
            CannotSetUpError: the machine lacks something after all.
        """

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Try one point."""


def scenarios() -> list[Scenario]:
    """Return all of them, the cheapest first."""
    return [
        *(FileSize(operation, face) for operation in LIMITED for face in FACES),
        *(FullDisk(operation, face) for operation in LIMITED for face in FACES),
        *(Kill(operation, face) for operation in OPERATIONS for face in FACES),
        *(Kill(operation, face) for operation, face in WITH_JOURNAL),
        *(Forgetful(operation, face) for operation, face in (*POWERED, *WITH_JOURNAL)),
        *(PowerLoss(kind, operation, face) for kind in KINDS for operation, face in (*POWERED, *WITH_JOURNAL)),
        *(SlowDisk(kind, face) for kind, face in SLOW),
        *(Pair(kind, first, second) for kind, pairs in PAIRS.items() for first, second in pairs),
        *(Errors(operation, face) for operation in OPERATIONS for face in FACES),
        Errors("resave", "sync"),
        *(Errors(operation, face) for operation, face in WITH_JOURNAL),
        *(FailingDisk(face) for face in FACES),
    ]
