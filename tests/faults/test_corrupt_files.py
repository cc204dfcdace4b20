"""A corrupt file and the option on_corrupt: each call follows the option of its own context."""

import asyncio
import logging
import os
import pickle
import re

import filelock
import pytest

from journals import journal_of, kept
from persistent_context import CorruptFileError, PersistentContext, SyncPersistentContext
from persistent_context._engine.registry import queue_of

CORRUPT = b'{"a": 1, "b" 2}'

CALLS = {
    "load": lambda face, ctx: face.do(ctx.load),
    "save": lambda face, ctx: face.do(ctx.save),
    "incr": lambda face, ctx: face.do(ctx.incr, "n"),
    "add": lambda face, ctx: face.do(ctx.add, "n", 1),
    "compare_and_set": lambda face, ctx: face.do(ctx.compare_and_set, "n", 1, 2),
    "mutate": lambda face, ctx: face.do(ctx.mutate, "n", lambda value: value),
    "checkpoint": lambda face, ctx: face.do(ctx.checkpoint),
    "transaction": lambda face, ctx: face.inside(ctx.transaction, dict),
}


@pytest.fixture
def corrupt(path, nobody_repairs_it):
    """A file that is not a JSON object."""
    path.write_bytes(CORRUPT)
    return path


@pytest.fixture
def damaged(path):
    """A file whose journal has a damaged line in the middle."""
    ctx = SyncPersistentContext(path, journal=True)
    for number in range(4):
        ctx["n"] = number
        ctx.save()
    lines = journal_of(path).read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"n"', b'"m"')
    journal_of(path).write_bytes(b"".join(lines))
    return path


class TestRaising:
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_every_call_raises_and_leaves_the_file_alone(self, face, corrupt, call):
        """No call loads, moves or overwrites a corrupt file."""
        ctx = face.cls(corrupt, on_corrupt="raise")
        ctx["mine"] = 1
        with pytest.raises(CorruptFileError):
            call(face, ctx)

        assert (CORRUPT, []) == (corrupt.read_bytes(), kept(corrupt))
        assert {"mine"} == ctx.unsaved_keys()

    def test_the_error_says_where_why_and_what_to_do(self, face, corrupt):
        """The error names the file, the position and the remedy, and can be pickled to another process."""
        with pytest.raises(CorruptFileError) as caught:
            face.open(corrupt, on_corrupt="raise")
        error, back = caught.value, pickle.loads(pickle.dumps(caught.value))

        assert re.search(rf"^{re.escape(str(corrupt))}: .*expected ':' at character 13.*repair", str(error))
        assert (str(error), error.reason, error.filepath) == (str(back), back.reason, str(corrupt))
        assert isinstance(error, ValueError)

    def test_once_it_is_repaired_all_goes_on(self, face, corrupt):
        """Once the file is repaired, all calls work again."""
        ctx = face.cls(corrupt, on_corrupt="raise")
        with pytest.raises(CorruptFileError):
            face.do(ctx.incr, "n")
        corrupt.write_bytes(b'{"n": 5}')

        assert 6 == face.do(ctx.incr, "n")

    def test_a_file_that_becomes_corrupt_later(self, face, path, nobody_repairs_it):
        """If the file becomes corrupt later, a save of a loaded context raises as well, and keeps what is unsaved."""
        ctx = face.open(path, on_corrupt="raise")
        face.do(ctx.incr, "n")
        path.write_bytes(CORRUPT)
        ctx["mine"] = 1
        with pytest.raises(CorruptFileError):
            face.do(ctx.save)
        path.unlink()
        face.do(ctx.save)

        assert {"n": 1, "mine": 1} == dict(face.open(path))

    def test_a_missing_file_is_none(self, face, path):
        """A missing file is not corrupt."""
        ctx = face.open(path, on_corrupt="raise")

        assert ({}, 1) == (dict(ctx), face.do(ctx.incr, "n"))

    @pytest.mark.parametrize("value", ["ignore", None, True, "Raise"])
    def test_no_other_word_is_taken(self, face, path, value):
        """A misspelt policy is an error at once."""
        with pytest.raises(ValueError, match="on_corrupt must be 'aside' or 'raise'"):
            face.cls(path, on_corrupt=value)


class TestDifferentPolicies:
    @pytest.mark.parametrize("order", [("raise", "aside", "raise"), ("aside", "raise", "aside")])
    def test_calls_of_one_cycle_each_get_their_own_outcome(self, corrupt, order, caplog):
        """In one cycle, contexts that raise do so, and the others move the file aside, once, whatever the order."""
        caplog.set_level(logging.WARNING, "persistent_context")

        async def main():
            contexts = [PersistentContext(corrupt, on_corrupt=word) for word in order]
            with filelock.FileLock(f"{corrupt}.lock"):
                calls = [asyncio.ensure_future(ctx.incr("n")) for ctx in contexts]
                while len(queue_of(str(corrupt))._waiting) < len(calls):
                    await asyncio.sleep(0.001)
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = asyncio.run(main())
        accepted = order.count("aside")

        assert [word == "raise" for word in order] == [isinstance(one, CorruptFileError) for one in outcomes]
        assert list(range(1, accepted + 1)) == sorted(one for one in outcomes if isinstance(one, int))
        assert (["state.json.corrupt"], 1) == (kept(corrupt), len(caplog.records))
        assert accepted == SyncPersistentContext.create(corrupt)["n"]

    def test_contexts_that_raise_never_have_it_moved(self, corrupt):
        """A cycle in which all calls raise leaves the file where it is."""

        async def main():
            contexts = [PersistentContext(corrupt, on_corrupt="raise") for _ in range(3)]
            return await asyncio.gather(*(ctx.incr("n") for ctx in contexts), return_exceptions=True)

        assert [CorruptFileError] * 3 == [type(one) for one in asyncio.run(main())]
        assert (CORRUPT, []) == (corrupt.read_bytes(), kept(corrupt))


class TestADamagedJournal:
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_is_an_error_too(self, face, damaged, call):
        """A context that raises does not load a part of what was acknowledged, and leaves the journal alone."""
        before = journal_of(damaged).read_bytes(), damaged.read_bytes()
        with pytest.raises(CorruptFileError, match="part of the journal is damaged"):
            call(face, face.cls(damaged, on_corrupt="raise"))

        assert (before, []) == ((journal_of(damaged).read_bytes(), damaged.read_bytes()), kept(damaged))

    def test_others_go_on_with_what_is_intact(self, face, damaged):
        """Without the option, intact lines count, and the next write keeps the damaged journal aside."""
        ctx = face.open(damaged)
        face.do(ctx.incr, "n")

        assert ({"n": 4}, ["state.json.journal.corrupt"]) == (dict(ctx), kept(damaged))


class TestReadingByOthers:
    def test_a_watch_leaves_it_alone(self, corrupt):
        """Watching changes nothing, and continues once the file is repaired."""
        ctx = SyncPersistentContext(corrupt, on_corrupt="raise")
        with ctx.watch() as watch:
            other = SyncPersistentContext(corrupt)
            names = set(os.listdir(corrupt.parent))
            other.incr("n")

            assert ({"state.json"}, 1) == (names, next(watch)["n"].new)
