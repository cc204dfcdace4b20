"""A proxy in front of a member of etcd, for tests: it loses, delays or refuses what the test says."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

PASS, DROP, LOSE, HOLD = "pass", "drop", "lose", "hold"
"""Pass a request on; drop it; pass it on and lose the answer; lose the answer, and pass it on when released."""


class Proxy:
    """A proxy on a free port. :attr:`decide` says what becomes of a request, given its path and body."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = endpoint
        self.decide = lambda path, body: PASS
        self.seen: list[str] = []
        self.released = threading.Event()
        self.late: list[threading.Thread] = []
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.endpoint = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        """Let the requests that were held arrive now."""
        self.released.set()
        for thread in self.late:
            thread.join(30)

    @contextlib.contextmanager
    def forward(self, path: str, data: bytes, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Pass a request on."""
        with contextlib.closing(http.client.HTTPConnection(self.upstream, timeout=60)) as connection:
            connection.request("POST", path, data, headers)
            with connection.getresponse() as answer:
                yield answer


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.proxy.seen.append(self.path)
        headers = {name: self.headers[name] for name in ("Content-Type", "Authorization") if name in self.headers}
        action = self.proxy.decide(self.path, json.loads(data))
        if action == HOLD:
            thread = threading.Thread(target=self._late, args=(data, headers), daemon=True)
            self.proxy.late.append(thread)
            thread.start()
        elif action == LOSE:
            self._carry_out(data, headers)
        if action != PASS:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            return
        with self.proxy.forward(self.path, data, headers) as answer:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while chunk := answer.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def _carry_out(self, data: bytes, headers: dict[str, str]) -> None:
        with self.proxy.forward(self.path, data, headers) as answer:
            answer.read()

    def _late(self, data: bytes, headers: dict[str, str]) -> None:
        self.proxy.released.wait(60)
        self._carry_out(data, headers)


def keys_put(body: dict[str, Any]) -> list[bytes]:
    """Return the keys that a transaction would set."""
    return [base64.b64decode(one["request_put"]["key"]) for one in body.get("success", ()) if "request_put" in one]


def is_commit(body: dict[str, Any]) -> bool:
    """Whether a request sets a value of the state, rather than the marker alone or a place in a queue."""
    return any(b"/k/" in key for key in keys_put(body))
