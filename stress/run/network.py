"""Where the members of a cluster are: on loopback, or each in a network namespace, so that they can be cut off."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

PREFIX = "pcstress"
"""The beginning of the names of namespaces; a bridge's name may have 15 characters."""
NETWORKS = 200
"""How many networks are tried: 198.18.0.0/15 is reserved for tests of networks, and used by nobody else."""
HOST = 254
"""The last part of the address of this machine on the bridge."""


class Network(Protocol):
    """A place for members."""

    trouble: str
    """Why members cannot be cut off from each other here; empty if they can."""

    def addresses(self, number: int) -> tuple[str, str]:
        """Return where a member listens to clients, and where to other members."""

    def command(self, number: int) -> Sequence[str]:
        """Return the beginning of the command that starts a member."""

    def cut(self, number: int, peer: int) -> None:
        """Let what one member sends to another one get lost, from now on."""

    def mend(self) -> None:
        """Let everything arrive again."""

    def close(self) -> None:
        """Leave nothing behind."""


class Loopback:
    """Ports of this machine."""

    def __init__(self, members: int, trouble: str) -> None:
        """Choose ports that are free at this moment."""
        self.trouble = trouble
        with ExitStack() as opened:
            sockets = [opened.enter_context(socket.socket()) for _ in range(2 * members)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            self._ports = [one.getsockname()[1] for one in sockets]

    def addresses(self, number: int) -> tuple[str, str]:
        """Return two ports of this machine."""
        return f"127.0.0.1:{self._ports[2 * number]}", f"127.0.0.1:{self._ports[2 * number + 1]}"

    def command(self, number: int) -> Sequence[str]:  # noqa: ARG002 - all members are in one place
        """Return nothing."""
        return ()

    def cut(self, number: int, peer: int) -> None:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        message = f"member {number} cannot be cut off from {peer}: {self.trouble}"
        raise RuntimeError(message)

    def mend(self) -> None:
        """Do nothing: nothing was cut."""

    def close(self) -> None:
        """Do nothing: ports are free once their processes have ended."""


class Namespaces:
    """A network namespace for each member, and a bridge to which all of them and this machine are connected."""

    trouble = ""

    def __init__(self, members: int) -> None:
        """Make them; what a run that was killed has left behind is removed first.

        Raises:
            OSError: the system does not allow it.
        """
        _remove_those_of_the_dead()
        self._bridge = f"{PREFIX}{os.getpid()}"
        self._names = [f"{self._bridge}-{number}" for number in range(members)]
        self._network = _free_network()
        self._cuts: list[tuple[int, int]] = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def addresses(self, number: int) -> tuple[str, str]:
        """Return the usual ports at the address of a member."""
        return f"{self._address(number)}:2379", f"{self._address(number)}:2380"

    def command(self, number: int) -> Sequence[str]:
        """Return the command that starts a program in the namespace of a member, as the same process.

        `ip netns exec` would also give it a copy of all mounts, which would keep alive those that are unmounted here.
        """
        return ("nsenter", f"--net=/run/netns/{self._names[number]}")

    def cut(self, number: int, peer: int) -> None:
        """Throw away what a member sends to another one; this machine still reaches both."""
        _ip("-n", self._names[number], "route", "add", "blackhole", f"{self._address(peer)}/32")
        self._cuts.append((number, peer))

    def mend(self) -> None:
        """Remove all such routes."""
        while self._cuts:
            number, peer = self._cuts.pop()
            _ip("-n", self._names[number], "route", "del", "blackhole", f"{self._address(peer)}/32")

    def close(self) -> None:
        """Remove the namespaces, and the bridge."""
        _remove(self._names, self._bridge)

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self._address(HOST)}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, name in enumerate(self._names):
            here, there = f"pcs{os.getpid()}v{number}", "eth0"
            _ip("netns", "add", name)
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _ip("link", "set", here, "master", self._bridge, "up")
            _ip("-n", name, "address", "add", f"{self._address(number)}/24", "dev", there)
            _ip("-n", name, "link", "set", there, "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def _address(self, number: int) -> str:
        return f"{self._network}.{number if number == HOST else number + 1}"


def network(members: int) -> Network:
    """Return namespaces, or if this is not possible, loopback, which tells why."""
    if not sys.platform.startswith("linux"):
        return Loopback(members, "network namespaces need Linux")
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return Loopback(members, f"the program {program} is missing: install Debian's package {package}")
    if os.geteuid():
        return Loopback(members, "network namespaces need root")
    try:
        return Namespaces(members)
    except OSError as error:
        return Loopback(members, str(error))


def _free_network() -> str:
    """Return the beginning of the addresses of a network that is not in use here."""
    used = _ip("-4", "-o", "address", "show")
    for offset in range(NETWORKS):
        candidate = f"198.18.{(os.getpid() + offset) % NETWORKS}"
        if f" {candidate}." not in used:
            return candidate
    message = "all test networks are in use: remove what earlier runs have left, see ip address"
    raise OSError(message)


def _remove_those_of_the_dead() -> None:
    """Remove what runs that were killed have left behind."""
    listed = [line.partition(" ")[0] for line in _ip("netns", "list").splitlines()]
    for name in listed:
        bridge, _, _ = name.partition("-")
        pid = bridge.removeprefix(PREFIX)
        if bridge.startswith(PREFIX) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            _remove([name], bridge)


def _remove(names: Sequence[str], bridge: str) -> None:
    for name in names:
        with suppress(OSError):  # it was not made, or is gone
            _ip("netns", "delete", name)
    with suppress(OSError):
        _ip("link", "delete", bridge)


def _ip(*arguments: str) -> str:
    """Run ip; return what it prints.

    Raises:
        OSError: it failed.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"ip {' '.join(arguments)} failed: {done.stderr.strip()}"
        raise OSError(message)
    return done.stdout
