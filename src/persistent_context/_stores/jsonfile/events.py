"""Notifications that a file may have changed."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..._flag import Flag
from .flock import fork_gate

_LOOK_ANYWAY_MILLISECONDS: Final = 500
_STEP_MILLISECONDS: Final = 20
_GATHER_AT_MOST_MILLISECONDS: Final = 40
_LOOK_SECONDS: Final = 0.05
_TICKS: Final = 40


class FileSubscription:
    """Notifies, from its own thread, when a file may have changed; see :meth:`Store.subscribe`.

    File system events make it fast, and periodic calls make it reliable: events are lost when too many come at
    once, and are not available on every file system. Without the package watchfiles, or where it cannot watch, the
    calls come often enough to see changes in time.

    Args:
        path: the file.
        also: other files in its directory.
        notify: called in the thread; returns False if there is no listener left.
        fail: called with the error that ends the thread, before the last call of ``notify``.
    """

    def __init__(
        self, path: str, notify: Callable[[], bool], fail: Callable[[BaseException], None], *, also: Sequence[str] = ()
    ) -> None:
        self._closed = Flag()
        threading.Thread(
            target=_watch,
            args=((path, *also), notify, fail, self._closed),
            name=f"watch {os.path.basename(path)}",
            daemon=True,
        ).start()

    def close(self) -> None:
        """Never notify again; the thread ends soon."""
        self._closed.set()


def _watch(
    paths: Sequence[str], notify: Callable[[], bool], fail: Callable[[BaseException], None], closed: Flag
) -> None:
    try:
        while not closed.is_set():
            for _ in itertools.chain(_events(paths, closed), _ticks(closed)):
                if closed.is_set() or not notify():
                    return
    except BaseException as error:  # noqa: BLE001 - reported to the listener
        fail(error)
        notify()


def _events(paths: Sequence[str], closed: Flag) -> Iterator[object]:
    """Yield when a file was replaced or written, and periodically; end if they cannot be watched."""
    directory = os.path.dirname(paths[0])
    names = frozenset(map(os.path.basename, paths))
    # Not installed; no directory; too many watches; a name that is not UTF-8, which watchfiles cannot take.
    with contextlib.suppress(ImportError, OSError, RuntimeError, UnicodeError):
        with fork_gate:  # a child forked in the middle of an import would deadlock on importing the same
            import watchfiles  # noqa: PLC0415

        yield from watchfiles.watch(
            directory,
            watch_filter=lambda _, changed: os.path.basename(changed) in names,
            debounce=_GATHER_AT_MOST_MILLISECONDS,
            step=_STEP_MILLISECONDS,
            rust_timeout=_LOOK_ANYWAY_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=closed,
            raise_interrupt=False,
            recursive=False,
        )


def _ticks(closed: Flag) -> Iterator[object]:
    """Yield many times a second, for a while."""
    for _ in range(_TICKS):
        if closed.wait(_LOOK_SECONDS):
            return
        yield None
