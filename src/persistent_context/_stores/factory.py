"""Turns the file path that a user passes to a context into the store that keeps its state."""

from __future__ import annotations

import os

from .journal.store import JournalStore
from .protocol import Store


def locate(place: str) -> str:
    """Return a path in absolute form, so that it no longer depends on the current directory.

    A leading ``~`` is the user's home directory; ``./~`` is a directory of that name.

    Raises:
        ValueError: it cannot be a path.
    """
    if not place or "\0" in place:
        msg = f"filepath must be a file path, not {place!r}"
        raise ValueError(msg)
    return os.path.abspath(os.path.expanduser(place))


def identify(place: str) -> str:
    """Return the identity of the store that an absolute path leads to at this moment: a symlink may be redirected.

    Different paths may lead to the same store. This reads the file system, so call it in a worker thread.
    """
    return os.path.realpath(place)


def open_store(identity: str) -> Store:
    """Return a store object for an identity; it is usable immediately, and does no I/O before it is used."""
    return JournalStore(identity)
