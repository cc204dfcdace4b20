"""Where the file stands may be any place: every bad one is told from the others, and nobody gets in through it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import inspect
import json
import logging
import math
import os
import socket
import stat
import subprocess
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from persistent_context import (
    ConflictError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContext,
    PersistentContextError,
    SyncPersistentContext,
    UnserializableValueError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

NOBODY = 65534

# ---------------------------------------- the two faces


class AsyncFace:
    """The awaited face: a story runs on an event loop."""

    name = "async"
    context = PersistentContext

    @staticmethod
    def run(story: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(story)


class SyncFace:
    """The face without a loop: the same story runs through in one go, for nothing in it suspends."""

    name = "sync"
    context = SyncPersistentContext

    @staticmethod
    def run(story: Coroutine[Any, Any, Any]) -> Any:
        try:
            story.send(None)
        except StopIteration as stop:
            return stop.value
        story.close()
        pytest.fail("the face without a loop suspended")


@pytest.fixture(params=[AsyncFace, SyncFace], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


async def done(result: Any) -> Any:
    """Await what the awaited face returns, pass through what the other one returns."""
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def transaction(ctx: Any, **options: Any) -> AsyncIterator[Any]:
    if isinstance(ctx, SyncPersistentContext):
        with ctx.transaction(**options) as tx:
            yield tx
    else:
        async with ctx.transaction(**options) as tx:
            yield tx


# ---------------------------------------- helpers


async def _load(ctx: Any) -> None:
    await done(ctx.load())


async def _save(ctx: Any) -> None:
    ctx.set("fresh", 1)
    await done(ctx.save())


async def _incr(ctx: Any) -> None:
    await done(ctx.incr("fresh"))


async def _transaction(ctx: Any) -> None:
    async with transaction(ctx) as tx:
        tx["fresh"] = 1


CALLS: dict[str, Callable[[Any], Coroutine[Any, Any, None]]] = {
    "load": _load,
    "save": _save,
    "incr": _incr,
    "transaction": _transaction,
}
WRITES = {name: call for name, call in CALLS.items() if name != "load"}


def needs_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"needs root {what}: run the tests as root, in a container")


def is_safe_to_print(message: str) -> bool:
    return message.isprintable()


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Make a directory that other users can reach, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    for root, directories, files in os.walk(directory, topdown=False):
        os.chmod(root, 0o700)
        for name in files:
            os.unlink(os.path.join(root, name))
        for name in directories:
            os.rmdir(os.path.join(root, name))
    directory.rmdir()


@contextmanager
def mounted(*arguments: object, at: Path) -> Iterator[None]:
    """Mount something for the length of a block."""
    needs_root("to mount")
    if subprocess.run(["mount", *map(str, arguments), at], check=False).returncode:
        pytest.skip("needs the right to mount (CAP_SYS_ADMIN): run the container with --privileged")
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


STRANGER = """
import asyncio, inspect, json, os, sys, tempfile
from persistent_context import PersistentContext, SyncPersistentContext

face, path, uid, *steps = sys.argv[1:]
context = SyncPersistentContext if face == "sync" else PersistentContext

async def done(result):
    return await result if inspect.isawaitable(result) else result

async def transaction(ctx):
    if face == "sync":
        with ctx.transaction() as tx:
            tx["in transaction"] = 1
    else:
        async with ctx.transaction() as tx:
            tx["in transaction"] = 1

async def story(path, steps):
    ctx, results = context(path, lock_timeout=20), []
    for step in steps:
        name, *arguments = json.loads(step)
        try:
            value = await (transaction(ctx) if name == "transaction" else done(getattr(ctx, name)(*arguments)))
            results.append([name, "ok", sorted(value) if isinstance(value, (set, frozenset)) else repr(value)
                            if name == "lock_holder" else value])
        except OSError as error:
            results.append([name, "OSError", error.errno])
    return results

def run(path, steps):
    if face == "async":
        return asyncio.run(story(path, steps))
    try:
        story(path, steps).send(None)
    except StopIteration as stop:
        return stop.value

with tempfile.TemporaryDirectory() as warm:  # whatever is imported late is imported while everything may be read
    with open(os.path.join(warm, "warm.json"), "w") as file:
        file.write('{"w": 1,\\n"n": 2}')
    warming = ["load"], ["incr", "n"], ["set", "a", 1], ["save"], ["lock_holder"]
    run(os.path.join(warm, "warm.json"), list(map(json.dumps, warming)))
if int(uid):
    os.setgroups([]), os.setgid(int(uid)), os.setuid(int(uid))
print(json.dumps(run(path, steps)))
"""


@pytest.fixture
def as_stranger(face: Any, spawn: Any) -> Callable[..., list[Any]]:
    """Run calls in a process of an ordinary user, which is nobody's when the tests run as root."""

    def run(path: Path, *steps: list[Any]) -> list[Any]:
        uid = NOBODY if os.geteuid() == 0 else 0
        [line] = spawn(STRANGER, face.name, path, uid, *map(json.dumps, steps)).finish()
        return list(json.loads(line))

    return run


# ---------------------------------------- no regular file


@contextmanager
def a_directory(path: Path) -> Iterator[None]:
    path.mkdir()
    (path / "inside.txt").write_text("kept")
    yield
    assert "kept" == (path / "inside.txt").read_text()


@contextmanager
def an_empty_directory(path: Path) -> Iterator[None]:
    path.mkdir()
    yield
    assert path.is_dir()


@contextmanager
def a_fifo(path: Path) -> Iterator[None]:
    os.mkfifo(path)
    yield
    assert path.is_fifo()


@contextmanager
def a_socket(path: Path) -> Iterator[None]:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{directory}/{path.name}")  # the real path is too long for a socket
        os.close(directory)
        yield
        assert path.is_socket()


@contextmanager
def a_device(path: Path, minor: int) -> Iterator[None]:
    needs_root("to make a device")
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        pytest.skip("needs the right to make devices (CAP_MKNOD, no nodev mount): run the container with --privileged")
    yield
    assert path.is_char_device()


