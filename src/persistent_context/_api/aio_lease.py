"""The context manager of a lease on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from .._engine.request import Begin
from .._engine.turn import Turn
from .._engine.worker import run_in_pool
from .._model.operations import Operation
from ..types import Lease
from .aio_calls import LoopCalls
from .guarded import GuardedMemory
from .lease import LeaseName, Release
from .link import LeaseLink

Attach: TypeAlias = Callable[[LeaseLink], Awaitable[None]]


class AsyncLease:
    """The context manager that :meth:`PersistentContext.lease` returns.

    Args:
        name: the name of the lease.
        patience: how long to wait for it, in seconds.
        memory: the memory of the context.
        attach: finds the queue of the lease, keeping calls in order; fails if the context belongs to another loop.
    """

    def __init__(self, name: LeaseName, patience: float, memory: GuardedMemory, attach: Attach) -> None:
        self._name: Final = name
        self._patience: Final = patience
        self._memory: Final = memory
        self._attach: Final = attach
        self._held: tuple[LoopCalls, Turn] | None = None

    async def __aenter__(self) -> Lease:
        """Wait for the lease."""
        link = self._name.link()
        await self._attach(link)

        async def run_cycle() -> None:
            await run_in_pool(link.here_or_found().run)

        loop = asyncio.get_running_loop()
        calls = LoopCalls(loop, link, self._memory, run_cycle, durable=False, raises_if_corrupt=False)
        with self._name.beginning(self._patience):
            turn: Turn = await calls.perform(Operation(self._name.purpose), self._patience, kind=Begin)
        self._held = calls, turn
        return self._name.lease(turn)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Release the lease."""
        if self._held is None:  # it was handed over
            return
        calls, turn = self._held
        if isinstance(error, GeneratorExit):  # the task was discarded: nothing can be awaited
            turn.abandon()
        elif error is None or not turn.is_inherited:
            self._name.check_owned(turn)
            with self._name.ending(error):
                await calls.end(turn, Release(self._name.purpose))

    def hand_over(self) -> Callable[[], None]:
        """Give up the lease: return a function that releases it, in any thread, without waiting."""
        assert self._held is not None, "entered"
        (_, turn), self._held = self._held, None
        return turn.hand_over()
