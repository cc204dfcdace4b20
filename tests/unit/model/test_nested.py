"""Merging inside values: rule by rule, and compared with a plain specification."""

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from persistent_context import MISSING
from persistent_context._model.nested import Merge, rebase, resume, resume_all
from persistent_context._model.values import decode, encode, same
from tests import merging

SCALARS = st.sampled_from([None, True, 1, 1.0, 0, "", "é", "[", "{"])
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from("abc"), part, max_size=3)
)
OBJECTS = st.recursive(SCALARS, lambda part: st.dictionaries(st.sampled_from("abc"), part, max_size=3))


def text(value):
    """Return the text of a value."""
    return MISSING if value is MISSING else encode(value, "k")


def value(found):
    """Return the value of a text."""
    return MISSING if found is MISSING else decode(found)


def merged(base, mine, theirs, *, prefer_mine=True):
    """Return the result of merging values, and the paths of its conflicts."""
    merge = Merge(prefer_mine=prefer_mine)
    found = merge(text(base), text(mine), text(theirs), "k")
    return value(found), [conflict.path[1:] for conflict in merge.conflicts]


def grown_from(values):
    """Draw a base, and two values made from it by small changes."""

    @st.composite
    def draw(drawing):
        base = drawing(values | st.just(MISSING))
        return base, *(changed(drawing, base, values) for _ in range(2))

    return draw()


def changed(drawing, base, values):
    """Draw a value made from another: grown, changed at one place, or replaced."""
    kind = drawing(st.sampled_from(["same", "grow", "inside", "replace"]))
    if kind == "grow" and isinstance(base, list):
        return base + drawing(st.lists(values, min_size=1, max_size=2))
    if kind in {"grow", "inside"} and isinstance(base, dict):
        name = drawing(st.sampled_from("abc"))
        part = changed(drawing, base.get(name, MISSING), values)
        rest = {key: other for key, other in base.items() if key != name}
        return rest if part is MISSING else {**rest, name: part}
    return base if kind == "same" else drawing(values | st.just(MISSING))


class TestAgainstThePlainSpecification:
    @given(sides=grown_from(VALUES), prefers=st.sampled_from(["mine", "theirs"]))
    @example(sides=([1], [1, 2], [1, 2]), prefers="mine")
    @example(sides=({"a": []}, {"a": [1]}, {"a": [1]}), prefers="mine")
    @example(sides=(MISSING, [1], [1]), prefers="mine")
    @example(sides=(1, {"a": 1}, {"b": 1}), prefers="mine")
    @example(sides=({"a": {"b": 1}}, {}, {"a": {"b": 2}}), prefers="theirs")
    def test_the_result_is_the_same(self, sides, prefers):
        """The merged value, as JSON, and the conflicts are those of the specification."""
        found, conflicts = merged(*sides, prefer_mine=prefers == "mine")
        expected = merging.merge(*sides, prefers)

        assert (merging.canonical(expected.value), list(expected.conflicts)) == (merging.canonical(found), conflicts)

    @given(sides=grown_from(VALUES))
    def test_a_text_is_on_one_line_in_the_layout_of_the_file(self, sides):
        """A merged value is written in the layout of the file."""
        found = Merge()(*map(text, sides), "k")

        assert found is MISSING or json.dumps(decode(found), ensure_ascii=False).encode() == found

    @given(sides=grown_from(OBJECTS))
    def test_objects_without_conflicts_commute(self, sides):
        """Without conflicts, the order of the saves does not matter."""
        base, mine, theirs = sides
        found, conflicts = merged(base, mine, theirs)

        assert conflicts or merging.same(found, merged(base, theirs, mine)[0])


