"""A context's memory: which keys are unsaved, which values count as the same, and which objects stay live."""

import asyncio
import json

import pytest

from persistent_context import MISSING, PersistentContext, SyncPersistentContext
from persistent_context._model.live import LiveDict
from persistent_context._model.memory import Arrival, Differences, Memory
from persistent_context._model.updates import incr
from persistent_context._stores.jsonfile.document import EMPTY


@pytest.fixture
def ctx(face, path):
    """A loaded context over a small file."""
    path.write_text('{\n"a": 1,\n"jobs": [1, 2],\n"deep": {"list": [{"x": 1}]}\n}\n', encoding="utf-8")
    return face.open(path)


FILE = EMPTY.changed({"a": b"1", "b": b"2"})


@pytest.fixture
def memory():
    """A loaded memory."""
    memory = Memory()
    memory.load(1, FILE, LiveDict.of(FILE), memory.now())
    return memory


def increment(memory, key):
    return memory.update("incr", key, incr(key, 1, 0), "mine")


def arrival(position, write, **texts):
    """The outcome of a finished call, with the document that the file then holds."""
    return Arrival(position, FILE.changed(texts), dict.fromkeys(write.keys, write), texts, over=[write])


class TestUnsavedKeys:
    def test_nothing_is_unsaved_after_loading(self, ctx):
        """Values that were just read are not unsaved."""

        assert set() == ctx.unsaved_keys()

    def test_reading_makes_nothing_unsaved(self, ctx):
        """Reading every value makes none of them unsaved."""
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
        """A new null differs from an absent key."""
        ctx.set("b", None)

        assert {"b"} == ctx.unsaved_keys()

    def test_a_deleted_key_is_unsaved(self, ctx):
        """A deleted key is unsaved."""
        del ctx["a"]

        assert {"a"} == ctx.unsaved_keys()

    def test_a_value_changed_in_place_is_unsaved(self, ctx):
        """A change in place is unsaved without a call of `set`."""
        ctx.get("jobs").append(3)

        assert {"jobs"} == ctx.unsaved_keys()

    def test_a_value_changed_far_inside_is_unsaved(self, ctx):
        """A change in place is found at any depth."""
        ctx.get("deep")["list"][0]["x"] = 2

        assert {"deep"} == ctx.unsaved_keys()

    def test_a_key_set_to_the_value_it_had_is_not_unsaved(self, ctx):
        """Setting a key to its current value changes nothing."""
        ctx.set("a", 1)
        ctx.set("jobs", [1, 2])

        assert set() == ctx.unsaved_keys()

    def test_a_key_changed_and_changed_back_is_not_unsaved(self, ctx):
        """Only the difference counts, not the history."""
        ctx.set("a", 2)
        ctx.get("jobs").append(3)
        ctx.set("a", 1)
        ctx.get("jobs").pop()

        assert set() == ctx.unsaved_keys()

    def test_a_key_added_and_deleted_is_not_unsaved(self, ctx):
        """A key that was added and deleted is not a change."""
        ctx.set("b", 2)
        del ctx["b"]

        assert set() == ctx.unsaved_keys()

    def test_a_key_deleted_and_set_again_is_not_unsaved(self, ctx):
        """A key that was deleted and set again to its old value is not a change."""
        del ctx["a"]
        ctx.set("a", 1)

        assert set() == ctx.unsaved_keys()

    def test_a_value_that_cannot_be_saved_is_unsaved(self, ctx):
        """A value that JSON cannot hold is unsaved, and unsaved_keys() does not raise."""
        ctx.set("odd", object())
        ctx.get("jobs").append({1, 2})

        assert {"odd", "jobs"} == ctx.unsaved_keys()

    def test_a_value_that_contains_itself_is_unsaved(self, ctx):
        """A value that contains itself is unsaved, and unsaved_keys() does not raise."""
        ctx.get("jobs").append(ctx.get("jobs"))

        assert {"jobs"} == ctx.unsaved_keys()

    def test_nothing_is_unsaved_after_saving(self, face, ctx):
        """Saving leaves nothing unsaved."""
        ctx.set("b", 2)
        del ctx["a"]
        ctx.get("jobs").append(3)
        face.do(ctx.save)

        assert set() == ctx.unsaved_keys()

    def test_the_set_is_the_callers_own(self, ctx):
        """Changing the returned set changes nothing."""
        ctx.set("a", 2)
        ctx.unsaved_keys().clear()

        assert {"a"} == ctx.unsaved_keys()

    def test_everything_set_before_loading_is_unsaved(self, face, path):
        """A context that has not read its file yet has saved nothing."""
        ctx = face.cls(path)
        ctx.set("a", 1)

        assert {"a"} == ctx.unsaved_keys()


