"""How long nobody could write after the leader of a cluster was killed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from stress.logs.history import History, Outcome
from stress.run.unrest import LEADER

WRITES = frozenset(
    {
        "append",
        "append_in_place",
        "change",
        "exchange",
        "extend",
        "extend_exclusively",
        "fill",
        "incr",
        "put",
        "incr_exclusively",
        "job",
        "read_modify_write",
        "replace",
        "save",
        "transfer",
        "write",
    }
)
"""The operations that have written, if they were acknowledged."""
LOOK = 5.0
"""Seconds after a kill in which the gap begins at the latest."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without an acknowledged write around or soon after the kill of a leader."""

    leader: str
    seconds: float


def gaps(history: History) -> Iterator[Gap]:
    """Yield the gap after each kill of a leader."""
    ends = sorted(int(one.finished) for one in history.operations if one.outcome is Outcome.OK and one.name in WRITES)
    for fault in history.faults:
        member, _, role = fault.target.partition(" ")
        if fault.name == "kill_member" and role == LEADER:
            first = max(bisect_left(ends, fault.at) - 1, 0)  # the last one before it
            last = bisect_left(ends, fault.at + int(LOOK * 1e9)) + 1
            yield Gap(member, max((later - earlier for earlier, later in pairwise(ends[first:last])), default=0) / 1e9)


def gaps_after_kills(history: History) -> Iterator[str]:
    """Yield a line that says how long nobody could write, or nothing if no leader was killed."""
    seconds = sorted(gap.seconds for gap in gaps(history))
    if not seconds:
        return
    times = f"{len(seconds)} times" if len(seconds) > 1 else "once"
    after = f"{median(seconds):.1f} s (median), {seconds[-1]:.1f} s at most"
    yield f"the leader was killed {times}: writing again after {after}"
