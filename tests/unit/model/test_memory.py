"""What a context is in memory: a mapping of live values that knows which keys are unsaved."""

import copy
import json
from collections.abc import MutableMapping

import pytest

from persistent_context import UnserializableValueError


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 1,\n"jobs": [1, 2],\n"deep": {"list": [{"x": 1}]}\n}\n', encoding="utf-8")
    return face.open(path)


class TestGetAndSet:
    def test_get_returns_what_the_file_held(self, ctx):
        """A loaded value is there at once."""

        assert 1 == ctx.get("a")

    def test_get_of_an_absent_key_is_none(self, ctx):
        """Absence reads as None."""

        assert ctx.get("nope") is None

    def test_get_of_an_absent_key_with_a_default(self, ctx):
        """Absence reads as the caller's default."""

        assert 7 == ctx.get("nope", 7)

    def test_get_prefers_a_stored_none_to_the_default(self, ctx):
        """A stored null is a value, no absence."""
        ctx.set("nothing", None)

        assert ctx.get("nothing", 7) is None

    def test_set_is_seen_by_get_at_once(self, ctx):
        """Setting needs no saving to be seen."""
        ctx.set("cursor", 42)

        assert 42 == ctx.get("cursor")

    def test_set_keeps_the_very_object(self, ctx):
        """A value that was set is the live value, no copy."""
        value = {"x": [1]}
        ctx.set("value", value)

        assert value is ctx.get("value")

    def test_get_returns_the_live_value(self, ctx):
        """What get returned may be changed in place and reads changed."""
        ctx.get("jobs").append(3)

        assert [1, 2, 3] == ctx.get("jobs")

    def test_get_returns_the_same_object_each_time(self, ctx):
        """Two gets of a key give one object."""

        assert ctx.get("deep") is ctx.get("deep")

    def test_subscript_get_and_method_get_agree(self, ctx):
        """[] and get() give one object."""

        assert ctx["deep"] is ctx.get("deep")

    def test_set_touches_no_file(self, ctx, path):
        """Memory is memory until it is saved."""
        before = path.read_bytes()
        ctx.set("a", 2)

        assert before == path.read_bytes()

    def test_set_does_not_check_values(self, ctx):
        """A value that JSON cannot hold may stand in memory until it is saved."""
        value = object()
        ctx.set("odd", value)

        assert value is ctx.get("odd")


class TestKeys:
    @pytest.mark.parametrize("key", [1, None, 1.5, True, b"bytes", ("a",)])
    def test_set_refuses_a_key_that_is_no_str(self, ctx, key):
        """A key that JSON cannot hold is refused at once."""
        with pytest.raises(UnserializableValueError):
            ctx.set(key, 1)

    @pytest.mark.parametrize("key", [1, None, b"bytes"])
    def test_refused_keys_are_type_errors(self, ctx, key):
        """Callers who expect a TypeError for a wrong key get one."""
        with pytest.raises(TypeError):
            ctx[key] = 1

    def test_a_refused_key_leaves_memory_as_it_was(self, ctx):
        """A refused key is not there afterwards."""
        with pytest.raises(UnserializableValueError):
            ctx.set(1, "one")

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_update_refuses_a_key_that_is_no_str(self, ctx):
        """No way of setting lets a bad key in."""
        with pytest.raises(UnserializableValueError):
            ctx.update({1: 2})

    def test_setdefault_refuses_a_key_that_is_no_str(self, ctx):
        """No way of setting lets a bad key in."""
        with pytest.raises(UnserializableValueError):
            ctx.setdefault(1, 2)

    def test_get_of_a_key_that_is_no_str_is_absence(self, ctx):
        """Asking for a key that cannot be there is no error."""

        assert ctx.get(1) is None

    def test_a_key_that_is_no_str_is_not_in_it(self, ctx):
        """Membership of a key that cannot be there is False."""

        assert 1 not in ctx

    @pytest.mark.parametrize("key", ["", " ", "a\nb", 'quo"te', "back\\slash", "snow☃", "\x00", "😀", "\u2028"])
    def test_any_text_is_a_key(self, face, ctx, path, key):
        """Every string that UTF-8 can hold comes back as a key."""
        ctx.set(key, "here")
        face.do(ctx.save)

        assert "here" == face.open(path).get(key)


