"""What lock cycles have done on behalf of one context, which it may not know yet.

A call is made with what its context knows at that moment, and applied later, possibly after other calls of the same
context. What these wrote is not another writer's change, and the changes that they included must not be written again.
The thread of the cycle records this here when it commits; the context, in its own threads, only reads it. So neither
ever waits for the other: a signal handler may interrupt either at any line.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from .snapshot import Snapshot
from .values import Frozen, MaybeText

T = TypeVar("T")

next_position: Final = itertools.count(1).__next__
"""Numbers the cycles of this process, in order."""


class Own(Frozen, frozen=True):
    """What a context's calls have done to one key."""

    text: MaybeText | None = None
    """The last text that one of them wrote; None if they wrote none."""
    written: int = 0
    """The position of the cycle that wrote it."""
    moment: int = 0
    """The moment of the last unsaved change that one of them included; 0 if there is none."""
    taken: int = 0
    """The position of the cycle that included it."""
    others: MaybeText | None = None
    """What the key had after that cycle, if others wrote that, and the change had no effect."""


NOTHING: Final = Own()


class Listener(Protocol):
    """Receives what a context writes itself."""

    def note(self, position: int, snapshot: Snapshot, texts: Mapping[str, MaybeText]) -> None:
        """Record that texts were written, and the resulting state; must neither wait nor raise."""


class Tracker:
    """The progress of one context's calls through cycles."""

    def __init__(self) -> None:
        self.done = 0
        """The position of the last cycle that completed a call of the context."""
        self.written = 0
        """The position of the last such cycle that wrote."""
        self.is_writing = False
        """Whether the file is being replaced right now."""
        self.horizon = 0
        """The position up to which the context and all its calls in flight know everything."""
        self._own: dict[str, Own] = {}
        self._log: deque[tuple[int, tuple[str, ...]]] = deque()
        self._listeners: tuple[weakref.ref[Listener], ...] = ()

    def own(self, key: str) -> Own:
        """Return what is known about a key."""
        return self._own.get(key, NOTHING)

    def written_since(self, position: int) -> dict[str, MaybeText]:
        """Return the texts that calls have written since a cycle."""
        return {
            key: own.text for key, own in list(self._own.items()) if own.text is not None and own.written > position
        }

    def listen(self, listener: Listener) -> None:
        """Notify a listener of what is written from now on, while it is alive."""
        living = (reference for reference in self._listeners if reference() is not None)
        self._listeners = (*living, weakref.ref(listener))

    def note(self, position: int, snapshot: Snapshot, own: Mapping[str, Own], written: Mapping[str, MaybeText]) -> None:
        """Record what a cycle has done; ``written`` are the texts that its calls changed."""
        self._own.update(own)
        self._log.append((position, tuple(own)))
        while self._log and self._log[0][0] <= self.horizon:
            passed, keys = self._log.popleft()
            for key in keys:
                known = self._own.get(key, NOTHING)
                if max(known.written, known.taken) <= passed:
                    self._own.pop(key, None)
        if written:
            self.written = position
            for reference in self._listeners:
                if (listener := reference()) is not None:
                    listener.note(position, snapshot, written)

    def read_between(self, attempts: int, read: Callable[[], T]) -> tuple[int, T] | None:
        """Read the file at a moment between two cycles of this context.

        Returns:
            The position of the cycle before it, and what was read; None if cycles interfered with every attempt.
        """
        for _ in range(attempts):
            position, written = self.done, self.written
            if self.is_writing:
                continue
            result = read()
            if not self.is_writing and (position, written) == (self.done, self.written):
                return position, result
        return None
