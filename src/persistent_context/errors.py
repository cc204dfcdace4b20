"""The errors that the package raises. All have one base class; each also derives from the fitting built-in one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from ._printable import printable
from .types import Holder, OpenTransaction

_MOST_DIGITS: Final = 4300


class PersistentContextError(Exception):
    """The base of all errors of this package.

    Attributes:
        filepath: the JSON file that the failed call worked on, or the URL in etcd (without user and password), or
            ``None`` if none was involved yet.
    """

    filepath: str | None = None

    def about(self, filepath: str) -> Self:
        """Record the file that this error is about, unless one is recorded already."""
        if self.filepath is None:
            self.filepath = filepath
        return self

    def __str__(self) -> str:
        """Return the message, naming the file, with control characters escaped."""
        message = printable(super().__str__())
        if self.filepath is None or printable(self.filepath) in message:
            return message
        return f"{printable(self.filepath)}: {message}"


class LockTimeoutError(PersistentContextError, TimeoutError):
    """The lock of the file could not be acquired within the timeout; nothing was changed.

    Raised by every call that writes, and on entering ``transaction()``.

    Attributes:
        timeout: the timeout of the call, in seconds.
        waited: how long the call waited, in seconds.
        holder: the holder of the lock when the wait ended, or ``None`` if it had just become free.
        transaction: the open transaction of this process that the call waited for, or ``None``. It cannot end if code
            inside its own block waits for the call.
    """

    def __init__(
        self, timeout: float, waited: float, holder: Holder | None, transaction: OpenTransaction | None = None
    ) -> None:
        within = f"within {timeout:g} s" if timeout else "at once"
        super().__init__(f"could not get the lock {within} ({_reason(holder, transaction)})")
        self.timeout = timeout
        self.waited = waited
        self.holder = holder
        self.transaction = transaction

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.timeout, self.waited, self.holder, self.transaction), self.__dict__


def _reason(holder: Holder | None, transaction: OpenTransaction | None) -> str:
    """Return why a call could not get the lock, and what can be done about it."""
    if transaction is not None:
        return (
            f"held by this process, in {transaction}: it cannot end if its own block waits for this call; use the "
            "transaction there, or make the call after the block"
        )
    if holder is None:
        return "free now; try again"
    reason = f"held by {holder}"
    if holder.verified and holder.pid == os.getpid():
        reason += ", which is this process"
        if holder.purpose is None:
            reason += ": it locked the lock file without this library, and has to release it first"
    return reason


class CorruptFileError(PersistentContextError, ValueError):
    """The file is corrupt and ``on_corrupt="raise"`` is set, or a key in etcd is corrupt; the call changed nothing.

    Raised by every call that reads the file: ``load()``, ``save()``, atomic operations, and on entering
    ``transaction()``.

    Attributes:
        reason: what is wrong with the file, and where.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        what = "file" if remedy is None else "state"
        remedy_of_file = 'repair or remove it, or use on_corrupt="aside", which keeps it under another name'
        super().__init__(f"the {what} is corrupt ({reason}), and this call changed nothing; {remedy or remedy_of_file}")
        self.reason = reason
        self._remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self._remedy), self.__dict__


class LeaseHeldError(LockTimeoutError):
    """Another process, thread or task held the lease until the timeout of the call expired.

    Raised on entering ``lease()`` with ``wait=False`` or a ``timeout``.

    Attributes:
        name: the name of the lease.
        timeout: the timeout of the call, in seconds; 0 if it did not wait.
        waited: how long the call waited, in seconds.
        holder: the process that held the lease when the wait ended, or ``None`` if it had just become free.
        owner: the task or thread of this process that held it, such as ``task 'Task-3'``; ``None`` if none did.
    """

    def __init__(self, name: str, timeout: float, waited: float, holder: Holder | None, owner: str | None) -> None:
        super().__init__(timeout, waited, holder)
        limit = f" within {timeout:g} s" if timeout else ""
        reason = f"held by this process, in {owner}" if owner else _reason(holder, None)
        self.args = (f"could not get the lease {name!r}{limit} ({reason})",)
        self.name = name
        self.owner = owner

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.timeout, self.waited, self.holder, self.owner), self.__dict__


class LockLostError(PersistentContextError):
    """The lock file was deleted or replaced during a transaction, or the file of a lease while it was held.

    In etcd: the process was stopped, or cut off from the cluster, for so long that its turn or its lease has ended; or
    a program that does not use this library has changed the state during a transaction.

    Raised on leaving ``transaction()``, which wrote nothing, or ``lease()``. Every other call is retried under the new
    lock.
    """


