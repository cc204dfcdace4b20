"""Copying a state from one store to another; see :func:`copy_state`."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from .._model.snapshot import Changes, Snapshot
from .._model.values import MISSING, MaybeText, Text
from .._stores.factory import identify, is_url, open_store
from .._stores.protocol import Session, SessionLostError
from ..errors import LockTimeoutError, PersistentContextError, StoreLimitError
from .arguments import require, snapshot_of
from .streams import fail, note, refuse

_OVERHEAD_BYTES: Final = 64
"""What a key needs in a transaction besides its name, its value and the namespace, at most."""
_TRY_ONLY_SECONDS: Final = 0.01
"""A shorter timeout means one try."""


def copy_state(source: str, target: str, *, force: bool, timeout: float) -> tuple[int, int]:
    """Copy all keys from one place to another, in order; return the number of keys, and of the commits it took.

    The source is read while the target is locked. So even if both are one state under two names, nothing is lost. The
    texts of the values are copied as they are; a context would also leave keys with equal values in their old order.

    Args:
        source: the place to copy.
        target: another place.
        force: whether to replace the keys that the target has.
        timeout: how long to wait for the target's lock, in seconds.
    """
    if _is_same(source, target):
        refuse("TO must not be the same as FROM")
    require(source)
    existing = list(snapshot_of(target, must_exist=False).keys())
    state: dict[str, Text] = {}

    def replace(there: Snapshot) -> Changes:
        existing[:] = there.keys()
        if existing and not force:
            fail(f"{target} already has keys ({len(existing)}); --force replaces them")
        state.update(_texts(snapshot_of(source)))
        texts: dict[str, MaybeText] = {key: MISSING for key in existing if key not in state}
        return Changes({**texts, **state}, state.keys(), creates=not there.exists)

    place = _Target(target, timeout)
    try:
        place.commit(replace)
    except StoreLimitError as error:
        if existing:
            fail(
                f"{target} has keys, and they cannot be replaced in one commit: {error.size:,} bytes would change, and "
                f"etcd accepts {error.limit:,} at once; copy to a URL without keys"
            )
        return len(state), _copy_in_parts(state, place, error.limit)
    return len(state), 1


class _Target:
    """Where a state is copied to.

    Args:
        name: the place.
        timeout: how long to wait for its lock, in seconds.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name: Final = name
        self._timeout: Final = timeout
        self._store: Final = open_store(identify(name))

    def commit(self, decide: Callable[[Snapshot], Changes]) -> None:
        """Commit the changes that a function decides on, given the state, with exclusive access.

        Raises:
            LockTimeoutError: another process had the lock all the time.
            StoreUnavailableError: the store could not be reached.
            PersistentContextError: it may not have been committed, or not durably.
        """
        began = time.monotonic()
        try:
            while True:
                session = self._begin(began)
                with contextlib.closing(session), contextlib.suppress(SessionLostError):  # nothing was written
                    if changes := decide(session.snapshot):
                        session.commit(changes, durable=True)
                    return
        except PersistentContextError as error:
            raise error.about(self.name) from None

    def _begin(self, began: float) -> Session:
        """Wait for the lock: in another thread, as the wait itself has no limit."""
        answers: queue.SimpleQueue[Session | BaseException | None] = queue.SimpleQueue()
        waits = self._timeout >= _TRY_ONLY_SECONDS

        def begin() -> None:
            try:
                answers.put(self._store.begin("copy", wait=waits))
            except BaseException as error:  # noqa: BLE001 - raised below
                answers.put(error)

        answer: Session | BaseException | None = None
        while answer is None:
            threading.Thread(target=begin, daemon=True).start()
            left = began + self._timeout - time.monotonic() if waits else math.inf
            with contextlib.suppress(queue.Empty):
                answer = answers.get(timeout=None if math.isinf(left) else max(left, 0))
            if answer is None and (not waits or time.monotonic() >= began + self._timeout):
                raise LockTimeoutError(self._timeout, time.monotonic() - began, self._store.holder())
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _is_same(source: str, target: str) -> bool:
    if is_url(source) and is_url(target):
        (hosts, namespace), (other_hosts, other_namespace) = map(_split, (source, target))
        return namespace == other_namespace and not hosts.isdisjoint(other_hosts)
    return not is_url(source) and not is_url(target) and identify(source) == identify(target)


def _split(place: str) -> tuple[set[str], str]:
    """Return the endpoints and the namespace of a URL."""
    hosts, _, rest = place.partition("://")[2].partition("/")
    return set(hosts.split(",")), rest.partition("?")[0]


def _texts(snapshot: Snapshot) -> dict[str, Text]:
    return {key: bytes(text) for part in snapshot.parts() for key, text in part.items()}


def _copy_in_parts(state: Mapping[str, Text], place: _Target, limit: int) -> int:
    """Copy a state to a place without keys, in commits of a bounded size; return how many it took.

    A part has at most half of what is accepted at once, unless a single value is larger: so others wait less.
    """
    overhead = _OVERHEAD_BYTES + len(place.name)
    # Each key is sent up to three times: with its value, with its number, and to compare it.
    sizes = {key: overhead + 3 * len(key.encode()) + len(text) for key, text in state.items()}
    largest = max(sizes, key=sizes.__getitem__)
    if sizes[largest] > limit:
        fail(f"{place.name}: the value of {largest!r} is too large, nothing was copied: etcd accepts {limit:,} bytes")
    copied: list[str] = []

    def add(part: Mapping[str, Text]) -> Callable[[Snapshot], Changes]:
        def decide(there: Snapshot) -> Changes:
            if list(there.keys()) != copied:
                fail(f"{place.name}: another program has changed its keys during the copy")
            return Changes(part)

        return decide

    commits = 0
    try:
        for part in _parts(state, sizes, limit // 2):
            place.commit(add(part))
            copied += part
            commits += 1
    except BaseException:
        if copied:
            note(
                f"{place.name} has only some of the keys, at least {len(copied)} of {len(state)}: "
                "delete them before you copy again"
            )
        raise
    return commits


def _parts(state: Mapping[str, Text], sizes: Mapping[str, int], most: int) -> Iterator[dict[str, Text]]:
    part: dict[str, Text] = {}
    size = 0
    for key, text in state.items():
        if part and size + sizes[key] > most:
            yield part
            part, size = {}, 0
        part[key] = text
        size += sizes[key]
    yield part
