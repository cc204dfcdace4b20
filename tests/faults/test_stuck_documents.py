"""A bad document that stays for a while: it cannot be moved aside, or another program is still writing it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from documents import DOCUMENTS, OPERATIONS, SOME_DOCUMENTS, asides, warned
from persistent_context import LockTimeoutError, SyncPersistentContext
from stories import SyncFace, done, either_face, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

face = either_face

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


READER = """
import asyncio, json, os, sys, tempfile
from persistent_context import PersistentContext, SyncPersistentContext

face, path, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])

def call(context, path, name, *args):
    if context is SyncPersistentContext:
        return getattr(context(path, lock_timeout=5), name)(*args)
    async def main():
        return await getattr(context(path, lock_timeout=5), name)(*args)
    return asyncio.run(main())

context = SyncPersistentContext if face == "sync" else PersistentContext
with tempfile.TemporaryDirectory() as warm:  # late imports are done before the rights are dropped
    for content in ('{"warm": 1}', '{"warm": '):
        with open(os.path.join(warm, "warm.json"), "w") as file:
            file.write(content)
        call(context, os.path.join(warm, "warm.json"), "incr", "warm")
if uid:
    os.setgroups([]), os.setgid(uid), os.setuid(uid)
for name, *args in (["load"], ["save"], ["incr", "n"]):
    try:
        call(context, path, name, *args)
        print(json.dumps([name, "no error", None]))
    except OSError as error:
        print(json.dumps([name, "OSError", error.errno]))
"""


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Make a directory that another user can reach, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    with suppress(FileNotFoundError):
        directory.chmod(0o700)
        for found in directory.iterdir():
            found.unlink()
        directory.rmdir()


class TestABadDocumentThatCannotBeMoved:
    def test_in_a_directory_of_somebody_else(self, face: Any, public_directory: Path, spawn: Any) -> None:
        """If a bad document cannot be moved aside, every call raises an OSError, and not a byte changes."""
        path = public_directory / "state.json"
        path.write_bytes(b'{"a": ')
        path.chmod(0o644)
        public_directory.chmod(0o555)
        uid = NOBODY if os.geteuid() == 0 else 0
        child = spawn(READER, "sync" if face is SyncFace else "async", path, uid)
        results = [json.loads(line)[:2] for line in child.finish()]

        assert [["load", "OSError"], ["save", "OSError"], ["incr", "OSError"]] == results
        assert b'{"a": ' == path.read_bytes()
        assert ["state.json"] == os.listdir(public_directory)

    def test_on_a_read_only_mount(self, face: Any, tmp_path: Path) -> None:
        """On a file system that is mounted read-only, a bad document is an OSError and stays unchanged."""
        if os.geteuid() != 0:
            pytest.skip("needs root for a read-only bind mount: run the tests as root, in a container")
        directory = tmp_path / "mounted"
        directory.mkdir()
        path = directory / "state.json"
        path.write_bytes(b'{"a": ')
        if subprocess.run(["mount", "--bind", directory, directory], check=False).returncode:
            pytest.skip("needs the right to mount (CAP_SYS_ADMIN): run the container with --privileged")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)

            async def story() -> None:
                ctx = face.context(path)
                with pytest.raises(OSError, match="."):
                    await done(ctx.load())
                with pytest.raises(OSError, match="."):
                    await done(ctx.incr("n"))

            face.run(story())

            assert b'{"a": ' == path.read_bytes()
            assert ["state.json"] == os.listdir(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


class TestAForeignWriterInTheMiddleOfItsWriting:
    """A program that writes in place, under the lock: a reader may see a bad document, but not for long."""

    @staticmethod
    def descriptors(lock: str) -> int:
        """Return how many descriptors of this process refer to the lock file."""
        count = 0
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += os.path.realpath(lock) == os.readlink(f"/proc/self/fd/{descriptor}")
        return count

    def run_behind_the_lock(
        self, face: Any, path: Path, story: Coroutine[Any, Any, Any], repair: Callable[[], object]
    ) -> Any:
        """Start `story` while the lock is held, repair the file once it waits for the lock, and release that."""
        if not Path("/proc/self/fd").is_dir():
            pytest.skip("needs /proc/self/fd to see that a call waits for the lock: run on Linux")
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(face.run(story))
            except BaseException as error:  # noqa: BLE001  # handed over to the test's own thread
                results.append(error)

        thread = threading.Thread(target=work)
        tick = threading.Event()
        with FileLock(f"{path}.lock"):
            thread.start()
            while thread.is_alive() and self.descriptors(f"{path}.lock") < 2:
                tick.wait(0.001)
            assert [] == results
            repair()
        thread.join()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    @pytest.mark.parametrize("name", SOME_DOCUMENTS)
    def test_a_file_repaired_in_time_is_loaded(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A load that finds a bad document looks again under the lock, and takes what was repaired in the meantime."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = self.run_behind_the_lock(face, path, story(), lambda: path.write_bytes(b'{"repaired": true}'))

        assert {"repaired": True} == loaded
        assert b'{"repaired": true}' == path.read_bytes()
        assert [] == asides(path)
        assert [] == warned(caplog)

    @pytest.mark.parametrize("operation", ["save", "incr", "transaction"])
    def test_a_writer_waits_and_keeps_what_was_repaired(self, face: Any, path: Path, operation: str) -> None:
        """A writer that waits while another program repairs the file adds to the repaired one."""
        path.write_bytes(b'{"a": ')

        async def story() -> None:
            ctx = face.context(path)
            if operation == "transaction":
                async with transaction(ctx) as tx:
                    tx["fresh"] = 1
            else:
                await OPERATIONS[operation](ctx)

        self.run_behind_the_lock(face, path, story(), lambda: path.write_bytes(b'{"repaired": true}'))

        assert {"repaired": True, "fresh": 1} == json.loads(path.read_bytes())
        assert [] == asides(path)

    def test_a_file_that_is_gone_in_time_is_a_missing_one(self, face: Any, path: Path) -> None:
        """A bad document that was removed during the wait for the lock is a missing file, not a failure."""
        path.write_bytes(b'{"a": ')

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = self.run_behind_the_lock(face, path, story(), path.unlink)

        assert {} == loaded
        assert [] == asides(path)

    def test_a_file_that_stays_bad_while_locked_is_left_alone(self, face: Any, path: Path, hold: Any) -> None:
        """A call that cannot get the lock in time moves nothing aside: the load ends with the lock's timeout."""
        path.write_bytes(b'{"a": ')

        async def story() -> None:
            with pytest.raises(LockTimeoutError):
                await done(face.context(path, lock_timeout=0).load())

        with hold(path):
            face.run(story())

        assert b'{"a": ' == path.read_bytes()
        assert [] == asides(path)

    def test_many_readers_move_it_aside_once(self, path: Path) -> None:
        """Many readers that find the same bad document at once keep one copy of it, and none of them fails."""
        path.write_bytes(b"{ broken")
        start = threading.Barrier(8)
        loaded: list[object] = []

        def read() -> None:
            start.wait()
            try:
                loaded.append(SyncPersistentContext.create(path).get_all_data())
            except BaseException as error:  # noqa: BLE001  # shown by the test
                loaded.append(error)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [{}] * 8 == loaded
        assert [b"{ broken"] == [aside.read_bytes() for aside in asides(path)]
