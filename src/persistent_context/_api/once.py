"""Values that are computed once: which one a call asks for, whether it is stored, and how it is stored."""

from __future__ import annotations

import contextlib
import copy
import math
import reprlib
import time
from collections.abc import Coroutine, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from .._model.faults import check_key
from .._model.values import MISSING, Frozen, MaybeText, Missing, decode, encode, same
from .._printable import printable
from .._stores.protocol import CorruptStateError, SessionLostError
from ..errors import ReentrantTransactionError, UnserializableValueError
from .guarded import GuardedMemory
from .link import Link
from .mapping import about_file

__tracebackhide__ = True  # pytest leaves these frames out of tracebacks

_RECORD: Final = ":computed"
"""Appended to a key for that of its record, which has the time of the computation and the version."""
_SHORT: Final = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 200  # characters
_running: ContextVar[tuple[Computation, ...]] = ContextVar("persistent_context_running", default=())
"""The computations around this call. Tasks that a factory started keep them, though they may be over."""


class Computation:
    """A running factory.

    Args:
        subject: the place and the key of its value.
    """

    __slots__ = ("is_left_behind", "is_over", "subject")

    def __init__(self, subject: tuple[str, str]) -> None:
        self.subject: Final = subject
        self.is_left_behind = False
        """Whether its thread continues without the call that started it."""
        self.is_over = False


class Wanted(Frozen, frozen=True):
    """The value that a call asks for: the key, the age in seconds at which it expires, and the text of its version."""

    place: str
    key: str
    expires: float | None
    version: MaybeText

    @classmethod
    def of(cls, place: str, key: str, factory: object, expires: float | None, version: object) -> Wanted:
        """Check the arguments of a call.

        Raises:
            TypeError: one has the wrong type.
            UnserializableValueError: the key is not a string, or JSON cannot hold the version.
            ValueError: ``expires`` is not positive.
        """
        with about_file(place):
            key = check_key(key)
            wanted = MISSING if version is None else encode(version, "version")
        _check_factory(factory, key)
        return cls(place, key, _check_expires(expires), wanted)

    def find(self, entries: Mapping[str, Any]) -> Any:
        """Return a copy of the value, or MISSING if it has to be computed."""
        value = entries.get(self.key, MISSING)
        return copy.deepcopy(value) if value is not MISSING and self._accepts(entries) else MISSING

    def find_known(self, link: Link, memory: GuardedMemory) -> Any:
        """Return the value if it is stored and memory has it, without the lock; otherwise MISSING. This does I/O."""
        try:
            snapshot = link.find().store.snapshot()
        except (CorruptStateError, SessionLostError):
            return MISSING
        texts = snapshot.get((self.key, self._record_key))
        with memory.locked():
            knows = memory.send(self.key) is None and same(texts.get(self.key, MISSING), memory.data.base(self.key))
        return self.find({key: decode(text) for key, text in texts.items()}) if knows else MISSING

    def is_stored(self, link: Link) -> bool:
        """Whether there is a value, whatever it is. This does I/O."""
        return bool(link.find().store.snapshot().get((self.key,)))

    def keep(self, entries: MutableMapping[str, Any], value: Any) -> Any:
        """Store a value unless there is one by now; return a copy of the stored one."""
        found = self.find(entries)
        if found is not MISSING:
            return found
        entries[self.key] = value
        record = {} if isinstance(self.version, Missing) else {"version": decode(self.version)}
        if record or self.expires is not None:
            entries[self._record_key] = {"at": datetime.now(UTC).isoformat(), **record}
        else:
            entries.pop(self._record_key, None)
        return copy.deepcopy(value)

    def checked(self, value: Any) -> Any:
        """Return a computed value as it will be read back.

        Raises:
            UnserializableValueError: JSON cannot hold it; the error names the key and shows the value.
        """
        try:
            return decode(encode(value, self.key))
        except UnserializableValueError as error:
            reason = f"{error.reason}; the factory of {self.key!r} returned {_SHORT.repr(value)}"
            raise type(error)(error.place, reason).about(self.place) from None

    def check_not_running(self) -> None:
        """Raise ReentrantTransactionError in the value's own factory while it runs, or in what it called or started."""
        if any(run.subject == (self.place, self.key) and not run.is_over for run in _running.get()):
            msg = f"the factory of {self.key!r} asks for {self.key!r}: it would wait for itself"
            raise ReentrantTransactionError(msg).about(self.place)

    @contextlib.contextmanager
    def running(self) -> Iterator[Computation]:
        """Note that the factory runs in the block."""
        computation = Computation((self.place, self.key))
        before = _running.set((*_running.get(), computation))
        try:
            yield computation
        finally:
            _running.reset(before)
            if not computation.is_left_behind:  # else its thread says when it is over, or has already
                computation.is_over = True

    @property
    def _record_key(self) -> str:
        return self.key + _RECORD

    def _accepts(self, entries: Mapping[str, Any]) -> bool:
        """Whether the value is recent enough, and of the right version, as far as the call asks for that."""
        if self.expires is None and self.version is MISSING:
            return True
        record = entries.get(self._record_key)
        if not isinstance(record, dict):
            return False
        version = encode(record["version"], self.key) if "version" in record else MISSING
        if self.version is not MISSING and not same(version, self.version):
            return False
        return self.expires is None or 0 <= _age(record.get("at")) < self.expires


def _age(moment: object) -> float:
    """Return how many seconds ago a recorded moment was; infinity if that is unknown."""
    try:
        return time.time() - datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError):
        return math.inf


def _check_factory(factory: object, key: str) -> None:
    if callable(factory):
        return
    kind = type(factory).__name__
    if isinstance(factory, Coroutine):
        factory.close()  # instead of a warning that it was never awaited
    msg = f"the factory of {printable(repr(key))} must be a function, not {kind}: pass fetch, not fetch()"
    raise TypeError(msg)


def _check_expires(expires: object) -> float | None:
    if expires is None:
        return None
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        msg = f"expires must be a number of seconds, not {type(expires).__name__}"
        raise TypeError(msg)
    if not expires > 0:  # or NaN
        msg = f"expires must be positive, not {expires!r}"
        raise ValueError(msg)
    return float(expires)
