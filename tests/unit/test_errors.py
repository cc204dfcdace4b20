"""The errors: their bases, their attributes, that they pickle, and that they are safe to print."""

import asyncio
import copy
import errno
import os
import pickle
import stat

import pytest

import persistent_context
from persistent_context import (
    MISSING,
    ConflictError,
    ContextUsageError,
    CorruptFileError,
    DurabilityUnknownError,
    Holder,
    LockLostError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContextError,
    ReentrantTransactionError,
    TooManyDigitsError,
    UnserializableValueError,
)


@pytest.fixture
def break_fsync(monkeypatch):
    """Make fsync fail like a broken disk: for directories, for regular files, or not any more."""
    real = os.fsync

    def fail_for(kind):
        def fsync(fd):
            descriptor = fd if isinstance(fd, int) else fd.fileno()
            if kind is not None and kind(os.fstat(descriptor).st_mode):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd)

        monkeypatch.setattr(os, "fsync", fsync)

    return fail_for


@pytest.fixture
def provoke(face, path, hold_transaction, break_fsync):
    """Cause a real error of the given kind, and return it."""

    def lock_timeout():
        ctx = face.open(path, lock_timeout=0.01)
        with hold_transaction(path):
            face.do(ctx.incr, "n")

    def lock_lost():
        def body(tx):
            tx["a"] = 1
            path.with_name(path.name + ".lock").unlink()

        face.inside(face.open(path).transaction, body)

    def conflict():
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for number, one in enumerate((other, ctx)):
            one.update(first=number, second=bool(number))
            face.do(one.save)

    def reentrant():
        ctx = face.open(path)
        ctx.set("a", 1)
        if face.name == "sync":
            face.inside(ctx.transaction, lambda _: ctx.save())
        else:
            face.do(save_inside, ctx)

    async def save_inside(ctx):
        async with ctx.transaction():
            await ctx.save()

    def wrong_type():
        ctx = face.open(path)
        ctx.set("jobs", [{"when": {1, 2}}])
        face.do(ctx.save)

    def wrong_value():
        ctx = face.open(path)
        ctx.set("jobs", [{"when": float("nan")}])
        face.do(ctx.save)

    def wrong_key():
        face.open(path).set(1, 1)

    def usage():
        kept = []
        face.inside(face.open(path).transaction, kept.append)
        kept[0]["a"] = 1

    def not_loaded():
        face.cls(path).get("a")

    def corrupt():
        path.write_bytes(b"{ corrupt")
        face.open(path, on_corrupt="raise")

    def no_file():
        path.mkdir()
        face.open(path)

    def too_many_digits():
        path.write_bytes(b'{"n": ' + b"9" * 4301 + b"}")
        face.open(path)

    def durability():
        ctx = face.open(path)
        ctx.set("a", 1)
        break_fsync(stat.S_ISDIR)
        face.do(ctx.save)

    kinds = {
        "lock_timeout": (LockTimeoutError, lock_timeout),
        "lock_lost": (LockLostError, lock_lost),
        "conflict": (ConflictError, conflict),
        "reentrant": (ReentrantTransactionError, reentrant),
        "wrong_type": (UnserializableValueError, wrong_type),
        "wrong_value": (UnserializableValueError, wrong_value),
        "wrong_key": (UnserializableValueError, wrong_key),
        "usage": (ContextUsageError, usage),
        "not_loaded": (ContextUsageError, not_loaded),
        "corrupt": (CorruptFileError, corrupt),
        "no_file": (NotARegularFileError, no_file),
        "durability": (DurabilityUnknownError, durability),
        "too_many_digits": (TooManyDigitsError, too_many_digits),
    }

    def bring_about(kind):
        expected, act = kinds[kind]
        with pytest.raises(expected) as caught:
            act()
        return caught.value

    return bring_about


KINDS = [
    "lock_timeout", "lock_lost", "conflict", "reentrant", "wrong_type", "wrong_value", "wrong_key", "usage", "no_file",
    "not_loaded", "corrupt", "durability", "too_many_digits",
]  # fmt: skip


