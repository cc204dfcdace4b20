"""Where a run keeps its states: in JSON files, or in a cluster of etcd that the run starts, hurts and kills."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from stress.children.stamp import holder
from stress.documents import etcd
from stress.documents.openings import STATE
from stress.logs.history import Log
from stress.run.child import ROOT
from stress.run.members import Cluster, Member, name_of
from stress.run.network import network
from stress.run.plan import ETCD, Plan
from stress.run.proxy import Orders
from stress.run.unrest import Unrest

RAW = "raw"
"""In the name of a file: what was in the cluster, read without the library."""


class Venue(Protocol):
    """The place of all states of a run."""

    endpoints: Sequence[str]
    """Where children reach the states; nothing, if they are files."""
    members: Sequence[str]
    """Where they are looked at from outside."""
    remarks: Sequence[str]
    """What a reader of the report has to know about it."""

    def open(self, openings: Mapping[str, dict[str, Any]]) -> None:
        """Make it ready, with these states."""

    def holder(self) -> int | None:
        """Return the process that seems to have the lock of the state that the workers hammer."""

    def go_on(self, now: float) -> None:
        """Cause faults of its own, if some are due."""

    def died(self) -> Mapping[str, str]:
        """Return the last words of what has ended by itself."""

    def calm(self) -> None:
        """End all faults."""

    def leave(self, names: Sequence[str]) -> None:
        """Leave the final states in files, where the report finds them."""

    def close(self) -> None:
        """Leave no process behind."""


class JsonFiles:
    """Files in the directory of the run."""

    endpoints: Sequence[str] = ()
    members: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def __init__(self, directory: Path) -> None:
        """Prepare."""
        self._directory = directory

    def open(self, openings: Mapping[str, dict[str, Any]]) -> None:
        """Write the files."""
        for name, opening in openings.items():
            (self._directory / f"{name}.json").write_text(json.dumps(opening, indent=0), encoding="utf-8")

    def holder(self) -> int | None:
        """Return the process that the lock file names."""
        return holder(self._directory / f"{STATE}.json.lock")

    def go_on(self, now: float) -> None:
        """Do nothing."""

    def died(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def calm(self) -> None:
        """Do nothing."""

    def leave(self, names: Sequence[str]) -> None:
        """Do nothing: the files are there."""

    def close(self) -> None:
        """Do nothing."""


class EtcdCluster:
    """A cluster, and a proxy in front of each of its members."""

    def __init__(self, plan: Plan, directory: Path, log: Log) -> None:
        """Prepare; no process is started yet."""
        self._plan = plan
        self._directory = directory
        self._log = log
        self._cleanup = ExitStack()
        self.endpoints: Sequence[str] = ()
        self.members: Sequence[str] = ()
        self.remarks: Sequence[str] = ()

    def open(self, openings: Mapping[str, dict[str, Any]]) -> None:
        """Start the cluster, write the states as a program without the library would, and start the proxies.

        Raises:
            OSError: it does not work.
        """
        plan, data = self._plan, self._directory / "etcd"
        data.mkdir(mode=0o700)
        self._cleanup.callback(shutil.rmtree, data, ignore_errors=True)
        place = network(plan.members)
        self._cleanup.callback(place.close)
        self._cluster = Cluster(plan.members, place, data, self._directory / "logs")
        self._cleanup.callback(self._cluster.kill)
        self._unrest = Unrest(plan, self._cluster, place, self._log)
        self.remarks = list(_remarks(plan, place.trouble))
        self._cluster.start()
        self.members = self._cluster.endpoints
        for name, opening in openings.items():
            etcd.write(self.members, name, opening)
        self.endpoints = self._start_proxies()

    def _start_proxies(self) -> Sequence[str]:
        """Start the proxies; return where they listen."""
        orders = Orders(
            members=self.members,
            seed=self._plan.seed,
            cut_answer_every=self._plan.cut_answer_every,
            delay_request_every=self._plan.delay_request_every,
            lose_request_every=self._plan.lose_request_every,
            log=str(self._directory / "logs" / "proxies.jsonl"),
        )
        with self._output_of_proxies.open("xb") as output:
            self._proxies = subprocess.Popen(
                [sys.executable, "-m", "stress.run.proxy", orders.to_argument()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self._cleanup.callback(self._proxies.wait)
        self._cleanup.callback(self._proxies.kill)
        assert self._proxies.stdout is not None
        endpoints: Sequence[str] = json.loads(self._proxies.stdout.readline() or "[]")
        if not endpoints:
            message = f"the proxies did not start: {self._words_of_proxies()}"
            raise OSError(message)
        return endpoints

    def holder(self) -> int | None:
        """Return the process that has the turn."""
        return etcd.holder(self.members, STATE)

    def go_on(self, now: float) -> None:
        """Hurt members."""
        self._unrest.go_on(now)

    def died(self) -> Mapping[str, str]:
        """Return the last words of members, and of the proxies."""
        died = {name_of(one.number): words for one in self._cluster.members if (words := one.last_words())}
        if self._proxies.poll() is not None:
            died["proxies"] = self._words_of_proxies()
        return died

    def calm(self) -> None:
        """End the present trouble, let the proxies lose nothing more, and wait until all members are at work."""
        assert self._proxies.stdin is not None
        self._proxies.stdin.write("calm\n")
        self._proxies.stdin.flush()
        self._unrest.calm()
        self._cluster.wait()

    def leave(self, names: Sequence[str]) -> None:
        """Leave what the library reads, and what each member has."""
        from persistent_context import SyncPersistentContext  # noqa: PLC0415 - a supervisor may have none that works

        for name in names:
            context = SyncPersistentContext.create(etcd.location(self.members, name))
            self._leave(f"{name}.json", context.get_all_data())
            for member in self._cluster.members:
                self._leave(_raw(name, member), etcd.read([member.endpoint], name))

    def close(self) -> None:
        """Kill everything, and delete the data."""
        self._cleanup.close()

    def _leave(self, file: str, document: Mapping[str, Any]) -> None:
        (self._directory / file).write_text(json.dumps(document, indent=0), encoding="utf-8")

    @property
    def _output_of_proxies(self) -> Path:
        return self._directory / "logs" / "proxies.output"

    def _words_of_proxies(self) -> str:
        return self._output_of_proxies.read_text(encoding="utf-8", errors="replace")[-2000:]


def venue_of(plan: Plan, directory: Path, log: Log) -> Venue:
    """Return the place of the states of a run."""
    return EtcdCluster(plan, directory, log) if plan.store == ETCD else JsonFiles(directory)


def disagreements(directory: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield where what the library read at the end differs from what a member has, if the states were in a cluster."""
    for name in names:
        for file in sorted(directory.glob(f"{name}.{RAW}-*.json")):
            read = json.loads((directory / f"{name}.json").read_bytes())
            keys = list(etcd.differences(read, json.loads(file.read_bytes())))
            if keys:
                yield f"{file.stem} differs from what the library read at the end in {', '.join(keys[:10])}"


def _raw(name: str, member: Member) -> str:
    return f"{name}.{RAW}-{member.number}.json"


def _remarks(plan: Plan, trouble: str) -> Iterator[str]:
    """Yield what is not done, and why."""
    yield "left out, as they are about JSON files: foreign, pages, journal, and deleted lock files"
    if trouble and plan.cut_off_every:
        yield f"MEMBERS ARE NOT CUT OFF from each other: {trouble}"
