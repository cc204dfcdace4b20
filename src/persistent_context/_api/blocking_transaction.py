"""The context manager of a transaction, for threads."""

from __future__ import annotations

from collections.abc import Callable

from .._engine.owner import Stay
from .._engine.turn import Turn
from .._model.operations import Operation
from .._model.snapshot import Snapshot
from .transaction import Transaction
from .workspace import Workspace


class SyncTransaction:
    """The context manager that :meth:`SyncPersistentContext.transaction` returns.

    Args:
        begin: waits for the turn.
        work: returns the workspace for a turn.
        end: ends a turn with an operation.
    """

    def __init__(
        self,
        begin: Callable[[], Turn],
        work: Callable[[Snapshot], Workspace],
        end: Callable[[Turn, Operation], None],
    ) -> None:
        self._begin = begin
        self._work = work
        self._end = end
        self._open: tuple[Turn, Workspace, Stay] | None = None

    def __enter__(self) -> Transaction:
        """Wait for the turn."""
        stay = Stay()
        turn: Turn | None = None
        try:
            turn = self._begin()
            workspace = self._work(turn.snapshot)
            transaction = Transaction(workspace)
            self._open = turn, workspace, stay
        except BaseException:
            stay.leave()
            if turn is not None:
                turn.abandon()
            raise
        return transaction

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Commit, or discard after an exception."""
        try:
            self._finish(error)
        finally:
            self._clear()  # even if an interruption came before the end began

    def _finish(self, error: BaseException | None) -> None:
        assert self._open is not None, "entered"
        turn, workspace, _ = self._open
        if error is not None and turn.is_inherited:
            return  # only the parent can end the transaction; the exception propagates
        operation = Operation("transaction")
        try:
            if error is None:
                operation = workspace.commit()
        finally:
            self._end(turn, operation)

    def _clear(self) -> None:
        assert self._open is not None, "entered"
        turn, workspace, stay = self._open
        stay.leave()
        turn.abandon()
        workspace.close()
