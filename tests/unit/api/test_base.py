"""What both public classes share: options, the life cycle of a context, and the mapping of live values."""

import asyncio
import copy
import errno
import json
import os
from collections.abc import MutableMapping

import pytest

from persistent_context import PersistentContext, SyncPersistentContext, UnserializableValueError
from persistent_context._api import link


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 1,\n"jobs": [1, 2],\n"deep": {"list": [{"x": 1}]}\n}\n', encoding="utf-8")
    return face.open(path)


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def identity(path):
    """Return what distinguishes one write of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


class TestGetAndSet:
    def test_get_returns_what_the_file_held(self, ctx):
        """A loaded value is available at once."""

        assert 1 == ctx.get("a")

    def test_get_of_an_absent_key_is_none(self, ctx):
        """An absent key reads as None."""

        assert ctx.get("nope") is None

    def test_get_of_an_absent_key_with_a_default(self, ctx):
        """An absent key reads as the caller's default."""

        assert 7 == ctx.get("nope", 7)

    def test_get_prefers_a_stored_none_to_the_default(self, ctx):
        """A stored null is a value, so the default is not used."""
        ctx.set("nothing", None)

        assert ctx.get("nothing", 7) is None

    def test_set_is_seen_by_get_at_once(self, ctx):
        """A value need not be saved to be seen by get()."""
        ctx.set("cursor", 42)

        assert 42 == ctx.get("cursor")

    def test_set_keeps_the_object_itself(self, ctx):
        """A value that was set is itself the live value, not a copy."""
        value = {"x": [1]}
        ctx.set("value", value)

        assert value is ctx.get("value")

    def test_get_returns_the_live_value(self, ctx):
        """A value that get() returned may be changed in place, and reads changed."""
        ctx.get("jobs").append(3)

        assert [1, 2, 3] == ctx.get("jobs")

    def test_get_returns_the_same_object_each_time(self, ctx):
        """Two calls of get() return the same object."""

        assert ctx.get("deep") is ctx.get("deep")

    def test_subscript_get_and_method_get_agree(self, ctx):
        """[] and get() return the same object."""

        assert ctx["deep"] is ctx.get("deep")

    def test_set_touches_no_file(self, ctx, path):
        """Setting a value does not touch the file before a save."""
        before = path.read_bytes()
        ctx.set("a", 2)

        assert before == path.read_bytes()

    def test_set_does_not_check_values(self, ctx):
        """A value that JSON cannot hold may be in memory until the save."""
        value = object()
        ctx.set("odd", value)

        assert value is ctx.get("odd")


class TestKeys:
    @pytest.mark.parametrize("key", [1, None, 1.5, True, b"bytes", ("a",)])
    def test_set_refuses_a_key_that_is_not_a_str(self, ctx, key):
        """A key that JSON cannot hold is refused at once."""
        with pytest.raises(UnserializableValueError):
            ctx.set(key, 1)

    @pytest.mark.parametrize("key", [1, None, b"bytes"])
    def test_refused_keys_are_type_errors(self, ctx, key):
        """A refused key raises an error that is also a TypeError."""
        with pytest.raises(TypeError):
            ctx[key] = 1

    def test_a_refused_key_leaves_memory_as_it_was(self, ctx):
        """A refused key is not in memory afterwards."""
        with pytest.raises(UnserializableValueError):
            ctx.set(1, "one")

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_update_refuses_a_key_that_is_not_a_str(self, ctx):
        """update() refuses such a key too."""
        with pytest.raises(UnserializableValueError):
            ctx.update({1: 2})

    def test_setdefault_refuses_a_key_that_is_not_a_str(self, ctx):
        """setdefault() refuses such a key too."""
        with pytest.raises(UnserializableValueError):
            ctx.setdefault(1, 2)

    def test_get_of_a_key_that_is_not_a_str_finds_nothing(self, ctx):
        """Asking for a key that cannot exist is not an error."""

        assert ctx.get(1) is None

    def test_a_key_that_is_not_a_str_is_not_in_it(self, ctx):
        """A key that cannot exist is not in the context."""

        assert 1 not in ctx

    @pytest.mark.parametrize("key", ["", " ", "a\nb", 'quo"te', "back\\slash", "snow☃", "\x00", "😀", "\u2028"])
    def test_any_text_is_a_key(self, face, ctx, path, key):
        """Every string that can be encoded as UTF-8 comes back as a key."""
        ctx.set(key, "here")
        face.do(ctx.save)

        assert "here" == face.open(path).get(key)


