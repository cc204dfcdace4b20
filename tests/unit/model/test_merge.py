"""Merging key by key: others' changes are kept, and the policy decides when both sides changed the same key."""

import asyncio
import json
import os

import pytest

from persistent_context import (
    MISSING,
    ConflictError,
    PersistentContext,
    SyncPersistentContext,
    UnserializableValueError,
)


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def identity(path):
    """Return what distinguishes one write of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


@pytest.fixture
def quarrel(face, path):
    """A context that has set ``mine`` where another has just saved ``theirs``; MISSING means an absent key."""

    def begin(on_conflict, base=1, mine=3, theirs=2):
        path.write_text(json.dumps({"x": 0} if base is MISSING else {"x": 0, "a": base}), encoding="utf-8")
        ctx, other = face.open(path, on_conflict=on_conflict), face.open(path)
        for one, value in ((other, theirs), (ctx, mine)):
            if value is MISSING:
                del one["a"]
            else:
                one["a"] = value
        other.set("theirs", True)
        face.do(other.save)
        return ctx

    return begin


class Decider:
    """A function for ``on_conflict`` that records its calls."""

    def __init__(self, result):
        """Always answer ``result``."""
        self.result = result
        self.asked = []

    def __call__(self, key, base, mine, theirs):
        """Record the call and answer."""
        self.asked.append((key, base, mine, theirs))
        return self.result


class TestMine:
    def test_it_is_the_default(self, face, path):
        """Without a policy, the last writer wins."""
        ctx, other = face.open(path), face.open(path)
        for one, value in ((other, "theirs"), (ctx, "mine")):
            one.set("a", value)
            face.do(one.save)

        assert {"a": "mine"} == stored(path)

    def test_my_change_wins(self, face, path, quarrel):
        """My value of a key wins; others' changes to other keys are kept."""
        ctx = quarrel("mine")
        face.do(ctx.save)

        assert ({"x": 0, "a": 3, "theirs": True}, 3, set()) == (stored(path), ctx["a"], ctx.unsaved_keys())

    def test_my_deletion_wins(self, face, path, quarrel):
        """A key that I deleted is gone, even if others changed it."""
        ctx = quarrel("mine", mine=MISSING)
        face.do(ctx.save)

        assert ({"x": 0, "theirs": True}, False) == (stored(path), "a" in ctx)

    def test_my_change_wins_over_their_deletion(self, face, path, quarrel):
        """A key that I changed comes back, even if others deleted it."""
        ctx = quarrel("mine", theirs=MISSING)
        face.do(ctx.save)

        assert (3, 3) == (stored(path)["a"], ctx["a"])

    def test_my_addition_wins(self, face, path, quarrel):
        """When two contexts add a key, the later value wins."""
        ctx = quarrel("mine", base=MISSING)
        face.do(ctx.save)

        assert (3, 3) == (stored(path)["a"], ctx["a"])

    def test_a_change_in_place_wins(self, face, path):
        """A change in place wins like any other change."""
        path.write_text('{"a": [1]}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other["a"][0] = "theirs"
        ctx["a"][0] = "mine"
        face.do(other.save)
        face.do(ctx.save)

        assert {"a": ["mine"]} == stored(path)


class TestTheirs:
    def test_their_change_wins(self, face, path, quarrel):
        """The value that others saved first wins, in the file and in memory."""
        ctx = quarrel("theirs")
        face.do(ctx.save)

        assert ({"x": 0, "a": 2, "theirs": True}, 2, set()) == (stored(path), ctx["a"], ctx.unsaved_keys())

    def test_their_deletion_wins(self, face, path, quarrel):
        """A key that others deleted stays deleted."""
        ctx = quarrel("theirs", theirs=MISSING)
        face.do(ctx.save)

        assert ({"x": 0, "theirs": True}, False, set()) == (stored(path), "a" in ctx, ctx.unsaved_keys())

    def test_their_change_wins_over_my_deletion(self, face, path, quarrel):
        """A key that I deleted and others changed comes back into memory."""
        ctx = quarrel("theirs", mine=MISSING)
        face.do(ctx.save)

        assert (2, 2, set()) == (stored(path)["a"], ctx["a"], ctx.unsaved_keys())

    def test_what_only_i_changed_is_written(self, face, path, quarrel):
        """Giving way in one key does not give up the changes to others."""
        ctx = quarrel("theirs")
        ctx.set("x", 5)
        ctx.set("new", 6)
        face.do(ctx.save)

        assert {"x": 5, "a": 2, "theirs": True, "new": 6} == stored(path)

    def test_giving_way_alone_writes_nothing(self, face, path, quarrel):
        """When all of my changes give way, the file is not written."""
        ctx = quarrel("theirs")
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_the_next_change_is_not_a_conflict(self, face, path, quarrel):
        """After giving way, the base is their value."""
        ctx = quarrel("theirs")
        face.do(ctx.save)
        ctx.set("a", 9)
        face.do(ctx.save)

        assert 9 == stored(path)["a"]


class TestRaise:
    @pytest.mark.parametrize(("base", "mine", "theirs"), [
        (1, 3, 2), (1, MISSING, 2), (1, 3, MISSING), (MISSING, 3, 2), (1, True, 1.0), ([1], [2], [1, 3]),
    ])  # fmt: skip
    def test_a_conflict_raises(self, face, quarrel, base, mine, theirs):
        """Any two different changes to a key conflict, and the error names the key."""
        ctx = quarrel("raise", base, mine, theirs)
        with pytest.raises(ConflictError) as caught:
            face.do(ctx.save)

        assert ["a"] == sorted(caught.value.keys)

    def test_all_keys_are_named(self, face, path):
        """The error names every key in conflict, and no others."""
        path.write_text('{"a": 1, "b": 1, "c": 1, "d": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        other.update(a=2, b=2, c=2)
        ctx.update(b=3, c=3, d=3)
        face.do(other.save)
        with pytest.raises(ConflictError) as caught:
            face.do(ctx.save)

        assert ["b", "c"] == sorted(caught.value.keys)

    def test_the_error_says_where_and_what(self, face, path, quarrel):
        """The error has the path of the file, and its message names the file and the key."""
        ctx = quarrel("raise")
        with pytest.raises(ConflictError) as caught:
            face.do(ctx.save)

        assert (str(path), True, True) == (
            str(caught.value.filepath),
            "state.json" in str(caught.value),
            "a" in str(caught.value).replace("state.json", ""),
        )

    def test_nothing_is_written(self, face, path, quarrel):
        """Nothing is written, not even the changes without a conflict."""
        ctx = quarrel("raise")
        ctx.set("new", 1)
        before = identity(path)
        with pytest.raises(ConflictError):
            face.do(ctx.save)

        assert before == identity(path)

    def test_all_changes_stay_unsaved(self, face, quarrel):
        """Memory keeps all changes, unsaved."""
        ctx = quarrel("raise")
        ctx.set("new", 1)
        with pytest.raises(ConflictError):
            face.do(ctx.save)

        assert (3, 1, {"a", "new"}) == (ctx["a"], ctx["new"], ctx.unsaved_keys())

    def test_it_raises_again(self, face, quarrel):
        """Trying again does not resolve a conflict."""
        ctx = quarrel("raise")
        for _ in range(2):
            with pytest.raises(ConflictError) as caught:
                face.do(ctx.save)

        assert ["a"] == sorted(caught.value.keys)

    def test_loading_resolves_it(self, face, path, quarrel):
        """After loading and deciding again, the save succeeds."""
        ctx = quarrel("raise")
        with pytest.raises(ConflictError):
            face.do(ctx.save)
        face.do(ctx.load)
        ctx.set("a", 3)
        face.do(ctx.save)

        assert {"x": 0, "a": 3, "theirs": True} == stored(path)

    def test_setting_the_same_value_resolves_it(self, face, path, quarrel):
        """After setting the others' value, the save succeeds."""
        ctx = quarrel("raise")
        with pytest.raises(ConflictError):
            face.do(ctx.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert (2, set()) == (stored(path)["a"], ctx.unsaved_keys())

    def test_changes_of_different_keys_are_not_a_conflict(self, face, path):
        """Changes to different keys do not conflict."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        other.set("a", 2)
        ctx.set("b", 2)
        face.do(other.save)
        face.do(ctx.save)

        assert {"a": 2, "b": 2} == stored(path)

    def test_a_change_there_and_back_is_not_a_conflict(self, face, path):
        """A value that others changed and changed back is not a change."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for value in (2, 1):
            other.set("a", value)
            face.do(other.save)
        ctx.set("a", 3)
        face.do(ctx.save)

        assert {"a": 3} == stored(path)


class TestAFunction:
    @pytest.mark.parametrize(("base", "mine", "theirs"), [
        (1, 3, 2), (1, MISSING, 2), (1, 3, MISSING), (MISSING, 3, 2), ([1], [2], [1, 3]), (None, 3, 2),
    ])  # fmt: skip
    def test_it_is_asked_with_all_three_values(self, face, quarrel, base, mine, theirs):
        """The function gets key, base, mine and theirs; MISSING means an absent key."""
        decide = Decider("decided")
        face.do(quarrel(decide, base, mine, theirs).save)

        assert [("a", base, mine, theirs)] == decide.asked

    def test_its_answer_is_written(self, face, path, quarrel):
        """The function's result is in the file and in memory, saved."""
        ctx = quarrel(Decider({"both": [3, 2]}))
        face.do(ctx.save)

        assert ({"x": 0, "a": {"both": [3, 2]}, "theirs": True}, {"both": [3, 2]}, set()) == (
            stored(path),
            ctx["a"],
            ctx.unsaved_keys(),
        )

    def test_missing_deletes(self, face, path, quarrel):
        """MISSING as the result deletes the key, in the file and in memory."""
        ctx = quarrel(Decider(MISSING))
        face.do(ctx.save)

        assert ({"x": 0, "theirs": True}, False, set()) == (stored(path), "a" in ctx, ctx.unsaved_keys())

    def test_it_is_not_asked_without_a_conflict(self, face, path):
        """Without a conflict, the function is not called."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        decide = Decider("decided")
        ctx, other = face.open(path, on_conflict=decide), face.open(path)
        other.update(a=2, c=3)
        ctx.update(b=2, c=3)
        face.do(other.save)
        face.do(ctx.save)

        assert ([], {"a": 2, "b": 2, "c": 3}) == (decide.asked, stored(path))

    def test_it_is_asked_for_each_key_once(self, face, path):
        """The function is called once for each key in conflict."""
        path.write_text('{"a": 1, "b": 1, "c": 1}', encoding="utf-8")
        decide = Decider(0)
        ctx, other = face.open(path, on_conflict=decide), face.open(path)
        other.update(a=2, b=2)
        ctx.update(a=3, b=3, c=3)
        face.do(other.save)
        face.do(ctx.save)

        assert [("a", 1, 3, 2), ("b", 1, 3, 2)] == sorted(decide.asked)

    def test_it_may_merge_lists(self, face, path):
        """The three values suffice for a custom merge of lists."""
        path.write_text('{"a": [1, 2]}', encoding="utf-8")

        def merge(_key, base, mine, theirs):
            return theirs + [item for item in mine if item not in base]

        ctx, other = face.open(path, on_conflict=merge), face.open(path)
        other["a"].append("theirs")
        ctx["a"].append("mine")
        face.do(other.save)
        face.do(ctx.save)

        assert ({"a": [1, 2, "theirs", "mine"]}, [1, 2, "theirs", "mine"]) == (stored(path), ctx["a"])

    def test_it_may_change_its_arguments_in_place(self, face, path):
        """A function may change its arguments in place and return one of them."""
        path.write_text('{"a": [1]}', encoding="utf-8")

        def merge(_key, base, mine, theirs):
            theirs.extend(mine[len(base) :])
            base.clear()
            return theirs

        ctx, other = face.open(path, on_conflict=merge), face.open(path)
        other["a"].append("theirs")
        ctx["a"].append("mine")
        face.do(other.save)
        face.do(ctx.save)

        assert ({"a": [1, "theirs", "mine"]}, [1, "theirs", "mine"], set()) == (
            stored(path),
            ctx["a"],
            ctx.unsaved_keys(),
        )

    def test_its_exception_is_raised(self, face, path, quarrel):
        """The save raises the function's own exception; nothing is written, and all changes stay unsaved."""

        def decide(key, base, mine, theirs):
            raise LookupError("undecided")

        ctx = quarrel(decide)
        ctx.set("new", 1)
        before = identity(path)
        with pytest.raises(LookupError, match="undecided"):
            face.do(ctx.save)

        assert (before, {"a", "new"}, 3) == (identity(path), ctx.unsaved_keys(), ctx["a"])

    def test_its_exception_leaves_the_lock_free(self, face, path, quarrel):
        """After the function raised, others can save."""

        def decide(key, base, mine, theirs):
            raise LookupError("undecided")

        ctx = quarrel(decide)
        with pytest.raises(LookupError):
            face.do(ctx.save)

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")

    def test_an_answer_that_json_cannot_hold(self, face, path, quarrel):
        """A result that JSON cannot hold is refused like any other value."""
        ctx = quarrel(Decider({1, 2}))
        before = identity(path)
        with pytest.raises(UnserializableValueError):
            face.do(ctx.save)

        assert (before, {"a"}, 3) == (identity(path), ctx.unsaved_keys(), ctx["a"])

    def test_its_answer_is_not_tied_to_the_file_of_others(self, face, path, quarrel):
        """Changing the result in place afterwards is an unsaved change."""
        ctx = quarrel(Decider([1]))
        face.do(ctx.save)
        ctx["a"].append(2)

        assert ({"a"}, [1]) == (ctx.unsaved_keys(), stored(path)["a"])


class TestMerging:
    def test_both_contexts_keys_are_kept(self, face, path):
        """Two contexts that set different keys lose neither."""
        ctx, other = face.open(path), face.open(path)
        ctx.set("a", 1)
        other.set("b", 2)
        face.do(other.save)
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, {"a": 1, "b": 2}) == (stored(path), dict(ctx))

    def test_a_key_that_others_changed_is_kept(self, face, path):
        """Saving writes only what this context changed."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("b", 2)
        face.do(other.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2, "b": 2} == stored(path)

    def test_memory_takes_over_what_others_changed(self, face, path):
        """After a save, memory is the merged state, with nothing unsaved."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("b", 2)
        other.set("c", 3)
        face.do(other.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert ({"a": 2, "b": 2, "c": 3}, set()) == (dict(ctx), ctx.unsaved_keys())

    def test_my_deletion_is_merged(self, face, path):
        """A key that this context deleted is gone, and no other is."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("c", 3)
        face.do(other.save)
        del ctx["a"]
        face.do(ctx.save)

        assert ({"b": 1, "c": 3}, {"b": 1, "c": 3}) == (stored(path), dict(ctx))

    def test_others_deletion_is_merged(self, face, path):
        """A key that another context deleted does not come back."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        del other["a"]
        face.do(other.save)
        ctx.set("c", 3)
        face.do(ctx.save)

        assert ({"b": 1, "c": 3}, {"b": 1, "c": 3}) == (stored(path), dict(ctx))

    @pytest.mark.parametrize("value", [2, [1, {"x": 1}], None], ids=repr)
    def test_the_same_change_on_both_sides_is_not_a_conflict(self, face, path, value):
        """Two contexts that set the same value do not conflict."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for one in (other, ctx):
            one.set("a", value)
            face.do(one.save)

        assert ({"a": value}, set()) == (stored(path), ctx.unsaved_keys())

    def test_the_same_deletion_on_both_sides_is_not_a_conflict(self, face, path):
        """Two contexts that delete the same key do not conflict."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for one in (other, ctx):
            del one["a"]
            face.do(one.save)

        assert ({"b": 1}, set()) == (stored(path), ctx.unsaved_keys())

    def test_changes_that_met_in_turn_all_stay(self, face, path):
        """A long exchange between three contexts loses nothing."""
        contexts = [face.open(path) for _ in range(3)]
        for turn in range(4):
            for number, ctx in enumerate(contexts):
                ctx.set(f"{number}-{turn}", turn)
                face.do(ctx.save)

        assert {f"{number}-{turn}" for number in range(3) for turn in range(4)} == set(stored(path))

    def test_the_two_faces_share_a_file(self, path):
        """Each face merges with what the other saved."""
        worker = SyncPersistentContext.create(path)
        worker.set("sync", 1)

        async def save_between():
            ctx = await PersistentContext.create(path)
            worker.save()
            ctx.set("async", 2)
            await ctx.save()
            return dict(ctx)

        assert {"sync": 1, "async": 2} == asyncio.run(save_between())

    def test_changes_of_a_program_without_this_library_are_merged(self, face, path):
        """A change that an editor wrote between load and save is kept."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 2)
        path.write_text('{"a": 1, "edited": true}', encoding="utf-8")
        face.do(ctx.save)

        assert {"a": 2, "edited": True} == stored(path)

    def test_a_rewrite_that_keeps_inode_size_and_time_is_seen(self, face, path):
        """An unchanged inode, size and mtime do not prove that the file is unchanged."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx = face.open(path)
        status = path.stat()
        with path.open("r+", encoding="utf-8") as file:
            file.write('{"a": 1, "b": 2}')
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        ctx.set("a", 5)
        face.do(ctx.save)

        assert {"a": 5, "b": 2} == stored(path)


@pytest.mark.parametrize("policy", ["mine", "theirs", "raise"])
class TestABadValueThatIsCorrected:
    """A value that JSON cannot hold is in memory while others change the key: once it is corrected, both are merged."""

    def test_after_a_refresh(self, face, path, policy):
        """Refreshing takes nothing over into it, so their change is not taken for one that was undone here."""
        path.write_text('{"jobs": {"a": 1}, "list": ["a"]}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict=policy), face.open(path)
        other["jobs"]["b"] = 2
        other["list"].append("theirs")
        face.do(other.save)
        ctx["jobs"]["c"] = object()
        ctx["list"].append(object())
        face.do(ctx.refresh)
        face.do(ctx.refresh)
        with pytest.raises(UnserializableValueError):
            face.do(ctx.save)
        ctx["jobs"]["c"] = 3
        ctx["list"][-1] = "mine"
        face.do(ctx.save)

        assert {"jobs": {"a": 1, "b": 2, "c": 3}, "list": ["a", "theirs", "mine"]} == stored(path) == dict(ctx)
        assert (set(), 0) == (ctx.unsaved_keys(), ctx.statistics().conflicts)

    def test_after_atomic_operations(self, face, path, policy):
        """Neither another context's nor those of this one on other keys."""
        path.write_text('{"jobs": {"a": 1}, "n": 0}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict=policy), face.open(path)
        ctx["jobs"]["c"] = object()
        for value in (2, 3):
            face.do(other.mutate, "jobs", lambda jobs, value=value: jobs | {"b": value})
            face.do(ctx.incr, "n")
        ctx["jobs"]["c"] = 3
        face.do(ctx.save)

        assert {"jobs": {"a": 1, "b": 3, "c": 3}, "n": 2} == stored(path) == dict(ctx)

    @pytest.mark.parametrize("key", ["jobs", "n"])
    async def test_while_a_save_is_in_flight(self, path, policy, key):
        """Nor does the save itself, of this key or of another one."""
        path.write_text('{"jobs": {"a": 1}, "n": {}}', encoding="utf-8")
        ctx, other = [await PersistentContext.create(path, on_conflict=policy) for _ in range(2)]
        other["jobs"]["b"] = 2
        await other.save()
        ctx[key]["m"] = 4
        saving = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["jobs"]["c"] = object()
        await saving
        assert {"a": 1, "b": 2} == {name: stored(path)["jobs"][name] for name in "ab"}
        ctx["jobs"]["c"] = 3
        await ctx.save()

        added = {"m": 4}
        assert {"a": 1, "b": 2, "c": 3} | (added if key == "jobs" else {}) == stored(path)["jobs"] == ctx["jobs"]
        assert added.items() <= stored(path)[key].items()

    @pytest.mark.parametrize("call", ["save", "refresh"])
    async def test_a_list_while_saves_are_in_flight(self, path, policy, call):
        """It has what others appended, and what the saves include, once."""
        path.write_text('{"list": ["a"]}', encoding="utf-8")
        ctx, other = [await PersistentContext.create(path, on_conflict=policy) for _ in range(2)]
        items, saves = ctx["list"], []
        await other.append("list", "theirs")
        for item in ("one", "two", object()):
            items.append(item)
            saves.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
        *_, error = await asyncio.gather(*saves, return_exceptions=True)
        assert {"list": ["a", "theirs", "one", "two"]} == stored(path)
        items[-1] = "mine"
        await getattr(ctx, call)()

        assert ["a", "theirs", "one", "two", "mine"] == items
        await ctx.save()
        assert {"list": items} == stored(path) == dict(ctx)
        assert (set(), 0, True) == (ctx.unsaved_keys(), ctx.statistics().conflicts, items is ctx["list"])
        assert isinstance(error, UnserializableValueError)

    async def test_removing_it_leaves_nothing_unsaved(self, path, policy):
        """Without the bad item, the list is what the save in flight included."""
        ctx, other = [await PersistentContext.create(path, on_conflict=policy) for _ in range(2)]
        await other.append("list", "theirs")
        ctx["list"] = ["mine"]
        saving = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx["list"].append(object())
        await saving
        ctx["list"].pop()

        assert set() == ctx.unsaved_keys()
        await ctx.refresh()
        assert stored(path) == dict(ctx)

    async def test_in_a_transaction_of_the_same_context(self, path, policy):
        """A transaction that commits the key takes its change into account."""
        path.write_text('{"jobs": {"a": 1}}', encoding="utf-8")
        ctx = await PersistentContext.create(path, on_conflict=policy)
        async with ctx.transaction() as tx:
            tx["jobs"]["b"] = 2
            ctx.get("jobs")["c"] = object()
        ctx["jobs"]["c"] = 3
        await ctx.save()

        assert {"a": 1, "b": 2, "c": 3} == stored(path)["jobs"]


class TestInsideValues:
    """Two contexts change the same key at different places: nothing is lost, whatever the policy."""

    @pytest.fixture(params=["mine", "theirs", "raise", Decider("decided")], ids=["mine", "theirs", "raise", "function"])
    def two(self, request, face, path):
        """Two contexts on one file."""
        path.write_text('{"jobs": [1], "cfg": {"a": {"x": 1}, "gone": 1}}', encoding="utf-8")
        return [face.open(path, on_conflict=request.param) for _ in range(2)]

    def test_both_fill_an_object(self, face, path, two):
        """Both contexts' keys are kept, at any depth."""
        for number, ctx in enumerate(two):
            ctx["cfg"]["a"][f"new-{number}"] = number
            face.do(ctx.save)

        assert {"x": 1, "new-0": 0, "new-1": 1} == stored(path)["cfg"]["a"] == two[1]["cfg"]["a"]

    @pytest.mark.parametrize("first", [0, 1])
    def test_one_deletes_where_the_other_adds(self, face, path, two, first):
        """Both changes are kept, whichever is saved first."""
        del two[0]["cfg"]["gone"]
        two[1]["cfg"]["new"] = 1
        face.do(two[first].save)
        face.do(two[1 - first].save)

        assert {"a": {"x": 1}, "new": 1} == stored(path)["cfg"]

    def test_both_append(self, face, path, two):
        """Both items are kept, theirs before mine."""
        two[0]["jobs"].append("theirs")
        two[1]["jobs"].append("mine")
        for ctx in two:
            face.do(ctx.save)

        assert [1, "theirs", "mine"] == stored(path)["jobs"] == two[1]["jobs"]
        assert set() == two[1].unsaved_keys()

    def test_equal_items_are_two_items(self, face, path, two):
        """When both contexts append the same value, the list has it twice."""
        for ctx in two:
            ctx["jobs"].append("same")
            face.do(ctx.save)

        assert [1, "same", "same"] == stored(path)["jobs"] == two[1]["jobs"]

    def test_equal_items_stay_two_after_a_refresh(self, face, path, two):
        """A refresh that finds the value of memory in the file keeps the items that memory appended unsaved."""
        for ctx in two:
            ctx["jobs"].append("same")
            ctx["cfg"]["log"] = ["same"]
        face.do(two[0].save)
        face.do(two[1].refresh)

        assert [1, "same", "same"] == two[1]["jobs"]
        assert {"jobs"} == two[1].unsaved_keys()  # a list that both begin alike is one

        face.do(two[1].save)

        assert ([1, "same", "same"], ["same"]) == (stored(path)["jobs"], stored(path)["cfg"]["log"])

    def test_both_begin_an_object_and_a_list(self, face, path, two):
        """Objects and lists that both contexts create are merged."""
        for number, ctx in enumerate(two):
            ctx.setdefault("workers", {})[f"w{number}"] = "up"
            ctx.setdefault("log", []).append(number)
            face.do(ctx.save)

        assert ({"w0": "up", "w1": "up"}, [0, 1]) == (stored(path)["workers"], stored(path)["log"])

    def test_an_atomic_call_takes_the_change_along(self, face, path, two):
        """An atomic call merges the unsaved change of its key in the same way."""
        two[0]["jobs"].append(2)
        two[1]["jobs"].append(3)
        face.do(two[0].save)

        assert 4 == face.do(two[1].append, "jobs", 4)
        assert [1, 2, 3, 4] == stored(path)["jobs"] == two[1]["jobs"]

    def test_a_transaction_takes_the_change_along(self, face, path, two):
        """A transaction merges the unsaved change when it touches the key."""
        two[0]["jobs"].append(2)
        two[1]["jobs"].append(3)
        face.do(two[0].save)
        face.inside(two[1].transaction, lambda tx: tx["jobs"].append(4))

        assert [1, 2, 3, 4] == stored(path)["jobs"] == two[1]["jobs"]

    def test_references_show_what_others_added(self, face, path, two):
        """Lists and dictionaries stay the same objects, and changing them later is saved."""
        jobs, a = two[1]["jobs"], two[1]["cfg"]["a"]
        two[0]["jobs"].append(2)
        two[0]["cfg"]["a"]["y"] = 2
        face.do(two[0].save)
        face.do(two[1].save)
        jobs.append(3)
        a["z"] = 3
        face.do(two[1].save)

        assert {"jobs": [1, 2, 3], "cfg": {"a": {"x": 1, "y": 2, "z": 3}, "gone": 1}} == stored(path)

    def test_items_that_are_equal_stay_the_same_objects(self, face, two):
        """Equal items stay the same objects when the list around them changes."""
        two[1]["jobs"].append({"id": 5})
        item = two[1]["jobs"][1]
        two[0]["jobs"].append({"id": 4})
        face.do(two[0].save)
        face.do(two[1].save)

        assert ([1, {"id": 4}, {"id": 5}], True) == (two[1]["jobs"], item is two[1]["jobs"][2])


class TestPlaces:
    """Conflicts inside values."""

    def quarrel(self, face, path, **options):
        """A context whose changes conflict with those that another context has saved."""
        path.write_text('{"cfg": {"a": 1, "b": {"c": 1}, "d": 1}, "n": 1}', encoding="utf-8")
        ctx, other = face.open(path, **options), face.open(path)
        for number, one in enumerate((other, ctx)):
            one["cfg"].update(a=f"a-{number}", b={"c": f"c-{number}"}, **{f"new-{number}": 1})
            one["n"] = f"n-{number}"
        face.do(other.save)
        return ctx

    @pytest.mark.parametrize(("policy", "kept"), [("mine", 1), ("theirs", 0)])
    def test_a_policy_settles_places(self, face, path, policy, kept):
        """The policy decides the places in conflict and nothing else."""
        ctx = self.quarrel(face, path, on_conflict=policy)
        face.do(ctx.save)
        cfg = {"a": f"a-{kept}", "b": {"c": f"c-{kept}"}, "d": 1, "new-0": 1, "new-1": 1}

        assert {"cfg": cfg, "n": f"n-{kept}"} == stored(path) == dict(ctx)

    @pytest.mark.parametrize("policy", ["mine", "theirs"])
    def test_they_are_counted_and_logged(self, face, path, caplog, policy):
        """Each conflict is counted, and its path is logged at INFO."""
        ctx = self.quarrel(face, path, on_conflict=policy)
        before = ctx.statistics().conflicts
        with caplog.at_level("INFO", "persistent_context"):
            face.do(ctx.save)
        [record] = [record for record in caplog.records if "conflict" in record.getMessage()]

        assert 3 == ctx.statistics().conflicts - before
        assert '["cfg"]["a"], ["cfg"]["b"]["c"], ["n"]' in record.getMessage()
        assert str(path) in record.getMessage()

    def test_only_some_of_many_are_logged(self, face, path, caplog):
        """The log line stays short: it lists ten conflicts and counts the rest."""
        path.write_text(json.dumps({"cfg": dict.fromkeys(map(str, range(50)), 0)}), encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        for number, one in enumerate((other, ctx), 1):
            one["cfg"] = dict.fromkeys(map(str, range(50)), number)
        face.do(other.save)
        with caplog.at_level("INFO", "persistent_context"):
            face.do(ctx.save)
        [record] = [record for record in caplog.records if "conflict" in record.getMessage()]

        assert (True, 10) == (record.getMessage().endswith(" and 40 more"), record.getMessage().count('["cfg"]'))

    def test_what_failed_is_not_counted(self, face, path):
        """An atomic call that refuses the merged value settles no conflict."""
        ctx = self.quarrel(face, path)
        before = ctx.statistics().conflicts
        with pytest.raises(TypeError):
            face.do(ctx.incr, "n")

        assert before == ctx.statistics().conflicts

    def test_a_transaction_counts_them_when_it_commits(self, face, path):
        """A transaction counts conflicts when it commits, and not when it touches the key."""
        ctx = self.quarrel(face, path)
        before = ctx.statistics().conflicts
        face.inside(ctx.transaction, lambda tx: tx["cfg"])

        assert 2 == ctx.statistics().conflicts - before

    def test_an_error_names_them(self, face, path):
        """The error names both the keys and the places inside them."""
        ctx = self.quarrel(face, path, on_conflict="raise")
        with pytest.raises(ConflictError) as caught:
            face.do(ctx.save)

        assert ({"cfg", "n"}, ('["cfg"]["a"]', '["cfg"]["b"]["c"]', '["n"]')) == (
            set(caught.value.keys),
            tuple(sorted(caught.value.places)),
        )
        assert '["cfg"]["b"]["c"]' in str(caught.value)

    def test_a_function_is_asked_for_the_whole_key(self, face, path):
        """The function gets the whole values, and its result becomes the value of the key."""
        decide = Decider("decided")
        face.do(self.quarrel(face, path, on_conflict=decide).save)

        assert ["cfg", "n"] == sorted(key for key, *_ in decide.asked)
        assert {"cfg": "decided", "n": "decided"} == stored(path)


class TestWithoutLoading:
    """A context that has read nothing does not know the base: the whole value of a key that it sets counts."""

    @pytest.fixture(params=[[1], {"a": 1}], ids=["list", "object"])
    def old(self, request, path):
        """The value in the file."""
        path.write_text(json.dumps({"v": request.param}), encoding="utf-8")
        return request.param

    def unloaded(self, face, path, **options):
        """A context that has read nothing."""
        return face.cls(path, **options)

    @pytest.mark.parametrize("new", [[2], {"b": 2}])
    def test_a_save_replaces_the_value(self, face, path, old, new):
        """It is not merged with what the file has, nor does a second save merge it."""
        ctx = self.unloaded(face, path)
        for value in (new, [*new, 3] if isinstance(new, list) else {"c": 3}):
            ctx["v"] = value
            face.do(ctx.save)

            assert {"v": value} == stored(path) == dict(ctx)

    def test_an_atomic_call_takes_the_set_value(self, face, path, old):
        """And appends to that."""
        ctx = self.unloaded(face, path)
        ctx["v"] = [2]

        assert (2, [2, 3]) == (face.do(ctx.append, "v", 3), stored(path)["v"])

    def test_a_refresh_keeps_it(self, face, path, old):
        """The next save replaces the value in the file."""
        ctx = self.unloaded(face, path)
        ctx["v"] = [2]
        face.do(ctx.refresh)

        assert ([2], {"v"}) == (ctx["v"], ctx.unsaved_keys())
        face.do(ctx.save)
        assert {"v": [2]} == stored(path)

    def test_the_policy_decides(self, face, path, old):
        """It is a conflict as a whole."""
        ctx = self.unloaded(face, path, on_conflict="raise")
        ctx["v"] = [2]
        with pytest.raises(ConflictError) as caught:
            face.do(ctx.save)

        assert ('["v"]',) == caught.value.places

    async def test_a_value_set_after_a_call_was_sent_replaces_its_outcome(self, path, old):
        """The order in which the context did things counts."""
        path.write_text('{"v": [1]}', encoding="utf-8")
        ctx = PersistentContext(path)
        call = asyncio.create_task(ctx.append("v", 2))
        await asyncio.sleep(0)
        ctx["v"] = [3]
        await asyncio.gather(call, ctx.save())

        assert {"v": [3]} == stored(path) == dict(ctx)
