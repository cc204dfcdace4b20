"""Where experiments are made: a scratch directory, the process that forks victims, and the clean-up at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, Self, TypeVar

from stress.faults.nursery import Nursery

MEMORY = "/dev/shm"  # noqa: S108 (directories of random names are made in it)
ROOM = 1024**3
"""Bytes that it must have: images of file systems go there."""


class Closes(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Undo what was set up."""


Closing = TypeVar("Closing", bound=Closes)


class CannotSetUpError(Exception):
    """The machine lacks something that shows only when it is tried; the arguments: what, and how to get it."""


def memory() -> str:
    """Return a directory in memory if there is one with enough room, else the temporary directory."""
    with contextlib.suppress(OSError):
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
            return MEMORY
    return tempfile.gettempdir()


class Lab:
    """A scratch directory and a nursery, for the length of a block.

    Args:
        fast: work in memory, if possible: the same calls, without the time that a disk takes.
    """

    def __init__(self, *, fast: bool = False) -> None:
        """Prepare; nothing is started yet."""
        self._parent = memory() if fast else None
        self._stack = ExitStack()
        self._kept = ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        """Make the directory and start the nursery."""
        with ExitStack() as stack:
            self.scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=self._parent))
            ).resolve()
            self.nursery = stack.enter_context(Nursery(memory()))
            stack.callback(self.tidy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End and remove everything."""
        self._stack.close()

    def keep(self, closing: Closing) -> Closing:
        """Close something at the end of the scenario."""
        self._kept.callback(closing.close)
        return closing

    def tidy(self) -> None:
        """Close everything that was kept for the scenario that ends."""
        self._kept.close()

    def fresh(self, below: Path | None = None) -> Path:
        """Return the path of a missing file, in its own directory, which survives a power loss."""
        parent = below or self.scratch
        directory = parent / f"{next(self._numbers)}"
        directory.mkdir()
        if below is not None:
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)
        return directory / "state.json"
