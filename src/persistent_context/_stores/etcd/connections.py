"""HTTP requests to single endpoints of etcd's JSON gateway: the only module that imports urllib3."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Generator, Iterator, Mapping
from http import HTTPStatus
from queue import Empty, LifoQueue
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from .address import Address, Secret
from .failures import RefusedError, UnansweredError, UnreachableError

CONNECT_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.5
"""How long to wait for an answer before another endpoint is asked: longer than a cluster takes to elect a leader."""
LONE_ANSWER_SECONDS: Final = 6.0
"""The same if there is no other endpoint to ask."""
_BYTES_PER_SECOND: Final = 200_000
"""How much of a large request a member takes in a second, at least."""
SILENCE_SECONDS: Final = 5.0
"""How long a stream may be silent before it is taken for dead: a member that was cut off does not say so."""
_CONNECTIONS: Final = 32
"""How many idle connections are kept for each endpoint."""
_NOT_ETCD: Final = "the response is not from etcd"
_CANCELLED, _UNKNOWN, _DEADLINE_EXCEEDED, _ABORTED, _INTERNAL, _UNAVAILABLE, _DATA_LOSS = 1, 2, 4, 10, 13, 14, 15
_MAYBE_EXECUTED: Final = frozenset(
    {_CANCELLED, _UNKNOWN, _DEADLINE_EXCEEDED, _ABORTED, _INTERNAL, _UNAVAILABLE, _DATA_LOSS}
)
"""The status codes of gRPC that do not exclude that the request was carried out, or still will be."""
_NEVER_EXECUTED: Final = frozenset({"etcdserver: too many requests"})
"""The messages, among these codes, of a server that has not passed the request on to the cluster."""


class Connections:
    """Connections to the endpoints of a cluster, which are opened when they are needed. Usable from any thread.

    Args:
        address: the endpoints and certificates.
    """

    def __init__(self, address: Address) -> None:
        self._address: Final = address
        self._is_lone: Final = len(address.endpoints) == 1
        self._pools = _Pools()
        self._context: ssl.SSLContext | None = None

    def ask(self, endpoint: str, path: str, body: Mapping[str, Any], token: Secret | None) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises:
            UnreachableError: it was not carried out.
            UnansweredError: it may have been carried out.
            RefusedError: the server has refused it.
        """
        response = self._post(endpoint, path, body, token, streams=False)
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        raise UnansweredError(endpoint, _NOT_ETCD)

    def stream(self, endpoint: str, path: str, body: Mapping[str, Any], token: Secret | None) -> Stream:
        """Send a request that is answered by many messages; for errors see :meth:`ask`."""
        return Stream(self._post(endpoint, path, body, token, streams=True), endpoint)

    def close(self) -> None:
        """Close all connections that are idle; new ones are opened when needed."""
        pools, self._pools = self._pools, _Pools()
        if pools.pid == os.getpid():
            for pool in pools.by_endpoint.values():
                pool.close()

    def _post(
        self, endpoint: str, path: str, body: Mapping[str, Any], token: Secret | None, *, streams: bool
    ) -> urllib3.BaseHTTPResponse:
        data = _Body(json.dumps(body).encode())
        headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
        answer = LONE_ANSWER_SECONDS if self._is_lone else ANSWER_SECONDS
        patience = SILENCE_SECONDS if streams else answer + len(data) / _BYTES_PER_SECOND
        data.patience = patience
        limit = urllib3.Timeout(connect=CONNECT_SECONDS, read=patience)
        try:
            response = self._pool(endpoint).urlopen(
                "POST", path, data, headers, retries=False, timeout=limit, preload_content=not streams
            )
        except HTTPError as error:
            if not data.is_sent:
                raise UnreachableError({endpoint: _reason(error)}) from None
            raise UnansweredError(endpoint, _reason(error)) from None
        if response.status != HTTPStatus.OK:
            raise _error(response, endpoint)
        return response

    def _pool(self, endpoint: str) -> urllib3.HTTPConnectionPool:
        if self._pools.pid != os.getpid():  # they are the parent's, from which this process was forked
            self._pools = _Pools()
        pools = self._pools.by_endpoint
        return pools.get(endpoint) or pools.setdefault(endpoint, self._make_pool(endpoint))

    def _make_pool(self, endpoint: str) -> urllib3.HTTPConnectionPool:
        host, _, port = endpoint.rpartition(":")
        if not self._address.is_encrypted:
            return _HttpPool(host, int(port), maxsize=_CONNECTIONS)
        return _HttpsPool(host, int(port), maxsize=_CONNECTIONS, ssl_context=self._certificates())

    def _certificates(self) -> ssl.SSLContext:
        """Return the certificates, read once: another endpoint may be asked in the middle of a commit."""
        if self._context is None:  # without a lock, which a fork might leave locked
            self._context = self._read_certificates()
        return self._context

    def _read_certificates(self) -> ssl.SSLContext:
        for path in filter(None, (self._address.ca, self._address.cert, self._address.key)):
            with open(path, "rb"):  # whose error names the file, unlike those of ssl
                pass
        context = ssl.create_default_context(cafile=self._address.ca)
        if self._address.cert is not None:
            context.load_cert_chain(self._address.cert, self._address.key)
        return context


