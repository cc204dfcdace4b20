"""An actor: one task or thread of a worker, which performs operations and logs their outcomes."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from persistent_context import DurabilityUnknownError, OutcomeUnknownError
from stress.children.assignment import Assignment
from stress.children.faces import Context
from stress.children.worker.witness import witness
from stress.logs.history import Kind, Log
from stress.logs.scribe import REFUSALS

DAWDLE_ONE_IN = 8
LONGEST_DAWDLING = 0.5
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Action:
    """A kind of operation: its name, its choice of a key, and its body."""

    workload: str
    name: str
    pick_key: Callable[[Actor], str]
    body: Callable[[Actor, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation in flight, as its body sees it."""

    token: str
    """Unique in the run: the value that the operation writes, so that its effect can be found."""
    key: str
    log: Log

    def note(self, note: Any) -> None:
        """Log, inside a transaction, what it saw and will commit."""
        self.log.write(Kind.NOTE, id=self.token, note=note)


@dataclass(slots=True)
class Actor:
    """One task or thread of a worker."""

    name: str
    """`worker.incarnation.task`"""
    random: Random
    context: Context
    fresh: Callable[[], Awaitable[Context]]
    """Opens another context on the file, which reads it at once."""
    progress: Callable[[], float]
    """Returns the part of the run that is over, from 0 to 1."""
    log: Log
    assignment: Assignment
    """The file."""
    stop: threading.Event
    crashed: bool = False
    calling: asyncio.Task[Any] | None = None
    """The operation in flight, which may be cancelled."""
    since: int = 0
    """`time.monotonic_ns()` when it began."""
    serials: Iterator[int] = field(default_factory=count)

    @property
    def seat(self) -> str:
        """`worker.task`: the same in all incarnations of a worker, of which only one is alive at a time."""
        worker, _, task = self.name.split(".")
        return f"{worker}.{task}"

    def dawdling(self) -> float:
        """Return how many seconds to spend inside a transaction: in a cluster often some, to be stopped there."""
        if self.assignment.endpoints and not self.random.randrange(DAWDLE_ONE_IN):
            return self.random.uniform(0.0, LONGEST_DAWDLING)
        return 0.0

    def _tokens(self) -> Iterator[str]:
        return (f"{self.name}.{serial}" for serial in self.serials)

    async def act(self, workloads: Mapping[str, Sequence[Action]]) -> None:
        """Perform one random operation after the other until asked to stop."""
        names = list(workloads)
        while not self.stop.is_set():
            await self.perform(self.random.choice(workloads[self.random.choice(names)]))

    async def act_some(self, workloads: Mapping[str, Sequence[Action]], number: int) -> None:
        """Perform this number of random operations."""
        names = list(workloads)
        for _ in range(number):
            await self.perform(self.random.choice(workloads[self.random.choice(names)]))

    async def perform(self, action: Action) -> None:
        """Perform and log one operation."""
        call = Call(next(self._tokens()), action.pick_key(self), self.log)
        self.log.write(Kind.INVOKE, id=call.token, workload=action.workload, name=action.name, key=call.key)
        self.since = time.monotonic_ns()
        self.calling = asyncio.ensure_future(action.body(self, call))
        try:
            result = await self.calling
            if self.calling.cancelling():
                message = "the call swallowed its cancellation"
                raise AssertionError(message)  # noqa: TRY301 (told like all that the library must not do)
        except REFUSALS as error:
            self.log.write(Kind.FAIL, id=call.token, error=str(error))
        except DurabilityUnknownError as error:
            self.log.write(Kind.INFO, id=call.token, error=str(error))
        except OutcomeUnknownError as error:
            self.log.write(Kind.INFO, id=call.token, error=str(error), pending=True)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (a finding, whatever it is)
            if isinstance(error, asyncio.CancelledError) and self.calling.cancelling():
                self.log.write(Kind.INFO, id=call.token, error="cancelled")
                witness(self.log, self.assignment, self._tokens(), action.workload, call.key)
                return
            self.log.write(Kind.CRASH, id=call.token, error=traceback.format_exc())
            self.crashed = True
            self.stop.set()
        else:
            self.log.write(Kind.OK, id=call.token, result=result)
