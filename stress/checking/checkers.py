"""The checkers: pure functions that hold a history of operations against the document that is left.

All rest on three facts. An acknowledged operation happened, between its invocation and its end. A failed one did not.
An unknown one, whose worker was killed or whose call was cancelled, happened before the worker was dead or the
cancelling was told, or never.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stress.checking.bank import check_bank
from stress.checking.counters import check_counters
from stress.checking.ending import check_endings, check_signals
from stress.checking.evidence import Evidence, Violation
from stress.checking.jobs import check_jobs
from stress.checking.owned import check_owned
from stress.checking.prefixes import check_prefixes
from stress.checking.register import check_registers
from stress.checking.watching import check_watching
from stress.documents.hammered import opening_document
from stress.documents.watched import opening_pages
from stress.logs.history import History, Operation, Outcome


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a list: what one drain took, or what is left at the end."""

    key: str
    tokens: Sequence[str]
    left: bool


def check_lists(evidence: Evidence) -> Iterator[Violation]:
    """Each acknowledged token is in its list, or in what was drained from it, exactly once and in its task's order."""
    appends = {operation.id: operation for operation in evidence.operations if operation.name != "drain"}
    segments = [Segment(drain.key, drain.note, left=False) for drain in evidence.having(Outcome.OK, "drain")]
    segments += [Segment(key, evidence.final.get(key, []), left=True) for key in evidence.by_key()]
    times_seen = Counter(token for segment in segments for token in segment.tokens)
    unknown_drains = [drain for drain in evidence.having(Outcome.UNKNOWN, "drain") if drain.note]
    perhaps_drained = {token for drain in unknown_drains for token in drain.note}

    for token, append in appends.items():
        if times_seen[token] > 1:
            yield Violation("duplicated", f"the token is there {times_seen[token]} times", [append])
        if append.outcome is Outcome.OK and not times_seen[token] and token not in perhaps_drained:
            yield Violation("lost", "the token is in no list", [append])
    for segment in segments:
        for token in segment.tokens:
            maker = appends.get(token)
            if maker is None or maker.outcome is Outcome.FAIL or maker.key != segment.key:
                message = f"{token} does not belong into {segment.key}"
                yield Violation("foreign", message, [maker] if maker else [])
    for drain in unknown_drains:
        remaining = sum(times_seen[token] > 0 for token in drain.note)
        if 0 < remaining < len(drain.note):
            message = f"a transaction happened in part: {remaining} of {len(drain.note)} tokens were not taken"
            yield Violation("torn", message, [drain])
    yield from _check_order(segments, appends)


def _check_order(segments: Iterable[Segment], appends: Mapping[str, Operation]) -> Iterator[Violation]:
    """Check that each task's tokens stand in its order, within each segment and from one to the next."""
    runs: defaultdict[tuple[str, str], list[tuple[bool, list[int]]]] = defaultdict(list)
    for segment in segments:
        by_task: defaultdict[str, list[int]] = defaultdict(list)
        for token in segment.tokens:
            task, _, serial = token.rpartition(".")
            by_task[task].append(int(serial))
        for task, serials in by_task.items():
            runs[segment.key, task].append((segment.left, serials))
    for (key, task), parts in runs.items():
        for earlier, later in pairwise(serial for _, serials in sorted(parts) for serial in serials):
            if earlier > later:
                tokens = (f"{task}.{earlier}", f"{task}.{later}")
                message = f"{tokens[0]} stands before {tokens[1]} in {key}"
                yield Violation("reordered", message, [appends[token] for token in tokens if token in appends])


def check_once(evidence: Evidence) -> Iterator[Violation]:
    """Of all who create a key one wins, and everybody who looks afterwards sees the winner's value."""
    for key, operations in evidence.by_key().items():
        final = evidence.final.get(key)
        attempts = [operation for operation in operations if operation.name != "read_winner"]
        decided = [attempt for attempt in attempts if attempt.outcome is Outcome.OK]
        winners = [attempt for attempt in decided if attempt.result]
        first_end = min((attempt.finished for attempt in decided), default=math.inf)
        if len(winners) > 1:
            yield Violation("duplicated", f"{key} has {len(winners)} winners", winners)
        possible = winners or [attempt for attempt in attempts if attempt.outcome is Outcome.UNKNOWN]
        owner = next((attempt for attempt in possible if attempt.id == final), None)
        if owner is None and (decided or final is not None):
            yield Violation("lost", f"{key} has {final!r}, by nobody who can have won", winners)
        if owner is not None and owner.invoked > first_end:
            yield Violation("stale", f"{key} was still free after somebody had been refused it", [owner])
        for read in operations:
            if read.name != "read_winner" or read.outcome is not Outcome.OK or read.result == final:
                continue
            if read.result is not None or read.invoked > first_end:
                yield Violation("stale", f"a reader of {key} did not see {final!r}", [read])


def check_reads(evidence: Evidence) -> Iterator[Violation]:
    """Whoever opens the file at any moment reads one whole document."""
    for read in evidence.having(Outcome.FAIL):
        yield Violation("missing" if read.error.startswith("FileNotFoundError") else "torn", read.error, [read])


CHECKERS: Mapping[str, Callable[[Evidence], Iterable[Violation]]] = {
    "counter": check_counters,
    "owned": check_owned,
    "list": check_lists,
    "bank": check_bank,
    "once": check_once,
    "register": check_registers,
    "prefix": check_prefixes,
    "foreign": check_counters,
    "ending": check_endings,
    "signals": check_signals,
    "watching": check_watching,
    "jobs": check_jobs,
    "read": check_reads,
}


def check(history: History, final: Mapping[str, Any]) -> dict[str, list[Violation]]:
    """Let each checker judge its workload; return what it found, by the workload's name."""
    reads = [read for read in history.of("read") if read.outcome is Outcome.OK]
    found = {name: list(checker(Evidence(history.of(name), final, reads))) for name, checker in CHECKERS.items()}
    known = {*opening_document(), *opening_pages(), *(operation.key for operation in history.operations)}
    for key in final.keys() - known:
        found["read"].append(Violation("foreign", f"nobody ever wrote {key}"))
    return found
