"""A context that was never loaded or saved answers only for the keys that it knows."""

import re

import pytest

from persistent_context import MISSING, ContextUsageError

READING = {
    "get": lambda ctx: ctx.get("theirs"),
    "get with a default": lambda ctx: ctx.get("theirs", 0),
    "[]": lambda ctx: ctx["theirs"],
    "in": lambda ctx: "theirs" in ctx,
    "not in": lambda ctx: "absent" not in ctx,
    "len": len,
    "bool": bool,
    "iteration": iter,
    "reversed": reversed,
    "keys": lambda ctx: ctx.keys(),
    "values": lambda ctx: ctx.values(),
    "items": lambda ctx: ctx.items(),
    "pop": lambda ctx: ctx.pop("theirs"),
    "pop with a default": lambda ctx: ctx.pop("theirs", None),
    "popitem": lambda ctx: ctx.popitem(),
    "setdefault": lambda ctx: ctx.setdefault("theirs", 1),
    "del": lambda ctx: ctx.__delitem__("theirs"),
    "clear": lambda ctx: ctx.clear(),
    "get_all_data": lambda ctx: ctx.get_all_data(),
    "==": lambda ctx: ctx == {},
    "dict": dict,
}
"""Ways of reading keys that the context has not set."""


@pytest.fixture
def theirs(face, path):
    """A file with a key that another context has written."""
    other = face.open(path)
    other["theirs"] = 1
    face.do(other.save)
    return path


@pytest.fixture
def ctx(face, theirs):
    """A context that was only constructed."""
    return face.cls(theirs)


class TestRefusing:
    @pytest.mark.parametrize("read", READING.values(), ids=READING)
    def test_what_it_would_have_to_guess(self, ctx, read):
        """Reading a key that was not set here raises an error, and changes nothing."""
        ctx["mine"] = 1
        with pytest.raises(ContextUsageError, match=r"not loaded: use create\(\) or load\(\)"):
            read(ctx)

        assert ({"mine": 1}, {"mine"}) == (dict(ctx._data), ctx.unsaved_keys())

    def test_the_error_names_file_and_key(self, ctx, theirs):
        """The message names the file and the key."""
        with pytest.raises(ContextUsageError, match=re.escape(str(theirs)) + ".*'theirs'"):
            ctx.get("theirs")

    def test_it_says_how_this_face_is_loaded(self, face, ctx):
        """The message shows how to load a context of this class: with or without await."""
        with pytest.raises(ContextUsageError) as caught:
            ctx.get("theirs")

        assert (face.name == "async") is ("awaited" in str(caught.value))
        assert (face.name == "async") is ("async with" in str(caught.value))

    @pytest.mark.parametrize("read", READING.values(), ids=READING)
    def test_a_failed_load_is_none(self, face, path, read):
        """After a failed load, the context counts as not loaded."""
        path.mkdir()
        ctx = face.cls(path)
        with pytest.raises(OSError, match="directory"):
            face.do(ctx.load)
        with pytest.raises(ContextUsageError, match="not loaded"):
            read(ctx)


class TestAllowed:
    def test_setting_and_saving(self, face, ctx, theirs):
        """Setting and saving needs no load, and undoes nothing."""
        ctx.set("a", 1)
        ctx["b"] = 2
        ctx.update(c=3)
        unsaved = ctx.unsaved_keys()
        face.do(ctx.save)

        assert ({"a", "b", "c"}, {"theirs": 1, "a": 1, "b": 2, "c": 3}) == (unsaved, dict(face.open(theirs)))

    def test_the_live_dictionary(self, ctx):
        """The dictionary of the original specification exists, with the values that were set."""
        ctx["a"] = 1

        assert {"a": 1} == ctx._data

    def test_transactions(self, face, ctx):
        """A transaction reads the file, and needs no load."""

        def body(tx):
            return dict(tx)

        assert {"theirs": 1} == face.inside(ctx.transaction, body)

    def test_its_representation_says_so(self, face, ctx):
        """repr() never raises, and says so as long as the context is not loaded."""
        ctx["mine"] = 1
        before = repr(ctx)
        face.do(ctx.load)

        assert (True, True, False) == ("not loaded" in before, "1 key in" in before, "not loaded" in repr(ctx))


