"""Values computed once for any number of processes: the engine of the pytest plugin."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import math
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from ..errors import UnserializableValueError
from .blocking import SyncPersistentContext

_VALUE: Final = "value"
_MARK: Final = "mark"
"""The key of a random mark that identifies one computation of a value."""
_NAP_SECONDS: Final = 1.0
"""The longest uninterrupted wait, so that Windows notices a Ctrl-C."""


class Once:
    """Computes values once for all processes that share a directory.

    Every key has its own file there, and its value is computed in a transaction on that file. So other processes wait
    in the kernel's queue, which blocks nothing else; if the computing process fails or is killed, the next one tries.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def value(self, key: str, factory: Callable[[], Any], teardown: Callable[[Any], Any] | None = None) -> Any:
        """Return a copy of the value of a key, computed now unless it is there. Blocks while another computes it.

        Args:
            key: the value's name.
            factory: computes it; if it is ``async``, the result is awaited in its own event loop.
            teardown: called with a value that was computed and cannot be kept, before the error is raised.

        Raises:
            Exception: what the factory raised; the next caller tries again.
            UnserializableValueError: JSON cannot hold the value.
        """
        context = self._context(key)
        context.load()
        if _VALUE in context:
            return context[_VALUE]
        mark = os.urandom(16).hex()
        computed: list[Any] = []
        try:
            with context.transaction() as tx:
                if _VALUE not in tx:
                    _call(factory, into=computed)
                    tx.update({"key": key, _VALUE: computed[0], _MARK: mark})
        except BaseException as error:
            if isinstance(error, UnserializableValueError):
                error.add_note(f"this is the value computed for {key!r}")
            if teardown and computed and not self._is_kept(key, mark):
                _call(teardown, computed[0])
            raise
        return context[_VALUE]

    def discard(self, key: str, teardown: Callable[[Any], Any]) -> None:
        """Tear a value down and forget it, unless another process did. Blocks while another process does.

        Raises:
            BaseException: what the teardown raised; the value is forgotten nevertheless.
        """
        failure: BaseException | None = None
        with self._context(key).transaction() as tx:
            if _VALUE in tx:
                try:
                    _call(teardown, tx[_VALUE])
                except BaseException as error:  # noqa: BLE001 - pytest.fail() and Ctrl-C as well; raised below
                    failure = error
                tx.clear()
        if failure is not None:
            raise failure

    def _is_kept(self, key: str, mark: str) -> bool:
        """Whether a value was written to the file despite an interruption."""
        context = self._context(key)
        context.load()
        return bool(context.get(_MARK) == mark)

    def _context(self, key: str) -> SyncPersistentContext:
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        return SyncPersistentContext(self._directory / f"{name}.json", durable=False, lock_timeout=math.inf)


def _call(function: Callable[..., Any], *args: Any, into: list[Any] | None = None) -> None:
    """Call a function, await what it returns if need be, and append the result to a list.

    An interruption may come after the result is there: what was started is in the list even then.
    """
    results = [] if into is None else into
    result = function(*args)
    if inspect.isawaitable(result):
        _Awaiting(result, results).wait()
    else:
        results.append(result)


class _Awaiting:
    """Awaits something in its own thread and event loop, as a loop may be running in this thread.

    The thread is a daemon: if it does not end when cancelled, it does not block the caller who gives up.
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
            # Else it was interrupted in the few instructions before there is a thread, or none could be started.
            if self._begun.wait(_NAP_SECONDS):  # pragma: no branch - no test hits these
                with contextlib.suppress(RuntimeError):  # the loop has been closed, so it was at its end
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
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends what the task leaves
                runner.run(self._finish())
        finally:
            self._ended.set()

    async def _finish(self) -> None:
        await asyncio.wait([self._task])

    async def _await(self, awaitable: Awaitable[Any], results: list[Any]) -> None:
        results.append(await awaitable)
