"""The caller of a call: its thread, loop and task, and whether the call would wait for its own transaction."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final

from .._model.values import Frozen


class Stay:
    """A blocking transaction, as recorded in the ``contextvars`` context in which it was entered.

    The thread alone does not identify the caller: a web framework may enter in one pool thread, leave in another, and
    run other requests in the first one in between. Contexts hold weak references; the transaction keeps it alive.
    """

    __slots__ = ("__weakref__", "is_over", "thread_name")

    def __init__(self) -> None:
        self.is_over = False
        self.thread_name: Final = threading.current_thread().name
        _stays.set((*_open_stays(), weakref.ref(self)))

    def leave(self) -> None:
        """Note that it is over, in all contexts."""
        self.is_over = True
        _stays.set(_open_stays())


_stays: ContextVar[tuple[weakref.ref[Stay], ...]] = ContextVar("persistent_context_stays", default=())


def _open_stays() -> tuple[weakref.ref[Stay], ...]:
    return tuple(known for known in _stays.get() if (stay := known()) is not None and not stay.is_over)


class Owner(Frozen, frozen=True):
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

    @classmethod
    def nobody(cls) -> Owner:
        """Return the owner of what was left to a thread that makes no calls: no call is inside it."""
        return cls(0, None, None, blocks=False, stays=())

    def why_not(self, cycle_thread: int | None, holder: Owner | None, coming: Sequence[Owner]) -> str | None:  # noqa: PLR0911
        """Return why a call of this owner would wait for itself, or None if it would not.

        Args:
            cycle_thread: the thread that runs a cycle of the same file now.
            holder: the owner of the open transaction on it.
            coming: the owners of the transactions that wait for their turn.
        """
        if cycle_thread == self.thread:
            return "on_conflict, or fn of mutate(), runs under the lock, and made a call that needs it: make it before"
        if any(map(self._would_hold_up, coming)):
            return "this call would block the event loop that a transaction ahead of it on the same file needs"
        if self.blocks and any(map(self.is_inside, coming)):
            return "this call interrupts a thread that is waiting for a transaction on the same file"
        if holder is None:
            return None
        if self.is_inside(holder):
            who = "thread" if holder.task is None else "task"
            return f"this {who} is inside a transaction on the same file; use the transaction, or leave it first"
        if holder.thread == self.thread and holder.task is not None and self.blocks and not holder.is_left_behind:
            return "this thread is inside a transaction on the same file, which could not end while this call blocks it"
        return None

    def is_inside(self, holder: Owner) -> bool:
        """Whether it is inside the holder's transaction."""
        if holder.task is not None:
            return holder.task == self.task
        return holder.thread == self.thread and bool(holder.stays) and holder.stays[-1] in self.stays

    @property
    def is_left_behind(self) -> bool:
        """Whether it is a task whose event loop was closed: it ends when it is discarded, in whatever thread."""
        loop = None if self.loop is None else self.loop()
        return self.task is not None and (loop is None or loop.is_closed())

    def describe(self) -> str:
        """Return the name of its task, or of the thread that entered its latest transaction."""
        task = None if self.task is None else self.task()
        if task is not None:
            return f"task {task.get_name()!r}"
        stay = self.stays[-1]() if self.stays else None
        return f"thread {self.thread if stay is None else stay.thread_name!r}"

    def _would_hold_up(self, other: Owner) -> bool:
        """Whether the other owner's task cannot continue while this call blocks."""
        return self.blocks and not other.blocks and self.loop is not None and self.loop == other.loop
