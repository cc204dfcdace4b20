"""Work 11: the store in etcd, on one member and on three: calls, contention, watching, and a leader that is killed.

All competitors send their requests to the same member first, so none of them gains by the leader's place.
"""

from __future__ import annotations

import random
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from statistics import median
from threading import Event
from typing import Any

import etcd3gw
import urllib3

from persistent_context import PersistentContext, SyncPersistentContext

from .members import Cluster, Member, cluster, url
from .model import PROJECT, Column, Metrics, Settings, Unit, Work, check_counter
from .peers import COUNTER, LOCK_TIMEOUT, AsyncStore, Store, SyncStore
from .throughput import FAIRNESS, LONGEST_WAIT, MEDIAN_WAIT, RATE, compete
from .watch import LONGEST, MEDIAN, delays
from .workers import Tally, in_fresh_process

SIZES = (1, 3)
"""How many members a cluster has."""
BARE_PUT = "bare put"
TASKS = f"{PROJECT}, 100 tasks"
USUAL_WAY = "etcd3gw: lock, get, put, unlock"
PROCESSES = 8
CHANGES_PER_SECOND = 100
KILLS = 5
RECOVERED = Column("recovered", "writing again (median)", Unit.SECONDS)
WORST = Column("worst", "worst", Unit.SECONDS)
LONGEST_CALL = Column("longest_call", "longest call", Unit.SECONDS)
_LOCK_SECONDS = 60
_POLL_SECONDS = 0.1
"""How long the usual way pauses before it tries the lock again, at most. Each try costs two commits, so that shorter
pauses are slower with 8 processes."""


class Project(AsyncStore):
    """This project."""

    def __init__(self, url: str) -> None:
        self.url = url
        SyncPersistentContext.create(url)  # connects and reads, once for all contexts of this process
        self.context = PersistentContext(url, lock_timeout=LOCK_TIMEOUT)

    def seed(self, values: dict[str, int]) -> None:
        """Fill the new store."""
        context = SyncPersistentContext(self.url)
        context.update(values)
        context.save()

    def read(self, key: str) -> int:
        """Return a stored value."""
        return int(SyncPersistentContext.create(self.url).get(key))

    async def incr(self, key: str) -> int:
        """Add one."""
        return int(await self.context.incr(key))


class BarePut(SyncStore):
    """The least that a change in etcd can cost in Python: one request on one kept connection, by the only writer."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        host, _, port = endpoint.partition(":")
        self.pool = urllib3.HTTPConnectionPool(host, int(port), maxsize=1)
        self.prefix = prefix
        self.number = 0

    def seed(self, values: dict[str, int]) -> None:
        """Fill the new store."""
        for key, value in values.items():
            self.put(key, value)

    def put(self, key: str, value: int) -> None:
        """Set a key."""
        self.ask("/v3/kv/put", {"key": self.name(key), "value": b64encode(b"%d" % value).decode()})

    def incr(self, key: str) -> int:
        """Put the next number, without looking at the last one."""
        self.number += 1
        self.put(key, self.number)
        return self.number

    def read(self, key: str) -> int:
        """Return a stored value."""
        return int(b64decode(self.ask("/v3/kv/range", {"key": self.name(key)})["kvs"][0]["value"]))

    def name(self, key: str) -> str:
        """Return a key as requests have it."""
        return b64encode(f"{self.prefix}/{key}".encode()).decode()

    def ask(self, path: str, body: dict[str, str]) -> Any:
        """Send a request, and return the answer."""
        answer = self.pool.request("POST", path, json=body, retries=False)
        if answer.status != HTTPStatus.OK:
            msg = f"{path} was answered with {answer.status}: {answer.data!r}"
            raise RuntimeError(msg)
        return answer.json()

    def close(self) -> None:
        """Close the connection."""
        self.pool.close()


class WithLock(SyncStore):
    """What one writes with a client of etcd: its lock, which is tried until it is free, and a get and a put."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        host, _, port = endpoint.partition(":")
        self.client = etcd3gw.client(host=host, port=int(port))
        self.client.session.trust_env = False  # no proxy, which would be looked up for every request
        self.prefix = prefix

    def seed(self, values: dict[str, int]) -> None:
        """Fill the new store."""
        for key, value in values.items():
            self.client.put(f"{self.prefix}/{key}", str(value))

    def incr(self, key: str) -> int:
        """Add one, under the lock."""
        lock = self.client.lock(self.prefix, ttl=_LOCK_SECONDS)
        while not lock.acquire():
            time.sleep(random.uniform(0, _POLL_SECONDS))
        number = self.read(key) + 1
        self.client.put(f"{self.prefix}/{key}", str(number))
        lock.release()
        return number

    def read(self, key: str) -> int:
        """Return a stored value."""
        return int(self.client.get(f"{self.prefix}/{key}")[0])


def _ours(started: Cluster, namespace: str) -> Callable[[], Store]:
    return partial(Project, url(started, namespace))


def _bare_put(started: Cluster, namespace: str) -> Callable[[], Store]:
    return partial(BarePut, started.members[0].endpoint, namespace)


