"""The competitors: one small class each, written as its users would, with the fastest settings that are correct.

Each holds a counter among other small keys. Those that are not durable are listed for context: they do not claim to
survive a power cut, and some not even a crash.
"""

# ruff: noqa: D102 - the verbs are described once, by Store
# ruff: noqa: S301 - what shelve unpickles was written by this run

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shelve
import sqlite3
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
import lmdb
import orjson
import tinydb
from filelock import FileLock
from tinydb.table import Document

from persistent_context import PersistentContext, SyncPersistentContext

from .model import PROJECT

COUNTER = "counter"
LOCK_TIMEOUT = 120.0
"""Seconds; no call may fail by waiting, however unfair the lock is."""

JOURNAL = f"{PROJECT}, journal"
FLOOR = "bare floor"
APPEND_FLOOR = "bare append, to_thread"
SQLITE = "sqlite3 WAL FULL"
SQLITE_IN_THREAD = f"{SQLITE}, to_thread"
BY_HAND = "filelock + json"
DISKCACHE = "diskcache FULL"


def small_values() -> dict[str, int]:
    """Return the initial content of every store: the counter and 200 other keys."""
    return {COUNTER: 0} | {f"key-{number:03}": number for number in range(200)}


def write_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Replace a file by way of a temporary file; if durable, sync the file and the directory, in this order."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


class Store(ABC):
    """One process's handle on a store; only the process that checks the count uses `seed` and `read`."""

    @abstractmethod
    def seed(self, values: dict[str, int]) -> None:
        """Fill the new store."""

    @abstractmethod
    def read(self, key: str) -> int:
        """Return a stored value."""

    def close(self) -> None:  # noqa: B027
        """Release all resources."""


class SyncStore(Store):
    """A store whose calls block; from asyncio they are made by `asyncio.to_thread`, and so from several threads."""

    @abstractmethod
    def incr(self, key: str) -> int:
        """Add one, atomically across threads and processes, and return the new number."""


class AsyncStore(Store):
    """A store whose calls are awaited."""

    @abstractmethod
    async def incr(self, key: str) -> int:
        """Add one, atomically across tasks and processes, and return the new number."""


class JsonFile(Store):
    """A store that is one JSON file, which any program can write before and read after."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.json"

    def seed(self, values: dict[str, int]) -> None:
        self.path.write_text(json.dumps(values))

    def read(self, key: str) -> int:
        value = json.loads(self.path.read_text())[key]
        assert isinstance(value, int)
        return value


class Project(JsonFile, AsyncStore):
    """This project."""

    def __init__(self, folder: Path, *, durable: bool, journal: bool | None = None) -> None:
        super().__init__(folder)
        self.context = PersistentContext(self.path, durable=durable, lock_timeout=LOCK_TIMEOUT, journal=journal)
        self._durable = durable

    def seed(self, values: dict[str, int]) -> None:
        context = SyncPersistentContext(self.path, durable=self._durable)  # else every write would sync
        context.update(values)
        context.save()

    def read(self, key: str) -> int:
        return int(SyncPersistentContext.create(self.path).get(key))  # includes what is in the journal

    async def incr(self, key: str) -> int:
        number = await self.context.incr(key)
        assert isinstance(number, int)
        return number


class ByHand(JsonFile, SyncStore):
    """What most people write: filelock's `FileLock` with its defaults, and `json` for the whole file in and out."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__(folder)
        self.durable = durable
        self.lock = FileLock(f"{self.path}.lock")

    def incr(self, key: str) -> int:
        with self.lock:
            values = json.loads(self.path.read_bytes())
            number: int = values[key] + 1
            values[key] = number
            write_file(self.path, json.dumps(values).encode(), durable=self.durable)
        return number