class TestMapping:
    def test_it_is_a_mutable_mapping(self, ctx):
        """A context is accepted wherever a MutableMapping is."""

        assert isinstance(ctx, MutableMapping)

    def test_a_missing_key_raises_key_error(self, ctx):
        """[] of an absent key raises KeyError with the key."""
        with pytest.raises(KeyError) as caught:
            ctx["nope"]

        assert ("nope",) == caught.value.args

    def test_deleting_a_missing_key_raises_key_error(self, ctx):
        """`del` of an absent key raises KeyError."""
        with pytest.raises(KeyError):
            del ctx["nope"]

    def test_setting_and_deleting_by_subscript(self, ctx):
        """[]= and `del` work as in a dict."""
        ctx["b"] = 2
        del ctx["a"]

        assert ["jobs", "deep", "b"] == list(ctx)

    def test_membership(self, ctx):
        """`in` distinguishes present from absent keys."""

        assert (True, False) == ("a" in ctx, "nope" in ctx)

    def test_len_counts_keys(self, ctx):
        """len() is the number of keys."""
        ctx["b"] = 2

        assert 4 == len(ctx)

    def test_iteration_is_in_the_order_of_the_file(self, ctx):
        """Keys come in the order of the file."""

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_new_keys_come_last(self, ctx):
        """A new key comes after the existing ones."""
        ctx["0"] = 0

        assert ["a", "jobs", "deep", "0"] == list(ctx.keys())

    def test_a_set_key_keeps_its_place(self, ctx):
        """Setting an existing key does not move it."""
        ctx["a"] = 5

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_items_and_values_are_real_values(self, ctx):
        """items() and values() yield decoded values, whatever the internal representation."""
        expected = [("a", 1), ("jobs", [1, 2]), ("deep", {"list": [{"x": 1}]})]

        assert (expected, [value for _, value in expected]) == (list(ctx.items()), list(ctx.values()))

    def test_items_are_live(self, ctx):
        """A value obtained by iteration is the live one."""
        dict(ctx.items())["jobs"].append(9)

        assert [1, 2, 9] == ctx["jobs"]

    def test_pop_returns_and_removes(self, ctx):
        """pop() returns the value and removes the key."""
        popped = ctx.pop("jobs")

        assert ([1, 2], False) == (popped, "jobs" in ctx)

    def test_pop_of_an_absent_key(self, ctx):
        """pop() of an absent key returns the default, or raises KeyError if there is none."""
        with pytest.raises(KeyError):
            ctx.pop("nope")

        assert 3 == ctx.pop("nope", 3)

    def test_popitem_removes_one_item(self, ctx):
        """popitem() returns an item and removes it."""
        before = ctx.get_all_data()
        key, value = ctx.popitem()

        assert (before[key], False) == (value, key in ctx)

    def test_setdefault_of_a_present_key(self, ctx):
        """setdefault() keeps an existing value."""

        assert 1 == ctx.setdefault("a", 9)

    def test_setdefault_of_an_absent_key_gives_the_live_default(self, ctx):
        """The value that setdefault() sets is live."""
        ctx.setdefault("found", []).append(1)

        assert [1] == ctx["found"]

    def test_update_takes_mappings_pairs_and_keywords(self, ctx):
        """update() works as in a dict."""
        ctx.update({"x": 1})
        ctx.update([("y", 2)], z=3)

        assert (1, 2, 3) == (ctx["x"], ctx["y"], ctx["z"])

    def test_clear_removes_everything(self, ctx):
        """clear() leaves nothing."""
        ctx.clear()

        assert ([], 0) == (list(ctx), len(ctx))

    def test_dict_of_a_context(self, ctx):
        """dict() of a context is a plain dictionary of its values."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}} == dict(ctx)

    def test_unpacking_a_context(self, ctx):
        """** works as with a dict."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}, "b": 2} == {**ctx, "b": 2}


