"""Forks a worker that holds contexts and is in the middle of its work; the child uses the file, too."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random

from stress.children.assignment import Assignment
from stress.children.faces import Context
from stress.children.worker.actor import Actor
from stress.logs.history import Kind, Log
from stress.workloads import WORKLOADS

TASKS = 3
"""Actors in a child."""
OPERATIONS = 6
"""Operations of each of them, after which the child ends."""


class Forker:
    """Forks one child after the other."""

    def __init__(
        self,
        assignment: Assignment,
        contexts: Sequence[Context],
        fresh: Callable[[], Awaitable[Context]],
        log: Log,
        stop: threading.Event,
        *,
        threaded: bool,
    ) -> None:
        """Prepare; `contexts` are those that a child inherits, and may be opened later."""
        self._threaded = threaded
        self._assignment = assignment
        self._contexts = contexts
        self._fresh = fresh
        self._log = log
        self._stop = stop
        self._random = Random(f"{assignment.seed} {assignment.name} forks")
        self.crashed = False

    def run(self) -> None:
        """Fork until asked to stop."""
        if not self._assignment.fork_every:
            return
        # Since Python 3.12, forking a process with threads causes a warning. It is done here on purpose.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        for number in count():
            if self._stop.wait(self._assignment.fork_every * self._random.uniform(0.5, 1.5)):
                return
            self._fork(number)

    def _fork(self, number: int) -> None:
        """Fork a child, and wait for its end."""
        inherited = self._random.choice([None, *self._contexts])
        pid = os.fork()
        if not pid:
            self._be_a_child(number, inherited)
        self._log.write(Kind.FAULT, name="fork", target=self._assignment.name)
        _, status = os.waitpid(pid, 0)
        if status:
            how = f"the forked child {number} ended with {os.waitstatus_to_exitcode(status)}; it was to use "
            how += "an inherited context" if inherited else "a context of its own"
            self._log.write(Kind.CRASH, id=self._assignment.name, error=how)
            self.crashed = True
            self._stop.set()

    def _be_a_child(self, number: int, inherited: Context | None) -> None:
        code = 1
        try:
            code = self._work(number, inherited)
        except BaseException:  # noqa: BLE001 (the end of the process tells it)
            traceback.print_exc()
        finally:
            os._exit(code)

    def _work(self, number: int, inherited: Context | None) -> int:
        """Use an inherited context, or a new one; return the exit code."""
        log = Log(self._assignment.log_of_child(number))
        if self._threaded:
            context = asyncio.run(self._begin(inherited))
            actors = [self._make_actor(number, seat, context, log) for seat in range(TASKS)]
            with ThreadPoolExecutor(TASKS) as pool:
                for _ in pool.map(lambda actor: asyncio.run(actor.act_some(WORKLOADS, OPERATIONS)), actors):
                    pass
        else:
            actors = asyncio.run(self._run_tasks(number, inherited, log))
        return int(any(actor.crashed for actor in actors))

    async def _run_tasks(self, number: int, inherited: Context | None, log: Log) -> list[Actor]:
        context = await self._begin(inherited)
        actors = [self._make_actor(number, seat, context, log) for seat in range(TASKS)]
        await asyncio.gather(*(actor.act_some(WORKLOADS, OPERATIONS) for actor in actors))
        return actors

    async def _begin(self, inherited: Context | None) -> Context:
        context = inherited or await self._fresh()
        await context.load()  # the parent's unsaved changes are for the parent to save
        return context

    def _make_actor(self, number: int, seat: int, context: Context, log: Log) -> Actor:
        name = f"{self._assignment.name}.f{seat}"
        return Actor(
            name=name,
            random=Random(f"{self._assignment.seed} {name} {number}"),
            context=context,
            fresh=self._fresh,
            progress=self._assignment.progress,
            log=log,
            assignment=self._assignment,
            stop=threading.Event(),  # the lock of the inherited one may have been held by a thread of the parent
            serials=count(number * TASKS * OPERATIONS),
        )
