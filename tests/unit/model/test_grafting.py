"""Changing lists and dictionaries in place."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistent_context._model.grafting import graft

VALUES = st.recursive(
    st.none() | st.integers(0, 3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from("abc"), part, max_size=3),
)


class TestGrafting:
    @given(old=VALUES, new=VALUES)
    def test_the_object_has_the_new_value(self, old, new):
        """It stays the same object if both are lists or both are dictionaries."""
        expected = copy.deepcopy(new)
        result = graft(old, copy.deepcopy(old), new)
        stays = type(old) is type(new) and type(old) in {list, dict}

        assert (expected, True) == (result, result is (old if stays else new))

    def test_objects_inside_stay(self):
        """Members of dictionaries by their key, and elements of lists if they are equal."""
        inner, element = {"x": 1}, {"id": 2}
        old = {"inner": inner, "list": [element]}
        graft(old, copy.deepcopy(old), {"inner": {"x": 2}, "list": [{"id": 1}, {"id": 2}]})

        assert {"inner": {"x": 2}, "list": [{"id": 1}, {"id": 2}]} == old
        assert (True, True) == (inner is old["inner"], element is old["list"][1])


class TestAdditions:
    """What was added to the live object since it was encoded."""

    @pytest.mark.parametrize(
        ("old", "was", "new", "expected"),
        [
            ({"a": 1, "added": 2}, {"a": 1}, {"a": 1, "theirs": 3}, {"a": 1, "added": 2, "theirs": 3}),
            ({"x": {"added": 2}}, {"x": {}}, {"x": {"theirs": 3}}, {"x": {"added": 2, "theirs": 3}}),
            ([1, "added"], [1], [1, "theirs"], [1, "theirs", "added"]),
            ({"l": [1, "added"]}, {"l": [1]}, {"l": [1, "theirs"]}, {"l": [1, "theirs", "added"]}),
        ],
        ids=["object", "nested object", "list", "nested list"],
    )
    def test_they_stay(self, old, was, new, expected):
        """They are neither removed nor replaced."""
        assert expected == graft(old, was, new)

    def test_deletions_count(self):
        """What the new value lacks is deleted if it was there."""
        assert {"b": 1} == graft({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"b": 1})