class Floor(JsonFile, SyncStore):
    """The least that a durable change of a shared JSON file can cost.

    The kernel's queue for the lock, on a descriptor that stays open, the fastest parser, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.threads = threading.Lock()  # flock does not exclude threads that share a descriptor
        self.lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def incr(self, key: str) -> int:
        with self.threads:
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            values = orjson.loads(self.path.read_bytes())
            number: int = values[key] + 1
            values[key] = number
            write_file(self.path, orjson.dumps(values), durable=True)
            fcntl.flock(self.lock, fcntl.LOCK_UN)
        return number

    def close(self) -> None:
        os.close(self.lock)


class Lmdb(SyncStore):
    """LMDB with its defaults, which are durable."""

    def __init__(self, folder: Path) -> None:
        self.environment = lmdb.open(str(folder / "lmdb"), map_size=2**24)

    def seed(self, values: dict[str, int]) -> None:
        with self.environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key.encode(), str(value).encode())

    def incr(self, key: str) -> int:
        with self.environment.begin(write=True) as transaction:
            number = int(transaction.get(key.encode(), b"")) + 1
            transaction.put(key.encode(), str(number).encode())
        return number

    def read(self, key: str) -> int:
        with self.environment.begin() as transaction:
            return int(transaction.get(key.encode(), b""))

    def close(self) -> None:
        self.environment.close()


class Sqlite(SyncStore):
    """A table of keys and values in WAL mode; one connection per process, which is faster than one per thread."""

    def __init__(self, folder: Path, *, synchronous: str) -> None:
        self.threads = threading.Lock()
        self.database = sqlite3.connect(
            folder / "store.sqlite", timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute(f"PRAGMA synchronous = {synchronous}")

    def seed(self, values: dict[str, int]) -> None:
        self.database.execute("CREATE TABLE store (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID")
        self.database.execute("BEGIN")
        self.database.executemany("INSERT INTO store VALUES (?, ?)", values.items())
        self.database.execute("COMMIT")

    def incr(self, key: str) -> int:
        with self.threads:
            self.database.execute("BEGIN IMMEDIATE")
            self.database.execute("UPDATE store SET value = value + 1 WHERE key = ?", (key,))
            number = self.read(key)
            self.database.execute("COMMIT")
        return number

    def read(self, key: str) -> int:
        (value,) = self.database.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
        return int(value)

    def close(self) -> None:
        self.database.close()


class InThread(AsyncStore):
    """A store whose calls block, called from one task of an event loop by `asyncio.to_thread`."""

    def __init__(self, folder: Path, kind: Callable[[Path], SyncStore]) -> None:
        self.store = kind(folder)

    def seed(self, values: dict[str, int]) -> None:
        self.store.seed(values)

    async def incr(self, key: str) -> int:
        return await asyncio.to_thread(self.store.incr, key)

    def read(self, key: str) -> int:
        return self.store.read(key)

    def close(self) -> None:
        self.store.close()


class AppendFloor(JsonFile, SyncStore):
    """The least that a durable append of a shared journal can cost, in Python.

    The kernel's queue for the lock, records with a checksum, one sync outside the lock, and nothing else: no
    checkpoint, no recovery, and only one key.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.threads = threading.Lock()
        self.lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.journal = os.open(f"{self.path}.journal", os.O_RDWR | os.O_CREAT, 0o600)
        self.end = self.number = 0

    def incr(self, key: str) -> int:
        with self.threads:
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            self.look(key)
            self.number += 1
            record = orjson.dumps({"set": {key: self.number}})
            line = b"%08x %s\n" % (zlib.crc32(record), record)
            self.end += os.pwrite(self.journal, line, self.end)
            number = self.number
            fcntl.flock(self.lock, fcntl.LOCK_UN)
        os.fdatasync(self.journal)
        return number

    def look(self, key: str) -> None:
        """Read what others have appended."""
        lines = os.pread(self.journal, 2**20, self.end)
        self.end += len(lines)
        for line in lines.splitlines():
            checksum, _, record = line.partition(b" ")
            assert int(checksum, 16) == zlib.crc32(record)
            self.number = orjson.loads(record)["set"][key]

    def read(self, key: str) -> int:
        self.look(key)
        return self.number

    def close(self) -> None:
        os.close(self.lock)
        os.close(self.journal)


