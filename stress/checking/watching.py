"""Checks what threads, event loops and watchers see of a file of many pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stress.checking.counters import check_counters
from stress.checking.ending import check_waits
from stress.checking.evidence import Evidence, Violation
from stress.documents.watched import COUNTERS, LATEST, filler
from stress.logs.history import Operation, Outcome

_Makers = Mapping[tuple[str, Any], Operation]


def check_watching(evidence: Evidence) -> Iterator[Violation]:
    """Counters are exact, permanent keys are always seen, and every watcher is told of others' last changes."""
    counts = [one for one in evidence.operations if one.name.startswith("incr")]
    calls = [one for one in evidence.operations if one.name != "watch"]
    yield from check_counters(replace(evidence, operations=counts, reads=()))
    yield from _check_looks(evidence)
    yield from _check_watchers(evidence)
    yield from check_waits(calls, evidence.patience)


def _check_looks(evidence: Evidence) -> Iterator[Violation]:
    """Check that the keys that were there from the beginning never went away, for any operation."""
    for one in evidence.having(Outcome.OK, "look", "look_exclusively"):
        if not one.result:
            yield Violation("lost", f"{one.key} was not there for an operation that looked", [one])
    touched = {one.key for one in evidence.operations if one.key.startswith(filler(0)[:-3])}
    for key in sorted(touched - evidence.final.keys()):
        yield Violation("lost", f"{key} is gone")


def _check_watchers(evidence: Evidence) -> Iterator[Violation]:
    """Check that each watcher was told of everything that others left, and of nothing that its own context wrote."""
    makers = {(one.key, one.result): one for one in evidence.having(Outcome.OK) if one.name not in ("told", "watch")}
    told: dict[str, list[Operation]] = {}
    for one in sorted(evidence.having(Outcome.OK, "told"), key=lambda one: one.invoked):
        told.setdefault(_task(one), []).append(one)
    for watch in evidence.operations:
        if watch.name == "watch":
            tellings = told.get(_task(watch), [])
            if watch.outcome is not Outcome.OK:
                yield Violation("missed", "a watcher was never told that all work was done", [watch, *tellings[-1:]])
            yield from _check_watcher(watch, tellings, makers, evidence.final)


def _check_watcher(
    watch: Operation, tellings: Sequence[Operation], makers: _Makers, final: Mapping[str, Any]
) -> Iterator[Violation]:
    last = {one.key: one for one in tellings}
    for key in (*COUNTERS, *LATEST):
        maker = makers.get((key, final.get(key)))
        if maker is not None and _context(maker) != _context(watch):
            if key not in last:
                yield Violation("missed", f"a watcher was never told anything of {key}", [watch, maker])
            elif last[key].result != final[key]:
                message = f"a watcher was not told of the last change of {key}"
                yield Violation("missed", message, [last[key], maker])
    for one in tellings:
        maker = makers.get((one.key, one.result))
        if maker is not None and _context(maker) == _context(watch):
            yield Violation("echoed", f"a watcher was told of what its own context wrote to {one.key}", [one, maker])


def _task(operation: Operation) -> str:
    """Return `process.incarnation.task`."""
    return operation.id.rpartition(".")[0]


def _context(operation: Operation) -> str:
    """Return what identifies the context that an operation went through."""
    return _task(operation).rpartition("-")[0]
