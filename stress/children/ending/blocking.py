"""Programs without an event loop that save at exit, or in a SIGTERM handler."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable

from persistent_context import SyncPersistentContext
from stress.children.ending.program import COUNTER, LAST_SAVE, Program
from stress.logs.scribe import Scribe

THREADS = 4


def save_at_exit(program: Program) -> None:
    """Let the interpreter save at exit, with nothing else left to do."""
    context = program.blocking_context()
    scribe = program.scribe("main")
    atexit.register(_save, scribe, context, program.key("main"))
    for _ in range(program.random.randrange(4)):
        _call(program, scribe, context, "main")


def leave_daemons(program: Program) -> None:
    """Save at exit, while daemon threads are in calls that are not waited for."""
    _start_threads(program, daemon=True)
    save_at_exit(program)


def leave_threads(program: Program) -> None:
    """End the main thread first: the other threads save after it has ended."""
    over = _start_threads(program, daemon=False)
    save_at_exit(program)
    over.set()


def save_when_terminated(program: Program) -> None:
    """Save in a SIGTERM handler, wherever it strikes, end the program there, and save again on the way out."""
    context = program.blocking_context()
    scribe = program.scribe("main")
    _save_in_handler(program, context)
    try:
        threading.Timer(program.hurry(), os.kill, (os.getpid(), signal.SIGTERM)).start()
        while True:
            _call(program, scribe, context, "main")
    finally:
        _save(scribe, context, program.key("main"))


def save_when_terminated_while_setting(program: Program) -> None:
    """The same, while the main thread only sets keys in memory, and other threads make calls."""
    context = program.blocking_context()
    _save_in_handler(program, context)
    over = _start_threads(program, daemon=False)
    key, scribe = program.key("memory"), program.scribe("main")
    try:
        threading.Timer(program.hurry(), os.kill, (os.getpid(), signal.SIGTERM)).start()
        with scribe.operation("set", key) as entry:  # saved by the handler, perhaps
            while True:
                context[key] = [entry.token]
                context.unsaved_keys()
    finally:
        over.set()
        _save(scribe, context, key)


BLOCKING: tuple[Callable[[Program], None], ...] = (
    save_at_exit,
    leave_daemons,
    leave_threads,
    save_when_terminated,
    save_when_terminated_while_setting,
)


def _save(scribe: Scribe, context: SyncPersistentContext, key: str, name: str = LAST_SAVE) -> None:
    with scribe.operation(name, key) as entry:
        context.set(key, [entry.token])
        context.save()


def _save_in_handler(program: Program, context: SyncPersistentContext) -> None:
    scribe = program.scribe_of_handler()

    def handle(*_: object) -> None:
        _save(scribe, context, program.key("handler"), "save_in_handler")
        sys.exit(0)

    signal.signal(signal.SIGTERM, handle)


def _start_threads(program: Program, *, daemon: bool) -> threading.Event:
    """Let threads make calls, and save when the returned event is set."""
    context = program.blocking_context()
    over = threading.Event()

    def hammer(thread: str) -> None:
        scribe = program.scribe(thread)
        while not over.is_set():
            _call(program, scribe, context, thread)
        _save(scribe, context, program.key(thread))

    for number in range(THREADS):
        threading.Thread(target=hammer, args=(f"d{number}",), daemon=daemon).start()
    return over


def _call(program: Program, scribe: Scribe, context: SyncPersistentContext, task: str) -> None:
    """Make one call."""
    match program.random.randrange(4):
        case 0:
            with scribe.operation("incr", COUNTER) as entry:
                entry.result = context.incr(COUNTER)
        case 1:
            with scribe.operation("incr_once", COUNTER) as entry:
                entry.result = program.blocking_context().incr(COUNTER)
        case 2:
            with scribe.operation("incr_exclusively", COUNTER) as entry, context.transaction() as tx:
                tx[COUNTER] = entry.result = tx.get(COUNTER, 0) + 1
        case _:
            _save(scribe, context, program.key(task), "save")