def _with_lock(started: Cluster, namespace: str) -> Callable[[], Store]:
    return partial(WithLock, started.members[0].endpoint, namespace)


def _calls(size: int, settings: Settings) -> Iterator[tuple[str, Metrics]]:
    with cluster(size, settings.scratch) as started:
        for name, kind, tasks in ((BARE_PUT, _bare_put, 1), (PROJECT, _ours, 1), (TASKS, _ours, 100)):
            yield name, compete(name, kind(started, f"{tasks}-{kind.__name__}"), settings, processes=1, tasks=tasks)


def _processes(size: int, settings: Settings) -> Iterator[tuple[str, Metrics]]:
    with cluster(size, settings.scratch) as started:
        for name, kind in ((PROJECT, _ours), (USUAL_WAY, _with_lock)):
            yield name, compete(name, kind(started, kind.__name__), settings, processes=PROCESSES, tasks=1)


def _watching(size: int, settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Watch another process, and measure a bare put, which the delay includes once."""
    with cluster(size, settings.scratch) as started:
        bare = compete(BARE_PUT, _bare_put(started, "bare"), settings, processes=1, tasks=1)
        yield BARE_PUT, {MEDIAN.metric: bare[MEDIAN_WAIT.metric], LONGEST.metric: bare[LONGEST_WAIT.metric]}
        changes = round(settings.seconds * CHANGES_PER_SECOND)
        measured = in_fresh_process(delays, url(started, "watched"), changes)
        yield PROJECT, {MEDIAN.metric: median(measured), LONGEST.metric: max(measured)}


def _write(context: SyncPersistentContext, tally: Tally, stop: Event) -> None:
    """Increment until told to stop."""
    while not stop.is_set():
        begin = time.monotonic()
        context.incr(COUNTER)
        tally.add(begin, time.monotonic())


def _kill(victim: Member, tally: Tally, writing: Future[None], *, restart: bool) -> tuple[float, float]:
    """Kill a member; return how long it takes until a call that began after that is acknowledged, and the longest call.

    Args:
        victim: the member.
        tally: the calls.
        writing: makes them.
        restart: whether to restart it at once.
    """
    before = len(tally.ends)
    victim.kill()
    killed = time.monotonic()
    if restart:
        victim.start()
    while not (tally.begins and tally.begins[-1] > killed):
        if writing.done():
            writing.result()  # raises its error
        if time.monotonic() > killed + LOCK_TIMEOUT:
            msg = f"no write was acknowledged within {LOCK_TIMEOUT:g} s after a member was killed"
            raise TimeoutError(msg)
        time.sleep(0.001)
    calls = list(zip(tally.begins[before:], tally.ends[before:], strict=False))
    recovered = next(end for begin, end in calls if begin > killed) - killed
    return recovered, max(end - begin for begin, end in calls)


def _failover(size: int, settings: Settings) -> Iterator[tuple[str, Metrics]]:
    """Kill the leader several times while a thread writes."""
    with cluster(size, settings.scratch) as started, ThreadPoolExecutor(1) as executor:
        context = SyncPersistentContext(url(started, "failover"), lock_timeout=LOCK_TIMEOUT)
        tally, stop = Tally(), Event()
        writing = executor.submit(_write, context, tally, stop)
        recoveries, longest = [], []
        try:
            for _ in range(KILLS):
                leader = started.wait_for_leader()
                time.sleep(random.uniform(0.5, 1))
                recovered, call = _kill(leader, tally, writing, restart=size == 1)
                recoveries.append(recovered)
                longest.append(call)
                if size > 1:
                    leader.start()
        finally:
            stop.set()
        writing.result()
        check_counter(PROJECT, acknowledged=len(tally.ends), stored=int(context.incr(COUNTER)) - 1)
        yield (
            PROJECT,
            {
                RECOVERED.metric: median(recoveries),
                WORST.metric: max(recoveries),
                LONGEST_CALL.metric: max(longest),
            },
        )


def work_name(kind: str, size: int) -> str:
    """Return the name of a work on a cluster of this size."""
    return f"etcd-{size}-{kind}"


def _works(size: int) -> Iterator[Work]:
    crowd = f"etcd, {size} member{'s' * (size > 1)}"
    rates = (RATE, MEDIAN_WAIT, LONGEST_WAIT)
    yield Work(work_name("calls", size), f"{crowd}, 1 process: incr of one counter", rates, partial(_calls, size))
    yield Work(
        work_name("processes", size),
        f"{crowd}, {PROCESSES} processes x 1 task: incr of one counter",
        (RATE, FAIRNESS, MEDIAN_WAIT, LONGEST_WAIT),
        partial(_processes, size),
    )
    yield Work(
        work_name("watch", size),
        f"{crowd}: another process's change, reported by watch()",
        (MEDIAN, LONGEST),
        partial(_watching, size),
    )
    victim = "the leader was killed" if size > 1 else "it was killed and started again"
    yield Work(
        work_name("killed", size),
        f"{crowd}: after {victim}",
        (RECOVERED, WORST, LONGEST_CALL),
        partial(_failover, size),
    )


ETCD = [work for size in SIZES for work in _works(size)]