class TestExactness:
    @pytest.mark.parametrize(("old", "new"), [
        (1, True), (True, 1), (1, 1.0), (1.0, 1), (1.0, True), (0, False), (False, 0), (0, 0.0), (0, None), ("", None),
        ([1], [True]), ([1], [1.0]), ({"x": 0}, {"x": False}), ("1", 1), ([], {}), (None, False),
    ])  # fmt: skip
    def test_equal_values_of_other_json_are_changes(self, face, ctx, path, old, new):
        """True, 1 and 1.0 are three values: replacing one by another is unsaved, and is saved."""
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
        """A value that JSON can hold comes back equal and of the same type."""
        ctx = face.open(path)
        ctx.set("x", value)
        face.do(ctx.save)

        assert repr(value) == repr(face.open(path).get("x"))

    def test_a_value_that_json_cannot_hold_stays_in_memory_while_others_are_taken_over(self, tmp_path):
        """A value that cannot be saved is not lost when an atomic call on the same key, in flight, returns."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        bad = {1, 2}

        def function(value):
            ctx["k"] = bad
            return 1

        assert 1 == ctx.mutate("k", function)
        assert (bad, {"k"}) == (ctx["k"], ctx.unsaved_keys())


class TestIdentityOverSave:
    def test_a_set_object_stays_the_live_one(self, face, ctx):
        """Saving does not replace the objects that the program holds."""
        value = [1]
        ctx.set("value", value)
        face.do(ctx.save)

        assert value is ctx.get("value")

    def test_a_loaded_object_stays_the_live_one(self, face, ctx):
        """An object that was read from the file survives a save of another key."""
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
        """A reference taken once stays valid over many saves."""
        jobs = ctx.get("jobs")
        for number in (3, 4, 5):
            jobs.append(number)
            face.do(ctx.save)

        assert [1, 2, 3, 4, 5] == face.open(path).get("jobs")

    def test_an_object_stays_when_others_changed_other_keys(self, face, ctx, path):
        """Taking over others' changes to other keys does not replace a list."""
        deep, jobs = ctx.get("deep"), ctx.get("jobs")
        other = face.open(path)
        other.set("jobs", [9])
        face.do(other.save)
        face.do(ctx.save)

        assert (True, True, [9]) == (deep is ctx.get("deep"), jobs is ctx.get("jobs"), jobs)

    def test_an_object_stays_when_nothing_changed(self, face, ctx):
        """A save without anything to write replaces no object."""
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
        """After load() memory holds what is in the file."""
        ctx.set("a", 2)
        ctx.set("b", 3)
        del ctx["jobs"]
        face.do(ctx.load)

        assert ({"a": 1, "jobs": [1, 2], "deep": {"list": [{"x": 1}]}}, set()) == (dict(ctx), ctx.unsaved_keys())

    def test_load_drops_changes_in_place(self, face, ctx):
        """A change in place does not survive load()."""
        ctx.get("jobs").append(3)
        face.do(ctx.load)

        assert ([1, 2], set()) == (ctx.get("jobs"), ctx.unsaved_keys())

    def test_load_of_a_changed_file_shows_the_change(self, face, ctx, path):
        """load() sees what an editor wrote."""
        path.write_text('{"only": 1}', encoding="utf-8")
        face.do(ctx.load)

        assert {"only": 1} == dict(ctx)

    def test_load_of_a_file_that_is_gone_empties_the_memory(self, face, ctx, path):
        """A missing file loads as an empty dictionary."""
        path.unlink()
        face.do(ctx.load)

        assert ({}, set()) == (dict(ctx), ctx.unsaved_keys())


class TestMemory:
    def test_a_call_that_was_interrupted_before_it_was_noted_ends(self, memory):
        """A call whose key had not been noted yet leaves nothing behind."""
        write = increment(memory, "a")
        memory._flights._flights.clear()
        memory.end(write)

        assert [] == memory._flights.calls()

    def test_a_change_after_a_call_that_is_over_stays(self, memory):
        """A value set after a call stays, even if that call ends before its outcome is taken over."""
        write = increment(memory, "a")
        memory.data["a"] = 1
        memory.end(write)
        memory.absorb(arrival(2, write, a=b"2"))

        assert (1, {"a"}) == (memory.data["a"], memory.unsaved_keys())

    def test_what_arrives_while_another_thread_loads_is_dropped(self, memory, monkeypatch):
        """An outcome that is being taken over while another thread loads the file is dropped."""
        write = memory.save("mine")
        settle = Memory._settle

        def overtaken(self, key, *rest):
            settle(self, key, *rest)
            self.load(5, FILE, LiveDict.of(FILE), self.now())

        monkeypatch.setattr(Memory, "_settle", overtaken)
        memory.absorb(arrival(2, write, a=b"7", b=b"8"))

        assert ({"a": 1, "b": 2}, 5) == (memory.data, memory.position)

    @pytest.mark.parametrize("how", ["set", "deleted"])
    def test_what_a_handler_does_while_many_changes_are_taken_over_stays(self, memory, monkeypatch, how):
        """A key that is set or deleted just before the value from the file replaces it is an unsaved change."""
        take_over_all = LiveDict.take_over_all

        def interrupted(live, texts, gone):
            if how == "set":
                live["a"] = 5
            else:
                del live["a"]
            take_over_all(live, texts, gone)

        monkeypatch.setattr(LiveDict, "take_over_all", interrupted)
        save = memory.save("mine")
        document = FILE.changed({"a": b"7", "b": b"8"})
        memory.absorb(Arrival(2, document, {}, {}, save, Differences.between(FILE, document), over=[save]))

        assert ({"b": 8} | ({"a": 5} if how == "set" else {}), {"a"}) == (memory.data, memory.unsaved_keys())
        assert [] == memory._flights.calls()

    def test_a_call_is_over_when_its_outcome_has_arrived(self, memory):
        """A call is over when its outcome has arrived, even before its caller learns of it."""
        write = increment(memory, "a")
        memory.absorb(arrival(2, write, a=b"2"))

        assert ([], []) == (memory._flights.calls(), memory._flights.keys())

    def test_a_deletion_after_an_outcome_that_could_not_be_taken_over_is_saved(self, memory):
        """Memory knows that the key is in the file, even when no call on it is in flight any more."""
        memory.data["k"] = [1]
        one, two = memory.save("mine"), memory.save("mine")
        memory.data["k"].append(object())
        memory.absorb(arrival(2, one, k=b"[1]"))
        del memory.data["k"]
        memory.end(two)

        assert (b"[1]", MISSING) == memory.save("mine").unsaved["k"][:2]

    def test_an_outcome_that_could_not_be_taken_over_does_not_outlive_a_load(self, memory):
        """What was loaded is newer."""
        memory.data["a"] = [1]
        save = memory.save("mine")
        memory.data["a"].append(object())
        memory.absorb(arrival(2, save, a=b"[0, 1]"))
        document = FILE.changed({"a": b"[0, 1, 2]"})
        memory.load(2, document, LiveDict.of(document), memory.now())
        memory.data["a"].append(3)

        assert (b"[0, 1, 2]", b"[0, 1, 2, 3]") == memory.save("mine").unsaved["a"][:2]


