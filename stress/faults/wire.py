"""Messages over a socket: one JSON object a line."""

from __future__ import annotations

import json
import select
import socket
from typing import Any


class Wire:
    """One end of a socket."""

    def __init__(self, channel: socket.socket) -> None:
        """Take over the socket."""
        self.channel = channel
        self._rest = b""

    def say(self, **what: Any) -> None:
        """Send a message."""
        self.channel.sendall(json.dumps(what).encode() + b"\n")

    def has_news(self, seconds: float) -> bool:
        """Return whether a message, or the end, comes within that time."""
        return b"\n" in self._rest or bool(select.select([self.channel], [], [], seconds)[0])

    def hear(self) -> dict[str, Any] | None:
        """Wait for a message; return `None` if the other end is gone.

        Raises:
            TimeoutError: the socket has a timeout, and nothing came.
        """
        while b"\n" not in self._rest:
            try:
                more = self.channel.recv(65_536)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return dict(json.loads(line))
