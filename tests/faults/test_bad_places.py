"""The file may be anywhere: every bad place is recognised, and no other user gets access through it."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from persistent_context import (
    NotARegularFileError,
    PersistentContextError,
    SyncPersistentContext,
)
from stories import CALLS, WRITES, done, either_face, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

face = either_face

NOBODY = 65534

# ---------------------------------------- helpers


def needs_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"needs root {what}: run the tests as root, in a container")


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Make a directory that other users can reach, unlike pytest's own."""
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

with tempfile.TemporaryDirectory() as warm:  # late imports are done while everything may be read
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
    """Run calls in a process of an ordinary user: nobody, when the tests run as root."""

    def run(path: Path, *steps: list[Any]) -> list[Any]:
        uid = NOBODY if os.geteuid() == 0 else 0
        [line] = spawn(STRANGER, face.name, path, uid, *map(json.dumps, steps)).finish()
        return list(json.loads(line))

    return run


# ---------------------------------------- not a regular file


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
        """What is not a regular file is refused at once, without hanging, and neither read, moved nor replaced."""

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
        """A lock file that is not a regular file is refused without hanging; reading needs no lock and works."""
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
        """A path that leads through a file is an OSError, also for a load, and that file stays."""
        path.write_bytes(b"{}")

        async def story() -> None:
            with pytest.raises(OSError, match=path.name):
                await CALLS[call](face.context(path / "below.json"))

        face.run(story())

        assert b"{}" == path.read_bytes()
        assert {path.name} == names(path.parent)

    def test_missing_directories_are_made(self, face: Any, path: Path) -> None:
        """Missing parents are made by the first write, not by reading."""
        target = path.parent / "a" / "b" / "state.json"

        async def story() -> None:
            ctx = await done(face.context.create(target))
            assert {} == ctx.get_all_data()
            assert not (path.parent / "a").exists()
            await save(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(target.read_bytes())


# ---------------------------------------- rights

DENIED = (errno.EACCES, errno.EPERM)


class TestRights:
    def test_a_directory_that_may_not_be_entered(
        self, public_directory: Path, as_stranger: Callable[..., list[Any]]
    ) -> None:
        """A file that cannot be reached is not taken for missing: loading and saving both fail, and nothing is lost."""
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
        """In a read-only directory reading works, saving raises an error, and the change stays unsaved."""
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
        """A missing file is empty for a reader, and an error for a writer who may not make it."""
        public_directory.chmod(0o555)

        results = as_stranger(public_directory / "state.json", ["load"], ["get_all_data"], ["set", "b", 2], ["save"])

        assert ["ok", "ok", "ok", "OSError"] == [outcome for _, outcome, _ in results]
        assert {} == results[1][2]
        assert set() == names(public_directory)

    def test_a_file_that_may_not_be_read(self, public_directory: Path, as_stranger: Callable[..., list[Any]]) -> None:
        """A file that may not be read is not taken for a corrupt one, even if its directory would allow moving it."""
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
        """A second user who may write the data can lock and save it, and its mode is unchanged."""
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
        """In a directory like /tmp, a leftover of another user's crashed writer stays, and hinders no call."""
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
        """A directory above that may not be opened is not synced: this user cannot have made the one in it."""
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
        """If a member of the group saves a file that the group may write, mode and group stay."""
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
        """If the group cannot be kept, its rights are not given to another group."""
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
        """A file that is itself a mount cannot be replaced: the error is EBUSY with its name, and nothing is lost."""
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
        """A bad document that is itself a mount cannot be moved aside: an OSError, and it stays unchanged."""
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