class ConflictError(PersistentContextError):
    """Another writer changed the same places, and ``on_conflict="raise"``; nothing was written.

    Attributes:
        keys: the top-level keys in conflict, a frozen set.
        places: the places in conflict, such as ``["workers"]["w1"]``, a tuple.
    """

    def __init__(self, keys: Iterable[str], places: Iterable[str] = ()) -> None:
        self.keys = frozenset(keys)
        self.places = tuple(places) or tuple(f"[{key!r}]" for key in sorted(self.keys))
        super().__init__(
            f"changed both here and by another writer: {', '.join(self.places)}; "
            "call load() to take theirs, which drops all unsaved changes, or use another on_conflict"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.keys, self.places), self.__dict__


class ContextUsageError(PersistentContextError, RuntimeError):
    """A call that is not possible here.

    It reads a context that was never loaded, or is made in the wrong event loop, in a finished transaction, or on an
    object that belongs to the parent process.
    """


class ReentrantTransactionError(ContextUsageError):
    """A call that would deadlock: it would wait for a transaction, lease or computation of its own task or thread."""


class UnsavedInTransactionWarning(UserWarning):
    """A key was set or deleted in a context, inside a transaction of the same task or thread on the same file.

    The transaction commits only what is changed in ``tx``. The change in the context stays unsaved until the next
    ``save()``, unless the transaction touches the same key later. A change in place, of a list or dictionary of the
    context, causes no warning.
    """


class UnserializableValueError(PersistentContextError, TypeError):
    """A value or key that does not survive a round trip through JSON; nothing was written.

    If the type is supported and only the value is not (NaN, a lone surrogate, a cycle), it is also a ``ValueError``.

    Attributes:
        place: where it is in the context, such as ``["jobs"][3]["when"]``, or in an argument, such as ``items[0]``.
        reason: what is wrong with it, and what to do, such as ``is a datetime, which JSON cannot hold; convert it, for
            example with .isoformat()``.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} {reason}")
        self.place = place
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.reason), self.__dict__


class UnserializableContentError(UnserializableValueError, ValueError):
    """An :class:`UnserializableValueError` for a value of a supported type."""


class TooManyDigitsError(PersistentContextError, ValueError):
    """The file holds an integer with too many digits to read; it is valid JSON, and is left unchanged.

    Raised by every call that reads the file, and when the value is accessed.

    Attributes:
        digits: how many digits the integer has.
        limit: how many digits can be read: 4,300, or fewer after ``sys.set_int_max_str_digits()``.
    """

    def __init__(self, digits: int, limit: int) -> None:
        remedy = "call sys.set_int_max_str_digits(4300)" if limit < _MOST_DIGITS else "write it as a string"
        super().__init__(
            f"cannot read an integer of {digits:,} digits: the limit is {limit:,} ({remedy}); the file is unchanged"
        )
        self.digits = digits
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.digits, self.limit), self.__dict__


class DurabilityUnknownError(PersistentContextError, OSError):
    """The file has what the call wrote or found there, but could not be synced: a power loss may undo the change."""


class NotARegularFileError(PersistentContextError, OSError):
    """The JSON file or its lock file is not a regular file, but a directory, link, FIFO, socket or device."""


class JournalVersionError(PersistentContextError):
    """A newer version of this package wrote the journal beside the JSON file; nothing was read or written.

    Attributes:
        found: the format version of the journal.
        known: the latest format version that this package can read.
    """

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the journal has format version {found}, but this version of persistent-context can read only {known}: "
            "upgrade the package"
        )
        self.found = found
        self.known = known

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.found, self.known), self.__dict__


class StoreUnavailableError(PersistentContextError, TimeoutError):
    """No endpoint of the etcd cluster carried out the call within the timeout; nothing was changed.

    Either no endpoint can be reached, or those that can be reached do not have a majority of the cluster.

    Attributes:
        endpoints: why not, by endpoint: a mapping such as ``{"10.0.0.1:2379": "Connection refused"}``.
    """

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in endpoints.items())
        super().__init__(
            f"no endpoint of the etcd cluster carried out the call ({reasons}): check the endpoints in the URL, and "
            "that a majority of the members is running; 'persistent-context doctor URL' tries each endpoint"
        )
        self.endpoints = dict(endpoints)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.endpoints,), self.__dict__


class OutcomeUnknownError(PersistentContextError, OSError):
    """The change was sent to the etcd cluster, but whether it was carried out could not be determined in time.

    Repeating the call might apply the change twice: load the state and check it first.
    """


class StoreLimitError(PersistentContextError, ValueError):
    """The call changes more than one transaction of etcd can hold; nothing was changed.

    Attributes:
        size: the size of the changes, in bytes.
        limit: the greatest size that is accepted, in bytes.
        key: the key with the largest value.
    """

    def __init__(self, size: int, limit: int, key: str) -> None:
        super().__init__(
            f"the call changes {size:,} bytes, and etcd accepts {limit:,} at once (the largest value is that of "
            f"{key!r}); split the change into several calls, or keep large values elsewhere"
        )
        self.size = size
        self.limit = limit
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit, self.key), self.__dict__
