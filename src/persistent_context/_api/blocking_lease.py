"""The context manager of a lease, for threads."""

from __future__ import annotations

from typing import Final

from .._engine.owner import Stay
from .._engine.request import Begin
from .._engine.turn import Turn
from .._model.operations import Operation
from ..types import Lease
from .blocking_calls import BlockingCalls
from .guarded import GuardedMemory
from .lease import LeaseName, Release

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks


class SyncLease:
    """The context manager that :meth:`SyncPersistentContext.lease` returns.

    Args:
        name: the name of the lease.
        patience: how long to wait for it, in seconds.
        memory: the memory of the context.
    """

    def __init__(self, name: LeaseName, patience: float, memory: GuardedMemory) -> None:
        self._name: Final = name
        self._patience: Final = patience
        self._calls: Final = BlockingCalls(name.link(), memory, durable=False, raises_if_corrupt=False)
        self._held: tuple[Turn, Stay] | None = None

    def __enter__(self) -> Lease:
        """Wait for the lease."""
        stay = Stay()
        turn: Turn | None = None
        try:
            with self._name.beginning(self._patience):
                turn = self._calls.perform(Operation(self._name.purpose), self._patience, kind=Begin)
            lease = self._name.lease(turn)
            self._held = turn, stay
        except BaseException:
            stay.leave()
            if turn is not None:
                turn.abandon()
            raise
        return lease

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Release the lease."""
        assert self._held is not None, "entered"
        turn, stay = self._held
        try:
            if error is None or not turn.is_inherited:
                self._name.check_owned(turn)
                with self._name.ending(error):
                    self._calls.end(turn, Release(self._name.purpose))
        finally:  # even if an interruption came before the end began
            stay.leave()
            turn.abandon()
