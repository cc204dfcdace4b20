"""The live dictionary shows the values of the file in every way of reading a dictionary."""

import copy
import json
import pickle

import msgspec
import pytest

from persistent_context import SyncPersistentContext
from persistent_context._model.live import Items, LiveDict, Values
from persistent_context._stores.jsonfile.document import EMPTY


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 1,\n"jobs": [1, 2],\n"deep": {"list": [{"x": 1}]}\n}\n', encoding="utf-8")
    return face.open(path)


FILE = EMPTY.changed({"a": b"1", "b": b"2"})


class TestTheDataAttribute:
    def test_it_is_a_dict(self, ctx):
        """The live memory is a real dict."""

        assert isinstance(ctx._data, dict)

    def test_it_equals_a_plain_dict_from_either_side(self, ctx):
        """Comparison with a plain dict works both ways."""
        plain = {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}

        assert (True, True, False) == (ctx._data == plain, plain == ctx._data, ctx._data != plain)

    def test_it_differs_from_other_dicts(self, ctx):
        """Comparison is by value."""
        other = {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 2}]}}

        assert (False, False, True) == (ctx._data == other, other == ctx._data, ctx._data != other)

    def test_what_is_set_there_is_seen(self, ctx):
        """A change to the dictionary is a change to the context."""
        ctx._data["b"] = 2

        assert (2, {"b"}) == (ctx.get("b"), ctx.unsaved_keys())

    def test_what_is_deleted_there_is_gone(self, ctx):
        """A deletion from the dictionary is a deletion from the context."""
        del ctx._data["a"]

        assert (None, {"a"}) == (ctx.get("a"), ctx.unsaved_keys())

    @pytest.mark.parametrize(
        "reading",
        [
            dict,
            copy.copy,
            copy.deepcopy,
            lambda data: {**data},
            lambda data: data | {},
            lambda data: {} | data,
            lambda data: data.copy(),
            lambda data: dict(data.items()),
            lambda data: dict(zip(data, data.values(), strict=True)),
            lambda data: {key: data[key] for key in data},
            lambda data: {key: data.get(key) for key in data},
            lambda data: {key: data.pop(key) for key in list(data)},
            lambda data: dict([data.popitem() for _ in range(len(data))]),
            lambda data: {key: data.setdefault(key) for key in data},
            lambda data: json.loads(json.dumps(data)),
            lambda data: json.loads(json.dumps(data, indent=1)),
        ],
        ids=[
            "dict", "copy", "deepcopy", "unpack", "or", "ror", "method-copy", "items", "values", "subscript", "get",
            "pop", "popitem", "setdefault", "json", "json-indent",
        ],
    )  # fmt: skip
    def test_every_way_of_reading_a_dict_gives_the_values(self, ctx, reading):
        """No way of reading the live dictionary shows its internal representation."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}} == reading(ctx._data)

    def test_clearing_it_clears_the_context(self, ctx):
        """Clearing the dictionary clears the context."""
        ctx._data.clear()

        assert (0, {"a", "jobs", "deep"}) == (len(ctx), ctx.unsaved_keys())

    def test_its_update_is_seen(self, ctx):
        """Updating the dictionary updates the context."""
        ctx._data.update(a=2, b=3)

        assert ({"a", "b"}, 2, 3) == (ctx.unsaved_keys(), ctx["a"], ctx["b"])

    def test_it_is_a_dictionary_in_every_way(self, tmp_path):
        """In-place union, pickling and printing show values, not their internal representation."""
        path = tmp_path / "state.json"
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        data = ctx._data
        data |= {"b": 2}

        assert {"z": 0, "a": [1], "b": 2} == {"z": 0} | data

        assert ("{'a': [1], 'b': 2}", {"a": [1], "b": 2}, {"b"}) == (
            repr(data),
            pickle.loads(pickle.dumps(data)),
            ctx.unsaved_keys(),
        )


class TestTheLiveDictionary:
    def test_a_key_that_is_just_being_set_has_its_old_value(self):
        """While a key is being set, reading it gives its old value and its old text."""
        live = LiveDict.of(FILE)
        live._touch("a", b"1")
        texts = live.text("a")

        assert (b"1", 1, b"1") == (texts, live["a"], live.text("a"))

    def test_a_key_that_is_looked_at_while_all_are_taken_over_has_the_new_value(self):
        """A handler that reads a key just before it is replaced does not put a text in place of the value."""
        live = LiveDict.of(FILE)

        class Interrupted(dict):
            def __iter__(self):
                return super().__iter__()

            def keys(self):
                assert 1 == live["a"]  # as a handler does
                return super().keys()

        live.take_over_all(Interrupted(a=msgspec.Raw(b"7")), ())

        assert (7, b"7", 2) == (live["a"], live.base("a"), live["b"])

    def test_what_is_set_and_stays_is_not_set_again(self):
        """A handler's change is left as it is when nothing was taken over for its key."""
        live = LiveDict.of(FILE)
        with live.keeping():
            live["a"] = 5
        moment = live.touched["a"].moment

        assert (5, True) == (live["a"], moment < next(live.moments))

    @pytest.mark.parametrize("view", [Items, Values])
    def test_a_view_skips_keys_that_are_deleted_during_iteration(self, view):
        """A view skips a key that another thread or a handler deletes during the iteration."""

        class Listed(dict):
            def __iter__(self):
                return iter(list(super().__iter__()))

        mapping = Listed(a=1, b=2, c=3)
        steps = iter(view(mapping))
        first = next(steps)
        del mapping["b"]

        assert list(view({"a": 1, "c": 3})) == [first, *steps]

    def test_a_text_that_the_user_sets_is_not_decoded(self):
        """A value of the type in which undecoded texts are kept is a value, and JSON cannot hold it."""
        live = LiveDict()
        live["a"] = msgspec.Raw(b"1")

        assert msgspec.Raw is type(live["a"])
