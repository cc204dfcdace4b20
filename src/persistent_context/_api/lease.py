"""What the leases of both public classes share: their arguments, their end, and their errors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Final

from .._engine.turn import Turn
from .._model.operations import Operation
from .._model.values import decode
from .._stores.factory import is_url
from .._stores.protocol import NUMBER
from ..errors import ContextUsageError, LeaseHeldError, LockLostError, LockTimeoutError, ReentrantTransactionError
from ..types import Lease
from .link import LeaseLink
from .options import TRY_ONLY_SECONDS, check_timeout

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks


class LeaseName:
    """The name of a lease of a store.

    Args:
        place: the place of the store, in absolute form.
        name: the name.
        lasting: whether it is a lease that users ask for by name, rather than one that a computation holds.
    """

    def __init__(self, place: str, name: str, *, lasting: bool) -> None:
        if not isinstance(name, str):
            msg = f"the name of a lease must be a str, not {type(name).__name__}"
            raise TypeError(msg)
        self._place: Final = place
        self.name: Final = name
        self._lasting: Final = lasting
        self.purpose: Final = "lease" if lasting else "compute_once"
        """The call that the lease is held for."""

    def link(self) -> LeaseLink:
        """Return the link to its queue."""
        return LeaseLink(self._place, self.name, lasting=self._lasting)

    def lease(self, turn: Turn) -> Lease:
        """Return the lease whose turn this is."""
        text = turn.snapshot.get([NUMBER]).get(NUMBER)
        return Lease(self.name, 0 if text is None else decode(text))

    @contextlib.contextmanager
    def beginning(self, patience: float) -> Iterator[None]:
        """Explain the errors of waiting for it, up to ``patience`` seconds.

        Raises:
            LeaseHeldError: it is held elsewhere.
            ReentrantTransactionError: the caller would wait for itself.
        """
        try:
            yield
        except LockTimeoutError as error:
            timeout = patience if patience >= TRY_ONLY_SECONDS else 0.0
            owner = error.transaction.owner if error.transaction else None
            raise LeaseHeldError(self.name, timeout, error.waited, error.holder, owner).about(self._place) from None
        except ReentrantTransactionError:
            what = f"lease {self.name!r}" if self._lasting else f"computation of {self.name!r}"
            msg = f"this call would deadlock: the {what} belongs to its own task or thread, or to one that it blocks"
            raise ReentrantTransactionError(msg).about(self._place) from None

    @contextlib.contextmanager
    def ending(self, error: BaseException | None) -> Iterator[None]:
        """Explain the error of releasing a lease that was lost; it does not hide an error of the block.

        Raises:
            LockLostError: another may have held it too.
        """
        try:
            yield
        except LockLostError as lost:
            msg = f"the file of the lease {self.name!r} was deleted or replaced: another may have held it too"
            if is_url(self._place):
                msg = f"another may have held the lease {self.name!r} too: {lost.args[0]}"
            if error is None:
                raise LockLostError(msg).about(self._place) from None
            error.add_note(msg)

    def check_owned(self, turn: Turn) -> None:
        """Raise ContextUsageError in a forked child."""
        if turn.is_inherited:
            msg = f"the lease {self.name!r} belongs to the parent process: a process forked from it cannot release it"
            raise ContextUsageError(msg).about(self._place)


class Release(Operation):
    """The end of a lease."""

    repeatable = False


def patience_of(timeout: float | None, *, wait: bool) -> float:
    """Return how long to wait for a lease, in seconds."""
    if not wait and timeout is not None:
        msg = "wait=False does not wait at all, so it cannot have a timeout"
        raise ValueError(msg)
    if not wait:
        return 0.0
    return math.inf if timeout is None else check_timeout(timeout, "timeout")
