"""A process whose blocking calls are hit by signals. `python -m stress.children.signals ASSIGNMENT`.

The main thread makes calls. SIGALRM arrives during most of them, and its handler raises; SIGUSR1 arrives at any
moment, and its handler makes calls itself. Other threads use the same contexts at that time, and must not be blocked.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from persistent_context import ReentrantTransactionError, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.children.faces import LOCK_TIMEOUT
from stress.logs.history import Log
from stress.logs.scribe import REFUSALS, Desk, Scribe

COUNTER = "signals/counter"
COMPANIONS = 2
HELD_SECONDS = 0.02
"""The longest time for which another thread holds a transaction open, so that a call is interrupted while it waits."""
SETTINGS = 200
"""Keys set in a row, in memory."""


class TimeIsUpError(Exception):
    """Raised by the handler, as task queues do in a task that takes too long."""


THROWN = (TimeIsUpError, KeyboardInterrupt)


class Victim:
    """The main thread, its contexts, and its signal handlers."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Open the file."""
        self._path = assignment.location()
        self._random = Random(f"{assignment.seed} {assignment.name}")
        self._contexts = [SyncPersistentContext.create(self._path, lock_timeout=LOCK_TIMEOUT) for _ in range(2)]
        self._scribe = Scribe(desk, f"{assignment.name}.main", interruptions=THROWN)
        # Wherever the signal strikes, a handler's call works or is refused at once.
        refused = (*REFUSALS, ReentrantTransactionError)
        self._handlers_scribe = Scribe(desk, f"{assignment.name}.handler", refused, THROWN)
        self._withdrawn_scribe = Scribe(desk, f"{assignment.name}.vain", (*REFUSALS, *THROWN))
        self._keys = f"signals/{assignment.place}"
        self._armed = False
        self._handling = False
        signal.signal(signal.SIGALRM, self._throw)
        signal.signal(signal.SIGUSR1, self._call)

    @property
    def contexts(self) -> list[SyncPersistentContext]:
        """The contexts that other threads share."""
        return self._contexts

    def act(self) -> None:
        """Make one call, which may be interrupted."""
        context = self._random.choice(self._contexts)
        acts = (self._incr, self._incr_exclusively, self._save, self._set_many, self._save_in_block)
        if not self._random.randrange(8):
            self._incr_in_vain(context)
        elif not self._perform(self._random.choice(acts), context):
            with self._scribe.operation("save_after", self._key(context)) as entry:
                context[entry.key] = [entry.token]
                context.save()

    def _key(self, context: SyncPersistentContext, who: str = "main") -> str:
        """Return a key that is saved only through this context, which may keep a change whose save was interrupted."""
        number = next(number for number, one in enumerate(self._contexts) if one is context)  # equal ones are two
        return f"{self._keys}/{who}/{number}"

    def _perform(self, act: Callable[[SyncPersistentContext], None], context: SyncPersistentContext) -> bool:
        """Make a call; return whether it completed without an interruption."""
        self._handling = False  # a handler that was interrupted may have left it set
        try:
            act(context)
        except THROWN:
            return False
        finally:
            self._disarm()
        return True

    def _incr(self, context: SyncPersistentContext) -> None:
        with self._scribe.operation("incr", COUNTER) as entry:
            self._arm()
            entry.result = context.incr(COUNTER)
            self._disarm()

    def _incr_exclusively(self, context: SyncPersistentContext) -> None:
        with self._scribe.operation("incr_exclusively", COUNTER) as entry:
            self._arm()
            with context.transaction() as tx:
                tx[COUNTER] = number = tx.get(COUNTER, 0) + 1
                time.sleep(self._random.uniform(0, 0.002))
            entry.result = number
            self._disarm()

    def _save(self, context: SyncPersistentContext) -> None:
        with self._scribe.operation("save", self._key(context)) as entry:
            self._arm()
            context[entry.key] = [entry.token]
            context.save()
            self._disarm()

    def _set_many(self, context: SyncPersistentContext) -> None:
        """Set keys and nothing else, while the handlers save."""
        with self._scribe.operation("save", self._key(context)) as entry:
            self._arm()
            for _ in range(SETTINGS):
                context[entry.key] = [entry.token]
                context.unsaved_keys()
            context.save()
            self._disarm()

    def _save_in_block(self, _: SyncPersistentContext) -> None:
        with self._scribe.operation("save_in_block", f"{self._keys}/block") as entry:
            self._arm()
            with SyncPersistentContext(self._path, lock_timeout=LOCK_TIMEOUT) as context:
                context[entry.key] = [entry.token]
            self._disarm()

    def _incr_in_vain(self, context: SyncPersistentContext) -> None:
        """Make a call that is certain to be interrupted while it waits for its turn: it must never take effect."""
        with self._held() as held:
            if held:
                with self._withdrawn_scribe.operation("incr_in_vain", COUNTER) as entry:
                    self._arm(self._random.uniform(0.0001, HELD_SECONDS))
                    entry.result = context.incr(COUNTER)
                self._disarm()

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """Let another thread hold a transaction open; the handlers make no calls, which would wait for it."""
        began, over = threading.Event(), threading.Event()
        granted: list[bool] = []

        def hold() -> None:
            try:
                with SyncPersistentContext(self._path, lock_timeout=LOCK_TIMEOUT).transaction():
                    granted.append(True)
                    began.set()
                    over.wait()
            finally:
                began.set()

        self._handling = True
        thread = threading.Thread(target=hold)
        thread.start()
        began.wait()
        try:
            yield bool(granted)
        finally:
            over.set()
            thread.join()
            self._handling = False

    def _arm(self, seconds: float | None = None) -> None:
        """Schedule an exception in this thread: often at once, or never."""
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds or 10 ** self._random.uniform(-5.0, -1.0))

    def _disarm(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _throw(self, *_: object) -> None:
        """Raise, once, in the call that was armed."""
        if self._armed:
            self._armed = False
            raise self._random.choice(THROWN)

    def _call(self, *_: object) -> None:
        """Make a call."""
        if self._handling:
            return
        self._handling = True
        scribe, context = self._handlers_scribe, self._random.choice(self._contexts)
        match self._random.randrange(3):
            case 0:
                with scribe.operation("incr_in_handler", COUNTER) as entry:
                    entry.result = context.incr(COUNTER)
            case 1:
                with scribe.operation("incr_in_handler", COUNTER) as entry:
                    with context.transaction() as tx:
                        tx[COUNTER] = number = tx.get(COUNTER, 0) + 1
                    entry.result = number
            case _:
                with scribe.operation("save_in_handler", self._key(context, "handler")) as entry:
                    context[entry.key] = [entry.token]
                    context.save()
        self._handling = False


def accompany(scribe: Scribe, context: SyncPersistentContext) -> None:
    """Use a context at the same time as the victim, until asked to stop."""
    while not scribe.desk.stop.wait(0.01):
        with scribe.operation("incr", COUNTER) as entry:
            entry.result = context.incr(COUNTER)
        with scribe.operation("incr_exclusively", COUNTER) as entry:
            with context.transaction() as tx:
                tx[COUNTER] = number = tx.get(COUNTER, 0) + 1
            entry.result = number


def send_signals(random: Random, stop: threading.Event) -> None:
    """Send SIGUSR1 to the main thread again and again."""
    main = threading.main_thread().ident
    assert main is not None
    while not stop.wait(10 ** random.uniform(-4.0, -0.7)):
        signal.pthread_kill(main, signal.SIGUSR1)


def main() -> int:
    """Work as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "signals", prepare(assignment))
    victim = Victim(assignment, desk)
    others = [
        threading.Thread(target=accompany, args=(Scribe(desk, f"{assignment.name}.c{number}"), context))
        for number, context in enumerate(victim.contexts[:COMPANIONS])
    ]
    others.append(threading.Thread(target=send_signals, args=(Random(f"{assignment.seed} signals"), desk.stop)))
    for other in others:
        other.start()
    while not desk.stop.is_set():
        victim.act()
    for other in others:
        other.join()
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
