"""What the engine requires of a store: snapshots, exclusive sessions that commit changes, and notifications.

Every implementation passes the tests in ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from .._model.snapshot import Changes, Snapshot
from ..types import Holder


class SessionLostError(Exception):
    """The session ended before its commit: nothing was written, and what is repeatable may run in another session."""


class CorruptStateError(ValueError):
    """What is stored is not a state that this package could write back; a session can set it aside."""


class Traffic(NamedTuple):
    """What this process has read and written through one store so far.

    Attributes:
        commits: how often changes were committed.
        bytes_read: bytes read.
        bytes_written: bytes written.
        journal_bytes: the size of the journal, if there is one.
        checkpoints: how often the journal was folded into what other programs read.
    """

    commits: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    journal_bytes: int = 0
    checkpoints: int = 0


NUMBER: Final = "number"
"""The one key in the state of a lasting lease."""


class Session(Protocol):
    """Exclusive access: no one else commits until it is closed. It belongs to one thread at a time."""

    waited: float
    """How long it had to wait for another session, in seconds; 0 if it did not."""
    held: float
    """How long others had to wait for it, in seconds; known once it is closed."""
    bytes_written: int
    """How much its commit has written."""

    @property
    def snapshot(self) -> Snapshot:
        """The latest committed state, read on first use.

        After a commit, this is the state that it wrote, even if it raised DurabilityUnknownError.

        Raises:
            CorruptStateError: it cannot be used, or only a part of it, unless :meth:`set_aside` is called.
            OSError: it cannot be read.
        """

    def set_aside(self) -> None:
        """Keep what is corrupt under another name, with a warning; the state is what is left without it.

        Raises:
            OSError: it is left as it is.
        """

    def commit(self, changes: Changes, *, durable: bool) -> Snapshot:
        """Write the changes, all or none of them, and return the new state. Call it once at most.

        Others see the new state from now on. It survives a power loss once :meth:`close` has returned, if ``durable``;
        then so does everything that the snapshot had, whoever wrote it, even if there are no changes.

        Raises:
            SessionLostError: nothing was written.
            DurabilityUnknownError: it was written, but may not survive a power loss.
            OSError: nothing was written.
        """

    def close(self) -> None:
        """End the session, and then complete what makes its commit durable. A second call does nothing.

        Raises:
            DurabilityUnknownError: the commit may not survive a power loss.
        """


class Subscription(Protocol):
    """Calls a function when the state may have changed."""

    def close(self) -> None:
        """Stop calling it; callable from any thread, a signal handler and a finalizer, and more than once."""


class Sessions(Protocol):
    """Something that one thread at a time, of any process, has to itself. Usable from any thread."""

    def begin(self, purpose: str, *, wait: bool) -> Session | None:
        """Begin a session.

        Args:
            purpose: what for, in one word; others see it in :meth:`holder`.
            wait: whether to wait, without a limit, for others that have one; they are served in order.

        Returns:
            The session; None if another one is open and ``wait`` is false, or :meth:`abandon_vain_wait` was called.

        Raises:
            OSError: none could be begun.
        """

    def abandon_vain_wait(self) -> bool:
        """If a thread waits in ``begin`` for what can no longer come, make that return None eventually.

        Returns:
            Whether it was so: then the caller begins a session in its place.
        """

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return who has the open session, in this or any other process, or None.

        Args:
            probe: find out whether it really is open, which may make another ``begin`` of this moment fail; otherwise
                trust what a living holder says about itself.
        """

    def traffic(self) -> Traffic:
        """Return what was read and written so far."""

    def close(self) -> None:
        """Release what it keeps open. It can be used again, and then opens it again."""

    def after_fork_in_child(self) -> None:
        """Release, in a forked child, what belongs to its parent; its sessions stay with the parent."""


class Store(Sessions, Protocol):
    """One state, kept outside of this process. Usable from any thread."""

    def want(self, *, journal: bool | None) -> None:
        """Note how a context wants the state to be kept, from the next session on that writes; ``None`` for no wish.

        Args:
            journal: whether commits are appended to a journal.

        Raises:
            ContextUsageError: this store cannot do so.
        """

    def snapshot(self, *, whole: bool = False) -> Snapshot:
        """Return the latest committed state; waits for no session.

        Args:
            whole: whether to raise CorruptStateError even if only a part of it is corrupt.

        Raises:
            CorruptStateError: it cannot be read unless a session sets it aside.
            OSError: it cannot be read.
        """

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> Subscription:
        """Call a function after every change, by anyone, and now and then without one.

        Several changes may be notified by one call, but at least one comes after the last change. It is made in
        another thread, which ends if the function returns False.

        Args:
            notify: the function.
            fail: called with the error that ends the thread, before the last call of ``notify``.
        """

    def lease(self, name: str, *, lasting: bool) -> Sessions:
        """Return what a lease of this name gives exclusive access to: a name, and nothing that is stored under it.

        Leases of different names, or one that is lasting and one that is not, exclude neither each other nor sessions
        of the store. A lease ends when its session is closed, or with its process; it does not expire.

        Args:
            name: any string.
            lasting: whether the one key in the state of a session, :data:`NUMBER`, is a number greater than in all
                sessions before; and whether its ``commit`` raises SessionLostError if others may have begun a session
                meanwhile. Otherwise the state is empty, and nothing need be kept between sessions.
        """
