"""The plan of a run: how many processes of each kind, for how long, and what is done to hurt them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("foreign", "ending", "signals", "watching", "jobs", "pages", "threads", "observing")
"""The children besides the reader and the workers: modules, each with a workload and an option of the same name."""
MORTAL = ("pages",)
"""Those of them that are killed now and then, like workers."""
JOURNAL = "journal"
"""The kind that begins and ends journals, and has no workload."""
JSON, ETCD = "json", "etcd"
"""The stores of a run."""
FILES = ("foreign", "pages", JOURNAL, "delete_lock_every")
"""What is about JSON files, and left out if the states are kept elsewhere."""
ABOUT_ETCD = (
    "store",
    "members",
    "kill_member_every",
    "stop_member_every",
    "restart_member_every",
    "cut_off_every",
    "compact_every",
    "cut_answer_every",
    "delay_request_every",
    "lose_request_every",
    "long_stop_every",
)
"""What is about a cluster of etcd, and left out if the states are in files."""
LAST = "observing"
"""The kind that is stopped after all others have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of a run."""

    processes: int
    tasks: int
    """Tasks, or threads, in each process."""
    seconds: float
    seed: int
    kill_every: float
    """Mean seconds from one kill to the next; 0 for none."""
    stop_every: float = 0.0
    """Mean seconds from one stopped process to the next."""
    cancel_every: float = 0.0
    """Mean seconds from one cancelled call to the next, in each event loop."""
    fork_every: float = 0.0
    """Mean seconds from one forked child to the next, in each worker."""
    delete_lock_every: float = 0.0
    """Mean seconds from one deletion of the lock file to the next."""
    foreign: int = 0
    """Processes that use only `filelock` and `json`."""
    ending: int = 0
    """Processes that start programs which are ended in the middle of their work, after a last save."""
    signals: int = 0
    """Processes whose blocking calls are interrupted by signals."""
    watching: int = 0
    """Processes whose threads and event loops watch a file of many pages."""
    jobs: int = 0
    """Processes whose keys are short-lived, and whose memory must not grow."""
    pages: int = 0
    """Processes that change a file of many pages, all over it."""
    threads: int = 0
    """Processes whose threads hammer a file through contexts of both faces that they share or own."""
    observing: int = 0
    """Processes that watch every file of the run, and write nothing."""

    journal: int = 0
    """Processes that begin and end the journals of all files, which have one from the start, and fold them."""

    store: str = JSON
    """Where the states are: in JSON files, or in a cluster of etcd. The rest is about such a cluster."""
    members: int = 0
    """Members of the cluster."""
    kill_member_every: float = 0.0
    """Mean seconds from one killed member to the next; one at a time is dead, stopped or cut off."""
    stop_member_every: float = 0.0
    """Mean seconds from one stopped member to the next."""
    restart_member_every: float = 0.0
    """Mean seconds from one member that ends in order, and is started again, to the next."""
    cut_off_every: float = 0.0
    """Mean seconds from one member that is cut off from others to the next."""
    compact_every: float = 0.0
    """Mean seconds from one compaction of the history to the next."""
    cut_answer_every: float = 0.0
    """Mean seconds from one request whose answer is cut off to the next."""
    delay_request_every: float = 0.0
    """Mean seconds from one request that arrives after its client has given up to the next."""
    lose_request_every: float = 0.0
    """Mean seconds from one request that never arrives to the next."""
    long_stop_every: float = 0.0
    """Mean seconds from one process that is stopped for longer than its lease lives to the next."""

    def __str__(self) -> str:
        """Return the command that repeats the run."""
        return f"python -m stress {self.options}"

    @property
    def options(self) -> str:
        """The options that give exactly this plan."""
        unused = ABOUT_ETCD if self.store == JSON else FILES
        names = [field.name for field in dataclasses.fields(self) if field.name not in unused]
        values = {name: getattr(self, name) for name in names}
        return " ".join(f"--{name.replace('_', '-')} {_plain(value)}" for name, value in values.items())

    def idle(self, acknowledged: Mapping[str, int]) -> list[str]:
        """Return the planned workloads of which no operation was acknowledged."""
        return [name for name, number in acknowledged.items() if not number and getattr(self, name, True)]


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.15g}"
