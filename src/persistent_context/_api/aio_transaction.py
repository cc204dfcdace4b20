"""The context manager of a transaction on an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .._engine.turn import Turn
from .._model.operations import Operation
from .._model.snapshot import Snapshot
from .transaction import Transaction
from .workspace import Workspace


class AsyncTransaction:
    """The context manager that :meth:`PersistentContext.transaction` returns.

    Args:
        begin: waits for the turn.
        work: returns the workspace for a turn.
        end: ends a turn with an operation.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Turn]],
        work: Callable[[Snapshot], Workspace],
        end: Callable[[Turn, Operation], Awaitable[None]],
    ) -> None:
        self._begin = begin
        self._work = work
        self._end = end
        self._open: tuple[Turn, Workspace] | None = None

    async def __aenter__(self) -> Transaction:
        """Wait for the turn."""
        turn = await self._begin()
        workspace = self._work(turn.snapshot)
        transaction = Transaction(workspace)
        self._open = turn, workspace
        return transaction

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Commit, or discard after an exception."""
        assert self._open is not None, "entered"
        turn, workspace = self._open
        if error is not None and turn.is_inherited:
            return  # only the parent can end the transaction; the exception propagates
        operation = Operation("transaction")
        is_left = False
        try:
            if error is None:
                operation = workspace.commit()
        finally:
            try:
                if isinstance(error, GeneratorExit):  # the task was discarded: nothing can be awaited
                    turn.abandon()
                else:
                    await self._end(turn, operation)
            except GeneratorExit:  # it was discarded meanwhile
                is_left = True
                raise
            finally:
                workspace.close(left=operation if is_left else None)
