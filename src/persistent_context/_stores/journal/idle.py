"""Folding a journal when nobody has written for a while, and at the interpreter's exit."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 1.0
"""How long nobody must have written."""

_logger = logging.getLogger("persistent_context")


class Idle:
    """Calls a function once there was nothing to do for a second, in a daemon thread, and at exit.

    Args:
        fold: returns whether there is nothing left to do; otherwise, it is called again a second later, unless it is
            called with ``at_exit=True``.
    """

    def __init__(self, fold: Callable[..., bool]) -> None:
        self.fold: Final = fold
        self._due = 0.0

    def touch(self, *, soon: bool = False) -> None:
        """Note that there is something to do, a second from now or at once."""
        self._due = time.monotonic() + (0 if soon else QUIET_SECONDS)
        if self not in _pending:
            _pending.add(self)
            with contextlib.suppress(RuntimeError):  # at the interpreter's exit, which does it itself
                threading.Thread(target=self._run, name="persistent_context checkpoint", daemon=True).start()

    def _run(self) -> None:
        while True:
            due = self._due
            time.sleep(max(0, due - time.monotonic()))
            if due != self._due:
                continue
            if _fold(self):
                break
            self._due = time.monotonic() + QUIET_SECONDS
        _pending.discard(self)
        if due != self._due:  # something has come in between
            self.touch()


def _fold(idle: Idle, *, at_exit: bool = False) -> bool:
    try:
        return idle.fold(at_exit=at_exit)
    except Exception:
        _logger.exception("a journal could not be folded into its JSON file; the next writer will try again")
        return True


def _fold_all() -> None:
    for idle in list(_pending):
        _fold(idle, at_exit=True)


_pending: Final[set[Idle]] = set()  # these are kept, even if nobody uses them any more
atexit.register(_fold_all)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_pending.clear)  # their threads are in the parent
