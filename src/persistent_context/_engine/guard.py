"""The locks of memories, and their release while a signal handler waits.

A signal handler that makes a call waits for a cycle, which may wait for a transaction in another thread, which may need
the memory of any context: even the one whose lock the interrupted thread holds, though the call is on another context.
So the thread releases all of these locks while it waits.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Final

_numbers: Final = itertools.count()
_guards: Final[dict[int, weakref.ref[Any]]] = {}


def new_guard() -> Any:
    """Return a new reentrant lock for a memory."""
    guard = threading.RLock()
    number = next(_numbers)
    _guards[number] = weakref.ref(guard, lambda _: _guards.pop(number, None))
    return guard


class Released(AbstractContextManager[None]):
    """Releases all guards that this thread holds, at any recursion level, and reacquires them afterwards.

    It treats each like :meth:`threading.Condition.wait` does, and all of them in one uninterruptible step.
    """

    def __init__(self) -> None:
        self._states: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        guards = (known() for known in list(_guards.values()))
        owned = [guard for guard in guards if guard is not None and guard._is_owned()]  # noqa: SLF001
        self._states.extend(zip(owned, map(_release, owned), strict=True))

    def __exit__(self, *_: object) -> None:
        deque(itertools.starmap(_acquire, self._states), maxlen=0)


_RLock: Final[Any] = type(threading.RLock())
_release: Final = _RLock._release_save  # noqa: SLF001
_acquire: Final = _RLock._acquire_restore  # noqa: SLF001
