"""What a process knows of a namespace: its latest known state, what was read and written, and how busy it is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from ..._model.snapshot import Changes
from ..._model.values import MISSING
from ..protocol import Traffic
from ..tally import Tally
from .client import Client, Found
from .commit import Committer
from .state import Names, State

_DEFEATS: Final = 2
"""How often in a row a commit without a turn may find that the state has changed, before the next call takes a turn."""


class Namespace:
    """A namespace of a cluster. Usable from any thread.

    Args:
        client: the cluster.
        names: the names of its keys.
    """

    def __init__(self, client: Client, names: Names) -> None:
        self.client: Final = client
        self.names: Final = names
        self.committer: Final = Committer(client)
        self.forget()

    def forget(self) -> None:
        """Know nothing, in a forked child."""
        self._lock = threading.RLock()  # what a signal handler or finalizer does meanwhile is just not remembered
        self.state = State(self.names)
        """The latest known state; its revision is 0 if none is known."""
        self._bytes_read = Tally()
        self._commits = self._bytes_written = 0
        self._defeats = 0
        self.committer.forget()

    @property
    def is_busy(self) -> bool:
        """Whether a commit without a turn would probably come too late."""
        return self._defeats >= _DEFEATS

    def read(self) -> State:
        """Bring the known state up to date.

        Raises:
            UnreachableError: the cluster cannot be reached.
            CorruptStateError: something there is not what this library writes.
        """
        state = self.state
        outcome = self.client.read(*state.read())
        return self.learn(state, outcome.found, outcome.revision)

    def learn(self, state: State, found: Sequence[Found], revision: int) -> State:
        """Return the state that follows from what was read to bring another one up to date."""
        self._bytes_read.add(_size(found))
        latest = state.after_reading(found, revision)
        while latest is None:  # keys were removed
            state = State(self.names)
            outcome = self.client.read(*state.read())
            self._bytes_read.add(_size(outcome.found))
            latest = state.after_reading(outcome.found, outcome.revision)
        return self.keep(latest)

    def keep(self, state: State, *, is_own: bool = False) -> State:
        """Remember a state, unless a later one is known; return it.

        Args:
            state: the state.
            is_own: whether it is the outcome of a commit of this process.
        """
        with self._lock:
            if state.revision >= self.state.revision:
                self.state = state
            if is_own:
                self._defeats = 0
        return state

    def note_defeat(self, *, waiting: int) -> None:
        """Note that a commit without a turn came too late.

        Args:
            waiting: how many were in line.
        """
        with self._lock:
            self._defeats = _DEFEATS if waiting else self._defeats + 1

    def count_commit(self, changes: Changes) -> int:
        """Count a commit, of which a process makes one at a time; return how many bytes it has written."""
        size = sum(len(key) + (0 if text is MISSING else len(text)) for key, text in changes.texts.items())
        self._commits += 1
        self._bytes_written += size
        return size

    def traffic(self) -> Traffic:
        """Return how much this process has read and written."""
        return Traffic(self._commits, self._bytes_read.total(), self._bytes_written)


def _size(found: Sequence[Found]) -> int:
    return sum(len(item.key) + len(item.value) for one in found for item in one.items)
