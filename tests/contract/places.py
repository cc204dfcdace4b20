"""Where the stores under test keep their state, and how to cause the events that the contract is about."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import pytest

import etcd
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client, counted, end_of, text
from persistent_context._stores.etcd.gateway import Gateway
from persistent_context._stores.etcd.state import Names
from persistent_context._stores.etcd.store import EtcdStore
from persistent_context._stores.factory import locate
from persistent_context._stores.journal.store import JournalStore
from persistent_context._stores.jsonfile.store import JsonFileStore
from persistent_context._stores.protocol import Session, Store
from persistent_context.errors import DurabilityUnknownError

from .memorystore import MemoryStore, Place

Failure = Literal["write", "durability"]
"""What fails: writing, before others can see any of it, or making durable what was written."""


class ContractPlace:
    """A place at which nothing is stored yet."""

    patience = 60.0
    """How long to wait for an expected event, in seconds."""
    opens_elsewhere = ""
    """The code that gives a program this place's store as ``store``; empty if other processes cannot have it."""
    waits_in_vain = True
    """Whether calls that wait for a lost session wait in vain."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count()

    def store(self) -> Store:
        """Return a new store at this place."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Return how many calls wait for a session."""
        raise NotImplementedError

    def lose_sessions(self) -> None:
        """Lose all open sessions."""
        raise NotImplementedError

    def lose_leases(self) -> None:
        """Lose all leases."""
        raise NotImplementedError

    def corrupt(self) -> None:
        """Replace the state by an invalid one."""
        raise NotImplementedError

    def failing(self, what: Failure) -> contextlib.AbstractContextManager[None]:
        """Make durable commits fail for a while."""
        raise NotImplementedError

    def another(self) -> ContractPlace:
        """Return another place of the same kind."""
        directory = self.directory / str(next(self._numbers))
        directory.mkdir()
        return type(self)(directory)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is true."""
        deadline, tick = time.monotonic() + self.patience, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            tick.wait(0.001)

    def start(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function in another thread; :meth:`result` waits for its result."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments, **options))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future

    def result(self, future: Future[Any]) -> Any:
        """Wait for the result of a call, or its error."""
        self.until(future.done)
        return future.result()

    def granted(self, waiting: Future[Any]) -> Session:
        """Wait for a session."""
        session: Session | None = self.result(waiting)

        assert session is not None, "the wait ended without a session"
        return session

    def begin_waiting(self, store: Store, purpose: str = "test") -> Future[Any]:
        """Begin a session in another thread, and return once it waits for its turn."""
        before = self.waiting()
        future = self.start(store.begin, purpose, wait=True)
        self.until(lambda: self.waiting() > before or future.done())
        return future


class MemoryPlace(ContractPlace):
    """A place in memory."""

    memory: type[Place] = Place
    kind: type[MemoryStore] = MemoryStore

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.place = self.memory()

    def store(self) -> MemoryStore:
        return self.kind(self.place)

    def waiting(self) -> int:
        return max(0, len(self.place.turns) - 1)

    def lose_sessions(self) -> None:
        self.place.lose_sessions()

    def lose_leases(self) -> None:
        for place in self.place.leases.values():
            place.lose_sessions()

    def corrupt(self) -> None:
        self.place.is_corrupt = True

    @contextlib.contextmanager
    def failing(self, what: Failure) -> Iterator[None]:
        if what == "write":
            self.place.plan("commit", OSError(errno.EIO, os.strerror(errno.EIO)))
        else:
            self.place.plan("committed", DurabilityUnknownError("it was written"))
        yield


class JsonFilePlace(ContractPlace):
    """A JSON file, and its lock file."""

    opens_elsewhere = (
        "from persistent_context._stores.jsonfile.store import JsonFileStore; store = JsonFileStore(sys.argv[1])"
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory.resolve() / "state.json"
        self._lock = self.path.with_name("state.json.lock")

    def store(self) -> Store:
        return JsonFileStore(str(self.path))

    def waiting(self) -> int:
        if not os.path.exists("/proc/locks"):
            pytest.skip("needs /proc/locks to see who waits for a lock: run on Linux")
        file = f":{self._lock.stat().st_ino} " if self._lock.exists() else "none"
        with open("/proc/locks", encoding="ascii") as locks:
            return sum("->" in line and file in line for line in locks)

    def lose_sessions(self) -> None:
        self._lock.unlink()

    def lose_leases(self) -> None:
        for file in self.directory.glob("*.lease-*"):
            file.unlink()

    def corrupt(self) -> None:
        self.path.write_text("corrupt", encoding="utf-8")

    @contextlib.contextmanager
    def failing(self, what: Failure) -> Iterator[None]:
        if sys.platform != "linux":
            pytest.skip("needs fsync(2) of files and directories: run on Linux")
        sync = os.fsync

        def fail(fd: int) -> None:
            if what == "write" or stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(fd)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            yield


class JournalPlace(JsonFilePlace):
    """A JSON file with a journal, and its lock file."""

    opens_elsewhere = (
        "from persistent_context._stores.journal.store import JournalStore; "
        "store = JournalStore(sys.argv[1]); store.want(journal=True); "
        "from persistent_context._stores.journal import idle; idle.QUIET_SECONDS = 3600"
    )

    def store(self) -> Store:
        store = JournalStore(str(self.path))
        store.want(journal=True)
        return store

    @contextlib.contextmanager
    def failing(self, what: Failure) -> Iterator[None]:
        pwrite = os.pwrite

        def fail(fd: int, data: bytes, offset: int) -> int:
            if os.readlink(f"/proc/self/fd/{fd}") == f"{self.path}.journal":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pwrite(fd, data, offset)

        def fail_to_sync(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with super().failing(what), pytest.MonkeyPatch.context() as patch:
            if what == "write":
                patch.setattr(os, "pwrite", fail)
            else:
                patch.setattr(os, "fdatasync", fail_to_sync)
            yield


class EtcdPlace(ContractPlace):
    """A namespace of etcd."""

    opens_elsewhere = (
        "from persistent_context._stores.factory import locate, open_store; store = open_store(locate(sys.argv[1]))"
    )
    waits_in_vain = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = etcd.url()
        self._names = Names.of(self.path.rpartition("/")[2])
        self._client = Client(Gateway(parse(self.path)))

    def store(self) -> EtcdStore:
        return EtcdStore.at(locate(self.path))

    def waiting(self) -> int:
        prefix = self._names.queue
        return max(0, self._client.read(counted(prefix, end_of(prefix))).found[0].count - 1)

    def lose_sessions(self) -> None:
        self._remove(self._names.queue)

    def lose_leases(self) -> None:
        self._remove(self._names.namespace + b"/l/")

    def corrupt(self) -> None:
        pytest.skip("what is corrupt in etcd is an error, and is not set aside")

    @contextlib.contextmanager
    def failing(self, what: Failure) -> Iterator[None]:
        if what == "durability":
            pytest.skip("every commit to etcd is durable")
        call = Gateway.call

        def refuse(gateway: Gateway, path: str, body: Any, *, repeatable: bool) -> Any:
            if path == "/v3/kv/txn" and not repeatable:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(gateway, path, body, repeatable=repeatable)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gateway, "call", refuse)
            yield

    def _remove(self, prefix: bytes) -> None:
        everything = {"request_delete_range": {"key": text(prefix), "range_end": text(end_of(prefix))}}
        self._client.transact([everything], repeatable=True)


PLACES: dict[str, type[ContractPlace]] = {
    "memory": MemoryPlace,
    "json": JsonFilePlace,
    "journal": JournalPlace,
    "etcd": EtcdPlace,
}
"""The stores that are tested."""
