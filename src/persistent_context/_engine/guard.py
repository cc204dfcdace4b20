"""The locks of memories, and their release while a signal handler waits.

A signal handler that makes a call waits for a cycle, which may wait for a transaction in another thread, which may need
the memory of any context: even the one whose lock the interrupted thread holds, though the call is on another context.
So the thread releases all of these locks while it waits.

The private methods of ``RLock`` are those that :class:`threading.Condition` uses: each is one step in C, which no
signal handler interrupts. A lock written in Python could not promise that.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_RLock: Final[Any] = type(threading.RLock())
_is_owned: Final = _RLock._is_owned  # noqa: SLF001
_release: Final = _RLock._release_save  # noqa: SLF001
_acquire: Final = _RLock._acquire_restore  # noqa: SLF001
_numbers: Final = itertools.count()
_guards: Final[dict[int, weakref.ref[Any]]] = {}


def new_guard() -> Any:
    """Return a new reentrant lock for a memory."""
    guard = threading.RLock()
    number = next(_numbers)
    _guards[number] = weakref.ref(guard, lambda _: _guards.pop(number, None))
    return guard


def is_owned(guard: Any) -> bool:
    """Whether this thread holds a guard, so that a call made now has interrupted an update of the memory."""
    return bool(_is_owned(guard))


def call_released(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a function while all guards that this thread holds, at any recursion level, are released.

    Each is released and reacquired as :meth:`threading.Condition.wait` does, and all of them in one uninterruptible
    step. A signal handler may raise an exception before or after any step: in the end, the thread holds them again.
    """
    released: list[Any] = [None]
    try:
        try:
            guards = (known() for known in list(_guards.values()))
            owned = [guard for guard in guards if guard is not None and _is_owned(guard)]
            released.extend(zip(owned, map(_release, owned), strict=True))
            return function(*args)
        finally:
            _reacquire(released)
    finally:  # if an exception came before the other one
        _reacquire(released)


def _reacquire(released: list[Any]) -> None:
    """Reacquire released guards, once."""
    if released:
        deque(itertools.starmap(_acquire, iter(released.pop, None)), maxlen=0)
