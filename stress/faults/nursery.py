"""The supervisor's side of the victims: starts the process that forks them, talks to them, ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import persistent_context
from stress.faults.wire import Wire

ROOT = Path(__file__).parents[2]
LIBRARY = str(Path(persistent_context.__file__).resolve().parents[1])
"""Where the library under test comes from: the children import it from there, too."""
PATIENCE = 30.0
"""Seconds within which a victim must answer: longer than it waits for the lock."""


class VictimFailedError(Exception):
    """A victim that should live and work is gone, or does not answer."""


class Victim:
    """One process, waiting for orders."""

    def __init__(self, nursery: Nursery, wire: Wire, pid: int) -> None:
        """Wait until it has loaded its file."""
        self._nursery = nursery
        self._wire = wire
        self._status: int | None = None
        self.pid = pid
        if self.hear() is None:
            msg = f"a process that opens the file died: exit status {self.end()}"
            raise VictimFailedError(msg)

    def say(self, operation: str, number: int = 0, **more: Any) -> None:
        """Give an order.

        Raises:
            VictimFailedError: it is gone.
        """
        try:
            self._wire.say(operation=operation, number=number, **more)
        except OSError as error:
            msg = f"the process is gone: {error}"
            raise VictimFailedError(msg) from error

    def enter(self, number: int, **more: Any) -> dict[str, Any] | None:
        """Let it enter a transaction and wait there; return its answer if it did not get in."""
        self.say("commit", number, **more)
        answer = self.hear()
        if answer is None:
            msg = f"the process died when it began a transaction: exit status {self.end()}"
            raise VictimFailedError(msg)
        return None if "inside" in answer else answer

    def hear(self) -> dict[str, Any] | None:
        """Return its answer, or `None` if it died.

        Raises:
            VictimFailedError: it did not answer for a long time.
        """
        try:
            return self._wire.hear()
        except TimeoutError:
            msg = f"no answer in {PATIENCE:.0f} s"
            raise VictimFailedError(msg) from None

    def has_said_something(self, seconds: float) -> bool:
        """Return whether there is an answer, or it died, within that time."""
        return self._wire.has_news(seconds)

    def go_on(self) -> None:
        """Let it leave a transaction."""
        self._wire.say(go=True)

    def attempt(self, operation: str, number: int = 0, **more: Any) -> dict[str, Any]:
        """Give an order and return the answer, without stops on the way."""
        if operation != "commit":
            self.say(operation, number, **more)
        elif answer := self.enter(number, **more):
            return answer
        else:
            self.go_on()
        if (answer := self.hear()) is None:
            msg = f"the process died of {operation}: exit status {self.end()}"
            raise VictimFailedError(msg)
        return answer

    def end(self) -> int:
        """Kill it if it lives; return its exit status once it is gone, with all its locks."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet: the id is still its own
            self._status = self._nursery.reap(self.pid)
            self._wire.channel.close()
        return self._status

    def __enter__(self) -> Self:
        """End it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()


class Nursery:
    """A process that has imported everything that is needed, and forks victims.

    Args:
        temporaries: the directory in which they warm up.
    """

    def __init__(self, temporaries: str) -> None:
        """Start it."""
        path = os.pathsep.join(filter(None, [LIBRARY, os.environ.get("PYTHONPATH")]))
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stress.faults.victim", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": path, "TMPDIR": temporaries},
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
        ours.settimeout(PATIENCE)
        self._wire = Wire(ours)

    def __enter__(self) -> Self:
        """End it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; victims that have not been ended end when their sockets close."""
        self._wire.channel.close()
        self._process.kill()
        self._process.wait()

    def fork(self, path: Path, face: str, *, durable: bool = True, journal: bool | None = None) -> Victim:
        """Return a victim that has loaded the file, with these options of its context."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        with theirs:
            self._ask(path=str(path), face=face, durable=durable, journal=journal)
            socket.send_fds(self._wire.channel, [b"."], [theirs.fileno()])
            pid = int(self._hear()["pid"])
        return Victim(self, Wire(ours), pid)

    def reap(self, pid: int) -> int:
        """Wait until a victim is gone, and return its exit status."""
        return int(self._ask(reap=pid)["status"])

    def _ask(self, **what: Any) -> dict[str, Any]:
        self._wire.say(**what)
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        if (answer := self._wire.hear()) is None:
            msg = f"the process that forks the victims ended with {self._process.wait()}"
            raise RuntimeError(msg)
        return answer
