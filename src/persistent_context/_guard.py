"""The locks of memories, and their release while a signal handler waits in the midst of one.

A handler that makes a call waits for a cycle, which may wait for another thread's transaction, which may want to look
into the memory of any context: also into one in which the handler's thread was interrupted, though the call is another
context's. So the thread gives up all of them for as long as it waits.
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
    """Return a lock of a memory: a reentrant one."""
    guard = threading.RLock()
    number = next(_numbers)
    _guards[number] = weakref.ref(guard, lambda _: _guards.pop(number, None))
    return guard


class Released(AbstractContextManager[None]):
    """Releases the guards that this thread has acquired, however often, and acquires them again.

    It does to each what :meth:`threading.Condition.wait` does, to all in one step that no signal handler cuts in two.
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
