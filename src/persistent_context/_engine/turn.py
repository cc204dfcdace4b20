"""A transaction's turn: the session that stays open while the body of the transaction runs."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from .._model.snapshot import Snapshot
from .._stores.protocol import Session
from ..errors import ContextUsageError
from .holds import disown
from .request import Request

End: TypeAlias = Callable[[deque[Session], Sequence[Request]], None]
"""Ends a turn: takes the session out of the deque, applies the requests, and closes it; does not wait for this."""


class Turn:
    """A transaction's turn: the session is open until it ends. It ends itself when no longer referenced.

    Args:
        name: the name of the store, for errors.
        session: the session.
        snapshot: its state.
        end: ends the turn.
    """

    __slots__ = ("__weakref__", "_end", "_name", "_pid", "_sessions", "snapshot")

    def __init__(self, name: str, session: Session, snapshot: Snapshot, end: End) -> None:
        self.snapshot: Final = snapshot
        """The state that it begins with."""
        self._name = name
        self._end = end
        self._pid = os.getpid()
        self._sessions = deque([session])  # taking it out ends the turn

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the parent process, and was inherited by a fork."""
        return os.getpid() != self._pid

    @property
    def is_open(self) -> bool:
        """Whether its end has not begun."""
        return bool(self._sessions)

    def end(self, request: Request) -> None:
        """Apply the request's operation, release the lock, and deliver the request; does not wait for it.

        A second call with the same request does nothing.

        Raises:
            ContextUsageError: in a forked child; the lock stays with the parent.
        """
        if self.is_inherited:
            msg = f"this transaction belongs to process {self._pid}, and cannot be used in a process forked from it"
            raise ContextUsageError(msg).about(self._name)
        self._end(self._sessions, [request])

    def hand_over(self) -> Callable[[], None]:
        """Return a function that abandons it, for another thread: calls of its owner wait for that from now on."""
        disown(self._name)
        return self.abandon

    def abandon(self) -> None:
        """Release the lock without writing, unless it has ended; does not wait."""
        if self.is_open and not self.is_inherited:
            self._end(self._sessions, [])

    def __del__(self) -> None:
        if not sys.is_finalizing():  # pragma: no branch - at the interpreter's exit, which runs no coverage
            self.abandon()
