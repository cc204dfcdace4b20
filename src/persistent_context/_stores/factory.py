"""Turns what a user passes to a context, a file path or a URL, into the store that keeps its state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .journal.store import JournalStore
from .protocol import Store

if TYPE_CHECKING:
    from .etcd.store import EtcdStore

_SCHEMES = ("etcd://", "etcd+tls://")


def is_url(place: str) -> bool:
    """Whether a user means a state in etcd, and not a file."""
    return place.startswith(_SCHEMES)


def locate(place: str) -> str:
    """Return a path in absolute form, so that it no longer depends on the current directory, or a URL.

    A leading ``~`` is the user's home directory; ``./~`` is a directory of that name. The URL that is returned has no
    user and password: they are remembered for :func:`open_store`.

    Raises:
        ValueError: it cannot be a path or a URL.
        ModuleNotFoundError: what the store needs is not installed; the message says how to install it.
    """
    if is_url(place):
        from .etcd.address import remember  # noqa: PLC0415 - only those who use it import it

        found = remember(place)
        _etcd_store()  # imported now: a signal handler that saves must not find it half imported
        return found
    if not place or "\0" in place:
        msg = f"filepath must be a file path, not {place!r}"
        raise ValueError(msg)
    return os.path.abspath(os.path.expanduser(place))


def identify(place: str) -> str:
    """Return the identity of the store that an absolute path leads to at this moment: a symlink may be redirected.

    Different paths may lead to the same store. This reads the file system, so call it in a worker thread.
    """
    if is_url(place):
        return place
    return os.path.realpath(place)


def open_store(identity: str) -> Store:
    """Return a store object for an identity; it is usable immediately, and does no I/O before it is used."""
    if is_url(identity):
        return _etcd_store().at(identity)
    return JournalStore(identity)


def _etcd_store() -> type[EtcdStore]:
    try:
        from .etcd.store import EtcdStore  # noqa: PLC0415 - needs urllib3
    except ModuleNotFoundError as error:
        msg = "a state in etcd needs the extra 'etcd': in a checkout, pip install '.[etcd]'"
        raise ModuleNotFoundError(msg, name=error.name) from error
    return EtcdStore
