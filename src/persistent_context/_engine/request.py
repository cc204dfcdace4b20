"""A call on its way through a cycle, its caller, and whether it has begun or was withdrawn.

All decisions here are single operations that the interpreter does not interrupt: a signal handler, or a finalizer run
by the garbage collector, may make a call in the middle of another call of the same thread.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeAlias

from .._model.operations import Operation
from .._stores.jsonfile.document import Document

Deliver: TypeAlias = "Callable[[Sequence[Request]], None]"


class _Fate(enum.Enum):
    BEGUN = enum.auto()
    WITHDRAWN = enum.auto()


class Stay:
    """A blocking transaction, as recorded in the ``contextvars`` context in which it was entered.

    The thread alone does not identify the caller: a web framework may enter in one pool thread, leave in another, and
    run other requests in the first one meanwhile. Contexts hold weak references; the transaction keeps it alive.
    """

    __slots__ = ("__weakref__", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        _stays.set((*_open_stays(), weakref.ref(self)))

    def leave(self) -> None:
        """Note that it is over, in all contexts."""
        self.is_over = True
        _stays.set(_open_stays())


_stays: ContextVar[tuple[weakref.ref[Stay], ...]] = ContextVar("persistent_context_stays", default=())


def _open_stays() -> tuple[weakref.ref[Stay], ...]:
    return tuple(known for known in _stays.get() if (stay := known()) is not None and not stay.is_over)


class Owner(NamedTuple):
    """The caller of a call."""

    thread: int
    loop: weakref.ref[asyncio.AbstractEventLoop] | None
    """The event loop that runs in the thread, if any."""
    task: weakref.ref[asyncio.Task[Any]] | None
    """The current task; weak, so that a transaction does not keep a discarded task alive."""
    blocks: bool
    """Whether the call blocks the thread."""
    stays: tuple[weakref.ref[Stay], ...]
    """The blocking transactions that it is inside of, latest last."""

    @classmethod
    def current(cls, *, blocks: bool) -> Owner:
        """Return the caller of a call made here and now."""
        try:
            loop = weakref.ref(asyncio.get_running_loop())
        except RuntimeError:  # none runs in this thread
            return cls(threading.get_ident(), None, None, blocks, _stays.get())
        task = asyncio.current_task()
        return cls(threading.get_ident(), loop, None if task is None else weakref.ref(task), blocks, _stays.get())

    def is_inside(self, holder: Owner) -> bool:
        """Whether it is inside the holder's transaction."""
        if holder.task is not None:
            return holder.task == self.task
        return holder.thread == self.thread and bool(holder.stays) and holder.stays[-1] in self.stays

    def would_hold_up(self, other: Owner) -> bool:
        """Whether the other owner's task cannot continue while this call blocks."""
        return self.blocks and not other.blocks and self.loop is not None and self.loop == other.loop


class Request:
    """One call on its way through a cycle."""

    __slots__ = (
        "_fate",
        "_is_unwanted",
        "arrived",
        "deliver",
        "document",
        "durable",
        "error",
        "operation",
        "owner",
        "path",
        "patient",
        "position",
        "result",
        "waiter",
    )

    def __init__(  # noqa: PLR0913 - made in one place of each face
        self,
        path: str,
        operation: Operation,
        owner: Owner,
        deliver: Deliver,
        *,
        durable: bool = True,
        patient: bool = True,
    ) -> None:
        self.path: Final = path
        """The file, as the caller knows it: a symlink may point elsewhere by now."""
        self.operation: Final = operation
        self.owner: Final = owner
        self.deliver: Final = deliver
        """Receives the completed requests of a cycle, in order, in the thread of the cycle; never raises."""
        self.durable: Final = durable
        self.patient: Final = patient
        """Whether it waits for the lock, instead of trying once."""
        self.waiter: Any = None
        """What the caller waits on; not used here."""
        self.arrived = False
        """Whether the caller has been notified that the call is over."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.document: Document | None = None
        """The content of the file after the cycle, or None if the operation failed."""
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

    @property
    def has_begun(self) -> bool:
        """Whether a cycle has taken the call, so that it can no longer be withdrawn."""
        return self._fate.get(None) is _Fate.BEGUN

    def begin(self) -> bool:
        """Take the call into a cycle; return False if it was withdrawn."""
        return self._fate.setdefault(None, _Fate.BEGUN) is _Fate.BEGUN

    def withdraw(self) -> bool:
        """Withdraw a call that has not begun, so that it never takes effect; return whether it is withdrawn.

        If it has begun, it is not begun again if its cycle has to be repeated.
        """
        self._is_unwanted = True
        return self._fate.setdefault(None, _Fate.WITHDRAWN) is _Fate.WITHDRAWN

    def reopen(self) -> bool:
        """Let a call whose cycle has to be repeated wait again; return whether it is still wanted."""
        self.result = None
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
