"""The live dictionary: values are those of the file, in every way in which a dictionary is read."""

import copy
import json

import pytest


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 1,\n"jobs": [1, 2],\n"deep": {"list": [{"x": 1}]}\n}\n', encoding="utf-8")
    return face.open(path)


class TestTheDataAttribute:
    def test_it_is_a_dict(self, ctx):
        """The live memory is a real dict."""

        assert isinstance(ctx._data, dict)

    def test_it_equals_a_plain_dict_from_either_side(self, ctx):
        """Comparison with a plain dict works both ways."""
        plain = {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}

        assert (True, True, False) == (ctx._data == plain, plain == ctx._data, ctx._data != plain)

    def test_it_differs_from_other_dicts(self, ctx):
        """Comparison looks at values."""
        other = {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 2}]}}

        assert (False, False, True) == (ctx._data == other, other == ctx._data, ctx._data != other)

    def test_what_is_set_there_is_seen(self, ctx):
        """A change of the dictionary is a change of the context."""
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
        """No way of reading the live dictionary shows how it is kept inside."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}} == reading(ctx._data)

    def test_clearing_it_clears_the_context(self, ctx):
        """The dictionary's own clear is seen."""
        ctx._data.clear()

        assert (0, {"a", "jobs", "deep"}) == (len(ctx), ctx.unsaved_keys())

    def test_its_update_is_seen(self, ctx):
        """The dictionary's own update is seen."""
        ctx._data.update(a=2, b=3)

        assert ({"a", "b"}, 2, 3) == (ctx.unsaved_keys(), ctx["a"], ctx["b"])
