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
from contextlib import AbstractContextManager
from typing import Any, Final

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
    """Whether this thread holds a guard: if a call finds that, it interrupts an update of the memory."""
    return bool(_is_owned(guard))


class Released(AbstractContextManager[None]):
    """Releases all guards that this thread holds, at any recursion level, and reacquires them afterwards.

    It treats each like :meth:`threading.Condition.wait` does, and all of them in one uninterruptible step.
    """

    def __init__(self) -> None:
        self._states: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        guards = (known() for known in list(_guards.values()))
        owned = [guard for guard in guards if guard is not None and _is_owned(guard)]
        self._states.extend(zip(owned, map(_release, owned), strict=True))

    def __exit__(self, *_: object) -> None:
        deque(itertools.starmap(_acquire, self._states), maxlen=0)
