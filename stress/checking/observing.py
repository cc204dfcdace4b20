"""Checks the reports of pure watchers: the last value of every key, and no value that was never written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stress.checking.evidence import Evidence, Violation
from stress.documents.hammered import ACCOUNTS, TRANSFERS
from stress.documents.openings import file_of
from stress.documents.paged import OPENING, padded
from stress.logs.gist import gist, tokens_in
from stress.logs.history import Operation, Outcome


def check_observing(evidence: Evidence) -> Iterator[Violation]:
    """Every watcher ends up with the content of its file, and is told of written values only, in order."""
    makers = {one.id: one for one in evidence.everything}
    final = {key: gist(value) for key, value in evidence.final.items()}
    told: dict[str, list[Operation]] = {}
    for one in sorted(evidence.having(Outcome.OK, "known", "told"), key=lambda one: one.invoked):
        told.setdefault(_task(one), []).append(one)
    for watch in evidence.operations:
        if watch.name == "watch":
            tellings = told.get(_task(watch), [])
            if watch.outcome is not Outcome.OK:
                yield Violation("missed", "a watcher ended too early", [watch, *tellings[-1:]])
            yield from _check_last(watch, tellings, final)
            yield from _check_order(tellings)
            yield from _check_values(tellings, makers, final)


def _check_last(watch: Operation, tellings: Sequence[Operation], final: Mapping[str, Any]) -> Iterator[Violation]:
    """Check that a watcher was told of the last change of every key."""
    last: dict[str, tuple[Any, Operation]] = {}
    for telling in tellings:
        last |= {key: (value, telling) for key, value in telling.result.items()}
    mine = {key: value for key, value in final.items() if f"{file_of(key)}.json" == watch.key}
    for key in sorted(mine.keys() | last.keys()):
        value, telling = last.get(key, (None, watch))
        if value != mine.get(key):
            message = f"the last value of {key} told to a watcher is {value!r}, and the file has {mine.get(key)!r}"
            yield Violation("missed", message, [watch, _of_key(telling, key)])


def _check_order(tellings: Sequence[Operation]) -> Iterator[Violation]:
    """Check that each reported change begins at the value reported before, and that growing numbers only grow."""
    known: dict[str, Any] = {}
    for telling in tellings:
        for key in (telling.note or {}).get("unexpected", ()):
            message = f"a change of {key} was reported from another value than {known.get(key)!r}"
            yield Violation("reordered", message, [_of_key(telling, key)])
        for key, value in telling.result.items():
            before = known.get(key)
            if key not in ACCOUNTS and isinstance(value, int) and isinstance(before, int) and value < before:
                message = f"{key} went back from {before} to {value}"
                yield Violation("reordered", message, [_of_key(telling, key)])
        known |= telling.result


def _check_values(
    tellings: Sequence[Operation], makers: Mapping[str, Operation], final: Mapping[str, Any]
) -> Iterator[Violation]:
    """Check that every reported value had been written."""
    for telling in tellings:
        for key, value in telling.result.items():
            if _is_foreign(key, value, telling, makers, final):
                yield Violation("foreign", f"no operation had written {value!r} to {key}", [_of_key(telling, key)])


def _is_foreign(
    key: str, value: Any, telling: Operation, makers: Mapping[str, Operation], final: Mapping[str, Any]
) -> bool:
    """Return whether a value cannot have been in the file when it was reported."""
    last = final.get(key)
    if isinstance(value, int) and isinstance(last, int) and key not in ACCOUNTS:
        return value > last
    tokens = [*dict.fromkeys(tokens_in(value))]
    if file_of(key) == "pages" and tokens and value != gist(padded(tokens[0])):
        return True
    return not all(token.startswith(OPENING) or _made(makers.get(token), key, telling) for token in tokens)


def _made(maker: Operation | None, key: str, telling: Operation) -> bool:
    """Return whether an operation can have written to a key before the report."""
    return (
        maker is not None
        and maker.invoked <= telling.finished
        and (key.startswith(maker.key) or maker.key == TRANSFERS or maker.key.startswith(f"{key}/"))
    )


def _of_key(telling: Operation, key: str) -> Operation:
    """Return the part of a report that is about a key: the rest is long."""
    return replace(telling, key=key, result=telling.result.get(key), note=None) if telling.result else telling


def _task(operation: Operation) -> str:
    """Return `process.incarnation.task`."""
    return operation.id.rpartition(".")[0]
