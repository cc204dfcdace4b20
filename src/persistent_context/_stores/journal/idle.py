"""Folding a journal when nobody has written for a while, and at the interpreter's exit."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import time
from typing import Final, Protocol

QUIET_SECONDS: Final = 1.0
"""How long nobody must have written."""

_logger = logging.getLogger("persistent_context")


class FoldFunction(Protocol):
    """Folds a journal; see :meth:`Idle.touch`."""

    def __call__(self, *, at_exit: bool) -> bool: ...


class Idle:
    """Calls a function once nothing has happened for a second, in a daemon thread, and at exit."""

    def __init__(self) -> None:
        self._due = 0.0
        self._thread_pid = 0

    def touch(self, fold: FoldFunction, *, soon: bool = False) -> None:
        """Note that there is something to do, a second from now or at once.

        Args:
            fold: does it, unless others have written meanwhile; with ``at_exit=True``, even so. Returns whether
                nothing is left to do; otherwise, it is called again a second later.
            soon: at once.
        """
        self._due = time.monotonic() + (0 if soon else QUIET_SECONDS)
        _pending[self] = fold
        _fold_before_os_exit()
        if self._thread_pid != os.getpid():  # a forked child has no thread of its parent's
            self._thread_pid = os.getpid()
            try:
                _thread.start_new_thread(self._run, (fold,))  # Thread.start() would wait for a lock
            except RuntimeError:  # at the interpreter's exit, which folds itself; or until the next call
                self._thread_pid = 0

    def _run(self, fold: FoldFunction) -> None:
        while True:
            due = self._due
            time.sleep(max(0, due - time.monotonic()))
            if due != self._due:
                continue
            if _tried(fold, at_exit=False):
                break
            self._due = time.monotonic() + QUIET_SECONDS
        self._thread_pid = 0
        _pending.pop(self, None)
        if due != self._due:  # something has come in between
            self.touch(fold)


def _tried(fold: FoldFunction, *, at_exit: bool) -> bool:
    try:
        return fold(at_exit=at_exit)
    except Exception:
        _logger.exception("a journal could not be folded into its JSON file; the next writer will try again")
        return True


def _fold_all() -> None:
    for fold in list(_pending.values()):
        _tried(fold, at_exit=True)


def _fold_before_os_exit() -> None:
    """Have a child of :mod:`multiprocessing` fold at its end, which runs no functions of :mod:`atexit`."""
    global _finalized_pid  # noqa: PLW0603 - a race only registers it twice
    if _finalized_pid != os.getpid() and (util := sys.modules.get("multiprocessing.util")):
        util.Finalize(None, _fold_all, exitpriority=0)
        _finalized_pid = os.getpid()


_finalized_pid = 0
_pending: Final[dict[Idle, FoldFunction]] = {}  # keeps their stores, even if nobody uses them any more
atexit.register(_fold_all)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_pending.clear)  # their threads are in the parent
