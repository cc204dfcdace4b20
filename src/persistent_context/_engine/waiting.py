"""The calls that wait for their cycle, in order."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence

from .owner import Owner
from .request import Begin, Deliver, Request


class WaitingCalls:
    """Calls in order. A call leaves when it is taken into a cycle or withdrawn, in any thread.

    No method waits for a lock: a signal handler may interrupt it anywhere and make another call.
    """

    def __init__(self) -> None:
        self._calls: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def snapshot(self) -> Sequence[Request]:
        """Return the calls that wait now."""
        return self._calls.copy()

    def append(self, request: Request) -> None:
        """Add a call."""
        self._calls.append(request)

    def remove(self, request: Request) -> None:
        """Remove a call that was taken or withdrawn."""
        with contextlib.suppress(ValueError):  # a thread that withdraws it may be doing the same
            self._calls.remove(request)

    def withdraw(self, request: Request) -> bool:
        """Withdraw a call that has not begun, so that it never takes effect; return whether it is withdrawn."""
        is_withdrawn = request.withdraw()
        if is_withdrawn:
            self.remove(request)
        return is_withdrawn

    def take_all(self) -> list[Request]:
        """Begin all calls."""
        waiting = self.snapshot()
        for request in waiting:
            self.remove(request)
        return [request for request in waiting if request.begin()]

    def put_back(self, batch: Sequence[Request]) -> list[Request]:
        """Let calls wait again, before all others; return those that were withdrawn instead."""
        again = [request for request in batch if request.reopen()]
        self._calls.extendleft(reversed(again))
        return [request for request in batch if request.is_withdrawn]

    def impatient(self) -> list[Request]:
        """Return the calls that only try."""
        return [request for request in self.snapshot() if not request.patient]

    def coming_owners(self) -> list[Owner]:
        """Return the owners of the transactions that wait for their turn."""
        calls = self.snapshot()
        return [request.owner for request in calls if isinstance(request, Begin) and not request.is_withdrawn]

    def has_begin_first(self) -> bool:
        """Whether the first call begins a transaction."""
        return isinstance(next(iter(self.snapshot()), None), Begin)

    def purpose(self) -> str:
        """Return the purpose of the first call."""
        return next((request.operation.purpose for request in self.snapshot()), "")


def deliver(over: Sequence[Request]) -> None:
    """Deliver completed calls to their callers, in order."""
    groups: dict[Deliver, list[Request]] = {}
    for request in over:
        groups.setdefault(request.deliver, []).append(request)
    for receive, requests in groups.items():
        receive(requests)
