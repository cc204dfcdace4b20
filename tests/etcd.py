"""Members of etcd for tests, on loopback, with their data in a temporary folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

PROGRAM = shutil.which("etcd") or shutil.which("etcd", path="/usr/bin:/usr/local/bin")
_numbers = itertools.count()
START_SECONDS = 60.0


def free_ports(number):
    """Return ports that are free at this moment."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Member:
    """A process of etcd: one cluster by itself, unless told otherwise.

    Args:
        name: its name.
        ports: for clients, and for other members.
        directory: for its data.
        cluster: the other members' names and URLs, as the option takes them.
        more: further options.
    """

    def __init__(self, name, ports, directory, cluster="", more=()):
        self.port, peers = ports
        self.endpoint = f"127.0.0.1:{self.port}"
        peer_url, scheme = f"http://127.0.0.1:{peers}", "https" if any("cert" in one for one in more) else "http"
        self.command = [
            PROGRAM, "--name", name, "--data-dir", str(Path(directory, name)),
            "--listen-client-urls", f"{scheme}://{self.endpoint}",
            "--advertise-client-urls", f"{scheme}://{self.endpoint}",
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", cluster or f"{name}={peer_url}",
            "--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-level", "error",
            *more,
        ]  # fmt: skip
        self.process = None
        self.log = Path(directory, f"{name}.log")

    def start(self):
        """Start it, or start it again with the data that it has."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        atexit.register(self.kill)
        return self

    def until_healthy(self):
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=1).close()
                return self
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def send(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self):
        """Kill it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def cluster(number, directory):
    """Run so many members that form a cluster."""
    require_etcd()
    ports = [free_ports(2) for _ in range(number)]
    urls = ",".join(f"m{index}=http://127.0.0.1:{peer}" for index, (_, peer) in enumerate(ports))
    members = [Member(f"m{index}", ports[index], directory, urls).start() for index in range(number)]
    try:
        for member in members:
            member.until_healthy()
        yield members
    finally:
        for member in members:
            member.kill()


def require_etcd():
    """Skip the test where there is no etcd."""
    if PROGRAM is None:
        pytest.skip("needs etcd: install Debian's package etcd-server")
    pytest.importorskip("urllib3", reason="needs the extra etcd")


def temporary_directory():
    """Return a new directory, in memory if possible, which is removed at the end."""
    directory = tempfile.mkdtemp(prefix="etcd-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@functools.cache
def member():
    """Return the member that all tests of this process share; each of them uses namespaces of its own."""
    require_etcd()
    return Member("single", free_ports(2), temporary_directory()).start().until_healthy()


def url(endpoint=None):
    """Return the URL of a namespace that nobody has used."""
    return f"etcd://{endpoint or member().endpoint}/test-{os.getpid()}-{next(_numbers)}"
