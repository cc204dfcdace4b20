"""Every error that the package raises, each over one base and the natural builtin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from ._printable import printable
from ._types import Holder


class PersistentContextError(Exception):
    """The base of all errors of this package.

    Attributes:
        filepath: the JSON file that the failed call was about, or ``None`` if no file was involved yet.
    """

    filepath: str | None = None

    def about(self, filepath: str) -> Self:
        """Name the file that this error is about, unless a file is named already."""
        if self.filepath is None:
            self.filepath = filepath
        return self

    def __str__(self) -> str:
        """Return the message, with the file named and nothing in it that a terminal would obey."""
        message = printable(super().__str__())
        if self.filepath is None or printable(self.filepath) in message:
            return message
        return f"{printable(self.filepath)}: {message}"


class LockTimeoutError(PersistentContextError, TimeoutError):
    """The lock of the file was not had within the timeout; nothing was changed.

    Raised by every call that writes, and by ``transaction()`` on entering.

    Attributes:
        waited: how long the call waited, in seconds.
        holder: who held the lock when the wait ended, or ``None`` if it had just become free.
    """

    def __init__(self, waited: float, holder: Holder | None) -> None:
        who = f"held by {holder}" if holder else "free again by now; try once more"
        super().__init__(f"no lock within {waited:.3g} s ({who})")
        self.waited = waited
        self.holder = holder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.waited, self.holder), self.__dict__


class LockLostError(PersistentContextError):
    """Somebody removed or replaced the lock file under an open transaction; nothing was written.

    Only ``transaction()`` raises it: every other call starts again under the new lock.
    """


class ConflictError(PersistentContextError):
    """Another writer changed the same keys, and ``on_conflict="raise"``; nothing was written.

    Attributes:
        keys: the keys in conflict, a frozen set.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = frozenset(keys)
        names = ", ".join(repr(key) for key in sorted(self.keys))
        super().__init__(
            f"changed here and by another writer: {names}; load() takes theirs, save() under another policy"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.keys,), self.__dict__


class ContextUsageError(PersistentContextError, RuntimeError):
    """A call that cannot work here: another event loop's context, a finished or a forked transaction."""


class ReentrantTransactionError(ContextUsageError):
    """A call that would wait for a transaction which its own task or thread holds open: a deadlock, were it to wait."""


class UnserializableValueError(PersistentContextError, TypeError):
    """A value or key that JSON cannot hold and give back equal; nothing was written.

    Where the type is right and only the value is not (NaN, a lone surrogate, a cycle), it is a ``ValueError`` as well.

    Attributes:
        place: where in the context it stands, such as ``["jobs"][3]["when"]``.
        reason: what is wrong with it.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.reason), self.__dict__


class UnserializableContentError(UnserializableValueError, ValueError):
    """An :class:`UnserializableValueError` whose type is right."""


class TooManyDigitsError(PersistentContextError, ValueError):
    """The file holds an integer that is too long to be read here; it is valid JSON, and is left as it is.

    Raised by every call that reads the file, and where a value is looked at.

    Attributes:
        digits: how many digits the integer has.
        limit: how many can be read: 4,300, or less after ``sys.set_int_max_str_digits()``.
    """

    def __init__(self, digits: int, limit: int) -> None:
        super().__init__(
            f"an integer of {digits:,} digits cannot be read, the limit is {limit:,} (the default of "
            f"sys.set_int_max_str_digits() is 4,300, and no more are supported); the file was left as it is"
        )
        self.digits = digits
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.digits, self.limit), self.__dict__


class DurabilityUnknownError(PersistentContextError, OSError):
    """The file holds what the call was to write, or found there, but syncing it failed: a power loss may undo it."""


class NotARegularFileError(PersistentContextError, OSError):
    """A directory, link, FIFO, socket or device stands in the place of the JSON file or of its lock file."""
