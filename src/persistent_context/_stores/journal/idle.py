"""Folding a journal after a second without writes, and at interpreter exit."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import threading
import time
from typing import Final, Protocol

QUIET_SECONDS: Final = 1.0
"""How long a journal must have been idle before it is folded."""
_EXIT_SECONDS: Final = 5.0
"""How long the exit waits for a fold that is in progress in this process."""

_logger = logging.getLogger("persistent_context")


class FoldFunction(Protocol):
    """Folds a journal; see :meth:`Idle.touch`."""

    def __call__(self, *, at_exit: bool) -> bool: ...


class Idle:
    """Calls a function in a daemon thread after a second without calls of :meth:`touch`, and at exit."""

    def __init__(self) -> None:
        self._due = 0.0
        self._thread_pid = 0
        self._folding = threading.Lock()  # held by the thread while it folds

    def touch(self, fold: FoldFunction, *, soon: bool = False) -> None:
        """Schedule a fold for a second from now, or for now.

        Args:
            fold: folds the journal, unless another process has just written to it; with ``at_exit=True``, even then.
                Returns whether it is done; if not, it is called again a second later.
            soon: whether to fold immediately.
        """
        self._due = time.monotonic() + (0 if soon else QUIET_SECONDS)
        _pending[self] = fold
        _fold_before_os_exit()
        if self._thread_pid != os.getpid():  # a forked child does not have its parent's threads
            self._thread_pid = os.getpid()
            self._folding = folding = threading.Lock()  # that of a forked child's parent may be held for ever
            try:
                _thread.start_new_thread(self._run, (fold, folding))  # Thread.start() would wait for a lock
            except RuntimeError:  # at interpreter exit, which folds anyway; otherwise the next call tries again
                self._thread_pid = 0

    def fold_at_exit(self, fold: FoldFunction) -> None:
        """Fold now; if the thread is just folding, and holds the lock of the file, wait for it first."""
        is_free = self._folding.acquire(timeout=_EXIT_SECONDS)
        try:
            _tried(fold, at_exit=True)
        finally:
            if is_free:
                self._folding.release()

    def _run(self, fold: FoldFunction, folding: threading.Lock) -> None:
        while True:
            due = self._due
            time.sleep(max(0, due - time.monotonic()))
            if due != self._due:
                continue
            with folding:
                is_done = _tried(fold, at_exit=False)
            if is_done is not False:
                break
            self._due = time.monotonic() + QUIET_SECONDS
        self._thread_pid = 0
        if is_done:  # after an error, the exit tries again
            _pending.pop(self, None)
        if due != self._due:  # touched again just now
            self.touch(fold)


def _tried(fold: FoldFunction, *, at_exit: bool) -> bool | None:
    """Fold; return whether this is done, or None after an error, which no call waits for."""
    try:
        return fold(at_exit=at_exit)
    except Exception:
        _logger.exception("a journal could not be folded into its JSON file; the next writer will try again")
        return None


def _fold_all() -> None:
    for idle, fold in list(_pending.items()):
        idle.fold_at_exit(fold)


def _fold_before_os_exit() -> None:
    """Make a child of :mod:`multiprocessing` fold when it ends: it does not run :mod:`atexit` functions."""
    global _finalized_pid  # noqa: PLW0603 - a race only registers it twice
    if _finalized_pid != os.getpid() and (util := sys.modules.get("multiprocessing.util")):
        util.Finalize(None, _fold_all, exitpriority=0)
        _finalized_pid = os.getpid()


_finalized_pid = 0
_pending: Final[dict[Idle, FoldFunction]] = {}  # keeps their stores alive, even if they are no longer used
atexit.register(_fold_all)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_pending.clear)  # their threads are in the parent