class TestGetAllData:
    def test_it_holds_everything(self, ctx):
        """The copy equals the memory."""
        ctx.set("b", 2)

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}, "b": 2} == ctx.get_all_data()

    def test_it_is_made_of_plain_types(self, ctx):
        """The copy is a plain dict of plain values, at every level."""
        data = ctx.get_all_data()

        assert (dict, list, dict) == (type(data), type(data["jobs"]), type(data["deep"]["list"][0]))

    def test_changing_the_copy_changes_nothing(self, ctx):
        """The copy shares nothing mutable with the context."""
        data = ctx.get_all_data()
        data["a"] = 99
        data["jobs"].append(99)
        data["deep"]["list"][0]["x"] = 99

        assert (1, [1, 2], {"list": [{"x": 1}]}, set()) == (ctx["a"], ctx["jobs"], ctx["deep"], ctx.unsaved_keys())

    def test_changing_the_context_leaves_the_copy(self, ctx):
        """Changing the context does not change the copy."""
        data = ctx.get_all_data()
        ctx["jobs"].append(99)

        assert [1, 2] == data["jobs"]

    def test_it_shares_nothing_with_a_value_that_was_set(self, ctx):
        """A value that was just set is copied too."""
        value = [[1]]
        ctx.set("value", value)
        ctx.get_all_data()["value"][0].append(2)

        assert [[1]] == value

    def test_it_can_be_dumped(self, ctx):
        """json.dumps() accepts the copy."""

        assert '{"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}' == json.dumps(ctx.get_all_data())

    def test_it_keeps_the_order(self, ctx):
        """The copy has the order of the memory."""
        ctx.set("0", 0)

        assert ["a", "jobs", "deep", "0"] == list(ctx.get_all_data())


class TestCreating:
    def test_a_missing_file_loads_as_nothing(self, face, path):
        """The file need not exist."""

        assert {} == dict(face.open(path))

    def test_loading_a_missing_file_makes_nothing(self, face, path):
        """Loading a missing file does not create it."""
        face.open(path)

        assert [] == os.listdir(path.parent)

    def test_constructing_touches_nothing(self, face, path):
        """The constructor does no I/O, and needs neither a loop nor the directory."""
        ctx = face.cls(path.parent / "absent" / "state.json")

        assert ({}, []) == (dict(ctx._data), os.listdir(path.parent))

    def test_saving_makes_the_file(self, face, path):
        """The first save creates the file."""
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(path)

    def test_saving_nothing_makes_the_file(self, face, path):
        """A save without changes still creates a missing file."""
        ctx = face.open(path)
        face.do(ctx.save)

        assert b"{}\n" == path.read_bytes()

    def test_a_save_without_a_load(self, face, path):
        """A context that was never loaded merges its changes into the file."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        ctx = face.cls(path)
        ctx.set("b", 3)
        face.do(ctx.save)

        assert ({"a": 1, "b": 3}, {"a": 1, "b": 3}) == (stored(path), dict(ctx))

    def test_only_the_file_and_its_lock_are_left(self, face, path):
        """No temporary file is left behind."""
        ctx = face.open(path)
        for number in range(5):
            ctx.set("a", number)
            face.do(ctx.save)

        assert ["state.json", "state.json.lock"] == sorted(os.listdir(path.parent))

    @pytest.mark.parametrize("value", ["yes", "", None, 1])
    def test_durable_is_true_or_false(self, face, path, value):
        """Anything else is an error at once."""
        with pytest.raises(TypeError, match="durable must be True or False"):
            face.cls(path, durable=value)

    def test_not_durable_writes_the_same(self, face, path):
        """With durable=False the same bytes are written, only without the sync."""
        ctx = face.open(path, durable=False)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert b'{\n"a": 1\n}\n' == path.read_bytes()


class TestTheContextManager:
    def test_it_loads(self, face, path):
        """Entering loads the file."""
        path.write_text('{"a": 1}', encoding="utf-8")

        assert 1 == face.inside(lambda: face.cls(path), lambda ctx: ctx["a"])

    def test_it_gives_the_context_itself(self, face, path):
        """`as` binds the context itself."""
        ctx = face.cls(path)

        assert ctx is face.inside(lambda: ctx, lambda entered: entered)

    def test_it_saves_on_a_clean_exit(self, face, path):
        """Leaving saves the changes."""
        face.inside(lambda: face.cls(path), lambda ctx: ctx.set("a", 1))

        assert {"a": 1} == stored(path)

    def test_it_saves_changes_in_place(self, face, path):
        """Leaving saves changes in place, too."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        face.inside(lambda: face.cls(path), lambda ctx: ctx["jobs"].append(2))

        assert {"jobs": [1, 2]} == stored(path)

    def test_it_does_not_save_after_an_exception(self, face, path):
        """After an exception in the body nothing is saved, and the exception propagates."""
        path.write_text('{"a": 1}', encoding="utf-8")
        before = identity(path)

        def body(ctx):
            ctx["a"] = 2
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            face.inside(lambda: face.cls(path), body)

        assert before == identity(path)

    def test_it_raises_when_it_cannot_save(self, face, path):
        """A failed save at the end of the block raises."""
        with pytest.raises(UnserializableValueError):
            face.inside(lambda: face.cls(path), lambda ctx: ctx.set("a", object()))

        assert False is path.exists()

    async def test_a_cancelled_body_is_not_saved(self, path):
        """Cancellation counts as an exception."""
        entered = asyncio.Event()

        async def body():
            async with PersistentContext(path) as ctx:
                ctx["a"] = 1
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert False is path.exists()


