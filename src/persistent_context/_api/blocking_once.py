"""Computing a value once, in a thread; the pytest plugin uses it as well, with a teardown."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .._model.values import MISSING
from .blocking_lease import SyncLease
from .blocking_transaction import SyncTransaction
from .guarded import GuardedMemory
from .link import Link
from .once import Wanted

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks

_NAP_SECONDS: Final = 1.0
"""The longest uninterrupted wait, so that Windows notices a Ctrl-C."""


class SyncOnce:
    """Computes values once for all processes, threads and tasks.

    Args:
        link: finds the store.
        memory: the memory of the context.
        transaction: returns a new transaction of the context.
        lease: returns a new lease that is held while the value of a key is computed.
    """

    def __init__(
        self,
        link: Link,
        memory: GuardedMemory,
        transaction: Callable[[], SyncTransaction],
        lease: Callable[[str], SyncLease],
    ) -> None:
        self._link: Final = link
        self._memory: Final = memory
        self._transaction: Final = transaction
        self._lease: Final = lease

    def value(self, wanted: Wanted, factory: Callable[[], Any], teardown: Callable[[Any], Any] | None = None) -> Any:
        """Return a copy of the value; see :meth:`SyncPersistentContext.compute_once`.

        Args:
            wanted: the value.
            factory: computes it.
            teardown: called with a value that was computed but could not be stored, before the error is raised.
        """
        wanted.check_not_running()
        value = wanted.find_known(self._link, self._memory)
        if value is MISSING:
            value = self._find(wanted)
        if value is not MISSING:
            return value
        with self._lease(wanted.key):
            value = self._find(wanted)
            return self._compute(wanted, factory, teardown) if value is MISSING else value

    def discard(self, wanted: Wanted, teardown: Callable[[Any], Any]) -> None:
        """Tear down a value and forget it, unless another process has. Blocks while another process does so.

        Raises:
            BaseException: what the teardown raised; the value is forgotten nevertheless.
        """
        with self._lease(wanted.key):
            value = self._find(wanted)
            if value is MISSING:
                return
            try:
                _call(teardown, value)
            finally:
                with self._transaction() as tx:
                    tx.pop(wanted.key, None)

    def _find(self, wanted: Wanted) -> Any:
        """Return the value if it is stored, and let memory take it over; otherwise MISSING."""
        with self._transaction() as tx:
            return wanted.find(tx)

    def _compute(self, wanted: Wanted, factory: Callable[[], Any], teardown: Callable[[Any], Any] | None) -> Any:
        computed: list[Any] = []
        try:
            with wanted.running():
                _call(factory, into=computed)
            value = wanted.checked(computed[0])
            with self._transaction() as tx:
                return wanted.keep(tx, value)
        except BaseException:  # an interruption may come after the value was stored
            if teardown and computed and not wanted.is_stored(self._link):
                _call(teardown, computed[0])
            raise


def _call(function: Callable[..., Any], *args: Any, into: list[Any] | None = None) -> None:
    """Call a function, await its result if that is awaitable, and append it to a list.

    If an interruption comes after the function has returned, the result is in the list nevertheless.
    """
    results = [] if into is None else into
    result = function(*args)
    if inspect.isawaitable(result):
        _Awaiting(result, results).wait()
    else:
        results.append(result)


class _Awaiting:
    """Awaits something in its own thread and event loop, as a loop may be running in this thread.

    The thread is a daemon: if it does not end when cancelled, it does not block a caller that gives up.
    """

    def __init__(self, awaitable: Awaitable[Any], results: list[Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._await(awaitable, results))
        self._begun = threading.Event()
        self._ended = threading.Event()

    def wait(self) -> None:
        """Wait for the end. An exception from outside, such as a Ctrl-C, cancels; a second one gives up."""
        try:
            threading.Thread(target=self._run, name="persistent-context once", daemon=True).start()
            self._wait()
        except BaseException:
            # Otherwise the interruption came just before the thread existed, or no thread could be started.
            if self._begun.wait(_NAP_SECONDS):  # pragma: no branch - no test hits these
                with contextlib.suppress(RuntimeError):  # the loop has been closed, so the task has ended
                    self._loop.call_soon_threadsafe(self._task.cancel)
                self._wait()
            raise
        self._task.result()

    def _wait(self) -> None:
        while not self._ended.wait(_NAP_SECONDS):
            pass

    def _run(self) -> None:
        self._begun.set()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends what the task leaves running
                runner.run(self._finish())
        finally:
            self._ended.set()

    async def _finish(self) -> None:
        await asyncio.wait([self._task])

    async def _await(self, awaitable: Awaitable[Any], results: list[Any]) -> None:
        results.append(await awaitable)
