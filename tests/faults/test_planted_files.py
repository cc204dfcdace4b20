"""What others put under the names of the lock file and the temporaries is neither obeyed nor harmed."""

from __future__ import annotations

import ctypes
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from persistent_context import Holder, LockTimeoutError, SyncPersistentContext
from stories import CALLS, WRITES, done, either_face, incr, load, transaction

face = either_face


def is_safe_to_print(message: str) -> bool:
    return message.isprintable()


def tells_only_what_the_kernel_knows(holder: Holder | None) -> bool:
    """Return whether a holder has nothing from the lock file; on Linux it is known that this process holds it."""
    return holder is None or holder._replace(host=None, verified=False) in (Holder(), Holder(os.getpid()))


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


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


@contextmanager
def hold_descriptor(lock: Path) -> Iterator[None]:
    """Hold the lock as another program would: on its own descriptor, writing nothing into the file."""
    fcntl = pytest.importorskip("fcntl", reason="needs flock: run on Unix")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class TestTheContentOfTheLockFile:
    @pytest.mark.parametrize("kind", FOREIGN_STAMPS)
    def test_what_is_not_ours_is_kept(self, face: Any, path: Path, kind: str) -> None:
        """A lock file with foreign content locks like any other, and its content is never destroyed."""
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
        """While such a lock file is locked, its content is not taken for the stamp of a living holder."""
        lock = Path(f"{path}.lock")
        lock.write_bytes(FOREIGN_STAMPS[kind])
        errors: list[LockTimeoutError] = []

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            holder = await done(ctx.lock_holder())
            assert tells_only_what_the_kernel_knows(holder)
            with pytest.raises(LockTimeoutError) as caught:
                await incr(ctx)
            errors.append(caught.value)

        with hold_descriptor(lock):
            face.run(story())

        assert tells_only_what_the_kernel_knows(errors[0].holder)
        assert is_safe_to_print(str(errors[0])), ascii(str(errors[0]))
        assert FOREIGN_STAMPS[kind] == lock.read_bytes()

    def test_a_huge_one(self, face: Any, path: Path) -> None:
        """A lock file of a terabyte locks like any other: it is not read whole, and not truncated."""
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
                assert tells_only_what_the_kernel_knows(holder)
                with pytest.raises(LockTimeoutError):
                    await incr(face.context(path, lock_timeout=0))

        face.run(story())

        assert size == lock.stat().st_size
        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_of_somebody_who_was_killed(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """The stamp of a killed holder is not shown for the present holder of the lock."""
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
                    await incr(face.context(path, lock_timeout=0))
                assert caught.value.holder is None or caught.value.holder.pid != held.pid
                assert str(held.pid) not in str(caught.value).replace(str(path), "")
            await incr(ctx)

        face.run(story())

        assert living is not None
        assert held.pid == living.pid
        assert stamp

    def test_a_stamp_put_back_after_its_holder_died(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A copied stamp of a process that is gone is not believed, whoever holds the lock."""
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
            await incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_that_does_not_hold_the_lock(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A stamp locks nothing: a free lock is free even with the copied stamp of a living process."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        held.release()
        lock.write_bytes(stamp)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            assert await done(ctx.lock_holder()) is None
            await incr(ctx)

        face.run(story())

        assert {"holder": "child", "fresh": 1} == json.loads(path.read_bytes())

    def test_a_stamp_with_escape_sequences(self, face: Any, path: Path, hold_transaction: Any) -> None:
        """A forged stamp cannot send anything to the terminal through the holder's description."""
        lock = Path(f"{path}.lock")
        held = hold_transaction(path)
        stamp = lock.read_bytes()
        holder = SyncPersistentContext(path).lock_holder()
        assert holder is not None
        errors: list[LockTimeoutError] = []

        async def story() -> None:
            with pytest.raises(LockTimeoutError) as caught:
                await incr(face.context(path, lock_timeout=0))
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
        """A lock file that is a link is refused: its target is neither made nor touched."""
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
        """A lock file that is hard-linked to another file never changes that file's content or rights."""
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
        """The same lock file stays, whatever is done."""
        numbers = set()

        async def story() -> None:
            ctx = face.context(path)
            for call in CALLS.values():
                await call(ctx)
                if call is not load:
                    numbers.add(os.stat(f"{path}.lock").st_ino)

        face.run(story())

        assert 1 == len(numbers)
        assert Path(f"{path}.lock").is_file()


class TestTemporaryFiles:
    def test_planted_names_are_not_followed(self, face: Any, path: Path, tmp_path: Path) -> None:
        """Files planted under the names that a writer might take are neither written nor read."""
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
        """A temporary file is beside the file, named with a leading dot and `.tmp`, and its name is never the same."""
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
        """Cleaning up after a crashed writer never removes a file that could belong to another program."""
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
