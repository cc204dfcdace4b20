"""A session on a namespace of etcd: with a turn, or without one if nobody else is expected."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from ..._model.snapshot import Changes
from ..jsonfile.document import Document
from ..protocol import SessionLostError, StaleSessionError
from .client import counted, end_of
from .commit import OPERATIONS, nobody_is_in_line
from .failures import UnreachableError
from .lease import LIFETIME_SECONDS
from .namespace import Namespace
from .state import State
from .turns import Turn

_PATIENCE_SECONDS: Final = 10.0
"""How long a commit in a turn waits for the cluster; by then, the turn is probably lost."""
_EDITED: Final = "a program that does not use this library has changed the state in the meantime; nothing was written"
_LOST: Final = (
    "another process has changed the state in the meantime, as this one was stopped, or cut off from etcd, for longer "
    f"than {LIFETIME_SECONDS} s; nothing was written"
)
_RETRY_SECONDS: Final = 0.2


class EtcdSession:
    """See :class:`Session`.

    Without a turn, the state is the last one that is known here. If it is not the latest one, the commit fails, and the
    calls are carried out again: this is the only request that an undisturbed call makes.

    Args:
        space: the namespace.
        turn: the turn; None to commit only if nobody has one.
        waited: how long it had to wait for the turn, in seconds.
        state: the state, if it is known.
    """

    def __init__(self, space: Namespace, turn: Turn | None, waited: float, state: State | None) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self.is_exclusive = turn is not None
        self._space: Final = space
        self._turn: Final = turn
        self._state = state
        self._is_fresh = turn is not None
        self._since: Final = time.monotonic()

    @property
    def snapshot(self) -> Document:
        """The state."""
        return self._read().document

    def set_aside(self) -> None:
        """Do nothing: what is not valid there has to be repaired there. See :meth:`Session.set_aside`."""

    def commit(self, changes: Changes, *, durable: bool) -> Document:  # noqa: ARG002 - every commit survives
        """Commit the changes; see :meth:`Session.commit`."""
        state = self._read()
        # A large commit does not compare each key, so it may not notice what other programs wrote before its revision.
        is_large = 2 * len(changes.texts) >= OPERATIONS and state.read_at < state.revision
        if (is_large or not (changes or self._is_fresh)) and not self._space.read().is_same_as(state):
            raise self._changed()
        if not changes:
            return state.document
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._state = self._commit(state, changes)
            except UnreachableError:
                if self._turn is None or time.monotonic() > deadline:
                    raise
            else:
                return self._state.document
            time.sleep(_RETRY_SECONDS)
            state = self._read_again(state)

    def _commit(self, state: State, changes: Changes) -> State:
        space, turn = self._space, self._turn
        identity = space.committer.identity()
        when = [nobody_is_in_line(state) if turn is None else turn.comparison()]
        then = () if turn is None else turn.ending()
        otherwise = (counted(state.names.queue, end_of(state.names.queue)), *state.read())
        outcome = space.committer.commit(state, changes, identity, when=when, then=then, otherwise=otherwise)
        if outcome.succeeded:
            if turn is not None:
                turn.ended(outcome.found[0].count if outcome.found else 1)
            self.bytes_written = space.count_commit(changes)
            return space.keep(state.after_commit(changes, identity, outcome.revision), is_own=True)
        line, *newer = outcome.found
        space.learn(state, newer, outcome.revision)
        if turn is None:
            space.note_defeat(waiting=line.count)
        raise self._changed()

    def _read_again(self, state: State) -> State:
        """Read the state in a turn after a commit that was not carried out, but may have replaced the marker."""
        with contextlib.suppress(UnreachableError):
            latest = self._space.read()
            if not latest.is_same_as(state):
                raise self._changed()
            return latest
        return state

    def _changed(self) -> SessionLostError:
        """Return the error for a state that is no longer the latest one."""
        if self._turn is None:
            return StaleSessionError()
        return SessionLostError(_EDITED if self._turn.lasts() else _LOST)

    def close(self) -> None:
        """End the turn."""
        if self._turn is not None:
            self._turn.end()
        if not self.held:
            self.held = time.monotonic() - self._since

    def _read(self) -> State:
        if self._state is None:
            self._state = self._space.read()
            self._is_fresh = True
        return self._state
