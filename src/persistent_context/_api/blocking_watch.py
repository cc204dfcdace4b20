"""The iterator over changes, for threads."""

from __future__ import annotations

from functools import partial
from typing import Self

from .._flag import Flag
from ..types import Change
from .blocking_calls import NAP_SECONDS
from .watch import Observer, Watch


class SyncWatch(Watch):
    """The iterator that :meth:`SyncPersistentContext.watch` returns."""

    def __init__(self, path: str, observer: Observer) -> None:
        super().__init__(path, observer)
        self._rung = Flag()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Change]:
        """Wait for the next changes."""
        self._check()
        find = partial(self._follow, partial(_ring, self._rung))
        while not self._closed:
            self._rung.clear()
            self._observer.look(find)
            if changes := self._observer.take_changes():
                return changes
            while not self._closed and not self._rung.wait(NAP_SECONDS):
                pass
        raise StopIteration

    def close(self) -> None:
        """End the iteration, even for a thread waiting for changes."""
        self._close()
        self._rung.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the watch."""
        self.close()


def _ring(rung: Flag) -> bool:
    rung.set()
    return True
