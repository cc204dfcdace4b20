"""What the engine requires of a store: snapshots, exclusive sessions that commit changes, and notifications.

Every implementation passes the tests in ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from .._model.snapshot import Changes, Snapshot
from ..types import Holder


class SessionLostError(Exception):
    """The session ended before its commit: nothing was written, and repeatable calls may run in another session."""


class StaleSessionError(SessionLostError):
    """A session that was not exclusive began with a state that is no longer the latest one."""


class CorruptStateError(ValueError):
    """The stored content is not a state that this package could write back; a session can set it aside.

    Args:
        reason: what is wrong with it, and where.
        remedy: what the user has to do, if a session cannot set it aside.
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.remedy: Final = remedy


class Traffic(NamedTuple):
    """What this process has read and written through one store so far.

    Attributes:
        commits: number of commits.
        bytes_read: bytes read.
        bytes_written: bytes written.
        journal_bytes: the size of the journal, if there is one.
        checkpoints: how often the journal was folded into the file that other programs read.
    """

    commits: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    journal_bytes: int = 0
    checkpoints: int = 0


NUMBER: Final = "number"
"""The only key in the state of a lasting lease."""


class Session(Protocol):
    """Access to a state, for one commit. It belongs to one thread at a time."""

    is_exclusive: bool
    """Whether nothing else commits until it is closed. Otherwise the commit fails if anything else has committed."""
    waited: float
    """How long it had to wait for another session, in seconds; 0 if it did not."""
    held: float
    """How long it kept others waiting, in seconds; known once it is closed."""
    bytes_written: int
    """The number of bytes that its commit wrote."""

    @property
    def snapshot(self) -> Snapshot:
        """The latest committed state, read on first use.

        After a commit, this is the state that it wrote, even if it raised DurabilityUnknownError.

        Raises:
            CorruptStateError: all or part of it is unusable, unless :meth:`set_aside` is called.
            OSError: it cannot be read.
        """

    def set_aside(self) -> None:
        """Keep the corrupt content under another name, with a warning; the state is what remains without it.

        Raises:
            OSError: nothing was changed.
        """

    def commit(self, changes: Changes, *, durable: bool) -> Snapshot:
        """Write the changes, all or none of them, and return the new state. Call it at most once.

        If the session is not exclusive, this also confirms that its state was the latest one, even if there are no
        changes.

        Others see the new state from now on. With ``durable``, it survives a power loss once :meth:`close` has
        returned, and so does everything in the snapshot, no matter who wrote it, even if there are no changes.

        Raises:
            SessionLostError: nothing was written.
            DurabilityUnknownError: it was written, but may not survive a power loss.
            OutcomeUnknownError: it may have been written.
            StoreLimitError: nothing was written; fewer changes at a time may be accepted.
            OSError: nothing was written.
        """

    def close(self) -> None:
        """End the session, and then finish making its commit durable. A second call does nothing.

        Raises:
            DurabilityUnknownError: the commit may not survive a power loss.
        """


class Subscription(Protocol):
    """Calls a function when the state may have changed."""

    def close(self) -> None:
        """Stop calling it. May be called from any thread, signal handler or finalizer, and more than once."""


class Sessions(Protocol):
    """Something to which one thread of any process has exclusive access at a time. Usable from any thread."""

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> Session | None:
        """Begin a session.

        Args:
            purpose: the purpose in one word; :meth:`holder` shows it to others.
            wait: whether to wait, without a limit, for open sessions to close; waiting calls are served in order.
            exclusive: whether it has to be exclusive; otherwise, it may be.

        Returns:
            The session; None if another one is open and ``wait`` is false, or :meth:`abandon_vain_wait` was called.

        Raises:
            OSError: no session could be begun.
        """

    def is_waiting(self) -> bool:
        """Whether a thread in ``begin`` waits, as it has found another session open, or the store out of reach."""

    def abandon_vain_wait(self) -> bool:
        """If a thread in ``begin`` is waiting for a lock that no longer counts, make its call return None eventually.

        Returns:
            Whether there was such a wait; the caller then begins a session in its place.
        """

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the open session, in this or any other process, or None.

        Args:
            probe: check that a session really is open, which may make a concurrent ``begin`` fail; otherwise trust
                what a living holder says about itself.

        Raises:
            StoreUnavailableError: the store cannot be reached at present, which is why no session begins.
        """

    def traffic(self) -> Traffic:
        """Return how much was read and written so far."""

    def close(self) -> None:
        """Close the files that it keeps open. It remains usable, and reopens them when needed."""

    def after_fork_in_child(self) -> None:
        """Close, in a forked child, the files that belong to its parent; open sessions stay with the parent."""


class Store(Sessions, Protocol):
    """One state, kept outside of this process. Usable from any thread."""

    def want(self, *, journal: bool | None) -> None:
        """Set how the state is to be stored, from the next session that writes.

        Args:
            journal: whether commits are appended to a journal; None leaves it unchanged.

        Raises:
            ContextUsageError: this store does not support it.
        """

    def snapshot(self, *, whole: bool = False) -> Snapshot:
        """Return the latest committed state, without waiting for a session.

        Args:
            whole: whether to raise CorruptStateError even if only part of it is corrupt.

        Raises:
            CorruptStateError: it cannot be read unless a session sets it aside.
            SessionLostError: it cannot be read at present; a session waits until it can.
            OSError: it cannot be read.
        """

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> Subscription:
        """Call a function after every change, no matter who made it, and from time to time without one.

        One call may stand for several changes, but at least one call follows the last change. The calls are made in
        another thread, which ends when the function returns False.

        Args:
            notify: the function.
            fail: called with the error that ends the thread, before the last call of ``notify``.
        """

    def lease(self, name: str, *, lasting: bool) -> Sessions:
        """Return the lease of a name: exclusive access to the name itself, not to anything stored under it.

        Leases of different names exclude neither each other nor sessions of the store; nor do a lasting and a
        non-lasting lease of one name. A lease ends when its session is closed, or with its process; it does not expire.

        Args:
            name: any string.
            lasting: whether the only key in the state of a session, :data:`NUMBER`, has a number greater than in all
                earlier sessions, and whether ``commit`` raises SessionLostError if another session may have begun
                since. Otherwise the state is empty, and nothing need be kept between sessions.
        """
