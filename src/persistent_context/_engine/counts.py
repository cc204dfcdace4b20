"""What a queue has done: counted, and reported to the listeners of metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from .._stores.protocol import Session, Traffic
from ..metrics import Cycle, report
from ..types import Statistics
from .request import Request


class Counts:
    """Counts cycles; only the thread that runs the queue notes them.

    Args:
        name: the name of the store.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._operations = self._conflicts = self._cycles = self._waits = self._retries = 0
        self._wait_seconds = self._hold_seconds = 0.0

    def note(self, session: Session, purpose: str, over: Sequence[Request]) -> None:
        """Count a session that has ended, with its completed calls, and report it."""
        self._operations += len(over)
        for request in over:
            if request.operation.conflicts and request.snapshot is not None:
                self._conflicts += len(request.operation.conflicts)
        self._cycles += 1
        self._waits += session.waited > 0
        self._wait_seconds += session.waited
        self._hold_seconds += session.held
        cycle = Cycle(self._name, purpose, len(over), session.waited, session.held, session.bytes_written)
        with contextlib.suppress(BaseException):  # from a logging handler: the calls have taken effect nevertheless
            report(cycle)

    def note_retry(self) -> None:
        """Count a cycle whose calls are carried out again."""
        self._retries += 1

    def statistics(self, traffic: Traffic) -> Statistics:
        """Return the statistics so far, including what the store has read and written."""
        return Statistics(
            operations=self._operations,
            conflicts=self._conflicts,
            retries=self._retries,
            cycles=self._cycles,
            waits=self._waits,
            wait_seconds=self._wait_seconds,
            hold_seconds=self._hold_seconds,
            **traffic._asdict(),
        )