class TestKinship:
    @pytest.mark.parametrize("name", [
        "ConflictError", "ContextUsageError", "CorruptFileError", "DurabilityUnknownError", "LockLostError",
        "LockTimeoutError", "NotARegularFileError", "ReentrantTransactionError", "TooManyDigitsError",
        "UnserializableValueError",
    ])  # fmt: skip
    def test_all_have_one_base(self, name):
        """PersistentContextError is the base of every error of the library."""

        assert True is issubclass(getattr(persistent_context, name), PersistentContextError)

    @pytest.mark.parametrize(("error", "builtin"), [
        (LockTimeoutError, TimeoutError),
        (ReentrantTransactionError, ContextUsageError),
        (ReentrantTransactionError, RuntimeError),
        (ContextUsageError, RuntimeError),
        (DurabilityUnknownError, OSError),
        (NotARegularFileError, OSError),
        (TooManyDigitsError, ValueError),
        (CorruptFileError, ValueError),
        (PersistentContextError, Exception),
    ])  # fmt: skip
    def test_each_is_the_natural_builtin_too(self, error, builtin):
        """Each error can also be caught as the matching builtin."""

        assert True is issubclass(error, builtin)

    @pytest.mark.parametrize(("kind", "builtin"), [
        ("wrong_type", TypeError), ("wrong_key", TypeError), ("wrong_value", ValueError),
    ])  # fmt: skip
    def test_a_value_error_where_the_type_is_right(self, provoke, kind, builtin):
        """An unserializable value raises TypeError, or ValueError if its type is right."""

        assert True is isinstance(provoke(kind), builtin)

    @pytest.mark.parametrize("kind", ["wrong_type", "wrong_key"])
    def test_no_value_error_where_the_type_is_wrong(self, provoke, kind):
        """A value of a wrong type does not raise ValueError."""

        assert False is isinstance(provoke(kind), ValueError)

    def test_a_lost_lock_is_not_a_timeout(self):
        """A lost lock is not a timeout, nor the other way round."""

        assert False is issubclass(LockLostError, TimeoutError)

    def test_all_are_exported(self):
        """Every public name is in __all__."""
        expected = {
            "PersistentContext", "SyncPersistentContext", "MISSING", "Holder", "Statistics", "PersistentContextError",
            "LockTimeoutError", "LockLostError", "ConflictError", "ReentrantTransactionError",
            "UnserializableValueError", "ContextUsageError", "DurabilityUnknownError", "NotARegularFileError",
            "TooManyDigitsError",
        }  # fmt: skip

        assert set() == expected - set(persistent_context.__all__)


class TestData:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_message_names_the_file(self, provoke, path, kind):
        """Every message names the file."""

        assert str(path) in str(provoke(kind))

    def test_a_lock_timeout(self, provoke, path):
        """A timeout error has the path, the holder, and how long the call waited."""
        error = provoke("lock_timeout")

        assert (str(path), True, True) == (
            os.fspath(error.filepath),
            isinstance(error.holder, Holder),
            isinstance(error.waited, int | float),
        )

    def test_a_conflict(self, provoke, path):
        """A conflict error has the path and the keys, and its message names the keys."""
        error = provoke("conflict")

        assert (str(path), ["first", "second"], True, True) == (
            os.fspath(error.filepath),
            sorted(error.keys),
            "first" in str(error),
            "second" in str(error),
        )

    @pytest.mark.parametrize(
        ("kind", "place"), [("wrong_type", '["jobs"][0]["when"] is a set'), ("wrong_value", '["jobs"][0]["when"]')]
    )
    def test_an_unserializable_value(self, provoke, kind, place):
        """The error names the place of an unserializable value."""

        assert place in str(provoke(kind))

    def test_os_errors_know_their_cause(self, provoke):
        """An error that is an OSError has the errno of its cause."""

        error = provoke("durability")

        assert errno.EIO == (error.errno or error.__cause__.errno)


