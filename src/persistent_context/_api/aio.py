"""The asyncio interface: PersistentContext."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any, Self, Unpack

from .._engine.request import Begin
from .._engine.turn import Turn
from .._engine.worker import run_in_pool
from .._model.merge import OnConflict
from .._model.operations import Operation
from .._model.values import Frozen
from ..errors import ContextUsageError
from ..types import Holder
from .aio_atomic import AsyncAtomic
from .aio_calls import LoopCalls
from .aio_coordination import AsyncCoordination
from .aio_executor import PatientExecutor
from .aio_transaction import AsyncTransaction
from .aio_watch import AsyncWatch
from .base import Reading
from .mapping import about_file
from .options import OnCorrupt, Options, check_timeout


class _Home(Frozen, frozen=True):
    """The event loop that a context belongs to."""

    loop: asyncio.AbstractEventLoop
    pid: int
    executor: PatientExecutor
    calls: LoopCalls


class PersistentContext(AsyncAtomic, AsyncCoordination):
    """A dictionary bound to one plain JSON file, for programs with an event loop.

    A context belongs to one event loop at a time: the first one that awaits a method, until that loop is closed. Other
    loops, threads and processes use their own contexts on the same file. The constructor does no I/O and needs no loop:
    until :meth:`load` or :meth:`save`, only keys that the context itself has set can be read.

    A context can be pickled for another process. The pickle has its class, absolute path and options, but no values and
    no unsaved changes: the copy has to be loaded.

    Args:
        filepath: the JSON file, a ``str`` or path object. A relative path is resolved against the current directory
            now; a leading ``~`` is the user's home directory (``./~`` is a directory of that name).
        durable: whether acknowledged changes survive a power loss, and not only the death of processes.
        lock_timeout: how long a call waits for its turn, in seconds; 0 (or less than 0.01) tries once, ``math.inf``
            waits forever.
        on_conflict: what to do about a place that another writer changed as well: ``"mine"`` (the last writer wins),
            ``"theirs"``, ``"raise"`` (:class:`ConflictError`), or ``fn(key, base, mine, theirs) -> value``, where
            ``MISSING`` means absent. The callable runs under the lock, in another thread: keep it pure and quick.
        on_corrupt: what to do if the file is not a JSON object, or a part of its journal is damaged: ``"aside"`` keeps
            it under another name, logs a warning, and continues with the rest; ``"raise"`` leaves it unchanged and
            raises :class:`CorruptFileError`. An empty file counts as new.
        journal: whether changes are appended to a journal beside the file, so that their cost depends on the size of
            the change instead of the file. This is a property of the file: the next call that writes sets it, and all
            contexts on the file follow it. ``None`` leaves it unchanged.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the timeout is negative or NaN, or a policy does not exist.
    """

    _DRAINS = False  # memory does not change between two awaits
    _LOADING = 'create() or load(), awaited, or "async with",'

    def __init__(  # noqa: PLR0913 - options are given by name
        self,
        filepath: str | os.PathLike[str],
        *,
        durable: bool = True,
        lock_timeout: float = 30.0,
        on_conflict: OnConflict = "mine",
        on_corrupt: OnCorrupt = "aside",
        journal: bool | None = None,
    ) -> None:
        super().__init__(
            filepath,
            durable=durable,
            lock_timeout=lock_timeout,
            on_conflict=on_conflict,
            on_corrupt=on_corrupt,
            journal=journal,
        )
        self._lock = asyncio.Lock()
        self._home: _Home | None = None

    @classmethod
    async def create(cls, filepath: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Create a context and load it; this is the recommended constructor. Suspends.

        Args:
            filepath: the JSON file.
            options: ``durable``, ``lock_timeout``, ``on_conflict``, ``on_corrupt`` and ``journal``; see the class.

        Raises:
            OSError: or any other exception that :meth:`load` raises.
        """
        context = cls(filepath, **options)
        await context.load()
        return context

    async def __aenter__(self) -> Self:
        """Load, with a warning if that drops unsaved changes. Suspends."""
        self._warn_of_dropped_changes()
        await self.load()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Save, unless the block raised an exception. Suspends."""
        if error is None:
            await self.save()

    async def load(self) -> None:
        """Replace memory with the content of the file, dropping unsaved changes. Suspends; takes no lock.

        A missing or empty file reads as an empty dictionary. A corrupt file is moved aside to
        ``<name>.corrupt-<time>-<random>``, under the lock and after reading it again, and a warning is logged, unless
        the context has ``on_corrupt="raise"``.

        Raises:
            CorruptFileError: the file is corrupt, and ``on_corrupt="raise"``.
            NotARegularFileError: the path is a directory, FIFO or device.
            LockTimeoutError: the file is corrupt, and the lock to move it aside could not be acquired in time.
            OSError: the file could not be read or moved aside.
        """
        executor = self._enter_loop().executor
        async with self._lock:
            reading = await executor.run(self._sync_load_internal)
        if not self._take_over(reading):
            await self._perform(self._reload())

    async def save(self) -> None:
        """Merge the changes that are unsaved now into the file, and take over what others changed. Suspends.

        If there is nothing to save, nothing is written, except that a missing file is created.

        Raises:
            LockTimeoutError: the lock could not be acquired within the timeout; nothing was written.
            ConflictError: another writer changed the same places; nothing was written.
            CorruptFileError: the file is corrupt, and ``on_corrupt="raise"``; nothing was written.
            PermissionError: the user of this process may not write the file; nothing was written.
            UnserializableValueError: JSON cannot hold a value; nothing was written.
            DurabilityUnknownError: the file was replaced, but may not survive a power loss.
            ReentrantTransactionError: this task is inside a transaction on the same file.
            OSError: nothing was written, and the changes are still unsaved.
        """
        await self._perform(self._save())

    async def refresh(self) -> None:
        """Take over what others changed, and keep what is unsaved: a :meth:`save` that writes nothing. Suspends.

        Where others changed the same place as an unsaved change, memory keeps its own value, and the next :meth:`save`
        settles the conflict. If the file is missing, memory is not changed, and the next :meth:`save` writes all of it.

        Raises:
            OSError: or any other exception that :meth:`load` raises.
        """
        executor = self._enter_loop().executor
        async with self._lock:
            reading = await executor.run(self._sync_refresh_internal)
        if not self._take_over(reading):
            await self._perform(self._refresh())

    async def checkpoint(self) -> None:
        """Fold the journal into the JSON file, so that programs that read only this file see every change. Suspends.

        If there is no journal, or it is empty, nothing is written. The library also does this automatically: after a
        second without writes, when the journal exceeds both the JSON file and 1 MiB, and when the interpreter exits.

        Raises:
            OSError: or any other exception that :meth:`save` raises.
        """
        await self._perform(self._checkpoint())

    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a context manager for exclusive access to the file, across tasks, threads and processes.

        ``async with ctx.transaction() as tx:`` gives a mapping over the file's committed state. Changes made in it are
        committed together when the block ends, and discarded if it raises an exception. A block that changes nothing
        writes nothing. Entering and leaving suspend; the body may await anything except another call on the same
        file.

        Args:
            timeout: how long to wait for the lock, in seconds; by default the context's ``lock_timeout``.

        Raises:
            LockTimeoutError: on entering.
            ReentrantTransactionError: on entering, if this task already has one open on the same file.
            LockLostError: on leaving, if the lock file was deleted in the meantime; nothing was written.
            OSError: on leaving; or any other exception that :meth:`save` raises.
        """
        patience = self._lock_timeout if timeout is None else check_timeout(timeout, "timeout")
        return AsyncTransaction(partial(self._begin_transaction, patience), self._workspace, self._end_transaction)

    def watch(self, *keys: str) -> AsyncWatch:
        """Return an iterator over changes by other writers: other processes, and other contexts in this process.

        ``async for changes in ctx.watch("a"):`` yields dictionaries that map each changed key to its :class:`Change`.
        The first one has all changes since the state that this context knew when ``watch()`` was called.
        Intermediate values may be skipped, but never the last one. Memory is not changed; ``load()`` or ``save()``
        takes the changes over. Each step suspends until there are changes.

        With the package ``watchfiles`` (the extra ``watch``) a change is seen in less than a tenth of a second.
        Without it, or where the file system reports no events, the file is checked twenty times a second.

        Args:
            keys: the keys to watch; all of them if none is given.

        Returns:
            An asynchronous iterator and context manager with ``aclose()``. It closes itself when garbage collected.

        Raises:
            OSError: on getting the next changes, if the file cannot be read. A missing file has no keys.
        """
        return AsyncWatch(self._path, self._observer(keys))

    async def lock_holder(self) -> Holder | None:
        """Return the current holder of the file's lock, or None. Suspends.

        Raises:
            OSError: the lock file cannot be read.
        """
        self._enter_loop()
        return await run_in_pool(self._sync_lock_holder)

    def _sync_load_internal(self) -> Reading | None:
        """Read and split the file; runs in the default executor."""
        return self._read()

    def _sync_refresh_internal(self) -> Reading | None:
        """Read the file; runs in the default executor."""
        return self._read(whole=False)

    def _sync_save_internal(self) -> None:
        """Run a lock cycle for all waiting calls, if the lock is free; runs in the default executor."""
        self._link.here_or_found().run()

    def _sync_lock_holder(self) -> Holder | None:
        with about_file(self._path):
            return self._link.here_or_found().store.holder()

    async def _run_cycle(self) -> None:
        executor = self._enter_loop().executor
        async with self._lock:
            await executor.run(self._sync_save_internal)

    async def _perform(self, operation: Operation) -> Any:
        try:
            return await self._enter_loop().calls.perform(operation, self._lock_timeout)
        except GeneratorExit:
            raise  # the task was discarded, and the call may have begun
        except BaseException:
            self._memory.note_end(operation)
            raise

    async def _begin_transaction(self, patience: float) -> Turn:
        turn: Turn = await self._enter_loop().calls.perform(Operation("transaction"), patience, kind=Begin)
        return turn

    async def _end_transaction(self, turn: Turn, operation: Operation) -> None:
        assert self._home is not None, "entered"
        await self._home.calls.end(turn, operation)

    def _enter_loop(self) -> _Home:
        """Return the state that belongs to the running loop."""
        loop = asyncio.get_running_loop()
        home = self._home
        if home is None or home.loop is not loop:
            if home is not None and home.pid == os.getpid():
                if not home.loop.is_closed():
                    message = (
                        "this context belongs to another event loop, which is still open; create one context per loop"
                    )
                    raise ContextUsageError(message).about(self._path)
                home.calls.leave()
            self._lock = asyncio.Lock()
            calls = LoopCalls(
                loop, self._link, self._memory, self._run_cycle,
                durable=self._durable, raises_if_corrupt=self._raises_if_corrupt,
            )  # fmt: skip
            self._home = home = _Home(loop, os.getpid(), PatientExecutor(loop), calls)
        return home