class TestOptions:
    @pytest.mark.parametrize("on_conflict", ["ours", "", "MINE", None, 1, b"mine"])
    def test_an_unknown_on_conflict(self, face, path, on_conflict):
        """A value that is neither a known string nor callable raises ValueError."""
        with pytest.raises(ValueError, match="on_conflict"):
            face.cls(path, on_conflict=on_conflict)

    @pytest.mark.parametrize("on_conflict", ["mine", "theirs", "raise", lambda key, base, mine, theirs: mine])
    def test_a_known_on_conflict(self, face, path, on_conflict):
        """The three strings and a callable are accepted."""

        assert {} == dict(face.open(path, on_conflict=on_conflict))

    def test_options_are_keywords(self, face, path):
        """Only the path is positional."""
        with pytest.raises(TypeError):
            face.cls(path, True)

    def test_create_hands_options_on(self, face, path):
        """create() accepts what the constructor accepts."""
        with pytest.raises(ValueError, match="on_conflict"):
            face.open(path, on_conflict="ours")


class TestCopies:
    @pytest.mark.parametrize("face", [PersistentContext, SyncPersistentContext])
    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_a_context_is_not_copied(self, path, face, copied):
        """Copying is refused: two contexts with one memory would silently overwrite each other's changes."""
        with pytest.raises(TypeError, match="get_all_data"):
            copied(face(path))


class TestHome:
    def test_a_tilde_is_the_home_directory(self, tmp_path, monkeypatch):
        """A path that begins with ``~`` does not create a directory of that name."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        SyncPersistentContext("~/sub/state.json").incr("n")

        assert ({"n": 1}, False) == (stored(tmp_path / "sub" / "state.json"), os.path.exists("~"))


class TestACallThatIsNotQueued:
    def test_it_is_not_kept(self, face, path, monkeypatch):
        """A call that fails before it is queued leaves nothing in its context."""
        ctx = face.cls(path)
        ctx["n"] = 1

        def fail(place):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(link, "queue_of", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            face.do(ctx.save)

        assert [] == ctx._memory._flights.calls()


class TestEntering:
    def test_unsaved_changes_that_it_drops_are_reported(self, face, path, caplog):
        """Entering the block loads; the warning names the file and the keys."""
        ctx = face.open(path)
        ctx.set("lost", 1)
        face.inside(lambda: ctx, lambda _: None)
        [record] = [record for record in caplog.records if record.levelname == "WARNING"]

        assert f"{path}: the with block loads the file, which drops unsaved changes of 'lost'" in record.getMessage()
        assert "lost" not in ctx

    def test_nothing_is_reported_without_unsaved_changes(self, face, path, caplog):
        """The usual case."""
        ctx = face.open(path)
        ctx.set("kept", 1)
        face.do(ctx.save)
        face.inside(lambda: ctx, lambda _: None)

        assert [] == [record for record in caplog.records if record.levelname == "WARNING"]