class Diskcache(SyncStore):
    """diskcache with its own atomic `incr`; SQLite's `synchronous` is 1 (NORMAL) unless 2 (FULL) is asked for."""

    def __init__(self, folder: Path, *, synchronous: int) -> None:
        self.cache = diskcache.Cache(str(folder / "cache"), timeout=LOCK_TIMEOUT, sqlite_synchronous=synchronous)

    def seed(self, values: dict[str, int]) -> None:
        with self.cache.transact():
            for key, value in values.items():
                self.cache.set(key, value)

    def incr(self, key: str) -> int:
        return int(self.cache.incr(key, retry=True))

    def read(self, key: str) -> int:
        return int(self.cache[key])

    def close(self) -> None:
        self.cache.close()


class TinyDB(SyncStore):
    """TinyDB under a `FileLock`, one document per key; it syncs, but writes in place, so a crash can tear the file."""

    def __init__(self, folder: Path) -> None:
        path = folder / "store.json"
        self.lock = FileLock(f"{path}.lock")
        self.database = tinydb.TinyDB(path)

    def seed(self, values: dict[str, int]) -> None:
        self.database.insert_multiple({"key": key, "value": value} for key, value in values.items())

    def incr(self, key: str) -> int:
        number = 0

        def add_one(document: Any) -> None:
            nonlocal number
            document["value"] = number = document["value"] + 1

        with self.lock:
            self.database.update(add_one, tinydb.where("key") == key)
        return number

    def read(self, key: str) -> int:
        document = self.database.get(tinydb.where("key") == key)
        assert isinstance(document, Document)
        return int(document["value"])

    def close(self) -> None:
        self.database.close()


class Shelf(SyncStore):
    """`shelve` under a `FileLock`, opened anew each time since a `dbm` file may not be open in two processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"
        self.lock = FileLock(f"{self.path}.lock")

    def seed(self, values: dict[str, int]) -> None:
        with shelve.open(self.path) as shelf:
            shelf.update(values)

    def incr(self, key: str) -> int:
        with self.lock, shelve.open(self.path) as shelf:
            shelf[key] = number = shelf[key] + 1
        return int(number)

    def read(self, key: str) -> int:
        with shelve.open(self.path) as shelf:
            return int(shelf[key])


@dataclass(frozen=True)
class Peer:
    """How to open a competitor's store in a folder, and whether what it acknowledged survives a power cut."""

    open: Callable[[Path], Store]
    durable: bool


IN_THREADS = {
    SQLITE_IN_THREAD: Peer(partial(InThread, kind=partial(Sqlite, synchronous="FULL")), durable=True),
    APPEND_FLOOR: Peer(partial(InThread, kind=AppendFloor), durable=True),
}
"""What a program with an event loop would use with one task per process."""

PEERS = {
    PROJECT: Peer(partial(Project, durable=True), durable=True),
    JOURNAL: Peer(partial(Project, durable=True, journal=True), durable=True),
    FLOOR: Peer(Floor, durable=True),
    BY_HAND: Peer(partial(ByHand, durable=True), durable=True),
    DISKCACHE: Peer(partial(Diskcache, synchronous=2), durable=True),
    SQLITE: Peer(partial(Sqlite, synchronous="FULL"), durable=True),
    "LMDB": Peer(Lmdb, durable=True),
    f"{PROJECT}, durable=False": Peer(partial(Project, durable=False), durable=False),
    "filelock + json, no fsync": Peer(partial(ByHand, durable=False), durable=False),
    "TinyDB + filelock": Peer(TinyDB, durable=False),
    "shelve + filelock": Peer(Shelf, durable=False),
    "diskcache NORMAL": Peer(partial(Diskcache, synchronous=1), durable=False),
    "sqlite3 WAL NORMAL": Peer(partial(Sqlite, synchronous="NORMAL"), durable=False),
}
ALL_PEERS = PEERS | IN_THREADS
