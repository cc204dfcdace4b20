"""What a context reports: the holder of the lock, changes, and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ._printable import printable


class Holder(NamedTuple):
    """The holder of a file's lock, as the holder itself recorded it; fields that it did not record are ``None``.

    Attributes:
        pid: the process ID on its own host.
        host: the host (or container) of that process.
        since: when it took the lock, in seconds since the Unix epoch.
        purpose: the call that it is held for, such as ``"save"`` or ``"transaction"``.
        verified: whether the process was seen alive; ``False`` for another host, which cannot be checked.
        stopped: whether the process was seen stopped, by Ctrl-Z or ``SIGSTOP``, on Linux: it keeps the lock until it
            is resumed or dies.
    """

    pid: int | None = None
    host: str | None = None
    since: float | None = None
    purpose: str | None = None
    verified: bool = False
    stopped: bool = False

    def __str__(self) -> str:
        """Describe the holder in one line that is safe to print."""
        if self.pid is None:
            return "an unidentified program"
        text = f"process {self.pid} on {self.host}"
        if self.stopped:
            text += f" (stopped: resume it with kill -CONT {self.pid})"
        if self.purpose:
            text += f" for {self.purpose}"
        if self.since is not None:
            text += f" since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S.%f}Z"
        return printable(text if self.verified else f"{text} (unverified)")


class OpenTransaction(NamedTuple):
    """A transaction of this process that was still open when a call that waited for it timed out.

    Attributes:
        owner: the task or thread that opened it, such as ``"task 'Task-3'"``.
        seconds: how long it had been open.
    """

    owner: str
    seconds: float

    def __str__(self) -> str:
        """Describe the transaction in one line that is safe to print."""
        return printable(f"a transaction of {self.owner} open for {self.seconds:.1f} s")


class Change(NamedTuple):
    """A change of one key; ``MISSING`` means absent.

    Attributes:
        old: the value before.
        new: the value now.
    """

    old: Any
    new: Any


class Lease(NamedTuple):
    """A lease, held until the end of the block that :meth:`PersistentContext.lease` opens.

    Attributes:
        name: its name.
        token: a number greater than that of every earlier holder of the lease. A resource that remembers the greatest
            one it has seen can refuse a former holder, such as a process that was stopped and does not know yet that it
            has lost the lease.
    """

    name: str
    token: int


@dataclass(frozen=True)
class Statistics:
    """What this process has done to one file so far, through all contexts on it.

    Attributes:
        commits: how often the file was replaced, or its journal appended to.
        operations: how many saves, atomic operations and transactions have completed, grouped into lock cycles.
        cycles: how often the lock was taken.
        waits: how many of these cycles found the lock held by another process.
        wait_seconds: time spent waiting for other processes, in seconds.
        hold_seconds: time for which the lock was held, in seconds.
        bytes_read: bytes read from the file and its journal.
        bytes_written: bytes written to them.
        journal_bytes: the size of the journal when it was last checked; 0 if there is none.
        checkpoints: how often this process has folded the journal into the file.
        conflicts: how many places were changed both by a context of this process and by another writer, in ways that
            cannot be merged, and were settled by ``on_conflict="mine"`` or ``"theirs"``.
        retries: how many cycles were repeated because they could write nothing: in etcd, another process had changed
            the state in the meantime; for a file, the lock file was deleted.
    """

    commits: int = 0
    operations: int = 0
    cycles: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    hold_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    journal_bytes: int = 0
    checkpoints: int = 0
    conflicts: int = 0
    retries: int = 0
