"""What is the same value, and so no change: whatever means the same in JSON, however it is written down."""

import json

import pytest


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"x": 1, "y": 2}', {"y": 2, "x": 1}), ("1e0", 1.0), ('"\\u0061"', "a"), ("[ 1,2 ]", [1, 2])],
    ids=["order of keys", "number", "escape", "spaces"],
)
class TestTheSameValue:
    """Each text stands on a line of its own, as the library itself would write it, but is spelt otherwise."""

    @pytest.fixture
    def ctx(self, face, path, text):
        """A context on a file that holds the text."""
        path.write_text(f'{{\n"k": {text}\n}}\n', encoding="utf-8")
        return face.open(path, on_conflict="raise")

    def test_setting_it_is_no_change(self, face, ctx, path, value, text):
        """A key that is set to the value it has is not unsaved, and saving leaves the file alone."""
        before = path.read_bytes()
        ctx.set("k", value)
        unsaved = ctx.unsaved_keys()
        face.do(ctx.save)

        assert (set(), before) == (unsaved, path.read_bytes())

    def test_others_writing_it_is_no_conflict(self, face, ctx, path, value, text):
        """Who spells a value otherwise has not changed it, and is in no conflict with who did."""
        path.write_text(f'{{"k": {json.dumps(value)}}}', encoding="utf-8")
        ctx.set("k", "mine")
        face.do(ctx.save)

        assert {"k": "mine"} == json.loads(path.read_text(encoding="utf-8"))

    def test_it_is_the_expected_one(self, face, ctx, path, value, text):
        """A compare_and_set that expects the value finds it."""
        assert face.do(ctx.compare_and_set, "k", value, "new")
