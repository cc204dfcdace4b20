"""Values that are computed once, however many processes ask for them: the engine of the pytest plugin."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ._errors import UnserializableValueError
from ._sync import SyncPersistentContext

_VALUE: Final = "value"


class Once:
    """Computes values once for all processes that share a directory.

    Every key has a file of its own there, and its value is computed in a transaction on that file. So the others wait
    in the kernel's queue, which holds up nothing else; and if who computes fails or is killed, the next one tries.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def value(self, key: str, factory: Callable[[], Any]) -> Any:
        """Return a copy of the value of a key, computed now unless it is there. Blocks while another computes it.

        Args:
            key: the value's name.
            factory: computes it; what an ``async`` one returns is awaited, in a loop of its own.

        Raises:
            Exception: what the factory raised; the next one who asks tries anew.
            UnserializableValueError: JSON cannot hold the value.
        """
        context = self._context(key)
        context.load()
        if _VALUE not in context:
            try:
                with context.transaction() as tx:
                    if _VALUE not in tx:
                        tx.update({"key": key, _VALUE: _result(factory)})
            except UnserializableValueError as error:
                error.add_note(f"it is the value that was computed for {key!r}")
                raise
        return context[_VALUE]

    def discard(self, key: str, teardown: Callable[[Any], Any]) -> None:
        """Tear a value down and forget it, unless another did. Blocks while another does.

        Raises:
            Exception: what the teardown raised; the value is forgotten all the same.
        """
        failure: Exception | None = None
        with self._context(key).transaction() as tx:
            if _VALUE in tx:
                try:
                    _result(teardown, tx[_VALUE])
                except Exception as error:  # noqa: BLE001 - raised below
                    failure = error
                tx.clear()
        if failure is not None:
            raise failure

    def _context(self, key: str) -> SyncPersistentContext:
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        return SyncPersistentContext(self._directory / f"{name}.json", durable=False, lock_timeout=math.inf)


def _result(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns, awaited if need be, in another thread, as a loop may run in this one."""
    result = function(*args)
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, wait()).result()