NO_REGULAR_FILES: dict[str, Callable[[Path], Any]] = {
    "a directory": a_directory,
    "an empty directory": an_empty_directory,
    "a FIFO": a_fifo,
    "a socket": a_socket,
    "a null device": lambda path: a_device(path, 3),
    "an endless device": lambda path: a_device(path, 5),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", NO_REGULAR_FILES)
class TestNoRegularFile:
    def test_in_the_place_of_the_file(self, face: Any, path: Path, kind: str, call: str) -> None:
        """What is no regular file is told at once, without hanging on it, and neither read, moved nor replaced."""

        async def story() -> None:
            ctx = face.context(path)
            with pytest.raises(NotARegularFileError) as caught:
                await CALLS[call](ctx)
            assert isinstance(caught.value, PersistentContextError)
            assert isinstance(caught.value, OSError)
            assert path.name in str(caught.value)
            assert ({"fresh"} if call == "save" else set()) == ctx.unsaved_keys()

        with NO_REGULAR_FILES[kind](path):
            face.run(story())

            assert names(path.parent) <= {path.name, path.name + ".lock"}

    def test_in_the_place_of_the_lock_file(self, face: Any, path: Path, kind: str, call: str) -> None:
        """A lock file that is no regular file is refused without hanging on it; reading needs no lock and works."""
        path.write_bytes(b'{\n"a": 1\n}\n')
        lock = Path(f"{path}.lock")

        async def story() -> None:
            ctx = face.context(path)
            if call == "load":
                await done(ctx.load())
                assert {"a": 1} == ctx.get_all_data()
                return
            with pytest.raises(NotARegularFileError) as caught:
                await CALLS[call](ctx)
            assert lock.name in str(caught.value)

        with NO_REGULAR_FILES[kind](lock):
            face.run(story())

        assert b'{\n"a": 1\n}\n' == path.read_bytes()
        assert {path.name, lock.name} == names(path.parent)


class TestNoDirectory:
    @pytest.mark.parametrize("call", CALLS)
    def test_a_file_in_the_place_of_the_directory(self, face: Any, path: Path, call: str) -> None:
        """A path that leads through a file is an OSError, also for a load, and the file on the way stays."""
        path.write_bytes(b"{}")

        async def story() -> None:
            with pytest.raises(OSError, match=path.name):
                await CALLS[call](face.context(path / "below.json"))

        face.run(story())

        assert b"{}" == path.read_bytes()
        assert {path.name} == names(path.parent)

    def test_missing_directories_are_made(self, face: Any, path: Path) -> None:
        """Parents that are missing are made by the first write, not by reading."""
        target = path.parent / "a" / "b" / "state.json"

        async def story() -> None:
            ctx = await done(face.context.create(target))
            assert {} == ctx.get_all_data()
            assert not (path.parent / "a").exists()
            await _save(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(target.read_bytes())


# ---------------------------------------- rights

DENIED = (errno.EACCES, errno.EPERM)


class TestRights:
    def test_a_directory_that_may_not_be_entered(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """A file that cannot be reached is no missing file: loading and saving both say so, and nothing is lost."""
        directory = public_directory / "closed"
        directory.mkdir()
        path = directory / "state.json"
        path.write_bytes(b'{"a": 1}')
        directory.chmod(0o000)

        results = as_stranger(
            path, ["load"], ["set", "b", 2], ["save"], ["incr", "n"], ["transaction"], ["unsaved_keys"]
        )
        directory.chmod(0o700)

        assert ["OSError", "ok", "OSError", "OSError", "OSError", "ok"] == [outcome for _, outcome, _ in results]
        assert all(number in DENIED for _, outcome, number in results if outcome == "OSError")
        assert ["b"] == results[-1][2]
        assert b'{"a": 1}' == path.read_bytes()
        assert {path.name} == names(directory)

    def test_a_directory_that_may_not_be_written(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """In a read-only directory reading works, saving says why it cannot, and the change stays unsaved."""
        path = public_directory / "state.json"
        path.write_bytes(b'{"a": 1}')
        path.chmod(0o644)
        public_directory.chmod(0o555)

        results = as_stranger(
            path, ["load"], ["get", "a"], ["lock_holder"], ["set", "b", 2], ["save"], ["incr", "n"], ["unsaved_keys"],
            ["get_all_data"], ["load"],
        )  # fmt: skip

        assert ["save", "incr"] == [name for name, outcome, _ in results if outcome != "ok"]
        assert 1 == results[1][2]
        assert "None" == results[2][2]
        assert all(number in DENIED for _, outcome, number in results if outcome == "OSError")
        assert ["b"] == results[6][2]
        assert {"a": 1, "b": 2} == results[7][2]
        assert b'{"a": 1}' == path.read_bytes()
        assert {path.name} == names(public_directory)

    def test_a_missing_file_in_a_directory_that_may_not_be_written(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """A missing file is an empty one for a reader, and an error for a writer who may not make it."""
        public_directory.chmod(0o555)

        results = as_stranger(public_directory / "state.json", ["load"], ["get_all_data"], ["set", "b", 2], ["save"])

        assert ["ok", "ok", "ok", "OSError"] == [outcome for _, outcome, _ in results]
        assert {} == results[1][2]
        assert set() == names(public_directory)

    def test_a_file_that_may_not_be_read(self, public_directory: Path, as_stranger: Callable[..., list[Any]]) -> None:
        """A file that may not be read is not taken for a corrupt one, though its directory would let it be moved."""
        needs_root("to have a file of another user")
        path = public_directory / "state.json"
        path.write_bytes(b'{"secret": 1}')
        path.chmod(0o600)
        public_directory.chmod(0o777)

        results = as_stranger(
            path, ["load"], ["set", "b", 2], ["save"], ["incr", "n"], ["transaction"], ["unsaved_keys"]
        )

        assert ["OSError", "ok", "OSError", "OSError", "OSError", "ok"] == [outcome for _, outcome, _ in results]
        assert ["b"] == results[-1][2]
        assert b'{"secret": 1}' == path.read_bytes()
        assert names(public_directory) <= {path.name, path.name + ".lock"}

    def test_a_file_that_all_may_write(self, public_directory: Path, as_stranger: Callable[..., list[Any]]) -> None:
        """A second user who may write the data can lock and save it, and its mode stays as it was."""
        needs_root("to have two users")
        public_directory.chmod(0o777)
        path = public_directory / "state.json"
        path.write_bytes(b'{"n": 1}')
        path.chmod(0o666)
        assert 2 == SyncPersistentContext(path).incr("n")

        results = as_stranger(path, ["incr", "n"], ["load"], ["set", "b", 2], ["save"])

        assert ["incr", "ok", 3] == results[0]
        assert ["ok"] * 4 == [outcome for _, outcome, _ in results]
        assert 4 == SyncPersistentContext(path).incr("n")
        assert {"n": 4, "b": 2} == json.loads(path.read_bytes())
        assert 0o666 == stat.S_IMODE(path.stat().st_mode)

    def test_a_leftover_that_may_not_be_removed(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """In a directory like /tmp, what another user's crashed writer left stays, and hinders nobody."""
        needs_root("to have two users")
        public_directory.chmod(0o1777)
        path = public_directory / "state.json"
        leftover = public_directory / f".state.json.{'0' * 16}.tmp"
        leftover.write_bytes(b"{")
        leftover.chmod(0o666)

        assert [["incr", "ok", 1], ["incr", "ok", 2]] == as_stranger(path, ["incr", "n"], ["incr", "n"])
        assert {path.name, path.name + ".lock", leftover.name} == names(public_directory)

    def test_a_directory_below_one_that_may_only_be_passed_through(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """A directory above that may not be opened is not synced: no process of this user has made the one in it."""
        needs_root("to have two users")
        directory = public_directory / "home"
        directory.mkdir()
        os.chown(directory, NOBODY, NOBODY)
        public_directory.chmod(0o711)

        assert [["incr", "ok", 1], ["incr", "ok", 2]] == as_stranger(
            directory / "state.json", ["incr", "n"], ["incr", "n"]
        )

    def test_a_private_file_that_another_user_wrote_to(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """When root changes a user's private file it stays that user's and private, and its owner can still lock it."""
        needs_root("to have two users")
        public_directory.chmod(0o777)
        path = public_directory / "state.json"
        path.write_bytes(b'{"n": 1}')
        path.chmod(0o600)
        os.chown(path, NOBODY, NOBODY)
        assert 2 == SyncPersistentContext(path).incr("n")
        after_root = path.stat()

        results = as_stranger(path, ["incr", "n"])

        assert (0o600, NOBODY, NOBODY) == (stat.S_IMODE(after_root.st_mode), after_root.st_uid, after_root.st_gid)
        assert [["incr", "ok", 3]] == results
        assert {"n": 3} == json.loads(path.read_bytes())
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)

    def test_a_file_of_a_group(self, public_directory: Path, as_stranger: Callable[..., list[Any]]) -> None:
        """A member of the group saves a file that the group may write: mode and group stay, for all its members."""
        needs_root("to have two users")
        public_directory.chmod(0o777)
        path = public_directory / "state.json"
        path.write_bytes(b'{"n": 1}')
        os.chown(path, 0, NOBODY)
        path.chmod(0o660)
        assert 2 == SyncPersistentContext(path).incr("n")

        results = as_stranger(path, ["incr", "n"])
        after = path.stat()

        assert [["incr", "ok", 3]] == results
        assert (0o660, NOBODY) == (stat.S_IMODE(after.st_mode), after.st_gid)
        assert 4 == SyncPersistentContext(path).incr("n")

    def test_a_file_of_a_group_one_is_not_in(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """Where the group cannot be kept, its rights are not handed to another group."""
        needs_root("to have two users")
        public_directory.chmod(0o777)
        path = public_directory / "state.json"
        path.write_bytes(b'{"n": 1}')
        os.chown(path, NOBODY, 54321)
        path.chmod(0o660)

        results = as_stranger(path, ["incr", "n"])
        after = path.stat()

        assert [["incr", "ok", 2]] == results
        for found in (after, os.stat(f"{path}.lock")):
            assert found.st_gid == 54321 or stat.S_IMODE(found.st_mode) & 0o070 == 0

    def test_a_read_only_mount(self, face: Any, tmp_path: Path) -> None:
        """On a read-only file system reading works, writing is an OSError (EROFS), and the change stays unsaved."""
        directory = tmp_path / "mounted"
        directory.mkdir()
        path = directory / "state.json"
        path.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {"a": 1} == ctx.get_all_data()
            for call in WRITES.values():
                with pytest.raises(OSError, match="[Rr]ead-only") as caught:
                    await call(ctx)
                assert errno.EROFS == caught.value.errno
            assert {"fresh"} == ctx.unsaved_keys()
            assert 1 == ctx.get("fresh")
            assert await done(ctx.lock_holder()) is None

        with mounted("--bind", directory, at=directory):
            subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
            face.run(story())

            assert b'{"a": 1}' == path.read_bytes()
            assert {path.name} == names(directory)

    def test_a_file_mounted_by_itself(self, face: Any, path: Path, tmp_path: Path) -> None:
        """A file that is a mount of its own cannot be replaced: EBUSY that names it, and nothing is lost."""
        source = tmp_path / "source.json"
        source.write_bytes(b'{"a": 1}')
        path.touch()

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {"a": 1} == ctx.get_all_data()
            for call in WRITES.values():
                with pytest.raises(OSError, match=path.name) as caught:
                    await call(ctx)
                assert errno.EBUSY == caught.value.errno
            assert {"fresh"} == ctx.unsaved_keys()
            assert 1 == ctx.get("fresh")
            await done(ctx.load())

        with mounted("--bind", source, at=path):
            face.run(story())

            assert b'{"a": 1}' == path.read_bytes()
            assert {path.name, path.name + ".lock"} == names(path.parent)

    def test_a_bad_document_in_a_file_mounted_by_itself(self, face: Any, path: Path, tmp_path: Path) -> None:
        """A bad document that is a mount of its own cannot be moved aside: an OSError, and it stays as it is."""
        source = tmp_path / "source.json"
        source.write_bytes(b'{"a": ')
        path.touch()

        async def story() -> None:
            for call in CALLS.values():
                with pytest.raises(OSError, match=path.name):
                    await call(face.context(path))

        with mounted("--bind", source, at=path):
            face.run(story())

            assert b'{"a": ' == path.read_bytes()
            assert {path.name, path.name + ".lock"} == names(path.parent)


# ---------------------------------------- names


class TestLongNames:
    @pytest.mark.parametrize("name", ["n" * 245 + ".json", "é" * 122 + ".json"], ids=["ASCII", "two bytes each"])
    def test_a_name_with_just_enough_room_for_the_lock(self, face: Any, path: Path, name: str) -> None:
        """A file whose name nearly fills what the file system allows is saved, for temporary names are shorter."""
        target = path.parent / name

        async def story() -> None:
            ctx = await done(face.context.create(target))
            for call in WRITES.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(target.read_bytes())
        assert {name, name + ".lock"} == names(path.parent)

    @pytest.mark.parametrize("call", CALLS)
    def test_a_bad_document_of_such_a_name(self, face: Any, path: Path, call: str) -> None:
        """A bad document whose name leaves no room for a suffix is moved aside or refused, but never lost."""
        target = path.parent / ("n" * 245 + ".json")
        target.write_bytes(b"{ broken")

        async def story() -> None:
            with suppress(OSError):
                await CALLS[call](face.context(target))

        face.run(story())
        contents = [found.read_bytes() for found in path.parent.iterdir()]

        assert 1 == contents.count(b"{ broken")
        assert not [name for name in names(path.parent) if name.endswith(".tmp")]

    @pytest.mark.parametrize("call", WRITES)
    def test_a_name_without_room_for_the_lock(self, face: Any, path: Path, call: str) -> None:
        """Where the lock file's name would be too long, writing is refused with an OSError and nothing is touched."""
        target = path.parent / ("n" * 250 + ".json")
        target.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(target))
            assert {"a": 1} == ctx.get_all_data()
            with pytest.raises(OSError, match="n{200}") as caught:
                await CALLS[call](ctx)
            assert errno.ENAMETOOLONG == caught.value.errno

        face.run(story())

        assert b'{"a": 1}' == target.read_bytes()
        assert {target.name} == names(path.parent)

    @pytest.mark.parametrize("call", CALLS)
    def test_a_name_that_is_too_long_itself(self, face: Any, path: Path, call: str) -> None:
        """A name that no file can have is an OSError for readers too, not an empty file."""

        async def story() -> None:
            with pytest.raises(OSError, match="n{200}") as caught:
                await CALLS[call](face.context(path.parent / ("n" * 300)))
            assert errno.ENAMETOOLONG == caught.value.errno

        face.run(story())

        assert set() == names(path.parent)


STRANGE_NAMES = {
    "a newline": "a\nb.json",
    "an escape sequence": "a\x1b[31mred\x1b]0;title\x07.json",
    "a carriage return": "a\rb.json",
    "a C1 control": "a\x9b31m.json",
    "a direction override": "a\u202enosj.json",
    "glob characters": "a[*]?{b}.json",
    "quotes": "a'\"`$(b)\\.json",
    "a leading dash": "-rf.json",
    "a leading dot": ".state.json",
    "spaces": "  a  .json ",
    "no suffix": "state",
    "our own suffix": "state.json.tmp",
    "our lock's suffix": "state.lock",
    "undecodable bytes": os.fsdecode(b"a\xff\xfe.json"),
    "format characters": "a%s{0}%(x)d{}.json",
}


@pytest.mark.parametrize("kind", STRANGE_NAMES)
class TestStrangeNames:
    def test_they_name_a_file_like_any_other(self, face: Any, path: Path, kind: str) -> None:
        """Any name that the file system takes is read and written, and nothing else beside it is touched."""
        target = path.parent / STRANGE_NAMES[kind]
        neighbour = path.parent / "ab.json"
        neighbour.write_bytes(b"other")

        async def story() -> None:
            ctx = await done(face.context.create(target))
            for call in WRITES.values():
                await call(ctx)
            assert 2 == await done(ctx.incr("fresh"))
            assert {"fresh": 2} == (await done(face.context.create(target))).get_all_data()

        face.run(story())

        assert {"fresh": 2} == json.loads(target.read_bytes())
        assert b"other" == neighbour.read_bytes()
        assert {target.name, target.name + ".lock", "ab.json"} == names(path.parent)

    def test_messages_are_escaped(
        self, face: Any, path: Path, kind: str, hold: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No message, be it an error's or a warning's, sends the terminal what somebody put into a file name."""
        caplog.set_level(logging.DEBUG)
        target = path.parent / STRANGE_NAMES[kind]
        target.write_bytes(b"{")
        errors: list[BaseException] = []

        async def story() -> None:
            ctx = face.context(target, on_conflict="raise")
            with hold(target), pytest.raises(LockTimeoutError) as timeout:
                await _incr(face.context(target, lock_timeout=0))
            await done(ctx.load())
            ctx.set("bad", {1})
            with pytest.raises(UnserializableValueError) as unserializable:
                await done(ctx.save())
            ctx.set("bad", 1)
            await done((await done(face.context.create(target))).incr("bad", 5))
            with pytest.raises(ConflictError) as conflict:
                await done(ctx.save())
            target.unlink()
            target.mkdir()
            with pytest.raises(NotARegularFileError) as no_file:
                await done(ctx.load())
            errors.extend(caught.value for caught in (timeout, unserializable, conflict, no_file))

        face.run(story())
        target.rmdir()
        logged = [record.getMessage() for record in caplog.records if record.name.startswith("persistent_context")]

        assert logged
        for message in [*map(str, errors), *map(repr, errors), *logged]:
            assert is_safe_to_print(message), ascii(message)
            message.encode()


class TestStrangeKeys:
    @pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "\x9b31m", "\u202e", "\r", '"]["b'])
    def test_messages_are_escaped(self, face: Any, path: Path, key: str) -> None:
        """No error sends the terminal what somebody put into a key."""
        errors: list[BaseException] = []

        async def story() -> None:
            ctx = face.context(path, on_conflict="raise")
            ctx.set(key, {key: {1}})
            with pytest.raises(UnserializableValueError) as unserializable:
                await done(ctx.save())
            ctx.set(key, "text")
            await done((await done(face.context.create(path))).add(key, 5))
            with pytest.raises(ConflictError) as conflict:
                await done(ctx.save())
            await done(ctx.load())
            await done(ctx.mutate(key, lambda _: "text"))
            with pytest.raises(TypeError) as no_number:
                await done(ctx.incr(key))
            errors.extend(caught.value for caught in (unserializable, conflict, no_number))

        face.run(story())

        for message in [*map(str, errors), *map(repr, errors)]:
            assert is_safe_to_print(message), ascii(message)


class OwnPath:
    """Something of somebody else's that names a path."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


class TestWhatNamesAPath:
    @pytest.mark.parametrize("kind", [str, Path, OwnPath, lambda path: OwnPath(str(path))])
    def test_str_and_path_likes(self, face: Any, path: Path, kind: Callable[[Any], Any]) -> None:
        """A `str` and anything with `__fspath__` that gives one name the file, and `filepath` tells which it is."""

        async def story() -> str:
            ctx = face.context(kind(str(path)))
            await _save(ctx)
            return os.fspath(ctx.filepath)

        filepath = face.run(story())

        assert str(path) == filepath
        assert {"fresh": 1} == json.loads(path.read_bytes())

    @pytest.mark.parametrize(
        "wrong",
        [b"state.json", OwnPath(b"state.json"), None, 3, ["state.json"], object()],
        ids=lambda wrong: type(wrong).__name__,
    )
    def test_nothing_else(self, face: Any, wrong: Any) -> None:
        """Bytes, and what names no path, are a TypeError at once."""
        with pytest.raises(TypeError):
            face.context(wrong)

    def test_a_nul_in_a_path(self, face: Any, path: Path) -> None:
        """A path that no file can have is an error, not an empty file."""

        async def story() -> None:
            with pytest.raises((ValueError, OSError)):
                await done(face.context.create(f"{path}\0x"))

        face.run(story())

        assert set() == names(path.parent)

    @pytest.mark.parametrize("relative", ["state.json", "./sub/../state.json", "../data/state.json"])
    def test_a_relative_path_stays_where_it_was(
        self, face: Any, path: Path, tmp_path: Path, relative: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative path means the working directory of the time when the context was made."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (path.parent / "sub").mkdir()
        monkeypatch.chdir(path.parent)

        async def story() -> None:
            ctx = face.context(relative)
            monkeypatch.chdir(elsewhere)
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert set() == names(elsewhere)


# ---------------------------------------- links


class TestLinks:
    @pytest.mark.parametrize("call", CALLS)
    def test_a_loop_of_links(self, face: Any, path: Path, call: str) -> None:
        """Links that lead round in a circle are an OSError, for readers too, and stay as they are."""
        other = path.parent / "other.json"
        path.symlink_to(other)
        other.symlink_to(path)

        async def story() -> None:
            with pytest.raises(OSError, match=r"\.json"):
                await CALLS[call](face.context(path))

        face.run(story())

        assert path.is_symlink()
        assert other.is_symlink()
        assert not [name for name in names(path.parent) if name.endswith(".tmp")]

    @pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
    @pytest.mark.parametrize("call", WRITES)
    def test_a_link_to_nothing(self, face: Any, path: Path, tmp_path: Path, call: str, *, relative: bool) -> None:
        """A link to a file that is not there yet is a missing file; the write makes it where the link points."""
        (tmp_path / "real").mkdir()
        real = tmp_path / "real" / "data.json"
        path.symlink_to("../real/data.json" if relative else real)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {} == ctx.get_all_data()
            await CALLS[call](ctx)

        face.run(story())

        assert path.is_symlink()
        assert not real.is_symlink()
        assert {"fresh": 1} == json.loads(real.read_bytes())
        assert {path.name} == names(path.parent)
        assert {real.name, real.name + ".lock"} == names(real.parent)

    def test_a_chain_of_links(self, face: Any, path: Path, tmp_path: Path) -> None:
        """All links of a chain stay, the file at its end is replaced, and all names of it share one lock."""
        (tmp_path / "real").mkdir()
        real = tmp_path / "real" / "data.json"
        real.write_bytes(b'{"n": 1}')
        (path.parent / "second.json").symlink_to(real)
        path.symlink_to("second.json")

        async def story() -> None:
            assert 2 == await done(face.context(path).incr("n"))
            assert 3 == await done(face.context(path.parent / "second.json").incr("n"))
            assert 4 == await done(face.context(real).incr("n"))

        face.run(story())

        assert path.is_symlink()
        assert (path.parent / "second.json").is_symlink()
        assert {"n": 4} == json.loads(real.read_bytes())
        assert {path.name, "second.json"} == names(path.parent)
        assert {real.name, real.name + ".lock"} == names(real.parent)

    def test_a_linked_directory(self, face: Any, path: Path, tmp_path: Path, hold: Any) -> None:
        """A file reached through a linked directory has the lock of its real path, and is the same file."""
        linked = tmp_path / "linked"
        linked.symlink_to(path.parent)

        async def story(held: Any) -> None:
            with pytest.raises(LockTimeoutError):
                await _incr(face.context(linked / path.name, lock_timeout=0))
            assert not path.exists()
            held.release()
            first, second = await done(face.context.create(linked / path.name)), await done(face.context.create(path))
            first.set("a", 1)
            second.set("b", 2)
            await done(first.save())
            await done(second.save())

        face.run(story(hold(path)))

        assert {"a": 1, "b": 2} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("call", CALLS)
    def test_a_link_to_a_device(self, face: Any, path: Path, call: str) -> None:
        """A device is refused also when a link leads to it."""
        path.symlink_to("/dev/null")

        async def story() -> None:
            with pytest.raises(NotARegularFileError):
                await CALLS[call](face.context(path))

        face.run(story())

        assert path.is_char_device()


# ---------------------------------------- the lock file

FOREIGN_STAMPS = {
    "text": b"do not touch\n",
    "binary": bytes(range(256)) * 16,
    "a number": b"4194305\n",
    "a number without an end": b"9" * 100_000,
    "NULs": b"\0" * 4096,
    "bad UTF-8": b'{"pid": "\xff"}',
    "deep JSON": b"[" * 100_000,
    "a list": b"[1, 2, 3]",
    "escape sequences": b"\x1b[31m\x1b]0;title\x07\n",
    "an open object": b"{",
    "null": b"null",
    "five megabytes": b"x" * 5_000_000,
    "fields of wrong types": b'{"pid": "x", "host": 1, "since": "never", "purpose": []}',
    "a process that cannot be": b'{"pid": -1}',
    "true for a process": b'{"pid": true}',
    "too many digits": b'{"pid": ' + b"9" * 5000 + b"}",
    "numbers that are none": b'{"pid": NaN, "since": Infinity}',
    "a living process": b'{"pid": 1, "host": "\\u001b[31mred", "purpose": "\\u001b]0;t\\u0007", "since": 1}',
    "surrogates": b'{"pid": 1, "host": "\\ud800", "since": 1, "purpose": "\\ud800"}',
}


class TestTheContentOfTheLockFile:
    @pytest.mark.parametrize("kind", FOREIGN_STAMPS)
    def test_what_is_not_ours_is_kept(self, face: Any, path: Path, kind: str) -> None:
        """A lock file with somebody else's content locks like any other, and its content is never destroyed."""
        lock = Path(f"{path}.lock")
        lock.write_bytes(FOREIGN_STAMPS[kind])

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for call in CALLS.values():
                await call(ctx)
            assert await done(ctx.lock_holder()) is None

        face.run(story())

        assert FOREIGN_STAMPS[kind] == lock.read_bytes()
        assert {"fresh": 1} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("kind", FOREIGN_STAMPS)
    def test_what_is_not_ours_is_no_holder(self, face: Any, path: Path, kind: str) -> None:
        """While another program holds such a lock file, its content is not taken for a living holder's word."""
        lock = Path(f"{path}.lock")
        lock.write_bytes(FOREIGN_STAMPS[kind])
        errors: list[LockTimeoutError] = []

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            holder = await done(ctx.lock_holder())
            assert holder is None or holder.pid is None
            with pytest.raises(LockTimeoutError) as caught:
                await _incr(ctx)
            errors.append(caught.value)

        with hold_descriptor(lock):
            face.run(story())

        assert errors[0].holder is None or errors[0].holder.pid is None
        assert is_safe_to_print(str(errors[0])), ascii(str(errors[0]))
        assert FOREIGN_STAMPS[kind] == lock.read_bytes()

    def test_a_huge_one(self, face: Any, path: Path) -> None:
        """A lock file of a terabyte locks like any other: it is not read whole, and not cut."""
        lock = Path(f"{path}.lock")
        size = 1 << 40
        with lock.open("wb") as file:
            try:
                file.truncate(size)
            except OSError:
                size = 1 << 30
                file.truncate(size)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for call in CALLS.values():
                await call(ctx)
            with hold_descriptor(lock):
                holder = await done(ctx.lock_holder())
                assert holder is None or holder.pid is None
                with pytest.raises(LockTimeoutError):
                    await _incr(face.context(path, lock_timeout=0))

        face.run(story())

        assert size == lock.stat().st_size
        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_of_somebody_who_was_killed(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """What a killed holder left in the lock file is not shown as the holder of whoever has the lock now."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        living = SyncPersistentContext(path).lock_holder()
        held.child.kill()

        async def story() -> None:
            ctx = face.context(path)
            assert await done(ctx.lock_holder()) is None
            with hold_descriptor(lock):
                holder = await done(ctx.lock_holder())
                assert holder is None or holder.pid != held.pid
                with pytest.raises(LockTimeoutError) as caught:
                    await _incr(face.context(path, lock_timeout=0))
                assert caught.value.holder is None or caught.value.holder.pid != held.pid
                assert str(held.pid) not in str(caught.value).replace(str(path), "")
            await _incr(ctx)

        face.run(story())

        assert living is not None
        assert held.pid == living.pid
        assert stamp

    def test_a_stamp_put_back_after_its_holder_died(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A copied stamp is not believed about a process that is gone, whoever holds the lock."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        held.child.kill()
        lock.write_bytes(stamp)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            assert await done(ctx.lock_holder()) is None
            with hold_descriptor(lock):
                holder = await done(ctx.lock_holder())
                assert holder is None or holder.pid != held.pid
            await _incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_that_does_not_hold_the_lock(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A stamp locks nothing: with the copied word of a living process in it, a free lock is free."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        held.release()
        lock.write_bytes(stamp)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            assert await done(ctx.lock_holder()) is None
            await _incr(ctx)

        face.run(story())

        assert {"holder": "child", "fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_with_escape_sequences(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A forged stamp cannot send anything to the terminal of whoever is told about the holder."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        holder = SyncPersistentContext(path).lock_holder()
        assert holder is not None
        errors: list[LockTimeoutError] = []

        async def story() -> None:
            with pytest.raises(LockTimeoutError) as caught:
                await _incr(face.context(path, lock_timeout=0))
            errors.append(caught.value)

        for word in {word for word in (holder.host, holder.purpose) if word}:
            for evil in (b"\x1b[31m\n\x07", b"\\u001b[31m\\n\\u0007", "\x9b31m\u202e".encode()):
                lock.write_bytes(stamp.replace(word.encode(), evil))
                face.run(story())
        lock.write_bytes(stamp)
        held.release()

        assert errors
        for error in errors:
            assert is_safe_to_print(str(error)), ascii(str(error))


class TestTheKindOfTheLockFile:
    @pytest.mark.parametrize("call", WRITES)
    @pytest.mark.parametrize("target", ["a file", "nothing", "the data", "itself"])
    def test_a_link_is_never_followed(self, face: Any, path: Path, tmp_path: Path, target: str, call: str) -> None:
        """A lock file that somebody made a link is refused: what it points to is neither made nor touched."""
        path.write_bytes(b'{"a": 1}')
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        victim.chmod(0o640)
        lock = Path(f"{path}.lock")
        lock.symlink_to({"a file": victim, "nothing": tmp_path / "new", "the data": path, "itself": lock}[target])

        async def story() -> None:
            ctx = await done(face.context.create(path))
            with pytest.raises(OSError, match=lock.name):
                await CALLS[call](ctx)

        face.run(story())

        assert b"precious" == victim.read_bytes()
        assert 0o640 == stat.S_IMODE(victim.stat().st_mode)
        assert not (tmp_path / "new").exists()
        assert b'{"a": 1}' == path.read_bytes()
        assert lock.is_symlink()
        assert {path.name, lock.name} == names(path.parent)

    @pytest.mark.parametrize("content", [b"precious", b"", b"x" * 100_000], ids=["short", "empty", "long"])
    def test_a_hard_link_changes_nobody_s_file(self, face: Any, path: Path, tmp_path: Path, content: bytes) -> None:
        """A lock file that somebody linked to another file never changes that file, its content or its rights."""
        victim = tmp_path / "victim"
        victim.write_bytes(content)
        victim.chmod(0o600)
        path.write_bytes(b"{}")
        path.chmod(0o666)
        os.link(victim, f"{path}.lock")
        during: list[bytes] = []

        async def story() -> None:
            ctx = face.context(path)
            for call in CALLS.values():
                with suppress(OSError):
                    await call(ctx)
            with suppress(OSError):
                async with transaction(ctx) as tx:
                    tx["more"] = 1
                    during.append(victim.read_bytes())

        face.run(story())

        assert during in ([], [content])
        assert content == victim.read_bytes()
        assert 0o600 == stat.S_IMODE(victim.stat().st_mode)

    def test_it_is_never_deleted(self, face: Any, path: Path) -> None:
        """The lock file stays, the same one, whatever is done."""
        numbers = set()

        async def story() -> None:
            ctx = face.context(path)
            for call in CALLS.values():
                await call(ctx)
                if call is not _load:
                    numbers.add(os.stat(f"{path}.lock").st_ino)

        face.run(story())

        assert 1 == len(numbers)
        assert Path(f"{path}.lock").is_file()


@contextmanager
def hold_descriptor(lock: Path) -> Iterator[None]:
    """Hold the lock as another program would: on a descriptor of its own, writing nothing into the file."""
    fcntl = pytest.importorskip("fcntl", reason="needs flock: run on Unix")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


# ---------------------------------------- the temporary file


class TestTemporaryFiles:
    def test_planted_names_are_not_followed(self, face: Any, path: Path, tmp_path: Path) -> None:
        """Whatever stands under the names that a writer might take is neither written to nor read."""
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        victim.chmod(0o640)
        path.write_bytes(b"{}")
        middles = ["", ".0", ".1", ".new", f".{os.getpid()}", ".aaaaaaaa", f".{os.getpid()}.0", ".00000000"]
        for middle in middles:
            for planted in (f".{path.name}{middle}.tmp", f"{path.name}{middle}.tmp", f".state{middle}.tmp"):
                (path.parent / planted).symlink_to(victim)
        (path.parent / f".{path.name}.directory.tmp").mkdir()
        os.mkfifo(path.parent / f".{path.name}.fifo.tmp")

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert b"precious" == victim.read_bytes()
        assert 0o640 == stat.S_IMODE(victim.stat().st_mode)
        assert not path.is_symlink()
        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_names_are_random_and_short_lived(self, face: Any, path: Path) -> None:
        """A temporary file stands beside the file under a name with a dot before and `.tmp` behind, never the same."""
        seen: list[str] = []
        linux = ctypes.CDLL(None, use_errno=True)
        if not hasattr(linux, "inotify_init1"):
            pytest.skip("needs inotify to see short-lived names: run on Linux")
        descriptor = linux.inotify_init1(os.O_NONBLOCK)
        created = 0x100
        assert linux.inotify_add_watch(descriptor, ctypes.c_char_p(os.fsencode(path.parent)), created) >= 0

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for number in range(20):
                ctx.set("n", number)
                await done(ctx.save())

        try:
            face.run(story())
            with suppress(BlockingIOError):
                while events := os.read(descriptor, 65536):
                    while events:
                        length = int.from_bytes(events[12:16], "little")
                        seen.append(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
                        events = events[16 + length :]
        finally:
            os.close(descriptor)
        temporary = [name for name in seen if name not in {path.name, path.name + ".lock"}]

        assert 20 == len(temporary) == len(set(temporary))
        assert all(name.startswith(".") and name.endswith(".tmp") for name in temporary)
        assert {path.name, path.name + ".lock"} == names(path.parent)

    def test_files_of_others_are_left_alone(self, face: Any, path: Path) -> None:
        """Cleaning up after a crashed writer never takes what could be somebody else's."""
        others = [
            ".gitignore",
            "notes.tmp",
            "state.json.tmp",
            "state.json.bak",
            "state.json.corrupt",
            ".tmp",
            ".other.json.3f2a9c1d.tmp",
            ".state.json.swp",
            ".state.jsonl.3f2a9c1d.tmp",
        ]
        for name in others:
            (path.parent / name).write_bytes(b"mine")

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert {path.name, path.name + ".lock", *others} == names(path.parent)
        assert all(b"mine" == (path.parent / name).read_bytes() for name in others)


# ---------------------------------------- how long to wait


class TestLockTimeout:
    @pytest.mark.parametrize("wrong", [-1, -0.001, -math.inf, math.nan])
    def test_values_that_are_no_time(self, face: Any, path: Path, wrong: float) -> None:
        """A negative time, or none at all, is a ValueError at once."""
        with pytest.raises(ValueError, match="timeout"):
            face.context(path, lock_timeout=wrong)

    @pytest.mark.parametrize("wrong", ["30", b"30", True, False, None, [30], 1j], ids=repr)
    def test_types_that_are_no_time(self, face: Any, path: Path, wrong: Any) -> None:
        """What is no number is a TypeError at once, and so is a bool, which is nearly always a mistake."""
        with pytest.raises(TypeError, match="timeout"):
            face.context(path, lock_timeout=wrong)

    @pytest.mark.parametrize("good", [0, 0.0, 1, 0.5, 1e9, math.inf, 10**30])
    def test_a_free_lock_is_taken_whatever_the_time(self, face: Any, path: Path, good: float) -> None:
        """Any time from nothing to for ever gets a lock that is free."""

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=good))
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("call", WRITES)
    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_a_held_lock_ends_in_an_error_that_tells_all(
        self, face: Any, path: Path, call: str, timeout: float, hold: Any
    ) -> None:
        """Waiting in vain is a LockTimeoutError that names the file and how long it waited; nothing is changed."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=timeout))
            with pytest.raises(LockTimeoutError) as caught:
                await CALLS[call](ctx)
            assert isinstance(caught.value, TimeoutError)
            assert str(path) == os.fspath(caught.value.filepath)
            assert caught.value.waited >= timeout
            assert path.name in str(caught.value)
            assert ({"fresh"} if call == "save" else set()) == ctx.unsaved_keys()

        with hold(path):
            face.run(story())

        assert b'{"a": 1}' == path.read_bytes()

    def test_reading_waits_for_nobody(self, face: Any, path: Path, hold: Any) -> None:
        """A reader needs no lock, so a held one does not keep it."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path, lock_timeout=0))).get_all_data()

        with hold(path):
            loaded = face.run(story())

        assert {"a": 1} == loaded

    @pytest.mark.parametrize("wrong", [-1, math.nan])
    def test_a_transaction_s_own_time_is_checked_too(self, face: Any, path: Path, wrong: float) -> None:
        """The time given to `transaction` follows the same rules."""

        async def story() -> None:
            with pytest.raises(ValueError, match="timeout"):
                async with transaction(face.context(path), timeout=wrong):
                    pytest.fail("the transaction began")
            for no_number in ("1", True):
                with pytest.raises(TypeError, match="timeout"):
                    async with transaction(face.context(path), timeout=no_number):
                        pytest.fail("the transaction began")

        face.run(story())

        assert not path.exists()

    def test_a_transaction_s_own_time_goes_first(self, face: Any, path: Path, hold: Any) -> None:
        """The time given to `transaction` stands in for the context's."""

        async def story() -> None:
            with pytest.raises(LockTimeoutError):
                async with transaction(face.context(path, lock_timeout=math.inf), timeout=0):
                    pytest.fail("the transaction began")

        with hold(path):
            face.run(story())

    def test_trying_only_is_enough_when_nobody_else_is_there(self, face: Any, path: Path) -> None:
        """One call after the other, each of which only tries, never meets a lock that is still one's own."""

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=0))
            for number in range(1, 51):
                assert number == await done(ctx.incr("n"))
                async with transaction(ctx) as tx:
                    tx["more"] = number

        face.run(story())

        assert {"n": 50, "more": 50} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("content", [b"{}", b"{ broken"], ids=["good", "bad"])
    def test_trying_again_after_the_holder_let_go(self, face: Any, path: Path, hold: Any, content: bytes) -> None:
        """What timed out is gone: it neither holds up the next try, nor touches the file any more."""
        path.write_bytes(content)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            with hold(path):
                for _ in range(3):
                    with pytest.raises(LockTimeoutError):
                        await _incr(ctx)
            with FileLock(f"{path}.lock", timeout=10):
                assert content == path.read_bytes()
                assert {path.name, path.name + ".lock"} == names(path.parent)
            assert await done(ctx.lock_holder()) is None
            await _incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_for_ever_ends_when_the_lock_is_free(self, face: Any, path: Path, hold: Any) -> None:
        """Who waits for ever gets the lock when its holder lets go."""
        held = hold(path)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=math.inf)
            held.child.say()
            await _incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_a_foreign_lock_and_ours_exclude_each_other(self, face: Any, path: Path, spawn: Any) -> None:
        """While a transaction is open no `filelock.FileLock` of another program gets in, and then one does."""
        code = (
            "import filelock, sys\n"
            "try:\n    filelock.FileLock(sys.argv[1] + '.lock').acquire(timeout=0)\n"
            "except filelock.Timeout:\n    print('held')\nelse:\n    print('free')\n"
        )

        async def story() -> list[str]:
            ctx = face.context(path)
            async with transaction(ctx) as tx:
                tx["a"] = 1
                [inside] = spawn(code, path).finish()
            [outside] = spawn(code, path).finish()
            return [inside, outside]

        assert ["held", "free"] == face.run(story())
        with FileLock(f"{path}.lock", timeout=10):
            pass
