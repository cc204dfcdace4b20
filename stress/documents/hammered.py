"""The file that the workers hammer, `state.json`: the keys that are there from the beginning, and their values."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

ACCOUNTS = tuple(f"bank/account/{number}" for number in range(8))
OPENING_BALANCE = 1_000
TRANSFERS = "bank/transfers"
"""Counts the transfers. Each takes its number in its transaction, which puts all of them in one order."""
JOURNAL = "bank/journal"
"""The last transfers, oldest first: the token, from where, to where, how much."""
BASE = "bank/base"
"""The balances before those in the journal."""
JOURNAL_LENGTH = 20
REPLAYS = "bank/replays"
"""In a snapshot, but not in the file: whether the journal leads to the balances."""
GENERATION = 20
"""Tokens in a list that only grows, before it starts again."""
MEMBERS = "nested"
"""An object within two others, with a member for each task that hammers the file."""


def opening_document() -> dict[str, Any]:
    """Return the content of the file before the run."""
    balances = dict.fromkeys(ACCOUNTS, OPENING_BALANCE)
    return {**balances, TRANSFERS: 0, JOURNAL: [], BASE: balances, MEMBERS: {"by": {"seat": {}}}}


def members_of(document: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the members that tasks have filled in, by their seats."""
    members: Mapping[str, str] = document.get(MEMBERS, {}).get("by", {}).get("seat", {})
    return members


def enter(document: MutableMapping[str, Any], transfer: list[Any]) -> None:
    """Enter a transfer into the journal."""
    journal = [*document[JOURNAL], transfer]
    if len(journal) > JOURNAL_LENGTH:
        document[BASE] = _replayed(document[BASE], journal[:1])
    document[JOURNAL] = journal[-JOURNAL_LENGTH:]


def snapshot(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers in a document, and whether its journal leads to its balances."""
    numbers = {key: value for key, value in document.items() if isinstance(value, int)}
    return {**numbers, REPLAYS: replays(document)}


def replays(document: Mapping[str, Any]) -> bool:
    """Return whether the journal leads from the balances before it to the present ones."""
    balances = {account: document.get(account) for account in ACCOUNTS}
    return _replayed(document.get(BASE, {}), document.get(JOURNAL, [])) == balances


def _replayed(balances: Mapping[str, int], journal: list[list[Any]]) -> dict[str, int]:
    after = dict(balances)
    for _, source, target, amount in journal:
        after[source] = after.get(source, 0) - amount
        after[target] = after.get(target, 0) + amount
    return after
