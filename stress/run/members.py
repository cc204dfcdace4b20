"""Members of etcd: a cluster of its own for each run, started, hurt and killed by the supervisor."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from stress.documents import etcd
from stress.run.network import Network

PROGRAM = shutil.which("etcd")
MISSING = "the program etcd is missing: install Debian's package etcd-server"
START_SECONDS = 60.0
"""In which a member has to answer after it was started or continued, and a cluster to elect a leader."""
LOOK_EVERY = 0.05
TIMES = ("--heartbeat-interval", "50", "--election-timeout", "500")
"""In milliseconds: elections that are as short as on a fast network, so that there can be many."""
SPACE = ("--quota-backend-bytes", str(8 << 30), "--snapshot-count", "5000")
"""Room for a history that is not compacted; and snapshots so often that members which were away get some."""
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""Lets the kernel kill a member when the thread that has started it ends, however that happens."""


class Member:
    """One member, with the data that it keeps when it is started again.

    Args:
        number: its number.
        network: where it is.
        cluster: all members, as the option takes them.
        directory: for its data.
        log: the file to which it writes its log.
    """

    def __init__(self, number: int, network: Network, cluster: str, directory: Path, log: Path) -> None:
        self.number = number
        self.endpoint, peer = network.addresses(number)
        self._log = log
        self._command = [
            *network.command(number), *DIE_WITH_PARENT, PROGRAM or "etcd",
            "--name", name_of(number), "--data-dir", str(directory / name_of(number)),
            "--listen-client-urls", f"http://{self.endpoint}", "--advertise-client-urls", f"http://{self.endpoint}",
            "--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}",
            "--initial-cluster", cluster, "--logger", "zap", "--log-level", "warn", *TIMES, *SPACE,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again. It is killed if this process is."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the parent
            )

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """Ask it to end, as an administrator does, and wait until it has; kill it if this takes long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(START_SECONDS)
            finally:
                self.kill()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def last_words(self) -> str | None:
        """Return how it ended and the end of its log, if it has ended by itself; otherwise None."""
        if self._process is None or self._process.poll() is None:
            return None
        logged = self._log.read_text(encoding="utf-8", errors="replace")
        return f"exit code {self._process.returncode}\n{logged[-2000:]}"

    def is_healthy(self) -> bool:
        """Whether it answers, and has a leader."""
        connection = http.client.HTTPConnection(self.endpoint, timeout=1.0)
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return answer.status == int(http.HTTPStatus.OK)

    def is_leader(self) -> bool:
        """Whether it leads the cluster, as far as it knows."""
        try:
            status = etcd.ask(self.endpoint, "/v3/maintenance/status", {}, seconds=0.5)
        except etcd.UnavailableError:
            return False
        return bool(status.get("leader") == status["header"]["member_id"])


class Cluster:
    """The members.

    Args:
        number: how many.
        network: where they are.
        directory: for their data, and for nothing else.
        logs: the directory for their logs.
    """

    def __init__(self, number: int, network: Network, directory: Path, logs: Path) -> None:
        everyone = ",".join(f"{name_of(one)}=http://{network.addresses(one)[1]}" for one in range(number))
        self.members = [
            Member(one, network, everyone, directory, logs / f"{name_of(one)}.log") for one in range(number)
        ]

    @property
    def endpoints(self) -> Sequence[str]:
        """Where the members listen to clients."""
        return [member.endpoint for member in self.members]

    def start(self) -> None:
        """Start all members, and wait until they are at work.

        Raises:
            OSError: they are not.
        """
        for member in self.members:
            member.start()
        self.wait()

    def wait(self) -> None:
        """Wait until all members answer.

        Raises:
            OSError: one does not, for long.
        """
        deadline = time.monotonic() + START_SECONDS
        for member in self.members:
            while not member.is_healthy():
                if words := member.last_words():
                    message = f"{name_of(member.number)} has ended: {words}"
                    raise OSError(message)
                if time.monotonic() > deadline:
                    message = f"{name_of(member.number)} did not answer within {START_SECONDS:g} s"
                    raise OSError(message)
                time.sleep(LOOK_EVERY)

    def leader(self) -> Member | None:
        """Return the member that leads at this moment, if one does."""
        return next((member for member in self.members if member.is_leader()), None)

    def wait_for_leader(self) -> Member:
        """Wait until all members answer, and one leads; return it.

        Raises:
            OSError: this takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.wait()
            if leader := self.leader():
                return leader
            time.sleep(LOOK_EVERY)
        message = f"{len(self.members)} members had no leader within {START_SECONDS:g} s"
        raise OSError(message)

    def kill(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.kill()


def name_of(number: int) -> str:
    """Return the name of a member."""
    return f"member-{number}"


def version() -> str:
    """Return the version of the program; nothing, if there is none."""
    if PROGRAM is None:
        return ""
    printed = subprocess.run([PROGRAM, "--version"], check=False, capture_output=True, text=True).stdout
    return printed.partition("etcd Version: ")[2].partition("\n")[0]