class TestPickling:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
    def test_an_error_comes_back_whole(self, provoke, kind, protocol):
        """A pickled error keeps its type, its message and its data."""
        error = provoke(kind)
        back = pickle.loads(pickle.dumps(error, protocol))

        assert (type(error), str(error), error.args) == (type(back), str(back), back.args)

    @pytest.mark.parametrize(("kind", "names"), [
        ("lock_timeout", ["filepath", "holder", "waited"]), ("conflict", ["filepath", "keys", "places"]),
        ("durability", ["errno", "filename"]), ("no_file", ["errno", "filename"]),
    ])  # fmt: skip
    def test_its_attributes_come_back(self, provoke, kind, names):
        """The attributes of an error survive pickling."""
        error = provoke(kind)
        back = pickle.loads(pickle.dumps(error))

        assert [getattr(error, name) for name in names] == [getattr(back, name) for name in names]

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_comes_back_as_every_builtin_that_it_was(self, provoke, kind):
        """Every except clause that catches the error also catches its copy."""
        error = provoke(kind)
        natures = [OSError, TimeoutError, RuntimeError, TypeError, ValueError]
        back = pickle.loads(pickle.dumps(error))

        assert [isinstance(error, nature) for nature in natures] == [isinstance(back, nature) for nature in natures]

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_can_be_copied(self, provoke, kind):
        """copy.copy of an error is equal in type, message and data."""
        error = provoke(kind)
        back = copy.copy(error)

        assert (type(error), str(error)) == (type(back), str(back))

    @pytest.mark.parametrize("kind", KINDS)
    def test_notes_come_back(self, provoke, kind):
        """A note added to an error is pickled with it."""
        error = provoke(kind)
        error.add_note("noted")

        assert ["noted"] == pickle.loads(pickle.dumps(error)).__notes__

    def test_missing_stays_the_one_missing(self):
        """MISSING remains one object, even when copied or pickled."""
        copies = [copy.copy(MISSING), copy.deepcopy(MISSING), pickle.loads(pickle.dumps(MISSING))]

        assert [True, True, True] == [one is MISSING for one in copies]


class TestPrinting:
    @pytest.fixture
    def path(self, tmp_path):
        """A path whose name has terminal control characters."""
        directory = tmp_path / "data"
        directory.mkdir()
        return directory / "red\x1b[31m\nline\u202e.json"

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_message_does_not_reach_the_terminal_raw(self, provoke, kind):
        """Control characters in the file name are escaped in every message."""

        assert [] == [char for char in str(provoke(kind)) if char in "\x1b\u202e"]


class TestACrossingError:
    def test_an_error_crosses_a_process_pool(self, path, spawn):
        """An error raised in a worker process arrives with its data."""
        code = (
            "import pickle, sys\n"
            "from persistent_context import ConflictError, SyncPersistentContext\n"
            "one, two = (SyncPersistentContext.create(sys.argv[1], on_conflict='raise') for _ in range(2))\n"
            "one.set('a', 1); one.save(); two.set('a', 2)\n"
            "try:\n"
            "    two.save()\n"
            "except ConflictError as error:\n"
            "    print(pickle.dumps(error).hex(), flush=True)\n"
        )
        error = pickle.loads(bytes.fromhex(spawn(code, path).finish()[0]))

        assert (ConflictError, ["a"], str(path)) == (type(error), list(error.keys), os.fspath(error.filepath))

    async def test_an_error_is_not_shared_between_calls(self, path, hold):
        """Calls that fail together get an error object each, so that their tracebacks do not mix."""
        ctx = persistent_context.PersistentContext(path, lock_timeout=0.05)
        with hold(path):
            errors = await asyncio.gather(*(ctx.incr("n") for _ in range(5)), return_exceptions=True)

        assert (5, {LockTimeoutError}) == (len({id(error) for error in errors}), {type(error) for error in errors})
