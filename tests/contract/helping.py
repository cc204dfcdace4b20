"""Helpers of the contract's tests: short forms of sessions, and the content of a snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from persistent_context._model.snapshot import Changes, Snapshot
from persistent_context._model.values import MISSING, MaybeText, decode, encode
from persistent_context._stores.protocol import Session, Store


def begin(store: Store, purpose: str = "test") -> Session:
    """Begin a session, which must be free."""
    session = store.begin(purpose, wait=False)

    assert session is not None
    return session


def texts_of(values: Mapping[str, Any]) -> dict[str, MaybeText]:
    """Encode values."""
    return {key: MISSING if value is MISSING else encode(value, key) for key, value in values.items()}


def finish(session: Session, changes: Changes, *, durable: bool = False) -> Snapshot:
    """Commit, and close the session in any case."""
    try:
        return session.commit(changes, durable=durable)
    finally:
        session.close()


def commit(
    store: Store,
    values: Mapping[str, Any],
    *,
    moved: tuple[str, ...] = (),
    creates: bool = False,
    durable: bool = False,
) -> Snapshot:
    """Commit values in a new session."""
    return finish(begin(store), Changes(texts_of(values), moved, creates), durable=durable)


def entries(snapshot: Snapshot) -> list[tuple[str, Any]]:
    """Return all entries of a snapshot, in order."""
    return [(key, decode(bytes(text))) for part in snapshot.parts() for key, text in part.items()]


def value(snapshot: Snapshot, key: str) -> Any:
    """Return a value of a snapshot, or None."""
    texts = snapshot.get([key])
    return decode(texts[key]) if texts else None


def increment(store: Store, key: str) -> None:
    """Add one to a number, waiting for the session."""
    session = store.begin("increment", wait=True)

    assert session is not None
    number = value(session.snapshot, key) or 0
    time.sleep(0)  # let others run
    finish(session, Changes(texts_of({key: number + 1})))


class Listener:
    """Records the number ``n`` that it reads in a store whenever it is notified."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[Any] = []
        self.errors: list[BaseException] = []
        self.threads: set[threading.Thread] = set()
        self.goes_on = True

    def notify(self) -> bool:
        self.threads.add(threading.current_thread())
        self.seen.append(value(self.store.snapshot(), "n"))
        return self.goes_on

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)

    def has_seen(self, number: Any) -> bool:
        """Return whether the last call saw this number."""
        return self.seen[-1:] == [number]

    def has_ended(self) -> bool:
        """Return whether it was called, and no thread is left to call it."""
        return bool(self.threads) and not any(thread.is_alive() for thread in self.threads)
