"""Checks lists to which all workers append, and which are drained now and then."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stress.checking.evidence import Evidence, Violation
from stress.logs.history import Operation, Outcome


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
                message = f"{token} does not belong in {segment.key}"
                yield Violation("foreign", message, [maker] if maker else [])
    for drain in unknown_drains:
        remaining = sum(times_seen[token] > 0 for token in drain.note)
        if 0 < remaining < len(drain.note):
            message = f"a transaction took effect in part: {remaining} of {len(drain.note)} tokens were not taken"
            yield Violation("torn", message, [drain])
    yield from _check_order(segments, appends)


def _check_order(segments: Iterable[Segment], appends: Mapping[str, Operation]) -> Iterator[Violation]:
    """Check that each task's tokens are in its order, within each segment and from one to the next."""
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
                message = f"{tokens[0]} is before {tokens[1]} in {key}"
                yield Violation("reordered", message, [appends[token] for token in tokens if token in appends])
