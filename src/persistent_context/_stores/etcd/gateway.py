"""Requests to a cluster of etcd: one endpoint is asked after the other, by a user if there is one.

gRPC itself would be a little faster, but its Python library does not survive a fork (grpc/grpc#31885).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from .address import Address, Secret
from .connections import Connections, Stream
from .failures import RefusedError, UnansweredError, UnreachableError

T = TypeVar("T")

_UNAUTHENTICATED: Final = 16
_AUTHENTICATE_AGAIN: Final = "etcdserver: revision of auth store is old"


class Gateway:
    """The endpoints of a cluster. Usable from any thread.

    Args:
        address: the endpoints, certificates and credentials.
    """

    def __init__(self, address: Address) -> None:
        self._address: Final = address
        self._place: Final = address.place()
        self._connections: Final = Connections(address)
        self._preferred = 0
        self._token: Secret | None = None
        self.trouble: UnreachableError | None = None
        """Why the last request was not carried out by any endpoint; None if it was."""

    def call(self, path: str, body: Mapping[str, Any], *, repeatable: bool) -> dict[str, Any]:
        """Send a request to one endpoint after another until one answers.

        Args:
            path: the method.
            body: its argument.
            repeatable: whether it may be carried out more than once.

        Raises:
            UnreachableError: no endpoint carried it out.
            UnansweredError: an endpoint may have carried it out; only if it is not repeatable.
            RefusedError: an endpoint refused it.
        """
        try:
            answer = self._first(lambda endpoint: self.ask(endpoint, path, body), repeatable=repeatable)
        except UnreachableError as error:
            self.trouble = error
            raise
        except RefusedError as error:
            raise error.about(self._place) from None
        self.trouble = None
        return answer

    def ask(self, endpoint: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to this endpoint alone; otherwise like :meth:`call`."""
        return self._authenticated(endpoint, lambda token: self._connections.ask(endpoint, path, body, token))

    @contextlib.contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Stream]:
        """Open a stream of messages at the first endpoint that answers; for errors see :meth:`call`."""

        def open_at(endpoint: str) -> Stream:
            return self._authenticated(endpoint, lambda token: self._connections.stream(endpoint, path, body, token))

        with contextlib.closing(self._first(open_at, repeatable=True)) as stream:
            yield stream

    def close(self) -> None:
        """Close all connections that are idle; new ones are opened when needed."""
        self._connections.close()

    def _first(self, ask: Callable[[str], T], *, repeatable: bool) -> T:
        """Return the answer of the first endpoint that gives one, beginning with the one that gave the last."""
        failed: dict[str, str] = {}
        endpoints = self._address.endpoints
        for number in [*range(self._preferred, len(endpoints)), *range(self._preferred)]:
            try:
                answer = ask(endpoints[number])
            except UnansweredError as error:
                if not repeatable:
                    self._preferred = (number + 1) % len(endpoints)
                    raise
                failed[error.endpoint] = error.reason
            except UnreachableError as error:
                failed.update(error.endpoints)
            else:
                self._preferred = number
                return answer
        raise UnreachableError(failed)

    def _authenticated(self, endpoint: str, ask: Callable[[Secret | None], T]) -> T:
        """Ask with a token of the user, if there is one; with a new one, if the last one has expired."""
        if self._address.user is None:
            return ask(None)
        token = self._token
        if token is not None:
            try:
                return ask(token)
            except RefusedError as error:
                if error.code != _UNAUTHENTICATED and error.reason != _AUTHENTICATE_AGAIN:
                    raise
        self._token = token = self._authenticate(endpoint)
        return ask(token)

    def _authenticate(self, endpoint: str) -> Secret:
        credentials = {"name": self._address.user, "password": self._address.password}
        return Secret(self._connections.ask(endpoint, "/v3/auth/authenticate", credentials, None)["token"])
