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

    def __str__(self) -> str:
        """Return the command that repeats the run."""
        return f"python -m stress {self.options}"

    @property
    def options(self) -> str:
        """The options that give exactly this plan."""
        return " ".join(
            f"--{field.name.replace('_', '-')} {getattr(self, field.name):.15g}" for field in dataclasses.fields(self)
        )

    def idle(self, acknowledged: Mapping[str, int]) -> list[str]:
        """Return the planned workloads of which no operation was acknowledged."""
        return [name for name, number in acknowledged.items() if not number and getattr(self, name, True)]
