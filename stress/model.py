"""What the workloads and their checkers both know: the keys that are there from the beginning, and what they hold."""

from __future__ import annotations

ACCOUNTS = tuple(f"bank/account/{number}" for number in range(8))
OPENING_BALANCE = 1_000
TRANSFERS = "bank/transfers"
"""Counts the transfers. Each takes its number in its own transaction, which puts all of them in one order."""


def opening_document() -> dict[str, int]:
    """Return what the file holds before the run."""
    return {**dict.fromkeys(ACCOUNTS, OPENING_BALANCE), TRANSFERS: 0}
