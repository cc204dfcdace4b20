"""The calls of a context that block a thread: queued, waited for, timed out, interrupted and delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from .._engine.guard import call_released
from .._engine.holds import timed_out
from .._engine.owner import Owner
from .._engine.queue import CommitQueue
from .._engine.request import Request
from .._engine.turn import Turn
from .._model.operations import Operation
from .guarded import GuardedMemory
from .link import QueueLink
from .options import TRY_ONLY_SECONDS

NAP_SECONDS: Final = 1.0
"""The longest uninterrupted wait: a Ctrl-C just before it, and any on Windows, is noticed when it ends."""

_POLL_SECONDS: Final = 0.02
"""The same if no thread can be started, so that the caller's thread has to check whether the lock is free."""


class BlockingCalls:
    """The calls of a context, made by any thread.

    Args:
        link: finds the queue.
        memory: the memory of the context.
        durable: whether acknowledged changes survive a power loss.
        raises_if_corrupt: whether they fail if the file is corrupt, instead of moving it aside.
    """

    def __init__(self, link: QueueLink[Any], memory: GuardedMemory, *, durable: bool, raises_if_corrupt: bool) -> None:
        self._link: Final = link
        self._memory: Final = memory
        self._durable: Final = durable
        self._raises_if_corrupt: Final = raises_if_corrupt

    def perform(self, operation: Operation, patience: float, *, kind: type[Request] = Request) -> Any:
        """Carry out an operation in a cycle in another thread, which signals do not interrupt, and return its result.

        If interrupted before the cycle has begun, the call is withdrawn. Afterwards, it is completed first, and then
        the exception propagates.
        """
        queue: CommitQueue | None = None
        request: Request | None = None
        try:
            queue = self._link.here_or_found()
            request = self._request(operation, kind, patient=patience >= TRY_ONLY_SECONDS)
            began = time.monotonic()
            queue.submit(request)
            call_released(self._wait, queue, request, began + patience)
            self._memory.note_end(operation)
            return _result(queue, request, patience, began)
        except BaseException:
            if queue is not None and request is not None and not queue.withdraw(request):
                call_released(self._wait_out, request)
                if isinstance(request.result, Turn):
                    request.result.abandon()
            self._memory.note_end(operation)
            raise

    def end(self, turn: Turn, operation: Operation) -> None:
        """End a transaction with an operation; completes despite interruptions."""
        request = self._request(operation, Request, patient=True)
        try:
            turn.end(request)
            while not request.arrived:
                request.waiter.acquire(timeout=NAP_SECONDS)
        except BaseException:
            turn.end(request)
            self._wait_out(request)
            raise
        if request.error is not None:
            raise request.error

    def _request(self, operation: Operation, kind: type[Request], *, patient: bool) -> Request:
        owner = Owner.current(blocks=True)
        request = kind(
            self._link.place, operation, owner, self._deliver,
            durable=self._durable, patient=patient, raises_if_corrupt=self._raises_if_corrupt,
        )  # fmt: skip
        request.waiter = threading.Lock()  # not an Event, as a signal handler may find its internal lock taken
        request.waiter.acquire()
        return request

    def _wait(self, queue: CommitQueue, request: Request, deadline: float) -> None:
        """Run the queue until the call is over, or is withdrawn because it timed out."""
        has_thread = queue.run_elsewhere(even_if_busy=not request.patient)
        while not request.arrived:
            left = deadline - time.monotonic()
            if left <= 0 and request.patient and queue.withdraw(request):
                return
            # A call that has begun is over soon, or is withdrawn if its cycle has to be repeated.
            nap = NAP_SECONDS if has_thread and request.patient else _POLL_SECONDS
            if not request.waiter.acquire(timeout=min(left, nap) if left > 0 else nap):
                has_thread = queue.look_after(even_if_busy=not request.patient)

    def _wait_out(self, request: Request) -> None:
        """Wait for a call that has begun; raise an interrupting exception afterwards."""
        interrupt: BaseException | None = None
        while not request.arrived:
            try:
                request.waiter.acquire(timeout=NAP_SECONDS)
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _deliver(self, requests: Sequence[Request]) -> None:
        """Queue the outcomes of calls for memory, and wake their callers; runs in the thread of the cycle."""
        self._memory.receive(requests)
        for request in requests:
            if not request.arrived:
                request.arrived = True
                request.waiter.release()


def _result(queue: CommitQueue, request: Request, patience: float, began: float) -> Any:
    """Return the result of a completed call, or raise its error."""
    if request.error is not None:
        raise request.error
    if request.is_withdrawn:
        waited = time.monotonic() - began
        raise timed_out(queue.name, patience, waited, queue.find_holder())
    return request.result