class TestAFileThatIsGone:
    """A save writes all of memory: what is known of the keys since the last whole look at the file, as well."""

    def test_after_a_conflict_that_a_call_has_settled(self, face, path):
        """The outcome of that call is newer than what others wrote."""
        path.write_text('{"n": 0}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        ctx["n"] = 5
        face.do(other.incr, "n", 7)
        face.do(ctx.refresh)
        assert 6 == face.do(ctx.incr, "n")
        path.unlink()
        face.do(ctx.save)

        assert {"n": 6} == json.loads(path.read_text(encoding="utf-8"))

    def test_after_a_conflict(self, face, path):
        """A key that is set back to its old value gives way to what others wrote."""
        path.write_text('{"n": 0}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        ctx["n"] = 5
        face.do(other.incr, "n", 7)
        face.do(ctx.refresh)
        ctx["n"] = 0
        path.unlink()
        face.do(ctx.save)

        assert {"n": 7} == json.loads(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("item", ["a", "conflict"])
    async def test_after_an_outcome_that_could_not_be_taken_over(self, path, item):
        """It is taken over when JSON can hold memory's value again."""
        path.write_text('{"list": ["a"]}', encoding="utf-8")
        ctx, other = [await PersistentContext.create(path) for _ in range(2)]
        ctx["list"][:] = [item, "mine"]
        await other.append("list", "theirs")
        if item == "conflict":
            await ctx.refresh()
        calling = asyncio.create_task(ctx.append("list", "called"))
        await asyncio.sleep(0)
        ctx["list"].append(object())
        await calling
        ctx["list"].pop()
        path.unlink()
        await ctx.save()

        expected = ["a", "theirs", "mine", "called"] if item == "a" else ["conflict", "mine", "called"]
        assert {"list": expected} == json.loads(path.read_text(encoding="utf-8")) == dict(ctx)


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"x": 1, "y": 2}', {"y": 2, "x": 1}), ("1e0", 1.0), ('"\\u0061"', "a"), ("[ 1,2 ]", [1, 2])],
    ids=["order of keys", "number", "escape", "spaces"],
)
class TestTheSameValue:
    """Each text is on a line of its own, as the library would write it, but spelled differently."""

    @pytest.fixture
    def ctx(self, face, path, text):
        """A context on a file that contains the text."""
        path.write_text(f'{{\n"k": {text}\n}}\n', encoding="utf-8")
        return face.open(path, on_conflict="raise")

    def test_setting_it_is_not_a_change(self, face, ctx, path, value, text):
        """A key that is set to its current value is not unsaved, and saving leaves the file alone."""
        before = path.read_bytes()
        ctx.set("k", value)
        unsaved = ctx.unsaved_keys()
        face.do(ctx.save)

        assert (set(), before) == (unsaved, path.read_bytes())

    def test_others_writing_it_is_not_a_conflict(self, face, ctx, path, value, text):
        """Spelling a value differently is not a change, so it does not conflict with a real change."""
        path.write_text(f'{{"k": {json.dumps(value)}}}', encoding="utf-8")
        ctx.set("k", "mine")
        face.do(ctx.save)

        assert {"k": "mine"} == json.loads(path.read_text(encoding="utf-8"))

    def test_it_is_the_expected_one(self, face, ctx, path, value, text):
        """compare_and_set finds the value that it expects."""
        assert face.do(ctx.compare_and_set, "k", value, "new")
