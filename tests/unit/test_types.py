"""What a context reports: the holder of the lock, and statistics."""

import dataclasses
import pickle

import pytest

from persistent_context import Holder, Statistics


class TestHolder:
    @pytest.mark.parametrize(
        ("holder", "text"),
        [
            (Holder(), "an unidentified program"),
            (Holder(7, "h", verified=True), "process 7 on h"),
            (
                Holder(7, "h", 0.0, "save", verified=True, stopped=True),
                "process 7 on h (stopped: resume it with kill -CONT 7) for save since 1970-01-01 00:00:00.000000Z",
            ),
            (
                Holder(7, "h\x1b[2J", 0.0, "save"),
                r"process 7 on h\x1b[2J for save since 1970-01-01 00:00:00.000000Z (unverified)",
            ),
        ],
    )
    def test_a_holder_is_described_in_one_safe_line(self, holder, text):
        """Text from the lock file is escaped, and marked as the holder's own claim."""
        assert text == str(holder)

    def test_a_holder_comes_back(self):
        """A Holder pickles, and equals its copy."""
        holder = Holder(pid=1, host="here", since=1.5, purpose="save")

        assert holder == pickle.loads(pickle.dumps(holder))

    def test_a_holder_may_know_nothing(self):
        """Every field of a Holder may be None."""
        holder = Holder(pid=None, host=None, since=None, purpose=None)

        assert (None, None, None, None) == (holder.pid, holder.host, holder.since, holder.purpose)

    def test_a_holder_is_frozen(self):
        """A Holder is immutable."""
        holder = Holder(pid=1, host="here", since=1.5, purpose="save")
        with pytest.raises(AttributeError):
            holder.pid = 2

        assert 1 == holder.pid


class TestStatistics:
    def test_its_fields(self, face, path):
        """Statistics are a frozen dataclass of plain numbers."""
        statistics = face.open(path).statistics()
        names = {"commits", "operations", "waits", "wait_seconds", "hold_seconds", "bytes_read", "bytes_written"}

        assert (set(), True, True) == (
            names - {field.name for field in dataclasses.fields(statistics)},
            isinstance(statistics, Statistics),
            all(isinstance(value, int | float) and value >= 0 for value in dataclasses.astuple(statistics)),
        )

    def test_it_is_frozen(self, face, path):
        """Statistics are immutable: they show one moment."""
        statistics = face.open(path).statistics()
        with pytest.raises(dataclasses.FrozenInstanceError):
            statistics.commits = 1

    def test_it_counts_commits_and_operations(self, face, path):
        """Each call is an operation; calls made one after the other are a commit each."""
        ctx = face.open(path)
        before = ctx.statistics()
        for _ in range(3):
            face.do(ctx.incr, "n")
        after = ctx.statistics()

        assert (3, 3) == (after.commits - before.commits, after.operations - before.operations)

    def test_it_counts_bytes(self, face, path):
        """The bytes written are counted."""
        ctx = face.open(path)
        before = ctx.statistics()
        ctx.set("a", "x" * 1000)
        face.do(ctx.save)

        assert True is (ctx.statistics().bytes_written - before.bytes_written >= 1000)

    def test_a_save_without_changes_is_not_a_commit(self, face, path):
        """A save that writes nothing does not count as a commit."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = ctx.statistics()
        face.do(ctx.save)

        assert (before.commits, before.bytes_written) == (ctx.statistics().commits, ctx.statistics().bytes_written)
