"""A file of no bytes is a new one: there is nothing to lose."""

import logging
import os
import stat
import threading

import pytest

from journals import journal_of, kept, stored
from persistent_context import CorruptFileError, SyncPersistentContext

WRITES = {
    "save": lambda face, ctx: face.do(ctx.save),
    "incr": lambda face, ctx: face.do(ctx.incr, "mine"),
    "transaction": lambda face, ctx: face.inside(ctx.transaction, lambda tx: tx.update(mine=1)),
}


@pytest.fixture
def empty(path):
    """An empty file, as tempfile.NamedTemporaryFile or touch(1) makes it."""
    path.touch(0o640)
    path.chmod(0o640)
    return path


@pytest.mark.parametrize("on_corrupt", ["aside", "raise"])
class TestAnEmptyFile:
    def test_reads_as_one_without_keys(self, face, empty, on_corrupt, caplog):
        """An empty file is not corrupt: there is no warning, and nothing changes."""
        caplog.set_level(logging.WARNING, "persistent_context")
        ctx = face.open(empty, on_corrupt=on_corrupt)

        assert ({}, [], b"", [empty.name]) == (dict(ctx), caplog.records, empty.read_bytes(), os.listdir(empty.parent))

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_is_replaced_by_the_first_write_and_keeps_its_mode(self, face, empty, on_corrupt, write, caplog):
        """The first write fills it; mode and path are unchanged, and nothing is kept aside."""
        caplog.set_level(logging.WARNING, "persistent_context")
        ctx = face.open(empty, on_corrupt=on_corrupt)
        if write is WRITES["save"]:
            ctx["mine"] = 1
        write(face, ctx)

        assert ({"mine": 1}, 0o640, [], []) == (
            stored(empty), stat.S_IMODE(empty.stat().st_mode), kept(empty), caplog.records,
        )  # fmt: skip

    def test_that_was_emptied_is_written_whole(self, face, path, on_corrupt):
        """Like a missing file, an emptied one is no evidence of deletions by others."""
        ctx = face.open(path, on_corrupt=on_corrupt)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.write_bytes(b"")
        ctx["c"] = 3
        face.do(ctx.save)

        assert {"a": 1, "b": 2, "c": 3} == stored(path)

    def test_a_save_of_nothing_makes_it_a_document(self, face, empty, on_corrupt):
        """As with a missing file, a save without changes makes a document."""
        face.do(face.open(empty, on_corrupt=on_corrupt).save)

        assert {} == stored(empty)

    def test_under_a_journal(self, face, empty, on_corrupt):
        """A journal may be begun on an empty file."""
        ctx = face.open(empty, on_corrupt=on_corrupt, journal=True)
        face.do(ctx.incr, "n")
        there = journal_of(empty).exists()
        face.do(ctx.checkpoint)

        assert (True, {"n": 1}) == (there, stored(empty))

    @pytest.mark.parametrize("content", [b"\n", b" \t", b"\0\0"])
    def test_one_byte_is_too_many(self, face, path, on_corrupt, content):
        """A file of white space or zero bytes is corrupt, since it may be the rest of a lost document."""
        path.write_bytes(content)
        if on_corrupt == "raise":
            with pytest.raises(CorruptFileError, match="nothing but white space or zero bytes"):
                face.open(path, on_corrupt=on_corrupt)
            assert content == path.read_bytes()
        else:
            face.open(path)
            assert ["state.json.corrupt"] == kept(path)


class TestAWriterWithoutTheLock:
    @pytest.mark.parametrize("call", ["load", "incr"])
    def test_that_has_just_truncated_it_gets_the_time_to_write(self, path, call, monkeypatch):
        """Between open("w") and the write, the file is empty: a call looks again before it takes it for a new one."""
        path.write_bytes(b"")
        looked = threading.Event()
        pause = "persistent_context._stores.jsonfile.file.time.sleep"
        monkeypatch.setattr("persistent_context._stores.jsonfile.file._LOOKS", 1000)
        real = __import__("time").sleep
        monkeypatch.setattr(pause, lambda seconds: (looked.set(), real(seconds)))

        def finish():
            assert looked.wait(60)
            path.write_bytes(b'{"n": 41}')

        writer = threading.Thread(target=finish)
        writer.start()
        ctx = SyncPersistentContext(path)
        found = ctx.incr("n", 1) if call == "incr" else (ctx.load(), ctx["n"])[1]
        writer.join()

        assert {"incr": 42, "load": 41}[call] == found
