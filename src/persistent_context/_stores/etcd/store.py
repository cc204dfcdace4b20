"""The store in a namespace of an etcd cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ...errors import ContextUsageError
from ...types import Holder
from ..jsonfile.document import Document
from ..protocol import Traffic
from .address import Address, recall
from .client import Client
from .failures import UnreachableError
from .gateway import Gateway
from .leases import EtcdLease
from .namespace import Namespace
from .session import EtcdSession
from .state import Names
from .subscription import EtcdSubscription
from .turns import Turns


class EtcdStore:
    """One namespace; see :class:`Store`.

    Args:
        address: where it is.
    """

    def __init__(self, address: Address) -> None:
        names = Names.of(address.namespace)
        self._gateway: Final = Gateway(address)
        self._namespace: Final = Namespace(Client(self._gateway), names)
        self._turns: Final = Turns(self._namespace.client, names.queue)

    @classmethod
    def at(cls, place: str) -> EtcdStore:
        """Return the store at a place, with the user and password that were last given for it."""
        return cls(recall(place))

    def want(self, *, journal: bool | None) -> None:
        """Refuse a journal; see :meth:`Store.want`."""
        if journal is not None:
            msg = "journal is an option of files: etcd has no journal"
            raise ContextUsageError(msg)

    def snapshot(self, *, whole: bool = False) -> Document:  # noqa: ARG002 - it is never read in part
        """Return the latest state, read linearizably; see :meth:`Store.snapshot`."""
        return self._namespace.read().document

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> EtcdSession | None:
        """Begin a session, without a request if nobody else is expected; see :meth:`Sessions.begin`."""
        began, space = time.monotonic(), self._namespace
        state = space.state
        if not (exclusive or space.is_busy or self._turns.is_crowded or self._gateway.trouble):
            return EtcdSession(space, None, 0.0, state if state.revision else None)
        turn = self._turns.take(purpose, wait=wait, reads=state.read())
        if turn is None:
            return None
        waited = time.monotonic() - began if turn.waited else 0.0
        try:
            known = space.learn(state, turn.found, turn.revision) if turn.found else None
        except UnreachableError:
            known = None  # to be read again
        except BaseException:
            turn.end()
            raise
        return EtcdSession(space, turn, waited, known)

    def is_waiting(self) -> bool:
        """Whether a thread waits for its turn; see :meth:`Store.is_waiting`."""
        return self._turns.is_waiting()

    def abandon_vain_wait(self) -> bool:
        """Return False: a wait for a turn is never in vain. See :meth:`Store.abandon_vain_wait`."""
        return False

    def subscribe(self, notify: Callable[[], bool], fail: Callable[[BaseException], None]) -> EtcdSubscription:
        """Call a function when something has changed; see :meth:`Store.subscribe`."""
        return EtcdSubscription(self._namespace.client, self._namespace.names, notify, fail)

    def lease(self, name: str, *, lasting: bool) -> EtcdLease:
        """Return the lease of a name; see :meth:`Store.lease`."""
        return EtcdLease(self._namespace.client, self._namespace.names, name, lasting=lasting)

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return who has the turn; see :meth:`Store.holder`."""
        holder, trouble = self._turns.holder(probe=probe), self._namespace.committer.trouble
        if holder is None and trouble is not None and not probe:  # nobody is why
            raise trouble.as_unavailable()
        return holder

    def traffic(self) -> Traffic:
        """Return how much this process has read and written."""
        return self._namespace.traffic()

    def close(self) -> None:
        """Close the connections; see :meth:`Store.close`."""
        self._turns.close()
        self._gateway.close()

    def after_fork_in_child(self) -> None:
        """Leave turns to the parent, as the gateway does with connections; see :meth:`Store.after_fork_in_child`."""
        self._namespace.forget()
        self._turns.forget()
