"""Changing lists and dictionaries in place."""

import copy
import json
from collections import Counter, OrderedDict, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistent_context._model import grafting
from persistent_context._model.values import decode, same

VALUES = st.recursive(
    st.none() | st.integers(0, 3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from("abc"), part, max_size=3),
)


def graft(old, was, new):
    """Make the new value, and return it."""
    value, steps = grafting.graft(old, was, new)
    grafting.at_once(steps)
    return value


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

    def test_those_that_json_cannot_hold(self):
        """An element that another thread has just changed so is like any other element that was changed."""
        assert [{"n": 1}, {"n": 2}, "theirs", "added"] == graft(
            [{"n": 1}, {"n": object()}, "added"], [{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 2}, "theirs"]
        )

    def test_deletions_count(self):
        """What the new value lacks is deleted if it was there."""
        assert {"b": 1} == graft({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"b": 1})


class Careful(dict):
    """A dictionary that does not let everything in."""

    def __setitem__(self, key, value):
        """Refuse all."""
        raise PermissionError(key)


class Own(dict):
    """A dictionary that is read in its own way."""

    def get(self, key, default=None):
        """Return the default."""
        return default

    def values(self):
        """Return nothing."""
        return ()


class Named(list):
    """A list with a name, and an ``append`` of its own."""

    name = "named"

    def append(self, item):
        """Refuse it."""
        raise PermissionError(item)


class TestSubclasses:
    @pytest.mark.parametrize("kind", [Counter, OrderedDict, lambda value: defaultdict(int, value)])
    def test_they_stay_the_same_objects(self, kind):
        """So what the program counts in one later is not lost."""
        inner = kind({"a": 1, "gone": 1})
        old = kind({"inner": inner})
        graft(old, {"inner": {"a": 1, "gone": 1}}, {"inner": {"a": 1, "b": 2}, "more": 3})

        assert ({"inner": {"a": 1, "b": 2}, "more": 3}, {"a": 1, "b": 2}) == (dict(old), dict(inner))
        assert (["inner", "more"], ["a", "b"], True) == (list(old), list(inner), old["inner"] is inner)

    def test_lists(self):
        """A list of a subclass stays, too, and its own ``append`` is not called."""
        old = Named([1])

        assert graft(old, [1], [1, 2]) is old
        assert [1, 2] == old

    def test_those_that_are_changed_in_their_own_way_are_replaced(self):
        """Their methods might do anything, and are not called."""
        old = {"inner": Careful(a=1)}
        graft(old, {"inner": {"a": 1}}, {"inner": {"a": 2}})

        assert ({"inner": {"a": 2}}, dict) == (old, type(old["inner"]))


class TestOneObjectInTwoPlaces:
    @pytest.mark.parametrize("part", [{"n": 1}, [1]], ids=["dictionary", "list"])
    def test_each_place_has_its_own_value(self, part):
        """What was changed in one place is not changed in the other one."""
        old = {"a": part, "b": part}
        new = {"a": {"n": 7} if type(part) is dict else [1, 7], "b": copy.deepcopy(part)}
        expected = copy.deepcopy(new)

        assert expected == graft(old, copy.deepcopy(old), new)
        assert old["a"] is part or old["b"] is part

    @pytest.mark.parametrize("order", [["list", "cell"], ["cell", "list"]])
    def test_an_element_of_a_list(self, order):
        """An element that is a member of a dictionary, too, is changed only there."""
        cell = {"n": 1}
        values = {"list": [cell], "cell": cell}
        old = {name: values[name] for name in order}

        assert {"list": [{"n": 1}], "cell": {"n": 7}} == graft(
            old, copy.deepcopy(old), {"list": [{"n": 1}], "cell": {"n": 7}}
        )

    @pytest.mark.parametrize(
        "around",
        [lambda part: part, lambda part: {"deep": [part]}, lambda part: [Own(x=part)]],
        ids=["the element", "far inside", "inside another kind"],
    )
    @pytest.mark.parametrize("part", [{"n": 1}, [1]], ids=["dictionary", "list"])
    def test_inside_an_element_of_a_list(self, part, around):
        """An element stays the same object only if nothing in it is changed in another place."""
        old = {"part": part, "list": [around(part)]}
        new = json.loads(json.dumps(old))
        new["part"] = {"n": 7} if type(part) is dict else [1, 7]
        expected = copy.deepcopy(new)

        assert (expected, True) == (graft(old, copy.deepcopy(old), new), old["part"] is part)


LISTS = st.lists(VALUES, max_size=3)
LAYOUTS = st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")])


def text_of(value, layout):
    """Return the JSON text of a value in some layout, as other programs may have written it."""
    text = json.dumps(value, separators=layout)
    return (f"[ {text[1:-1]} ]" if layout[0] == " , " and type(value) is list else text).encode()


class TestListsThatWereAppendedTo:
    @given(old=LISTS, new=LISTS, more=LISTS, layouts=st.tuples(LAYOUTS, LAYOUTS))
    def test_they_have_the_new_value(self, old, new, more, layouts):
        """What was appended is found in the texts, whatever their layout; elements that stay are the same objects."""
        for value in (new, old + more):
            live, kept = copy.deepcopy(old), []
            kept += live
            result, steps = grafting.graft_text(live, text_of(old, layouts[0]), text_of(value, layouts[1]))
            grafting.at_once(steps)

            assert (value, True) == (result, result is live)
        assert all(one is other for one, other in zip(kept, live, strict=False))

    def test_what_another_thread_adds_meanwhile_comes_after_it(self):
        """As in every other case."""
        live = [1, 2, "meanwhile"]
        grafting.at_once(grafting.graft_text(live, b"[1, 2]", b"[1, 2, 3]")[1])

        assert [1, 2, 3, "meanwhile"] == live

    @given(one=LISTS, other=LISTS, layouts=st.tuples(LAYOUTS, LAYOUTS))
    def test_they_are_not_the_same(self, one, other, layouts):
        """Texts are compared as values: neither the layout nor an empty list misleads."""
        for left, right in ((one, one), (one, other), (one, one + other)):
            texts = text_of(left, layouts[0]), text_of(right, layouts[1])

            assert (left == right) is same(*texts) is same(*reversed(texts))

    def test_only_the_new_items_are_decoded(self, monkeypatch):
        """The rest is only compared, in one step."""
        decoded = []
        monkeypatch.setattr(grafting, "decode", lambda text: decoded.append(text) or decode(text))
        live = list(range(100))
        text = json.dumps(live).encode()
        grafting.at_once(grafting.graft_text(live, text, text[:-1] + b', {"a": 1}]')[1])

        assert ([text, b'[{"a": 1}]'], 101) == (decoded, len(live))
