"""Checks the bank: no money appears or vanishes, and every balance follows from the transfers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stress.checking.evidence import Evidence, Violation
from stress.checking.growth import Growth, check_growth, seen_in
from stress.documents.hammered import ACCOUNTS, JOURNAL, OPENING_BALANCE, REPLAYS, TRANSFERS, replays
from stress.logs.history import Operation, Outcome


def check_bank(evidence: Evidence) -> Iterator[Violation]:
    """Every snapshot shows the same total, and replaying all transfers in order gives the final balances."""
    reads = [*evidence.reads, *evidence.having(Outcome.OK, "audit", "audit_exclusively")]
    yield from _check_totals(evidence, reads)
    count = evidence.final.get(TRANSFERS, 0)
    acknowledged = evidence.having(Outcome.OK, "transfer")
    numbered = [Growth(transfer, transfer.note["number"]) for transfer in acknowledged]
    yield from check_growth(TRANSFERS, numbered, seen_in(TRANSFERS, reads), count)
    yield from _check_replay(evidence, count)


def _check_totals(evidence: Evidence, reads: Iterable[Operation]) -> Iterator[Violation]:
    """Check that no read saw money appear or vanish, or balances that do not follow from the journal."""
    expected = OPENING_BALANCE * len(ACCOUNTS)
    for read in reads:
        if (total := _total(read.result)) != expected:
            yield Violation("torn", f"a reader saw a total of {total} instead of {expected}", [read])
        if not read.result.get(REPLAYS, True):
            yield Violation("torn", "a reader saw a journal that does not lead to the balances", [read])
    if (total := _total(evidence.final)) != expected:
        yield Violation("torn", f"the final total is {total} instead of {expected}")
    if not replays(evidence.final):
        yield Violation("torn", "the final journal does not lead to the balances")


def _check_replay(evidence: Evidence, count: int) -> Iterator[Violation]:
    """Check that all transfers, replayed in order, give the balances, and that the journal lists the last ones."""
    by_number = _transfers_by_number(evidence)
    first = count - len(evidence.final.get(JOURNAL, [])) + 1
    for number, (token, *_) in enumerate(evidence.final.get(JOURNAL, []), first):
        if (made := by_number.get(number)) is None or made.id != token:
            yield Violation("lost", f"the journal says that {token} is transfer {number}", [made] if made else [])
            return
    balances = dict.fromkeys(ACCOUNTS, OPENING_BALANCE)
    for number in range(1, count + 1):
        transfer = by_number.get(number)
        if transfer is None:
            yield Violation("foreign", f"no operation made transfer {number}, so no later one can be replayed")
            return
        note = transfer.note
        balances[note["from"]] -= note["amount"]
        balances[note["to"]] += note["amount"]
        if (after := [balances[note["from"]], balances[note["to"]]]) != note["after"]:
            yield Violation("lost", f"a replay of the {number} transfers up to this one gives {after}", [transfer])
            return
    for account, balance in balances.items():
        if (final := evidence.final.get(account)) != balance:
            yield Violation("lost", f"{account} is {final}, and a replay of all {count} transfers gives {balance}")


def _total(document: Mapping[str, Any]) -> int:
    """Return the sum of all balances."""
    return sum(document.get(account, 0) for account in ACCOUNTS)


def _transfers_by_number(evidence: Evidence) -> dict[int, Operation]:
    """Return the transfers that happened, by their numbers.

    If none was acknowledged with a number, the number belongs to the unknown transfer that noted it last: a note is
    written under the lock, so it proves that no earlier transfer with that number had been committed.
    """
    unknown = [transfer for transfer in evidence.having(Outcome.UNKNOWN, "transfer") if transfer.note]
    unknown.sort(key=lambda transfer: transfer.noted)
    return {made.note["number"]: made for made in [*unknown, *evidence.having(Outcome.OK, "transfer")]}
