"""The transactions that are open in this process, and the error of a call that timed out."""

from __future__ import annotations

import logging
import os
import time
from typing import Final

from ..errors import LockTimeoutError
from ..types import Holder, OpenTransaction
from .owner import Owner

_logger = logging.getLogger("persistent_context")


class Hold:
    """A transaction that is open, since now.

    Args:
        owner: the caller that it belongs to.
    """

    __slots__ = ("_since", "is_ending", "owner")

    def __init__(self, owner: Owner) -> None:
        self.owner: Final = owner
        self._since: Final = time.monotonic()
        self.is_ending = False
        """Whether another thread ends it, so that a call that blocks its owner can wait for that."""

    def describe(self) -> OpenTransaction:
        """Return what an error says about it."""
        return OpenTransaction(self.owner.describe(), time.monotonic() - self._since)


open_transactions: Final[dict[str, Hold]] = {}
"""The open transactions of this process by the names of their stores: at most one for each.

It is read and changed in single operations, since a signal handler may interrupt a thread anywhere.
"""


def disown(name: str) -> None:
    """Note that the open transaction on a store has been left to a thread, which ends it without making a call."""
    open_transactions[name] = Hold(Owner.nobody())


def owner_inside(name: str) -> Owner | None:
    """Return the owner of the open transaction on a store."""
    hold = _hold_on(name)
    return None if hold is None else hold.owner


def timed_out(name: str, timeout: float, waited: float, holder: Holder | None) -> LockTimeoutError:
    """Return the error of a call that timed out; it names the transaction of this process that the call waited for."""
    hold = _hold_on(name)
    transaction = None if hold is None else hold.describe()
    error = LockTimeoutError(timeout, waited, holder, transaction).about(name)
    _logger.debug("%s", error)
    return error


def _hold_on(name: str) -> Hold | None:
    hold = open_transactions.get(name)
    return None if hold is None or hold.is_ending else hold


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=open_transactions.clear)