class TestRules:
    @pytest.mark.parametrize(
        ("base", "mine", "theirs", "expected"),
        [
            pytest.param(
                {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1, "c": 3, "b": 2}, id="keys of an object"
            ),
            pytest.param(
                {"x": {"y": {}}},
                {"x": {"y": {"a": 1}}},
                {"x": {"y": {"b": 2}}},
                {"x": {"y": {"b": 2, "a": 1}}},
                id="to any depth",
            ),
            pytest.param({"a": 1, "b": 2}, {"b": 2}, {"a": 1, "b": 3}, {"b": 3}, id="a deletion beside a change"),
            pytest.param(MISSING, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}, id="an object that both began"),
            pytest.param(
                None, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}, id="an object that both put in the place of something else"
            ),
            pytest.param([1], [1, 2], [1, 3], [1, 3, 2], id="lists that grew"),
            pytest.param([], [5], [5], [5, 5], id="lists that grew by the same"),
            pytest.param(MISSING, [1], [2], [2, 1], id="lists that both began"),
            pytest.param(MISSING, [1], [1], [1], id="lists that both began alike"),
            pytest.param({"l": [{}]}, {"l": [{}, 1]}, {"l": [{}, 2]}, {"l": [{}, 2, 1]}, id="lists in objects"),
            pytest.param(1, 2, 2, 2, id="the same change"),
        ],
    )
    def test_nothing_is_lost(self, base, mine, theirs, expected):
        """The result has the changes of both sides."""
        assert (expected, []) == merged(base, mine, theirs)

    @pytest.mark.parametrize(
        ("base", "mine", "theirs", "path"),
        [
            pytest.param(1, 2, 3, (), id="a leaf"),
            pytest.param({"a": 1}, {"a": 2}, {"a": 3}, ("a",), id="a leaf inside"),
            pytest.param({"a": 1}, {}, {"a": 3}, ("a",), id="deleted here and changed there"),
            pytest.param({"a": 1}, {"a": 2}, {}, ("a",), id="changed here and deleted there"),
            pytest.param([1, 2], [1], [1, 2, 3], (), id="a list that shrank"),
            pytest.param([1, 2], [1, 2, 3], [2], (), id="their list shrank"),
            pytest.param([1], [2], [3], (), id="a list that changed inside"),
            pytest.param(5, [1], [2], (), id="lists in the place of something else"),
            pytest.param([1], {"a": 1}, [2], (), id="of different kinds"),
            pytest.param(True, 1, 1.0, (), id="numbers that are equal"),
        ],
    )
    def test_a_conflict_has_the_side_that_is_preferred(self, base, mine, theirs, path):
        """The preferred side wins, and the conflict is reported with its path."""
        assert (mine, [path]) == merged(base, mine, theirs)
        assert (theirs, [path]) == merged(base, mine, theirs, prefer_mine=False)

    @pytest.mark.parametrize("base", [b"[1 ,2]", b"[ 1, 2 ]", b"[1,2]"])
    def test_lists_in_another_layout_are_joined_in_the_same_order(self, base):
        """Their elements tell that they grew, if their bytes do not."""
        assert b"[1, 2, 4, 3]" == Merge()(base, b"[1, 2, 3]", b"[1, 2, 4]", "k")

    def test_it_goes_as_deep_as_a_value_may(self):
        """Merging handles 500 levels."""

        def nested(name):
            inner = {name: 1}
            for _ in range(499):
                inner = {"k": inner}
            return inner

        found, conflicts = merged(nested("base"), nested("mine"), nested("theirs"))

        assert ([], 500) == (conflicts, json.dumps(found).count("{"))

    def test_a_place_is_shown_as_python_indexes_it(self):
        """The path of a conflict reads as Python indexes it."""
        merge = Merge()
        merge(b'{"a": {"b\\n": 1}}', b'{"a": {"b\\n": 2}}', b'{"a": {"b\\n": 3}}', "k")

        assert ['["k"]["a"]["b\\n"]'] == list(map(str, merge.conflicts))


class TestRebase:
    """Taking over what others wrote, when memory has an unsaved change."""

    @given(sides=grown_from(VALUES))
    def test_saving_later_has_the_same_result_as_saving_now(self, sides):
        """Neither the result nor the conflicts depend on whether the save comes before or after."""
        base, mine, theirs = map(text, sides)
        assume(not same(base, mine))
        mine_then, base_then = rebase(base, mine, theirs, "k")
        now, then = Merge(), Merge()

        assert same(now(base, mine, theirs, "k"), then(base_then, mine_then, theirs, "k"))
        assert [conflict.path for conflict in now.conflicts] == [conflict.path for conflict in then.conflicts]

    @given(sides=grown_from(VALUES))
    def test_it_is_as_the_plain_specification_says(self, sides):
        """The specification holds, except for a value that was set to what it already was, which is kept."""
        base, mine, theirs = sides
        is_set = merging.same(base, mine) and not isinstance(mine, list | dict)
        expected = (mine, base) if is_set else merging.rebase(*sides)
        found = rebase(*map(text, sides), "k")

        assert list(map(merging.canonical, expected)) == [merging.canonical(value(part)) for part in found]

    def test_what_is_not_in_conflict_is_taken_over(self):
        """Values that are not in conflict are taken over; the others stay, with their base."""
        mine, base = rebase(b'{"a": 1, "b": 1}', b'{"a": 2, "b": 1}', b'{"a": 3, "b": 4}', "k")

        assert ({"a": 2, "b": 4}, {"a": 1, "b": 4}) == (decode(mine), decode(base))


class TestResume:
    """Changes made after a call was sent, applied to its outcome."""

    def test_the_rest_of_a_list_follows_what_the_call_has_merged(self):
        """Later items of a list follow the merged ones, although others' items come before mine."""
        assert [1, "theirs", 2, 3] == decode(resume(b"[1, 2]", b"[1, 2, 3]", b'[1, "theirs", 2]', "k"))

    @given(sides=grown_from(VALUES))
    def test_nothing_is_done_if_nothing_was_merged(self, sides):
        """When the outcome of a call is what it included, which is nearly always so, nothing is done."""
        included, mine, _ = map(text, sides)

        assert resume(included, mine, included, "k") is mine

    def test_values_follow_one_another(self):
        """Each value builds on the one before."""
        later = [b"[1, 2]", b"[1, 2, 3]", b"[1, 2, 3]"]

        found = resume_all(b"[1]", later, b'[1, "theirs"]', "k", is_own=False)

        assert [[1, "theirs", 2], [1, "theirs", 2, 3], [1, "theirs", 2, 3]] == list(map(decode, found))
