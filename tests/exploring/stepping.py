"""An event loop and threads that only move on request: asyncio and the library's threads, all in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

from persistent_context._engine import worker as _worker


@contextlib.contextmanager
def threads_are_jobs() -> Iterator[None]:
    """Turn what the library would run in its own threads into jobs of the stepped loop: the only hook inside it."""

    def submit(_threads: object, job: Callable[[], object], _name: str = "") -> bool:
        SteppedLoop.current.add_job(job, "thread")
        return True

    threads = getattr(_worker, "DaemonPool", None) or _worker.DaemonWorker
    with mock.patch.object(threads, "submit", submit):
        yield


class Job:
    """The work of a thread: first it runs, in one go, and then its results are delivered to the loop.

    The library's results are delivered in the order in which they were sent. The notice of asyncio that an executor job
    has finished may arrive at any time after that.
    """

    def __init__(self, number: int, function: Callable[[], object], name: str) -> None:
        self.number = number
        self.function = function
        self.name = name
        self.told: list[asyncio.Handle] = []
        self.done: asyncio.Handle | None = None


class SteppedLoop(asyncio.AbstractEventLoop):
    """An event loop whose turns, and whose executor's jobs, happen only on request."""

    current: ClassVar[SteppedLoop]

    def __init__(self) -> None:
        self.ready: deque[asyncio.Handle] = deque()
        self.jobs: dict[int, Job] = {}
        self.told: dict[int, Job] = {}
        self.done: dict[int, Job] = {}
        self.failures: list[str] = []
        self._numbers = itertools.count()
        self._job_numbers = itertools.count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._running_job: Job | None = None
        self._now = 0.0

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Be the running loop, and the one whose threads do the jobs."""
        SteppedLoop.current = self
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    # The steps.

    def turn(self) -> None:
        """Run what is ready, but not what becomes ready during the turn."""
        for _ in range(len(self.ready)):
            self._run(self.ready.popleft())

    def run_last(self) -> None:
        """Run what became ready last."""
        self._run(self.ready.pop())

    def run_job(self, number: int) -> None:
        """Run a job, whose results are kept until they are delivered."""
        job = self._running_job = self.jobs.pop(number)
        asyncio._set_running_loop(None)
        try:
            job.function()
        finally:
            asyncio._set_running_loop(self)
            self._running_job = None
        if job.told:
            self.told[number] = job
        if job.done:
            self.done[number] = job

    def tell(self, number: int) -> None:
        """Deliver the library's results of a job."""
        self.ready.extend(self.told.pop(number).told)

    def end(self, number: int) -> None:
        """Deliver the notice that a job of the executor has finished."""
        self.ready.append(self.done.pop(number).done)

    def pass_time(self) -> bool:
        """Advance the time to the next timer; return whether there was a near one."""
        while self._timers:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                if when > self._now + 5:
                    heapq.heappush(self._timers, (when, next(self._numbers), timer))
                    return False
                self._now = max(self._now, when)
                self.ready.append(timer)
                return True
        return False

    def add_job(self, function: Callable[[], object], name: str) -> None:
        """Add a job for a thread, to run at some later step."""
        number = next(self._job_numbers)
        self.jobs[number] = Job(number, function, name)

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            handle._run()

    # The interface of a loop that asyncio and the library use.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if self._running_job is None:
            return self.call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        self._running_job.told.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()

        def settle(setter: Callable[[Any], None], outcome: Any) -> None:
            if not future.done():
                setter(outcome)

        def job() -> None:
            try:
                setter, outcome = future.set_result, function(*args)
            except BaseException as error:
                setter, outcome = future.set_exception, error
            self._running_job.done = asyncio.Handle(settle, (setter, outcome), self, None)

        self.add_job(job, getattr(function, "__name__", "job"))
        return future

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def _timer_handle_cancelled(self, _timer: object) -> None:
        """Nothing to do: a cancelled timer is skipped."""
