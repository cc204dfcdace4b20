"""Leases: queues of their own, whose turns have numbers that only grow."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import quote

from ..._model.snapshot import Changes
from ...types import Holder
from ..jsonfile.document import EMPTY, Document
from ..protocol import NUMBER, SessionLostError, Traffic
from .client import Client
from .failures import UnreachableError
from .lease import LIFETIME_SECONDS
from .state import Names
from .turns import Turn, Turns

_LOST: Final = (
    f"this process was stopped, or cut off from etcd, for longer than {LIFETIME_SECONDS} s, or the key of the lease "
    "was deleted"
)
_RETRY_SECONDS: Final = 0.2


class EtcdLease:
    """Exclusive access to a name; see :class:`Sessions`.

    Args:
        client: the cluster.
        names: the names of the keys in the namespace.
        name: the name of the lease.
        lasting: see :meth:`Store.lease`.
    """

    def __init__(self, client: Client, names: Names, name: str, *, lasting: bool) -> None:
        kind = "lease" if lasting else "once"
        self._turns: Final = Turns(client, names.lease(f"{kind}-{quote(name, safe='', errors='surrogatepass')}"))
        self._lasting: Final = lasting

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> EtcdLeaseSession | None:  # noqa: ARG002
        """Take the lease; see :meth:`Sessions.begin`."""
        began = time.monotonic()
        turn = self._turns.take(purpose, wait=wait)
        if turn is None:
            return None
        waited = time.monotonic() - began if turn.waited else 0.0
        return EtcdLeaseSession(turn, waited, lasting=self._lasting)

    def is_waiting(self) -> bool:
        """Whether a thread waits for the lease; see :meth:`Sessions.is_waiting`."""
        return self._turns.is_waiting()

    def abandon_vain_wait(self) -> bool:
        """Return False: a wait for a turn is never in vain. See :meth:`Sessions.abandon_vain_wait`."""
        return False

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the lease; see :meth:`Sessions.holder`."""
        return self._turns.holder(probe=probe)

    def traffic(self) -> Traffic:
        """Return zeros: the traffic of leases is not counted."""
        return Traffic()

    def close(self) -> None:
        """Close the stream that follows the queue, if nobody waits."""
        self._turns.close()

    def after_fork_in_child(self) -> None:
        """Leave the lease to the parent."""
        self._turns.forget()


class EtcdLeaseSession:
    """A turn; its state is its number. See :class:`Session`.

    Args:
        turn: the turn.
        waited: how long it had to wait, in seconds.
        lasting: whether it has a number.
    """

    is_exclusive = True

    def __init__(self, turn: Turn, waited: float, *, lasting: bool) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self.snapshot: Final = EMPTY.changed({NUMBER: b"%d" % turn.token}) if lasting else EMPTY
        self._turn: Final = turn
        self._lasting: Final = lasting
        self._since: Final = time.monotonic()

    def set_aside(self) -> None:
        """Do nothing: a number cannot be corrupt. See :meth:`Session.set_aside`."""

    def commit(self, changes: Changes, *, durable: bool) -> Document:  # noqa: ARG002 - a lease has nothing to write
        """Check that no other process can have had the lease since it was taken; see :meth:`Session.commit`."""
        deadline = time.monotonic() + LIFETIME_SECONDS  # by then, it is probably lost
        while self._lasting:
            try:
                if self._turn.lasts():
                    break
                raise SessionLostError(_LOST)
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)
        return self.snapshot

    def close(self) -> None:
        """Release the lease."""
        self._turn.end()
        self.held = self.held or time.monotonic() - self._since
