"""A call on its way through a cycle, its caller, and whether it has begun or was withdrawn.

All decisions here are single operations that the interpreter does not interrupt: a signal handler, or a finalizer run
by the garbage collector, may make a call in the middle of another call of the same thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from .._model.operations import Operation
from .._model.snapshot import Snapshot
from .owner import Owner

Deliver: TypeAlias = "Callable[[Sequence[Request]], None]"


class _Fate(enum.Enum):
    BEGUN = enum.auto()
    WITHDRAWN = enum.auto()


class Request:
    """One call on its way through a cycle."""

    __slots__ = (
        "_fate",
        "_is_unwanted",
        "arrived",
        "deliver",
        "durable",
        "error",
        "goes_alone",
        "operation",
        "owner",
        "patient",
        "place",
        "position",
        "raises_if_corrupt",
        "result",
        "snapshot",
        "waiter",
    )

    def __init__(  # noqa: PLR0913 - made in one place for asyncio, and one for threads
        self,
        place: str,
        operation: Operation,
        owner: Owner,
        deliver: Deliver,
        *,
        durable: bool = True,
        patient: bool = True,
        raises_if_corrupt: bool = False,
    ) -> None:
        self.place: Final = place
        """Where the store is, as far as the caller knows: by now, the place may lead to another store."""
        self.operation: Final = operation
        self.owner: Final = owner
        self.deliver: Final = deliver
        """Receives the completed requests of a cycle, in order, in the thread of the cycle; never raises."""
        self.durable: Final = durable
        self.patient: Final = patient
        """Whether it waits for the lock, instead of trying once."""
        self.raises_if_corrupt: Final = raises_if_corrupt
        """Whether it fails if what is stored is corrupt, instead of setting that aside."""
        self.waiter: Any = None
        """What the caller waits on; not used here."""
        self.arrived = False
        """Whether the caller has been notified that the call is over."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.snapshot: Snapshot | None = None
        """The state after the cycle, or None if the operation failed."""
        self.goes_alone = False
        """Whether no other call may share its cycle: together, they changed more than the store accepts at once."""
        self.position = 0
        """The number of the cycle that carried it, among all cycles of this process."""
        self._fate: dict[None, _Fate] = {}  # decided once, by the first to set the default
        self._is_unwanted = False

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was withdrawn, and never takes effect."""
        return self._fate.get(None) is _Fate.WITHDRAWN

    @property
    def is_waiting(self) -> bool:
        """Whether it was neither taken by a cycle nor withdrawn."""
        return not self._fate

    def begin(self) -> bool:
        """Take the call into a cycle; return False if it was withdrawn."""
        return self._fate.setdefault(None, _Fate.BEGUN) is _Fate.BEGUN

    def withdraw(self) -> bool:
        """Withdraw a call that has not begun, so that it never takes effect; return whether it is withdrawn.

        A call that has begun is not begun again if its cycle has to be repeated.
        """
        self._is_unwanted = True
        return self._fate.setdefault(None, _Fate.WITHDRAWN) is _Fate.WITHDRAWN

    def reopen(self) -> bool:
        """Let a call whose cycle has to be repeated wait again; return whether it is still wanted."""
        self.result = self.error = None
        self._fate = {}
        return not (self._is_unwanted and self.withdraw())

    def fail(self, error: BaseException) -> bool:
        """Withdraw a call that has not begun, with an error; return whether it was withdrawn."""
        if not self.withdraw():
            return False
        self.error = error
        return True


class Begin(Request):
    """The beginning of a transaction; the result is the turn."""

    __slots__ = ()
