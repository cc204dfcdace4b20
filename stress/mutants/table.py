"""All broken builds, by name."""

from __future__ import annotations

from typing import Final

from stress.mutants.around import AROUND
from stress.mutants.commands import COMMANDS
from stress.mutants.document import DOCUMENT
from stress.mutants.engine import ENGINE
from stress.mutants.etcd import ETCD
from stress.mutants.faces import FACES
from stress.mutants.files import FILES
from stress.mutants.inside import INSIDE
from stress.mutants.journal import JOURNAL
from stress.mutants.leases import LEASES
from stress.mutants.locks import LOCKS
from stress.mutants.memory import MEMORY
from stress.mutants.merging import MERGING
from stress.mutants.model import Mutant
from stress.mutants.once import ONCE
from stress.mutants.queue import QUEUE
from stress.mutants.store import STORE
from stress.mutants.tracking import TRACKING
from stress.mutants.usage import USAGE
from stress.mutants.watch import WATCH

AREAS: Final = {
    "around": AROUND,
    "commands": COMMANDS,
    "document": DOCUMENT,
    "engine": ENGINE,
    "etcd": ETCD,
    "faces": FACES,
    "files": FILES,
    "inside": INSIDE,
    "journal": JOURNAL,
    "leases": LEASES,
    "locks": LOCKS,
    "memory": MEMORY,
    "merging": MERGING,
    "once": ONCE,
    "queue": QUEUE,
    "store": STORE,
    "tracking": TRACKING,
    "usage": USAGE,
    "watch": WATCH,
}
ALL: Final[tuple[Mutant, ...]] = tuple(mutant for area in AREAS.values() for mutant in area)
MUTANTS: Final[dict[str, Mutant]] = {mutant.name: mutant for mutant in ALL}
