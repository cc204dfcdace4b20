"""What all these programs have: a name, keys, and a last save."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from random import Random

from persistent_context import PersistentContext, ReentrantTransactionError, SyncPersistentContext
from stress.children.faces import LOCK_TIMEOUT
from stress.logs.history import Log
from stress.logs.scribe import REFUSALS, Desk, Scribe

COUNTER = "ending/counter"
LAST_SAVE = "last_save"
ENDINGS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""Thrown into calls to end a program."""


@dataclass(slots=True)
class Program:
    """One program."""

    path: str
    name: str
    """`process.number`"""
    keys: str
    """The beginning of its keys; earlier programs in its place had the same."""
    random: Random
    log: Log

    def scribe(self, task: str) -> Scribe:
        """Return the scribe that logs what a task or thread does."""
        return Scribe(Desk(self.log, "ending", threading.Event()), f"{self.name}.{task}", interruptions=ENDINGS)

    def scribe_of_handler(self) -> Scribe:
        """Return the scribe of a signal handler: inside a transaction its calls may be refused, but must be at once."""
        scribe = self.scribe("handler")
        scribe.refusals = (*REFUSALS, ReentrantTransactionError)
        return scribe

    def key(self, task: str) -> str:
        """Return the key that only this task or thread writes."""
        return f"{self.keys}/{task}"

    def context(self) -> PersistentContext:
        """Return a context that has read nothing."""
        return PersistentContext(self.path, lock_timeout=LOCK_TIMEOUT)

    def blocking_context(self) -> SyncPersistentContext:
        """Return a context for programs without a loop."""
        return SyncPersistentContext(self.path, lock_timeout=LOCK_TIMEOUT)

    def hurry(self) -> float:
        """Return the seconds until the end: often none, to end while contexts are new."""
        return 10 ** self.random.uniform(-4.0, -0.3)
