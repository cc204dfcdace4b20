"""The interface between the supervisor and its children: what to do, where to log, when to stop, how to show hangs."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from zlib import crc32

from stress.children.patience import PATIENCE, PATIENCE_WITH_ETCD
from stress.documents import etcd
from stress.documents.openings import FILES_ONLY, OPENINGS, STATE

SHOW_STACKS = signal.SIGUSR2
"""Makes a child dump the stacks of its threads. SIGUSR1 is taken: `signals` hits its calls with it."""


def kind_of(place: str) -> str:
    """Return the kind of the child in a place: of the reader and of workers, the place itself."""
    return place.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one child process is to do. It is passed as the only command-line argument."""

    place: str
    """The number of a worker, which its successors inherit; or the reader; or another kind of child, and its number."""
    incarnation: int
    """How many children had the place before."""
    directory: str
    tasks: int
    seed: int
    began: int
    """`time.monotonic_ns()` when the run began."""
    seconds: float
    cancel_every: float = 0.0
    """Mean seconds from one cancelled call of this process to the next; 0: never."""
    fork_every: float = 0.0
    """Mean seconds from the end of one forked child to the next one; 0: never."""
    peers: int = 1
    """How many children of this kind there are."""
    workers: int = 1
    """How many processes hammer the file, and may be ahead of each call."""
    journal: bool = False
    """Whether the files may have journals, so that the JSON files may lag behind."""
    endpoints: Sequence[str] = ()
    """If the states are in a cluster of etcd: where it is reached."""
    members: Sequence[str] = ()
    """Where its members are, without the proxies in between, for those who only look."""

    @property
    def name(self) -> str:
        """The name of the child in logs and reports."""
        return f"{self.place}.{self.incarnation}"

    @property
    def kind(self) -> str:
        """The kind of the child: the module, or the number of a worker."""
        return kind_of(self.place)

    @property
    def patience(self) -> float:
        """How long a call may take, in seconds."""
        return PATIENCE_WITH_ETCD if self.endpoints else PATIENCE

    def location(self, name: str = STATE) -> str:
        """Return where the library finds a state, by its name in `OPENINGS`: a path or a URL.

        The URLs name the same endpoints in another order in each place, so that each member is the first one of some.
        """
        if not self.endpoints:
            return str(self.file(name))
        first = crc32(self.place.encode()) % len(self.endpoints)
        return etcd.location([*self.endpoints[first:], *self.endpoints[:first]], name)

    @property
    def states(self) -> Sequence[str]:
        """The names of the states that the run has."""
        return tuple(name for name in OPENINGS if not self.endpoints or name not in FILES_ONLY)

    @property
    def own_location(self) -> str:
        """Where the state of a kind of child is that has its own."""
        return self.location(self.kind)

    @property
    def state(self) -> Path:
        """The file that all workers hammer."""
        return self.file(STATE)

    @property
    def own_state(self) -> Path:
        """The file of a kind of child that has its own."""
        return self.file(self.kind)

    def file(self, name: str) -> Path:
        """Return a file of the run, by its name in `OPENINGS`."""
        return Path(self.directory, f"{name}.json")

    @property
    def lock(self) -> Path:
        """The lock file beside it."""
        return Path(f"{self.state}.lock")

    @property
    def log(self) -> Path:
        """The log of the child's operations."""
        return Path(self.directory, "logs", f"{self.name}.jsonl")

    def document(self, name: str = STATE) -> dict[str, Any]:
        """Return the content of a file, read without the library unless it may have a journal.

        Raises:
            OSError: it is missing.
            ValueError: it is not valid.
        """
        if self.members:
            return etcd.read(self.members, name)
        path = self.file(name)
        document: dict[str, Any] = json.loads(path.read_bytes())
        if self.journal:
            from persistent_context import SyncPersistentContext  # noqa: PLC0415 - a supervisor may have none that works

            return SyncPersistentContext.create(path).get_all_data()
        return document

    def log_of_child(self, number: int) -> Path:
        """Return the log of a forked child."""
        return Path(self.directory, "logs", f"{self.name}.fork{number}.jsonl")

    @property
    def stacks(self) -> Path:
        """The file to which the child dumps its threads' stacks when it gets `SHOW_STACKS`."""
        return Path(self.directory, "logs", f"{self.name}.stacks")

    @property
    def output(self) -> Path:
        """The file that has what the child prints."""
        return Path(self.directory, "logs", f"{self.name}.output")

    def progress(self) -> float:
        """Return the part of the run that is over."""
        return (time.monotonic_ns() - self.began) / 1e9 / self.seconds

    def to_argument(self) -> str:
        """Return the assignment as a command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> Self:
        """Return the assignment that this process was started with."""
        return cls(**json.loads(sys.argv[1]))


def prepare(assignment: Assignment) -> threading.Event:
    """Make this process ready to be asked for its stacks; return the event that is set when it is to stop.

    It is to stop when its standard input ends, which also happens when the supervisor dies.
    """
    prepare_stacks(assignment)
    stop = threading.Event()

    def wait() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait, name="stop", daemon=True).start()
    return stop


def prepare_stacks(assignment: Assignment) -> None:
    """Make this process, and its later forks, ready to be asked for their stacks."""
    stacks = os.open(assignment.stacks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    faulthandler.register(SHOW_STACKS, file=stacks)
    faulthandler.enable(file=stacks)
