"""Proxies in front of the members of a cluster, which lose answers and requests. `python -m stress.run.proxy ORDERS`.

The processes of a run reach each member through its proxy. Now and then, one of their requests, usually a commit, is

- carried out, but the connection is cut before the answer is passed on,
- held back until the client has given up, and only then passed on: a request that arrives late, or
- thrown away, and the connection cut.

To the client all three look the same: it has no answer. It has to find out which of them it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Self, TypeAlias

from stress.logs.history import Kind, Log
from stress.run.chaos import Clock

LONGEST_HOLD = 8.0
"""Seconds after which a request is passed on although the client has not given up."""
LONGEST_LAG = 2.0
"""The longest time between the moment at which the client has given up and the arrival of its request, in seconds."""
COMMITS = 0.9
"""The part of the faults that wait for a commit, rather than strike any call; streams are cut as well."""
SPARED = 2
"""Requests after each fault that are spared, so that calls make progress even if there are few."""
COMMIT = b'"request_put"'
STREAM = b"POST /v3/watch "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNK = 1 << 16
_Streams: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the proxies are to do. It is passed as the only command-line argument."""

    members: Sequence[str]
    """Where the members are; each has a proxy."""
    seed: int
    cut_answer_every: float
    """Mean seconds between two requests whose answers are cut off; 0, here and below: never."""
    delay_request_every: float
    """Mean seconds between two requests that arrive late."""
    lose_request_every: float
    """Mean seconds between two requests that are thrown away."""
    log: str
    """The file for the log of the faults."""

    def to_argument(self) -> str:
        """Return the orders as a command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> Self:
        """Return the orders that this process was started with."""
        return cls(**json.loads(sys.argv[1]))


class Schedule:
    """Decides what happens to which request."""

    def __init__(self, orders: Orders) -> None:
        """Draw the first moments."""
        every = {
            "cut_answer": orders.cut_answer_every,
            "delay_request": orders.delay_request_every,
            "lose_request": orders.lose_request_every,
        }
        self._random = Random(f"{orders.seed} proxy")
        self._clocks = {name: Clock(Random(f"{orders.seed} {name}"), mean) for name, mean in every.items()}
        self._due: dict[str, bool] = {}
        """The faults that wait for their request, and whether it has to be a commit."""
        self._began = time.monotonic()
        self._spared = 0
        self.is_over = False
        """Whether all requests are to be carried out and answered from now on."""

    def lag(self) -> float:
        """Return how long a request arrives after the client has given up, in seconds: often not at all."""
        return self._random.choice([0.0, self._random.uniform(0.0, 0.3), self._random.uniform(0.0, LONGEST_LAG)])

    def fault_of(self, head: bytes, body: bytes) -> str:
        """Return what is to happen to a request; nothing, if it is to be carried out and answered."""
        now = time.monotonic() - self._began
        for name, clock in self._clocks.items():
            if clock.rings(now):
                self._due.setdefault(name, self._random.random() < COMMITS)
        self._spared += 1
        if self.is_over or self._spared <= SPARED:
            return ""
        is_commit = COMMIT in body
        for name, wants_commit in self._due.items():
            if is_commit if wants_commit else not (name == "delay_request" and head.startswith(STREAM)):
                del self._due[name]
                self._spared = 0
                return name
        return ""


class Proxy:
    """Connections to one member."""

    def __init__(self, member: str, schedule: Schedule, log: Log) -> None:
        """Prepare; nothing is listened to yet."""
        self._host, _, port = member.rpartition(":")
        self._port = int(port)
        self._member = member
        self._schedule = schedule
        self._log = log
        self._late: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what a client sends, request by request, and what the member answers."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream = await asyncio.open_connection(self._host, self._port)
            answers = asyncio.create_task(_pass_on(upstream[0], writer))
            try:
                while not answers.done():
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = _LENGTH.search(head)
                    body = await reader.readexactly(int(length[1])) if length else b""
                    fault = self._schedule.fault_of(head, body)
                    if not fault:
                        upstream[1].write(head + body)
                        await upstream[1].drain()
                        continue
                    self._log.write(Kind.FAULT, name=fault, target=self._member)
                    answers.cancel()
                    await asyncio.wait([answers])
                    await getattr(self, f"_{fault}")(head + body, reader, upstream)
                    break
            finally:
                answers.cancel()
                upstream[1].close()
        writer.transport.abort()

    async def _cut_answer(self, request: bytes, _: object, upstream: _Streams) -> None:
        """Let the member carry out a request, and pass no answer on."""
        upstream[1].write(request)
        await upstream[0].read(1)  # what has an answer was carried out

    async def _delay_request(self, request: bytes, reader: asyncio.StreamReader, _: object) -> None:
        """Let the member carry out a request only after the client has given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_HOLD):
                await reader.read(1)  # ends when the client closes the connection
        task = asyncio.create_task(self._send_late(request))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _send_late(self, request: bytes) -> None:
        await asyncio.sleep(self._schedule.lag())
        with contextlib.suppress(OSError):
            upstream, writer = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(request)
                await upstream.read(1)
            finally:
                writer.close()

    async def _lose_request(self, request: bytes, reader: object, upstream: object) -> None:
        """Do nothing: the connection is cut."""


async def _pass_on(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass answers on until the member closes the connection; then close the other one, too."""
    with contextlib.suppress(OSError):
        while chunk := await upstream.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def serve(orders: Orders) -> None:
    """Start a proxy for each member, print their addresses, and serve until the standard input ends.

    After a line of it, there are no more faults.
    """
    schedule, log = Schedule(orders), Log(Path(orders.log))
    servers = [
        await asyncio.start_server(Proxy(member, schedule, log).serve, "127.0.0.1", 0) for member in orders.members
    ]
    print(json.dumps([f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    schedule.is_over = True
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Orders.from_command_line()))
