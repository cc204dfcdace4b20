"""What every program that ends has: its name, its keys, and a last save."""

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
"""What is thrown into calls to end a program."""


@dataclass(slots=True)
class Program:
    """One program."""

    path: str
    name: str
    """`process.number`"""
    keys: str
    """How its keys begin; those before it in its place had the same ones."""
    random: Random
    log: Log

    def scribe(self, task: str) -> Scribe:
        """Return who logs what a task or thread does."""
        return Scribe(Desk(self.log, "ending", threading.Event()), f"{self.name}.{task}", interruptions=ENDINGS)

    def scribe_of_handler(self) -> Scribe:
        """Return who logs what a signal handler does: within a transaction its calls may be refused, and at once."""
        scribe = self.scribe("handler")
        scribe.refusals = (*REFUSALS, ReentrantTransactionError)
        return scribe

    def key(self, task: str) -> str:
        """Return the key that a task or thread has to itself."""
        return f"{self.keys}/{task}"

    def context(self) -> PersistentContext:
        """Return a context that has read nothing."""
        return PersistentContext(self.path, lock_timeout=LOCK_TIMEOUT)

    def blocking_context(self) -> SyncPersistentContext:
        """Return one for programs without a loop."""
        return SyncPersistentContext(self.path, lock_timeout=LOCK_TIMEOUT)

    def hurry(self) -> float:
        """Return after how many seconds the end is to come: often at once, and while contexts are new."""
        return 10 ** self.random.uniform(-4.0, -0.3)