class TestMapping:
    def test_it_is_a_mutable_mapping(self, ctx):
        """Whoever takes any MutableMapping takes a context."""

        assert isinstance(ctx, MutableMapping)

    def test_a_missing_key_raises_key_error(self, ctx):
        """[] of an absent key raises KeyError with the key."""
        with pytest.raises(KeyError) as caught:
            ctx["nope"]

        assert ("nope",) == caught.value.args

    def test_deleting_a_missing_key_raises_key_error(self, ctx):
        """Del of an absent key raises KeyError."""
        with pytest.raises(KeyError):
            del ctx["nope"]

    def test_setting_and_deleting_by_subscript(self, ctx):
        """[]= and del work as in a dict."""
        ctx["b"] = 2
        del ctx["a"]

        assert ["jobs", "deep", "b"] == list(ctx)

    def test_membership(self, ctx):
        """In tells present from absent keys."""

        assert (True, False) == ("a" in ctx, "nope" in ctx)

    def test_len_counts_keys(self, ctx):
        """Len is the number of keys."""
        ctx["b"] = 2

        assert 4 == len(ctx)

    def test_iteration_is_in_the_order_of_the_file(self, ctx):
        """Keys come in insertion order."""

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_new_keys_come_last(self, ctx):
        """A new key goes behind the ones there are."""
        ctx["0"] = 0

        assert ["a", "jobs", "deep", "0"] == list(ctx.keys())

    def test_a_set_key_keeps_its_place(self, ctx):
        """Setting an existing key does not move it."""
        ctx["a"] = 5

        assert ["a", "jobs", "deep"] == list(ctx)

    def test_items_and_values_are_real_values(self, ctx):
        """Items and values hold decoded values, whatever is kept inside."""
        expected = [("a", 1), ("jobs", [1, 2]), ("deep", {"list": [{"x": 1}]})]

        assert (expected, [value for _, value in expected]) == (list(ctx.items()), list(ctx.values()))

    def test_items_are_live(self, ctx):
        """A value that came out of iteration is the live one."""
        dict(ctx.items())["jobs"].append(9)

        assert [1, 2, 9] == ctx["jobs"]

    def test_pop_returns_and_removes(self, ctx):
        """Pop gives the value and forgets the key."""
        popped = ctx.pop("jobs")

        assert ([1, 2], False) == (popped, "jobs" in ctx)

    def test_pop_of_an_absent_key(self, ctx):
        """Pop with a default gives the default; without, KeyError."""
        with pytest.raises(KeyError):
            ctx.pop("nope")

        assert 3 == ctx.pop("nope", 3)

    def test_popitem_removes_one_item(self, ctx):
        """Popitem gives an item that was there, and it is gone."""
        before = ctx.get_all_data()
        key, value = ctx.popitem()

        assert (before[key], False) == (value, key in ctx)

    def test_setdefault_of_a_present_key(self, ctx):
        """Setdefault keeps what is there."""

        assert 1 == ctx.setdefault("a", 9)

    def test_setdefault_of_an_absent_key_gives_the_live_default(self, ctx):
        """Setdefault's new value is live."""
        ctx.setdefault("found", []).append(1)

        assert [1] == ctx["found"]

    def test_update_takes_mappings_pairs_and_keywords(self, ctx):
        """Update works as in a dict."""
        ctx.update({"x": 1})
        ctx.update([("y", 2)], z=3)

        assert (1, 2, 3) == (ctx["x"], ctx["y"], ctx["z"])

    def test_clear_removes_everything(self, ctx):
        """Clear leaves nothing."""
        ctx.clear()

        assert ([], 0) == (list(ctx), len(ctx))

    def test_dict_of_a_context(self, ctx):
        """dict() of a context is a plain dictionary of its values."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}} == dict(ctx)

    def test_unpacking_a_context(self, ctx):
        """** of a context works as of a dict."""

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}, "b": 2} == {**ctx, "b": 2}


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


class TestGetAllData:
    def test_it_holds_everything(self, ctx):
        """The copy equals the memory."""
        ctx.set("b", 2)

        assert {"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}, "b": 2} == ctx.get_all_data()

    def test_it_is_made_of_plain_types(self, ctx):
        """The copy is a plain dict of plain values, all the way down."""
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
        """The copy stays what it was."""
        data = ctx.get_all_data()
        ctx["jobs"].append(99)

        assert [1, 2] == data["jobs"]

    def test_it_shares_nothing_with_a_value_that_was_set(self, ctx):
        """A freshly set value is copied too."""
        value = [[1]]
        ctx.set("value", value)
        ctx.get_all_data()["value"][0].append(2)

        assert [[1]] == value

    def test_it_can_be_dumped(self, ctx):
        """json.dumps takes the copy as it is."""

        assert '{"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}' == json.dumps(ctx.get_all_data())

    def test_it_keeps_the_order(self, ctx):
        """The copy has the order of the memory."""
        ctx.set("0", 0)

        assert ["a", "jobs", "deep", "0"] == list(ctx.get_all_data())


class TestUnsavedKeys:
    def test_nothing_is_unsaved_after_loading(self, ctx):
        """What was just read is saved."""

        assert set() == ctx.unsaved_keys()

    def test_reading_makes_nothing_unsaved(self, ctx):
        """Looking at every value changes none."""
        dict(ctx)
        ctx.get_all_data()

        assert set() == ctx.unsaved_keys()

    def test_a_set_key_is_unsaved(self, ctx):
        """A new value is unsaved."""
        ctx.set("a", 2)

        assert {"a"} == ctx.unsaved_keys()

    def test_a_new_key_is_unsaved(self, ctx):
        """A new key is unsaved."""
        ctx.set("b", 2)

        assert {"b"} == ctx.unsaved_keys()

    def test_a_new_key_with_none_is_unsaved(self, ctx):
        """A new null differs from absence."""
        ctx.set("b", None)

        assert {"b"} == ctx.unsaved_keys()

    def test_a_deleted_key_is_unsaved(self, ctx):
        """A deletion is a change."""
        del ctx["a"]

        assert {"a"} == ctx.unsaved_keys()

    def test_a_value_changed_in_place_is_unsaved(self, ctx):
        """A change in place needs no set."""
        ctx.get("jobs").append(3)

        assert {"jobs"} == ctx.unsaved_keys()

    def test_a_value_changed_far_inside_is_unsaved(self, ctx):
        """A change in place is found however deep it is."""
        ctx.get("deep")["list"][0]["x"] = 2

        assert {"deep"} == ctx.unsaved_keys()

    def test_a_key_set_to_the_value_it_had_is_not_unsaved(self, ctx):
        """Setting the same value changes nothing."""
        ctx.set("a", 1)
        ctx.set("jobs", [1, 2])

        assert set() == ctx.unsaved_keys()

    def test_a_key_changed_and_changed_back_is_not_unsaved(self, ctx):
        """What counts is the difference, not the history."""
        ctx.set("a", 2)
        ctx.get("jobs").append(3)
        ctx.set("a", 1)
        ctx.get("jobs").pop()

        assert set() == ctx.unsaved_keys()

    def test_a_key_added_and_deleted_is_not_unsaved(self, ctx):
        """A key that came and went left no change."""
        ctx.set("b", 2)
        del ctx["b"]

        assert set() == ctx.unsaved_keys()

    def test_a_key_deleted_and_set_again_is_not_unsaved(self, ctx):
        """A key that went and came with its value left no change."""
        del ctx["a"]
        ctx.set("a", 1)

        assert set() == ctx.unsaved_keys()

    def test_a_value_that_cannot_be_saved_is_unsaved(self, ctx):
        """A value that JSON cannot hold is unsaved, and asking raises nothing."""
        ctx.set("odd", object())
        ctx.get("jobs").append({1, 2})

        assert {"odd", "jobs"} == ctx.unsaved_keys()

    def test_a_value_that_contains_itself_is_unsaved(self, ctx):
        """A cycle is unsaved, and asking raises nothing."""
        ctx.get("jobs").append(ctx.get("jobs"))

        assert {"jobs"} == ctx.unsaved_keys()

    def test_nothing_is_unsaved_after_saving(self, face, ctx):
        """Saving saves all."""
        ctx.set("b", 2)
        del ctx["a"]
        ctx.get("jobs").append(3)
        face.do(ctx.save)

        assert set() == ctx.unsaved_keys()

    def test_the_set_is_the_callers_own(self, ctx):
        """Changing the returned set changes nothing."""
        ctx.set("a", 2)
        ctx.unsaved_keys() - {"a"}
        set(ctx.unsaved_keys()).clear()

        assert {"a"} == ctx.unsaved_keys()

    def test_everything_set_before_loading_is_unsaved(self, face, path):
        """A context that has read nothing yet has saved nothing yet."""
        ctx = face.cls(path)
        ctx.set("a", 1)

        assert {"a"} == ctx.unsaved_keys()


class TestExactness:
    @pytest.mark.parametrize(("old", "new"), [
        (1, True), (True, 1), (1, 1.0), (1.0, 1), (1.0, True), (0, False), (False, 0), (0, 0.0), (0, None), ("", None),
        ([1], [True]), ([1], [1.0]), ({"x": 0}, {"x": False}), ("1", 1), ([], {}), (None, False),
    ])  # fmt: skip
    def test_equal_values_of_other_json_are_changes(self, face, ctx, path, old, new):
        """True, 1 and 1.0 are three values: one in place of another is unsaved and is saved."""
        ctx.set("x", old)
        face.do(ctx.save)
        ctx.set("x", new)
        unsaved = ctx.unsaved_keys()
        face.do(ctx.save)

        assert ({"x"}, repr(new)) == (unsaved, repr(face.open(path).get("x")))

    @pytest.mark.parametrize("value", [
        0, -1, 2**53 + 1, 2**63, 2**64, -(2**64), 10**30, 10**4299, -(10**4299), 0.1, -0.0, 1e300, 5e-324, 1e16,
        123456789.123, "", "x", "☃", "😀", "\x00\x1f\x7f", "\u2028\u2029\x85", "</script>", "\\ud800", "NaN", "a\r\nb",
        None, True,
        False, [], {}, [[]], [{}], {"": {}}, [None, True, 1, 1.0, "1"], {"a": {"b": {"c": [1, [2, [3]]]}}},
    ], ids=lambda value: f"{repr(value)[:20]}-{len(repr(value))}")  # fmt: skip
    def test_a_value_comes_back_as_it_was(self, face, path, value):
        """What JSON can hold comes back equal and of the same type."""
        ctx = face.open(path)
        ctx.set("x", value)
        face.do(ctx.save)

        assert repr(value) == repr(face.open(path).get("x"))


class TestIdentityOverSave:
    def test_a_set_object_stays_the_live_one(self, face, ctx):
        """Saving does not exchange the objects that the program holds."""
        value = [1]
        ctx.set("value", value)
        face.do(ctx.save)

        assert value is ctx.get("value")

    def test_a_loaded_object_stays_the_live_one(self, face, ctx):
        """An object that came from the file survives a save of another key."""
        deep = ctx.get("deep")
        ctx.set("a", 2)
        face.do(ctx.save)

        assert deep is ctx.get("deep")

    def test_an_object_changed_in_place_stays_the_live_one(self, face, ctx):
        """Saving a change in place keeps the object."""
        jobs = ctx.get("jobs")
        jobs.append(3)
        face.do(ctx.save)

        assert jobs is ctx.get("jobs")

    def test_an_object_may_be_changed_again_after_a_save(self, face, ctx, path):
        """A reference taken once serves over many saves."""
        jobs = ctx.get("jobs")
        for number in (3, 4, 5):
            jobs.append(number)
            face.do(ctx.save)

        assert [1, 2, 3, 4, 5] == face.open(path).get("jobs")

    def test_an_object_stays_when_others_changed_other_keys(self, face, ctx, path):
        """Others' changes replace only the objects of their keys."""
        deep, jobs = ctx.get("deep"), ctx.get("jobs")
        other = face.open(path)
        other.set("jobs", [9])
        face.do(other.save)
        face.do(ctx.save)

        assert (True, False, [9]) == (deep is ctx.get("deep"), jobs is ctx.get("jobs"), ctx.get("jobs"))

    def test_an_object_stays_when_nothing_changed(self, face, ctx):
        """A save that had nothing to write exchanges nothing."""
        deep = ctx.get("deep")
        face.do(ctx.save)

        assert deep is ctx.get("deep")

    def test_an_object_stays_over_an_atomic_operation_on_another_key(self, face, ctx):
        """An atomic operation keeps the objects of the other keys."""
        deep = ctx.get("deep")
        face.do(ctx.incr, "a")

        assert deep is ctx.get("deep")


class TestLoading:
    def test_load_drops_unsaved_changes(self, face, ctx):
        """After load the memory is what the file holds."""
        ctx.set("a", 2)
        ctx.set("b", 3)
        del ctx["jobs"]
        face.do(ctx.load)

        assert ({"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}, set()) == (dict(ctx), ctx.unsaved_keys())

    def test_load_drops_changes_in_place(self, face, ctx):
        """A change in place does not survive a load."""
        ctx.get("jobs").append(3)
        face.do(ctx.load)

        assert ([1, 2], set()) == (ctx.get("jobs"), ctx.unsaved_keys())

    def test_load_of_a_changed_file_shows_the_change(self, face, ctx, path):
        """Load sees what an editor wrote."""
        path.write_text('{"only": 1}', encoding="utf-8")
        face.do(ctx.load)

        assert {"only": 1} == dict(ctx)

    def test_load_of_a_file_that_is_gone_empties_the_memory(self, face, ctx, path):
        """A missing file loads as nothing."""
        path.unlink()
        face.do(ctx.load)

        assert ({}, set()) == (dict(ctx), ctx.unsaved_keys())
