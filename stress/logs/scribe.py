"""Logs the operations of the children other than workers: one scribe for each task or thread."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from persistent_context import (
    DurabilityUnknownError,
    LockLostError,
    LockTimeoutError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from stress.logs.history import Kind, Log

REFUSALS: tuple[type[BaseException], ...] = (LockTimeoutError, LockLostError, StoreUnavailableError)
"""The errors that any call may raise, and that promise that nothing happened."""


@dataclass(slots=True)
class Desk:
    """What all scribes of a process share."""

    log: Log
    workload: str
    stop: threading.Event
    """Set when the process is to stop, or when the library raises an error that its contract does not allow."""
    crashed: bool = False


@dataclass(slots=True)
class Entry:
    """One operation in flight."""

    token: str
    """Unique in the run: the value that the operation writes, so that its effect can be found."""
    key: str
    log: Log
    result: Any = None

    def note(self, note: object) -> None:
        """Log, inside a transaction, what it saw and will commit: this shows later what a killed one did."""
        self.log.write(Kind.NOTE, id=self.token, note=note)


@dataclass(slots=True)
class Scribe:
    """Logs what one task or thread does."""

    desk: Desk
    name: str
    """`process.incarnation.task`"""
    refusals: tuple[type[BaseException], ...] = REFUSALS
    """Errors after which nothing has happened."""
    interruptions: tuple[type[BaseException], ...] = ()
    """What the process itself throws into its calls, which leaves their outcome unknown."""
    serials: Iterator[int] = field(default_factory=count)

    @contextmanager
    def operation(self, name: str, key: str, **more: object) -> Iterator[Entry]:
        """Log an operation and how it ended. An interruption propagates; all other errors stop here."""
        log = self.desk.log
        entry = Entry(f"{self.name}.{next(self.serials)}", key, log)
        log.write(Kind.INVOKE, id=entry.token, workload=self.desk.workload, name=name, key=key)
        if more:
            entry.note(more)
        try:
            yield entry
        except self.refusals as error:
            log.write(Kind.FAIL, id=entry.token, error=f"{type(error).__name__}: {error}")
        except DurabilityUnknownError as error:
            log.write(Kind.INFO, id=entry.token, error=str(error))
        except OutcomeUnknownError as error:
            log.write(Kind.INFO, id=entry.token, error=str(error), pending=True)
        except self.interruptions as error:
            log.write(Kind.INFO, id=entry.token, error=f"interrupted by {type(error).__name__}")
            raise
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a finding, whatever it is
            log.write(Kind.CRASH, id=entry.token, error=traceback.format_exc())
            self.desk.crashed = True
            self.desk.stop.set()
        else:
            log.write(Kind.OK, id=entry.token, result=entry.result)
