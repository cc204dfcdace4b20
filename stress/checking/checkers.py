"""The checkers: pure functions that compare a history of operations with the final document.

All rely on three facts. An acknowledged operation happened, between its invocation and its end. A failed one did not.
An unknown one, whose worker was killed or whose call was cancelled, either happened before the worker was dead or
the cancelled call returned, or never. In a cluster, a request of a dead worker may arrive a little later; and a call
whose outcome the library could not find out may happen at any time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stress.checking.bank import check_bank
from stress.checking.counters import check_counters
from stress.checking.ending import check_endings, check_signals
from stress.checking.evidence import Evidence, Violation
from stress.checking.jobs import check_jobs
from stress.checking.leases import check_computed, check_leases
from stress.checking.lists import check_lists
from stress.checking.nested import check_nested
from stress.checking.observing import check_observing
from stress.checking.owned import check_owned
from stress.checking.pages import check_pages
from stress.checking.prefixes import check_prefixes
from stress.checking.register import check_registers
from stress.checking.threads import check_threads
from stress.checking.watching import check_watching
from stress.children.patience import PATIENCE
from stress.documents.openings import opening_keys
from stress.logs.history import History, Outcome


def check_once(evidence: Evidence) -> Iterator[Violation]:
    """Of all operations that try to create a key one wins, and every later read sees the winner's value."""
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
            yield Violation("lost", f"{key} has {final!r}, which no possible winner wrote", winners)
        if owner is not None and owner.invoked > first_end:
            yield Violation("stale", f"{key} was still free after another operation had been refused it", [owner])
        for read in operations:
            if read.name != "read_winner" or read.outcome is not Outcome.OK or read.result == final:
                continue
            if read.result is not None or read.invoked > first_end:
                yield Violation("stale", f"a reader of {key} did not see {final!r}", [read])


def check_reads(evidence: Evidence) -> Iterator[Violation]:
    """Every read of the file, at any moment, sees one whole document."""
    for read in evidence.having(Outcome.FAIL):
        yield Violation("missing" if read.error.startswith("FileNotFoundError") else "torn", read.error, [read])


CHECKERS: Mapping[str, Callable[[Evidence], Iterable[Violation]]] = {
    "counter": check_counters,
    "owned": check_owned,
    "nested": check_nested,
    "list": check_lists,
    "bank": check_bank,
    "once": check_once,
    "lease": check_leases,
    "computed": check_computed,
    "register": check_registers,
    "prefix": check_prefixes,
    "foreign": check_counters,
    "ending": check_endings,
    "signals": check_signals,
    "watching": check_watching,
    "jobs": check_jobs,
    "pages": check_pages,
    "threads": check_threads,
    "observing": check_observing,
    "read": check_reads,
}


def check(history: History, final: Mapping[str, Any], *, patience: float = PATIENCE) -> dict[str, list[Violation]]:
    """Let each checker judge its workload; return what it found, by the workload's name.

    Args:
        history: the operations.
        final: the final content of all files.
        patience: how long a call may take, in seconds.
    """
    reads = [read for read in history.of("read") if read.outcome is Outcome.OK]
    found = {
        name: list(checker(Evidence(history.of(name), final, reads, history.operations, patience)))
        for name, checker in CHECKERS.items()
    }
    known = {*opening_keys(), *(operation.key for operation in history.operations)}
    for key in final.keys() - known:
        found["read"].append(Violation("foreign", f"no operation ever wrote {key}"))
    return found
