"""The calls of a context on one event loop: queued, awaited, timed out, cancelled and delivered."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from .._engine.cycle import own_copy
from .._engine.holds import timed_out
from .._engine.owner import Owner
from .._engine.queue import CommitQueue
from .._engine.request import Request
from .._engine.turn import Turn
from .._engine.worker import run_in_pool
from .._model.operations import Operation, Save
from .._model.values import Frozen
from ..errors import LockTimeoutError, ReentrantTransactionError
from ..types import Holder
from .aio_executor import SOON_SECONDS
from .cancelling import shielded
from .guarded import GuardedMemory
from .link import QueueLink
from .options import TRY_ONLY_SECONDS

_TICK_SECONDS: Final = 0.5
"""How often to check, while calls wait, that a thread runs the queue."""

_SHORTEST_TICK_SECONDS: Final = 0.005
_FIND_HOLDER_SECONDS: Final = 0.5
"""How long a timeout error may be delayed to find the holder of the lock."""

_TURNS: Final = 3
"""Loop iterations that it takes to close an asynchronous generator abandoned with a transaction open."""


class _Flight(Frozen, frozen=True):
    """State of a call while its task waits."""

    queue: CommitQueue
    deadline: float
    """By the loop's clock."""


class LoopCalls:
    """The calls of a context on one event loop.

    Args:
        loop: the loop.
        link: finds the queue.
        memory: the memory of the context.
        run_cycle: runs a cycle of the queue in another thread, if the lock is free.
        durable: whether acknowledged changes survive a power loss.
        raises_if_corrupt: whether they fail if the file is corrupt, instead of moving it aside.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        loop: asyncio.AbstractEventLoop,
        link: QueueLink[Any],
        memory: GuardedMemory,
        run_cycle: Callable[[], Awaitable[None]],
        *,
        durable: bool,
        raises_if_corrupt: bool,
    ) -> None:
        self.loop: Final = loop
        self._link: Final = link
        self._memory: Final = memory
        self._run_cycle: Final = run_cycle
        self._durable: Final = durable
        self._raises_if_corrupt: Final = raises_if_corrupt
        self._attaching = asyncio.Lock()
        self._unattached: deque[None] = deque()  # one entry per call that waits for the queue to be found
        self._driver: asyncio.Task[None] | None = None
        self._to_pool: CommitQueue | None = None
        self._in_flight: dict[Request, _Flight] = {}
        self._clock: asyncio.TimerHandle | None = None

    async def perform(self, operation: Operation, patience: float, *, kind: type[Request] = Request) -> Any:
        """Carry out an operation in a cycle, and return its result.

        If cancelled before the cycle has begun, the call is withdrawn. Afterwards, it is completed first, and then the
        cancellation propagates. If its task is discarded, memory learns its outcome when that arrives.
        """
        request = self._request(operation, kind, patient=patience >= TRY_ONLY_SECONDS)
        try:
            queue = None if self._unattached else self._link.here()
            if queue is None:
                queue = await self._attached()
            await self._submit(queue, request)
            return await self._outcome(queue, request, patience)
        except GeneratorExit:
            if request.withdraw():
                self._memory.note_end(operation)
            raise

    def leave(self) -> None:
        """After the loop was closed, withdraw the calls that have not begun: nobody waits for them."""
        for request, flight in list(self._in_flight.items()):
            if flight.queue.withdraw(request):
                self._memory.note_end(request.operation)

    async def attach(self, link: QueueLink[Any]) -> None:
        """Find the queue of another link; calls that wait for this continue in order."""
        async with self._attaching:
            await run_in_pool(link.find)

    async def _outcome(self, queue: CommitQueue, request: Request, patience: float) -> Any:
        """Wait for a queued call, and return its result."""
        began = self.loop.time()
        self._watch(request, _Flight(queue, began + patience if request.patient else math.inf))
        tries = not request.patient or isinstance(request.operation, Save)  # a save in the executor, as specified
        if queue.is_contended and not tries:
            self._wait_in_pool(queue)
        elif queue.needs_running() or not request.patient:
            self._drive(queue)
        try:
            await request.waiter
        except BaseException as error:
            withdrawn = queue.withdraw(request)
            self._in_flight.pop(request, None)
            if isinstance(error, asyncio.CancelledError) and not withdrawn:
                await self._wait_out(request)
                if isinstance(request.result, Turn):
                    await self.end(request.result, Operation("transaction"))
            raise
        if request.error is not None:
            raise request.error
        if request.is_withdrawn:
            raise await self._timed_out(queue, patience, self.loop.time() - began)
        return request.result

    async def end(self, turn: Turn, operation: Operation) -> None:
        """End a transaction with an operation; completes despite cancellation."""
        request = self._request(operation, Request, patient=True)
        turn.end(request)  # before the first await: even a discarded task does not leave the lock held
        try:
            await request.waiter
        except asyncio.CancelledError:
            await self._wait_out(request)
            raise
        if request.error is not None:
            raise request.error

    def _request(self, operation: Operation, kind: type[Request], *, patient: bool) -> Request:
        owner = Owner.current(blocks=False)
        request = kind(
            self._link.place, operation, owner, self._deliver,
            durable=self._durable, patient=patient, raises_if_corrupt=self._raises_if_corrupt,
        )  # fmt: skip
        request.waiter = self.loop.create_future()
        return request

    async def _attached(self) -> CommitQueue:
        """Find the queue of the file; calls that wait for this continue in order, and no later call overtakes them."""
        unattached = self._unattached
        unattached.append(None)
        try:
            async with self._attaching:
                queue = self._link.here()
                return queue if queue is not None else await run_in_pool(self._link.find)
        finally:
            unattached.pop()

    async def _submit(self, queue: CommitQueue, request: Request) -> None:
        """Queue a call; refuse one inside its own transaction, unless the loop is about to end the transaction."""
        for _ in range(_TURNS):
            try:
                return queue.submit(request)
            except ReentrantTransactionError:
                await asyncio.sleep(0)
        return queue.submit(request)

    async def _timed_out(self, queue: CommitQueue, patience: float, waited: float) -> LockTimeoutError:
        """Return the error of a call that timed out, without taking too long to build it."""
        finding = asyncio.ensure_future(run_in_pool(queue.find_holder))
        await asyncio.wait((finding,), timeout=_FIND_HOLDER_SECONDS)
        if finding.done():
            return timed_out(queue.name, patience, waited, finding.result())
        finding.cancel()
        return timed_out(queue.name, patience, waited, Holder())

    async def _wait_out(self, request: Request) -> None:
        """Wait for a call that has begun, despite cancellation by a task, a timeout, or a repeating cancel scope."""
        with shielded():
            while not request.arrived:
                request.waiter = self.loop.create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await request.waiter

    def _wait_in_pool(self, queue: CommitQueue) -> None:
        """Let a pool thread wait for the lock, once all ready tasks have made the calls that it will carry out."""
        if self._to_pool is not queue and queue.needs_running():
            self._to_pool = queue
            self.loop.call_soon(self._hand_over, queue)

    def _hand_over(self, queue: CommitQueue) -> None:
        self._to_pool = None
        if queue.needs_running() and not queue.wait_in_pool():
            self._drive(queue)

    def _drive(self, queue: CommitQueue) -> None:
        """Make sure that a task of this context runs the queue."""
        if self._driver is None or self._driver.done():
            self._driver = self.loop.create_task(self._run(queue))
            self._driver.add_done_callback(self._driven)

    async def _run(self, queue: CommitQueue) -> None:
        """Run the queue in the default executor, while calls are waiting and no thread runs it."""
        while True:
            await self._run_cycle()
            is_turned = queue is not self._link.here()  # load() found that the path points to another file
            if is_turned or not queue.needs_running():
                return

    def _driven(self, driver: asyncio.Task[None]) -> None:
        """Leave the rest to the pool, however the driver ended; it may have been cancelled before its first step."""
        failure = None if driver.cancelled() else driver.exception()
        if failure is not None:  # from an executor that was shut down, or an override
            self._give_up(lambda request: request.fail(own_copy(failure)))
        for queue in self._queues_in_flight():
            queue.run_elsewhere(even_if_busy=self._has_impatient())

    def _watch(self, request: Request, flight: _Flight) -> None:
        """Record when a request times out; one timer serves all requests, as most never time out."""
        self._in_flight[request] = flight
        self._set_clock(min(flight.deadline, self.loop.time() + (_TICK_SECONDS if request.patient else SOON_SECONDS)))

    def _set_clock(self, when: float) -> None:
        if self._clock is not None:
            if self._clock.when() <= when:
                return
            self._clock.cancel()
        self._clock = self.loop.call_at(when, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        now = self.loop.time()
        self._clock = None
        self._give_up(partial(self._is_late, now))
        if not self._in_flight:
            return
        for queue in self._queues_in_flight():
            queue.look_after(even_if_busy=self._has_impatient())
        # A call that has begun is over soon, or is withdrawn if its cycle has to be repeated.
        deadlines = (flight.deadline for flight in self._in_flight.values())
        coming = min((deadline for deadline in deadlines if deadline > now), default=math.inf)
        tick = SOON_SECONDS if self._has_impatient() else _TICK_SECONDS
        self._set_clock(min(max(coming, now + _SHORTEST_TICK_SECONDS), now + tick))

    def _is_late(self, now: float, request: Request) -> bool:
        flight = self._in_flight[request]
        return flight.deadline <= now and flight.queue.withdraw(request)

    def _queues_in_flight(self) -> Iterable[CommitQueue]:
        return dict.fromkeys(flight.queue for flight in self._in_flight.values())

    def _has_impatient(self) -> bool:
        return not all(request.patient for request in self._in_flight)

    def _give_up(self, withdrawn: Callable[[Request], bool]) -> None:
        for request in [request for request in self._in_flight if withdrawn(request)]:
            self._tell(request)

    def _tell(self, request: Request) -> None:
        self._in_flight.pop(request, None)
        self._memory.note_end(request.operation)
        request.arrived = True
        if not request.waiter.done():  # it is done if the caller is being cancelled
            request.waiter.set_result(None)

    def _deliver(self, requests: Sequence[Request]) -> None:
        """Deliver completed calls to the event loop; runs in the thread of the cycle."""
        self._memory.receive(requests)
        with contextlib.suppress(RuntimeError):  # the loop was closed, so there is no waiting task
            self.loop.call_soon_threadsafe(_Delivery(requests, self._arrive))

    def _arrive(self, requests: Sequence[Request]) -> None:
        try:
            self._memory.drain()
        finally:
            for request in requests:
                self._tell(request)


class _Delivery:
    """Completed calls on their way into an event loop. If it is closed before they arrive, their turns are given up.

    Args:
        requests: the calls.
        arrive: called with them in the loop.
    """

    __slots__ = ("_arrive", "_requests")

    def __init__(self, requests: Sequence[Request], arrive: Callable[[Sequence[Request]], None]) -> None:
        self._requests = requests
        self._arrive: Final = arrive

    def __call__(self) -> None:
        requests, self._requests = self._requests, ()
        self._arrive(requests)

    def __del__(self) -> None:
        for request in self._requests:
            if isinstance(request.result, Turn):
                request.result.abandon()
