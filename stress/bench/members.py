"""A cluster of etcd for a benchmark: on loopback, with its data on the disk to measure, killed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from stress.run.members import MISSING, PROGRAM, Cluster, Member, version
from stress.run.network import Loopback

__all__ = ["MISSING", "PROGRAM", "Cluster", "Member", "cluster", "url", "version"]


@contextmanager
def cluster(number: int, scratch: Path) -> Iterator[Cluster]:
    """Start a new cluster with this number of members; kill them, and delete their data, at the end."""
    with TemporaryDirectory(dir=scratch, prefix="etcd-") as folder:
        started = Cluster(number, Loopback(number, "benchmarks cut nothing off"), Path(folder), Path(folder))
        try:
            started.start()
            started.wait_for_leader()
            yield started
        finally:
            started.kill()


def url(started: Cluster, namespace: str) -> str:
    """Return the URL of a namespace."""
    return f"etcd://{','.join(started.endpoints)}/{namespace}"
