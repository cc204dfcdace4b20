"""One call on its way through a cycle, who makes it, and whether it has begun or was withdrawn.

What is decided here is decided by single operations that the interpreter does not interrupt: a signal handler, or a
finalizer that the garbage collector runs, may make a call in the midst of another one of the same thread.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeAlias

from ._document import Document
from ._operations import Operation

Deliver: TypeAlias = "Callable[[Sequence[Request]], None]"


class _Fate(enum.Enum):
    BEGUN = enum.auto()
    WITHDRAWN = enum.auto()


class Stay:
    """A blocking transaction, as the context (of ``contextvars``) knows it in which it was entered.

    A thread alone does not say who is inside: a web framework enters in one thread of a pool, leaves in another, and
    runs other requests in the first one meanwhile. Contexts refer to it weakly: the transaction keeps it.
    """

    __slots__ = ("__weakref__", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        _stays.set((*_open_stays(), weakref.ref(self)))

    def leave(self) -> None:
        """Note that it is over, in whichever context."""
        self.is_over = True
        _stays.set(_open_stays())


_stays: ContextVar[tuple[weakref.ref[Stay], ...]] = ContextVar("persistent_context_stays", default=())


def _open_stays() -> tuple[weakref.ref[Stay], ...]:
    return tuple(known for known in _stays.get() if (stay := known()) is not None and not stay.is_over)


class Owner(NamedTuple):
    """Who makes a call."""

    thread: int
    loop: weakref.ref[asyncio.AbstractEventLoop] | None
    """The event loop that runs in the thread, if any."""
    task: weakref.ref[asyncio.Task[Any]] | None
    """The task that runs in it; one that was thrown away is not kept by its transaction."""
    blocks: bool
    """Whether the thread stands still until the call is over."""
    stays: tuple[weakref.ref[Stay], ...]
    """The blocking transactions that it is inside of, the latest one last."""

    @classmethod
    def current(cls, *, blocks: bool) -> Owner:
        """Return who makes a call here and now."""
        try:
            loop = weakref.ref(asyncio.get_running_loop())
        except RuntimeError:  # none runs in this thread
            return cls(threading.get_ident(), None, None, blocks, _stays.get())
        task = asyncio.current_task()
        return cls(threading.get_ident(), loop, None if task is None else weakref.ref(task), blocks, _stays.get())

    def is_inside(self, holder: Owner) -> bool:
        """Whether it is inside the transaction of a holder."""
        if holder.task is not None:
            return holder.task == self.task
        return holder.thread == self.thread and bool(holder.stays) and holder.stays[-1] in self.stays

    def would_hold_up(self, other: Owner) -> bool:
        """Whether another one's task cannot go on for as long as this call blocks."""
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
        """Of the file, as the caller knows it: a symlink may lead elsewhere by now."""
        self.operation: Final = operation
        self.owner: Final = owner
        self.deliver: Final = deliver
        """Gets those requests of a cycle that are over, in their order, in the thread of the cycle; never raises."""
        self.durable: Final = durable
        self.patient: Final = patient
        """Whether it waits for the lock, and does not only try."""
        self.waiter: Any = None
        """What the caller waits with; nothing in here looks at it."""
        self.arrived = False
        """Whether the caller has been told that the call is over."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.document: Document | None = None
        """What the file holds since the cycle, or None if the operation failed."""
        self.position = 0
        """Of the cycle that carried it, among all cycles of this process."""
        self._fate: dict[None, _Fate] = {}  # decided once, by whoever is first to set the default
        self._is_unwanted = False

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was taken back, and never takes effect."""
        return self._fate.get(None) is _Fate.WITHDRAWN

    @property
    def is_waiting(self) -> bool:
        """Whether it is neither taken by a cycle nor withdrawn."""
        return not self._fate

    @property
    def has_begun(self) -> bool:
        """Whether a cycle has taken the call, so that it cannot be withdrawn any more."""
        return self._fate.get(None) is _Fate.BEGUN

    def begin(self) -> bool:
        """Take the call into a cycle; return whether it was not withdrawn."""
        return self._fate.setdefault(None, _Fate.BEGUN) is _Fate.BEGUN

    def withdraw(self) -> bool:
        """Take back a call that has not begun, so that it never takes effect; return whether this is so.

        One that has begun is not begun again either, should its cycle have to be repeated.
        """
        self._is_unwanted = True
        return self._fate.setdefault(None, _Fate.WITHDRAWN) is _Fate.WITHDRAWN

    def reopen(self) -> bool:
        """Have a call wait again whose cycle has to be repeated; return whether somebody still wants it."""
        self.result = None
        self._fate = {}
        return not (self._is_unwanted and self.withdraw())

    def fail(self, error: BaseException) -> bool:
        """Take back a call that has not begun, with an error; return whether this was so."""
        if not self.withdraw():
            return False
        self.error = error
        return True


class Begin(Request):
    """The beginning of a transaction; the result is the turn."""

    __slots__ = ()