class TestKnown:
    def test_what_it_has_set(self, ctx):
        """A key that was set here can be read in every way, even after it was deleted."""
        ctx["a"] = [1]
        ctx["b"] = 2
        del ctx["b"]

        assert ([1], [1], True, [1]) == (ctx["a"], ctx.get("a"), "a" in ctx, ctx.setdefault("a", 0))
        assert (False, None, 0) == ("b" in ctx, ctx.get("b"), ctx.pop("b", 0))
        assert ([1], False) == (ctx.pop("a"), "a" in ctx)

    def test_what_calls_returned(self, face, ctx):
        """After an atomic operation, the value of its key is known."""
        face.do(ctx.incr, "n")
        added = face.do(ctx.add, "theirs", 2)

        assert (1, False, 1) == (ctx["n"], added, ctx["theirs"])
        with pytest.raises(ContextUsageError, match="not loaded"):
            ctx.get("other")
        with pytest.raises(ContextUsageError, match="not loaded"):
            len(ctx)

    def test_what_calls_found_absent(self, face, ctx):
        """A key that an operation has deleted, or not found, is known to be absent."""
        face.do(ctx.compare_and_set, "theirs", 1, MISSING)
        face.do(ctx.compare_and_set, "never", 1, 2)

        assert (False, "default", None) == ("theirs" in ctx, ctx.get("never", "default"), ctx.pop("never", None))

    def test_what_a_transaction_touched(self, face, ctx):
        """The keys that a transaction has read or set are known once it is committed."""

        def body(tx):
            tx["mine"] = tx["theirs"] + 1

        face.inside(ctx.transaction, body)

        assert (1, 2) == (ctx["theirs"], ctx["mine"])

    @pytest.mark.parametrize("name", ["load", "save"])
    def test_everything_after_a_load_or_a_save(self, face, ctx, name):
        """After one load or save, every key is known."""
        face.do(getattr(ctx, name))

        assert ({"theirs": 1}, None, 1) == (dict(ctx), ctx.get("absent"), len(ctx))

    def test_everything_inside_with(self, face, theirs):
        """Entering the context loads it."""
        if face.name == "sync":
            with face.cls(theirs) as ctx:
                read = dict(ctx)
        else:
            read = face.inside(lambda: face.cls(theirs), dict)

        assert {"theirs": 1} == read

    @pytest.mark.parametrize("name", ["load", "save"])
    def test_that_a_missing_file_is_empty(self, face, path, name):
        """A missing file is known to be empty."""
        ctx = face.cls(path)
        face.do(getattr(ctx, name))

        assert ({}, None) == (dict(ctx), ctx.get("absent"))


class TestCallsOnLists:
    def test_they_need_no_load(self, face, ctx, theirs):
        """Each call works on what the file has, and its key is known afterwards."""
        assert (1, 3) == (face.do(ctx.append, "list", 1), face.do(ctx.extend, "list", [2, 3]))
        assert (1, False) == (face.do(ctx.take, "theirs"), face.do(ctx.delete, "absent"))
        assert ([1, 2, 3], None, None) == (ctx["list"], ctx.get("theirs"), ctx.get("absent"))
        with pytest.raises(ContextUsageError, match="not loaded"):
            len(ctx)


class TestRefreshing:
    def test_it_loads(self, face, ctx):
        """Everything can be read afterwards, and what was set before is unsaved."""
        ctx["mine"] = 2
        face.do(ctx.refresh)

        assert ({"theirs": 1, "mine": 2}, {"mine"}) == (dict(ctx), ctx.unsaved_keys())

    def test_a_missing_file_is_known_to_be_empty(self, face, path):
        """There is nothing to guess."""
        ctx = face.cls(path)
        face.do(ctx.refresh)

        assert ({}, False) == (dict(ctx), path.exists())
