"""How a request to etcd may end, other than with an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...errors import PersistentContextError, StoreUnavailableError
from ..protocol import SessionLostError


class UnreachableError(SessionLostError):
    """No endpoint has taken the request: it was not carried out, and never will be.

    Args:
        endpoints: why not, by endpoint.
    """

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        super().__init__(str(StoreUnavailableError(endpoints)))
        self.endpoints: Final = dict(endpoints)

    def as_unavailable(self) -> StoreUnavailableError:
        """Return the error for a caller."""
        return StoreUnavailableError(self.endpoints)


class UnansweredError(Exception):
    """The request was sent, but no answer came: it may have been carried out, or may still be.

    Args:
        endpoint: where it was sent.
        reason: what came instead of the answer.
    """

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint: Final = endpoint
        self.reason: Final = reason


class RefusedError(PersistentContextError, OSError):
    """The cluster has refused the request: it was not carried out, except maybe one that has filled its store.

    Args:
        code: gRPC's status code.
        reason: the server's message.
        endpoint: which endpoint refused it.
    """

    def __init__(self, code: int, reason: str, endpoint: str) -> None:
        super().__init__(f"etcd at {endpoint} refused the request: {reason}")
        self.code: Final = code
        self.reason: Final = reason