class _Body(bytes):
    """What is sent, which may contain a password: tracebacks do not show it."""

    patience = 0.0
    """How long sending may take, in seconds."""
    is_sent = False
    """Whether some of it may have been sent."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class _Pools:
    """The pools of one process, by endpoint."""

    def __init__(self) -> None:
        self.pid: Final = os.getpid()
        self.by_endpoint: Final[dict[str, urllib3.HTTPConnectionPool]] = {}


class _IdleConnections(LifoQueue[Any]):
    """The idle connections of a pool, without a lock: a finalizer or signal handler may strike while one is taken."""

    def put(self, item: Any, *_: Any, **__: Any) -> None:
        """Put a connection back, or close it if there are enough, of which urllib3 would warn."""
        if len(self.queue) < self.maxsize:
            self.queue.append(item)
        elif item is not None:
            item.close()

    def get(self, *_: Any, **__: Any) -> Any:
        """Take the connection that was used last."""
        try:
            return self.queue.pop()
        except IndexError:
            raise Empty from None


class _HttpConnection(HTTPConnection):
    """Gives a request the time to be sent that its size needs; urllib3 itself, that to connect."""

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Connect, unless connected, and send a request."""
        if self.is_closed:
            self.connect()
        self.timeout, body.is_sent = body.patience, True
        super().request(method, url, body, headers, **options)


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    """The same, encrypted."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection
    QueueCls = _IdleConnections


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
    QueueCls = _IdleConnections


class Stream:
    """Messages that an endpoint sends as they come.

    Args:
        response: what brings them.
        endpoint: where they come from.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, endpoint: str) -> None:
        self._response: Final = response
        self.endpoint: Final = endpoint

    def messages(self) -> Generator[dict[str, Any]]:
        """Yield the messages.

        Raises:
            UnansweredError: the connection was lost, or closed.
            RefusedError: the server ended the stream.
        """
        rest = b""
        try:
            for chunk in self._response.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for message in map(json.loads, filter(None, lines)):
                    yield self._result(message)
        except RefusedError:
            raise
        except (HTTPError, OSError, ValueError, LookupError, AttributeError) as error:  # such as one closed elsewhere
            raise UnansweredError(self.endpoint, _reason(error)) from None
        raise UnansweredError(self.endpoint, "the stream has ended")

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if "error" in message:
            error = message["error"]
            raise RefusedError(error.get("grpc_code", _UNKNOWN), error.get("message", ""), self.endpoint)
        result: dict[str, Any] = message["result"]
        return result

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def interrupt(self) -> None:
        """Make the thread that iterates end soon. May be called from any thread, and more than once."""
        with contextlib.suppress(OSError, ValueError, HTTPError, RuntimeError):
            self._response.shutdown()


def _reason(error: BaseException) -> str:
    """Return the cause of an error, without the addresses of objects that urllib3 shows."""
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, ReadTimeoutError):
        return "no answer in time"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(error).rpartition(">: ")[2] or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = (
            error.__cause__
            or error.__context__
            or next((one for one in error.args if isinstance(one, BaseException)), None)
        )


def _error(response: urllib3.BaseHTTPResponse, endpoint: str) -> Exception:
    """Return the error for an answer that is not a success."""
    try:
        content = json.loads(response.data)
        code, reason = int(content["code"]), str(content.get("error") or content.get("message"))
    except (ValueError, LookupError, TypeError, HTTPError):
        return UnansweredError(endpoint, f"{_NOT_ETCD} (HTTP status {response.status})")
    if reason in _NEVER_EXECUTED:
        return UnreachableError({endpoint: reason})
    if code in _MAYBE_EXECUTED:
        return UnansweredError(endpoint, reason)
    return RefusedError(code, reason, endpoint)
