"""The critical section: when a call is acknowledged, and what a failed commit leaves behind."""

import asyncio
import errno
import json
import os
import stat
import threading

import filelock
import pytest

from persistent_context import DurabilityUnknownError, NotARegularFileError, PersistentContext


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


class TestAcknowledging:
    async def test_no_call_is_acknowledged_before_the_directory_is_synced(self, path, monkeypatch):
        """Others may lock the file while the directory is being synced, but the call is not over yet."""
        ctx = await PersistentContext.create(path)
        syncing, go_on, real = threading.Event(), threading.Event(), os.fsync

        def sync(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                syncing.set()
                go_on.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fsync", sync)
        call = asyncio.create_task(ctx.incr("n"))
        try:
            began = await asyncio.to_thread(syncing.wait, 30)
            with filelock.FileLock(f"{path}.lock", timeout=0):
                found = stored(path)
            over, _ = await asyncio.wait([call], timeout=0.2)
        finally:
            go_on.set()

        assert (True, {"n": 1}, set(), 1) == (began, found, over, await call)


class TestAFailedCommit:
    def test_it_is_nobodys_change(self, face, path, monkeypatch):
        """What could not be written is not taken for the context's own text in the file: there is no conflict."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = face.open(path, on_conflict="raise")

        def fail(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "fsync", fail)
            face.do(ctx.incr, "n")
        ctx.set("n", 7)
        face.do(ctx.save)

        assert {"n": 7} == stored(path)

    def test_one_that_was_written_nevertheless_is_known(self, face, path, monkeypatch):
        """If only a step after the replacement failed, memory has what the file has."""
        if not os.path.exists("/proc/self/fd"):
            pytest.skip("looks descriptors up in /proc: run on Linux")
        ctx = face.open(path)
        close = os.close

        def fail(fd):
            is_new_file = os.readlink(f"/proc/self/fd/{fd}") == str(path)
            close(fd)
            if is_new_file:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch, pytest.raises(DurabilityUnknownError):
            patch.setattr(os, "close", fail)
            face.do(ctx.incr, "n")

        assert ({"n": 1}, 1, set()) == (stored(path), ctx.get("n"), ctx.unsaved_keys())


class TestABeginningThatFails:
    def test_it_leaves_the_lock_free(self, face, path):
        """A transaction on a file that cannot be read raises, and nobody waits for it."""
        path.mkdir()
        ctx = face.cls(path, lock_timeout=20)
        with pytest.raises(NotARegularFileError):
            face.inside(ctx.transaction, dict)
        path.rmdir()

        with filelock.FileLock(f"{path}.lock", timeout=0):
            assert not path.exists()
