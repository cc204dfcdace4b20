"""The atomic operations on one key, with and without unsaved changes."""

import asyncio
import enum
import json
import logging

import pytest

from persistent_context import (
    MISSING,
    PersistentContext,
    PersistentContextError,
    ReentrantTransactionError,
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


async def turns(count=50):
    """Let every other task run until it waits for something external."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestIncr:
    def test_it_begins_at_nothing(self, face, path):
        """An absent key counts from 0, and a missing file is created."""
        ctx = face.open(path)

        assert (1, {"n": 1}) == (face.do(ctx.incr, "n"), stored(path))

    def test_it_returns_the_new_number(self, face, path):
        """Each call returns its new number."""
        ctx = face.open(path)

        assert [1, 2, 3] == [face.do(ctx.incr, "n") for _ in range(3)]

    def test_it_counts_from_what_others_wrote(self, face, path):
        """The number in the file counts, not the one in this context's memory."""
        path.write_text('{"n": 5}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        face.do(other.incr, "n", 10)

        assert 16 == face.do(ctx.incr, "n")

    def test_a_number_of_a_subclass(self, face, path):
        """A member of an IntEnum counts as a number."""
        assert 2 == face.do(face.open(path).incr, "n", enum.IntEnum("Weight", {"HEAVY": 2}).HEAVY)

    @pytest.mark.parametrize(("before", "delta", "after"), [
        (1, 2, 3), (1, -3, -2), (1, 0, 1), (2**63, 1, 2**63 + 1), (1, 0.5, 1.5), (0.5, 0.25, 0.75), (1.5, 1, 2.5),
        (-1, 1, 0), (1.0, 1, 2.0),
    ])  # fmt: skip
    def test_numbers(self, face, path, before, delta, after):
        """Ints stay ints, floats stay floats, and large ones stay exact."""
        path.write_text(json.dumps({"n": before}), encoding="utf-8")
        result = face.do(face.open(path).incr, "n", delta)

        assert (repr(after), repr(after)) == (repr(result), repr(stored(path)["n"]))

    def test_the_default_is_where_it_begins(self, face, path):
        """An absent key counts from the default."""

        assert 11 == face.do(face.open(path).incr, "n", default=10)

    def test_the_default_is_not_used_for_a_present_key(self, face, path):
        """A present key counts from its value."""
        path.write_text('{"n": 1}', encoding="utf-8")

        assert 3 == face.do(face.open(path).incr, "n", delta=2, default=10)

    @pytest.mark.parametrize("value", [True, False, "1", None, [1], {"n": 1}], ids=repr)
    def test_a_value_that_is_not_a_number_raises_type_error(self, face, path, value):
        """A value that is not a number (a bool is not) raises, and the file is unchanged."""
        path.write_text(json.dumps({"n": value}), encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        with pytest.raises(TypeError):
            face.do(ctx.incr, "n")

        assert (before, repr(value), set()) == (identity(path), repr(ctx["n"]), ctx.unsaved_keys())

    @pytest.mark.parametrize("delta", ["1", None, [1], 1j], ids=repr)
    def test_a_delta_that_is_not_a_number_raises_type_error(self, face, path, delta):
        """A delta that is not a number raises."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        with pytest.raises(TypeError):
            face.do(ctx.incr, "n", delta)

        assert before == identity(path)

    def test_a_sum_beyond_all_floats(self, face, path):
        """A sum that JSON cannot hold is refused, and the file is unchanged."""
        path.write_text('{"n": 1.7e308}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        with pytest.raises(UnserializableValueError):
            face.do(ctx.incr, "n", 1.7e308)

        assert before == identity(path)

    def test_memory_reflects_the_result(self, face, path):
        """After the call, memory holds the new number, saved."""
        ctx = face.open(path)
        face.do(ctx.incr, "n")

        assert (1, set()) == (ctx["n"], ctx.unsaved_keys())

    def test_other_keys_are_kept(self, face, path):
        """Counting in one key leaves all others alone."""
        path.write_text('{"a": [1], "n": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("b", 2)
        face.do(other.save)
        face.do(ctx.incr, "n")

        assert {"a": [1], "n": 2, "b": 2} == stored(path)


class TestAdd:
    def test_the_first_one_wins(self, face, path):
        """Of two contexts that add a key, the first gets True, the second False, and the first value stays."""
        first, second = face.open(path), face.open(path)

        assert (True, False, {"leader": 1}) == (
            face.do(first.add, "leader", 1),
            face.do(second.add, "leader", 2),
            stored(path),
        )

    def test_losing_writes_nothing(self, face, path):
        """An add that loses does not write."""
        path.write_text('{"leader": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        face.do(ctx.add, "leader", 2)

        assert before == identity(path)

    def test_the_winners_memory_has_it(self, face, path):
        """After winning, memory holds the value, saved."""
        ctx = face.open(path)
        face.do(ctx.add, "leader", 1)

        assert (1, set()) == (ctx["leader"], ctx.unsaved_keys())

    def test_the_losers_memory_has_the_winner(self, face, path):
        """After losing, memory holds what the winner wrote."""
        first, second = face.open(path), face.open(path)
        face.do(first.add, "leader", 1)
        face.do(second.add, "leader", 2)

        assert (1, set()) == (second["leader"], second.unsaved_keys())

    def test_a_stored_null_is_present(self, face, path):
        """A null is a value, so its key is present."""
        path.write_text('{"leader": null}', encoding="utf-8")

        assert False is face.do(face.open(path).add, "leader", 1)

    def test_an_absent_value_cannot_be_added(self, face, path):
        """MISSING stands for an absent key, and cannot be stored; the error says what to do."""
        ctx = face.open(path)
        with pytest.raises(UnserializableValueError, match="it stands for an absent key: delete the key instead"):
            face.do(ctx.add, "a", MISSING)

        assert not path.exists()

    def test_a_null_can_be_added(self, face, path):
        """Adding a null wins like adding any other value."""
        ctx = face.open(path)

        assert (True, False) == (face.do(ctx.add, "leader", None), face.do(ctx.add, "leader", 1))

    async def test_one_of_many_wins(self, path):
        """However many tasks add at once, exactly one gets True."""
        contexts = [await PersistentContext.create(path) for _ in range(5)]
        won = await asyncio.gather(*(contexts[number % 5].add("leader", number) for number in range(50)))

        assert (1, won.index(True)) == (won.count(True), stored(path)["leader"])


class TestCompareAndSet:
    def test_a_match_sets(self, face, path):
        """If the value is the expected one, the new one is set."""
        path.write_text('{"s": "queued"}', encoding="utf-8")
        ctx = face.open(path)

        assert (True, {"s": "running"}, "running") == (
            face.do(ctx.compare_and_set, "s", "queued", "running"),
            stored(path),
            ctx["s"],
        )

    def test_no_match_sets_nothing(self, face, path):
        """If the value is not the expected one, nothing is written."""
        path.write_text('{"s": "done"}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)

        assert (False, before) == (face.do(ctx.compare_and_set, "s", "queued", "running"), identity(path))

    def test_what_others_wrote_is_compared(self, face, path):
        """The value in the file is compared, not the one in this context's memory."""
        path.write_text('{"s": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        face.do(other.compare_and_set, "s", 1, 2)

        assert (False, 2) == (face.do(ctx.compare_and_set, "s", 1, 3), ctx["s"])

    def test_missing_is_expected_of_an_absent_key(self, face, path):
        """MISSING as the expected value matches an absent key."""
        ctx = face.open(path)

        assert (True, {"s": 1}) == (face.do(ctx.compare_and_set, "s", MISSING, 1), stored(path))

    def test_missing_does_not_match_a_value(self, face, path):
        """MISSING as the expected value does not match any value, not even null."""
        path.write_text('{"s": null}', encoding="utf-8")

        assert False is face.do(face.open(path).compare_and_set, "s", MISSING, 1)

    def test_none_does_not_match_absence(self, face, path):
        """None as the expected value matches a null only."""

        assert False is face.do(face.open(path).compare_and_set, "s", None, 1)

    def test_missing_as_the_new_value_deletes(self, face, path):
        """MISSING as the new value deletes the key, in the file and in memory."""
        path.write_text('{"s": 1, "x": 0}', encoding="utf-8")
        ctx = face.open(path)

        assert (True, {"x": 0}, False, set()) == (
            face.do(ctx.compare_and_set, "s", 1, MISSING),
            stored(path),
            "s" in ctx,
            ctx.unsaved_keys(),
        )

    def test_missing_for_missing(self, face, path):
        """MISSING for MISSING matches an absent key and changes nothing."""
        path.write_text('{"x": 0}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)

        assert (True, before) == (face.do(ctx.compare_and_set, "s", MISSING, MISSING), identity(path))

    @pytest.mark.parametrize(("value", "expected"), [
        (1, True), (1, 1.0), (True, 1), (1.0, 1), (0, False), (0, None), ("1", 1), ([1], [True]),
        ({"x": 1}, {"x": 1.0}),
        ([], {}), ("", None), ([1, 2], [2, 1]),
    ])  # fmt: skip
    def test_equal_values_of_other_json_do_not_match(self, face, path, value, expected):
        """True, 1 and 1.0 are three values."""
        path.write_text(json.dumps({"s": value}), encoding="utf-8")

        assert False is face.do(face.open(path).compare_and_set, "s", expected, "new")

    @pytest.mark.parametrize(
        "value", [1, 1.5, "é", [1, [2]], {"x": {"y": [None]}}, None, True, [], {}, 2**70, 1e16, ""]
    )
    def test_the_same_json_matches(self, face, path, value):
        """A value matches itself, however the file spells it."""
        path.write_text(json.dumps({"s": value}, indent=3), encoding="utf-8")

        assert (True, {"s": "new"}) == (
            face.do(face.open(path).compare_and_set, "s", json.loads(json.dumps(value)), "new"),
            stored(path),
        )

    async def test_one_of_many_wins(self, path):
        """However many tasks take the same step at once, exactly one gets True."""
        path.write_text('{"s": "queued"}', encoding="utf-8")
        contexts = [await PersistentContext.create(path) for _ in range(5)]
        won = await asyncio.gather(
            *(contexts[number % 5].compare_and_set("s", "queued", number) for number in range(50))
        )

        assert (1, won.index(True)) == (won.count(True), stored(path)["s"])


class TestMutate:
    def test_it_returns_the_new_value(self, face, path):
        """The function's result is returned, stored and in memory."""
        path.write_text('{"todo": [1, 2, 3]}', encoding="utf-8")
        ctx = face.open(path)

        assert ([2, 3], {"todo": [2, 3]}, [2, 3], set()) == (
            face.do(ctx.mutate, "todo", lambda items: items[1:]),
            stored(path),
            ctx["todo"],
            ctx.unsaved_keys(),
        )

    def test_the_function_gets_what_the_file_holds(self, face, path):
        """The function gets the value in the file, not the one in this context's memory."""
        path.write_text('{"todo": [1]}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other["todo"].append(2)
        face.do(other.save)

        assert [1, 2, 3] == face.do(ctx.mutate, "todo", lambda items: [*items, 3])

    def test_the_default_is_used_for_an_absent_key(self, face, path):
        """For an absent key the function gets the default."""

        assert [1] == face.do(face.open(path).mutate, "todo", lambda items: [*items, 1], default=[])

    def test_the_default_default_is_none(self, face, path):
        """Without a default, the function gets None for an absent key."""
        seen = []

        def fn(value):
            seen.append(value)
            return 1

        face.do(face.open(path).mutate, "todo", fn)

        assert [None] == seen

    def test_the_default_is_not_used_for_a_present_key(self, face, path):
        """A stored null is passed as None, whatever the default."""
        path.write_text('{"todo": null}', encoding="utf-8")

        assert [None] == face.do(face.open(path).mutate, "todo", lambda value: [value], default=7)

    def test_the_function_may_change_its_argument_in_place(self, face, path):
        """A function may change the value in place and return it."""
        path.write_text('{"todo": [1]}', encoding="utf-8")
        ctx = face.open(path)

        def fn(items):
            items.append(2)
            return items

        face.do(ctx.mutate, "todo", fn)

        assert ({"todo": [1, 2]}, [1, 2], set()) == (stored(path), ctx["todo"], ctx.unsaved_keys())

    def test_its_exception_is_raised(self, face, path):
        """The call raises the function's own exception; nothing is written."""
        path.write_text('{"todo": [1]}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)

        def fn(items):
            items.append("spoilt")
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            face.do(ctx.mutate, "todo", fn)

        assert (before, [1], set()) == (identity(path), ctx["todo"], ctx.unsaved_keys())

    def test_its_exception_leaves_the_lock_free(self, face, path):
        """After the function raised, others can go on."""
        ctx = face.open(path)
        with pytest.raises(ZeroDivisionError):
            face.do(ctx.mutate, "n", lambda _: 1 / 0)

        assert 1 == face.do(face.open(path, lock_timeout=10).incr, "n")

    @pytest.mark.parametrize("result", [{1}, (1,), float("nan"), [object()]], ids=["set", "tuple", "nan", "object"])
    def test_an_answer_that_json_cannot_hold(self, face, path, result):
        """A result that JSON cannot hold is refused; nothing is written."""
        path.write_text('{"x": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        with pytest.raises(UnserializableValueError):
            face.do(ctx.mutate, "x", lambda _: result)

        assert (before, 1, set()) == (identity(path), ctx["x"], ctx.unsaved_keys())

    def test_what_it_returned_may_be_changed_afterwards(self, face, path):
        """Changing the returned value later is at most an unsaved change, and is never written silently."""
        ctx = face.open(path)
        face.do(ctx.mutate, "todo", lambda _: [1]).append(2)
        face.do(ctx.incr, "n")

        assert [1] == stored(path)["todo"]

    def test_a_function_that_calls_the_same_file_gets_an_error(self, tmp_path):
        """A function that calls the same file under the lock gets an error at once instead of waiting for itself."""
        ctx = SyncPersistentContext(tmp_path / "state.json")
        with pytest.raises(ReentrantTransactionError, match="runs under the lock, and made a call that needs it"):
            ctx.mutate("n", lambda value: ctx.incr("m"))

        assert {"n": 1} == {"n": ctx.incr("n")}

    @pytest.mark.parametrize("fn", [None, 1, "upper"])
    def test_an_argument_that_is_not_a_function_is_refused_at_once(self, tmp_path, fn):
        """An argument that is not a function is refused before anything is locked or written."""
        with pytest.raises(TypeError, match="fn must be a callable"):
            SyncPersistentContext(tmp_path / "state.json").mutate("a", fn)

        assert [] == list(tmp_path.iterdir())


class TestKeysAndValues:
    @pytest.mark.parametrize("call", [
        lambda ctx: (ctx.incr, 1),
        lambda ctx: (ctx.add, 1, 1),
        lambda ctx: (ctx.compare_and_set, 1, MISSING, 1),
        lambda ctx: (ctx.mutate, 1, lambda _: 1),
    ], ids=["incr", "add", "compare_and_set", "mutate"])  # fmt: skip
    def test_a_key_that_is_not_a_str(self, face, path, call):
        """A key that is not a str raises TypeError at once, and no file is created."""
        ctx = face.open(path)
        with pytest.raises(UnserializableValueError) as caught:
            face.do(*call(ctx))

        assert (True, False) == (isinstance(caught.value, TypeError), path.exists())

    @pytest.mark.parametrize("call", [
        lambda ctx: (ctx.add, "x", {1}),
        lambda ctx: (ctx.compare_and_set, "x", MISSING, {1}),
    ], ids=["add", "compare_and_set"])  # fmt: skip
    def test_a_value_that_json_cannot_hold(self, face, path, call):
        """A value that JSON cannot hold is refused, and no file is created."""
        ctx = face.open(path)
        with pytest.raises(UnserializableValueError):
            face.do(*call(ctx))

        assert (False, False) == ("x" in ctx, path.exists())


class TestUnsavedChanges:
    def test_a_set_before_an_incr_is_taken_along(self, face, path):
        """An unsaved value counts: set first, then incremented."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("n", 10)

        assert (11, {"n": 11}, 11, set()) == (face.do(ctx.incr, "n"), stored(path), ctx["n"], ctx.unsaved_keys())

    def test_a_deletion_before_an_incr_is_taken_along(self, face, path):
        """A key that this context deleted counts from the default."""
        path.write_text('{"n": 5}', encoding="utf-8")
        ctx = face.open(path)
        del ctx["n"]

        assert (1, {"n": 1}) == (face.do(ctx.incr, "n"), stored(path))

    def test_a_change_in_place_before_a_mutate_is_taken_along(self, face, path):
        """The function sees this context's unsaved change in place."""
        path.write_text('{"todo": [1]}', encoding="utf-8")
        ctx = face.open(path)
        ctx["todo"].append(2)

        assert ([1, 2, 3], {"todo": [1, 2, 3]}, set()) == (
            face.do(ctx.mutate, "todo", lambda items: [*items, 3]),
            stored(path),
            ctx.unsaved_keys(),
        )

    def test_a_set_before_a_compare_and_set_is_compared(self, face, path):
        """The value that this context set is compared."""
        path.write_text('{"s": "old"}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("s", "mine")

        assert (True, {"s": "new"}, set()) == (
            face.do(ctx.compare_and_set, "s", "mine", "new"),
            stored(path),
            ctx.unsaved_keys(),
        )

    def test_a_set_before_an_add_is_present(self, face, path):
        """A key that this context has set cannot be added."""
        ctx = face.open(path)
        ctx.set("leader", "mine")

        assert (False, "mine") == (face.do(ctx.add, "leader", "other"), ctx["leader"])

    def test_a_deletion_before_an_add_is_absent(self, face, path):
        """A key that this context has deleted can be added."""
        path.write_text('{"leader": 1}', encoding="utf-8")
        ctx = face.open(path)
        del ctx["leader"]

        assert (True, {"leader": 2}) == (face.do(ctx.add, "leader", 2), stored(path))

    def test_unsaved_changes_of_other_keys_stay_unsaved(self, face, path):
        """Only the key of the operation is written."""
        path.write_text('{"a": 1, "b": [1], "c": 1, "n": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 2)
        ctx["b"].append(2)
        del ctx["c"]
        ctx.set("d", 1)
        face.do(ctx.incr, "n")

        assert ({"a": 1, "b": [1], "c": 1, "n": 2}, {"a", "b", "c", "d"}, {"a": 2, "b": [1, 2], "n": 2, "d": 1}) == (
            stored(path),
            ctx.unsaved_keys(),
            dict(ctx),
        )

    def test_those_changes_are_saved_by_the_next_save(self, face, path):
        """Changes that stayed unsaved are saved by the next save, and the operation's result is kept."""
        path.write_text('{"a": 1, "n": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.incr, "n")
        face.do(ctx.save)

        assert {"a": 2, "n": 2} == stored(path)

    def test_a_failed_operation_leaves_the_change_unsaved(self, face, path):
        """A change that a failed call was to include is still unsaved."""
        path.write_text('{"n": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("n", "text")
        before = identity(path)
        with pytest.raises(TypeError):
            face.do(ctx.incr, "n")

        assert (before, "text", {"n"}) == (identity(path), ctx["n"], ctx.unsaved_keys())

    async def test_a_set_during_an_incr_comes_after_it(self, path, hold):
        """A value set while the operation waited is in memory, unsaved."""
        ctx = await PersistentContext.create(path)
        with hold(path):
            counting = asyncio.create_task(ctx.incr("n"))
            await turns()
            ctx.set("n", 100)

        assert (1, {"n": 1}, 100, {"n"}) == (await counting, stored(path), ctx["n"], ctx.unsaved_keys())

    def test_a_bad_value_does_not_hinder_atomic_operations(self, face, path):
        """Only the values to be written must be valid."""
        ctx = face.open(path)
        ctx.set("x", {1, 2})
        face.do(ctx.incr, "n")

        assert ({"n": 1}, {"x"}) == (stored(path), ctx.unsaved_keys())


class TestAnEmptyStart:
    def test_a_file_that_is_gone(self, face, path):
        """An operation on a missing file starts from an empty document."""
        path.write_text('{"n": 5, "a": 1}', encoding="utf-8")
        ctx = face.open(path)
        path.unlink()

        assert (1, {"n": 1}) == (face.do(ctx.incr, "n"), stored(path))

    def test_a_corrupt_file(self, face, path, caplog):
        """An operation on a corrupt file moves it aside, with a warning, and starts from an empty document."""
        path.write_text('{"n": 5, "a": 1}', encoding="utf-8")
        ctx = face.open(path)
        path.write_bytes(b'{"n": ')
        result = face.do(ctx.incr, "n")
        aside = [one.read_bytes() for one in path.parent.glob("state.json.corrupt-*")]

        assert (1, {"n": 1}, [b'{"n": '], True) == (
            result,
            stored(path),
            aside,
            any(record.levelno == logging.WARNING for record in caplog.records),
        )


class TestErrorsOfOperations:
    def test_a_directory_in_the_place_of_the_file(self, face, path):
        """An operation on a directory raises an error that is also an OSError."""
        path.mkdir()
        ctx = face.cls(path)
        with pytest.raises(PersistentContextError) as caught:
            face.do(ctx.incr, "n")

        assert (True, True) == (isinstance(caught.value, OSError), path.is_dir())


class TestDelete:
    def test_it_says_whether_the_key_was_there(self, face, path):
        """Only the first call that deletes the key returns True."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)

        assert (True, False, {"b": 2}) == (face.do(ctx.delete, "a"), face.do(other.delete, "a"), stored(path))
        assert ("a" in ctx, "a" in other) == (False, False)

    def test_it_writes_nothing_if_there_is_nothing_to_delete(self, face, path):
        """Deleting an absent key does not write the file."""
        path.write_text('{"b": 2}', encoding="utf-8")
        before = identity(path)

        assert (False, before) == (face.do(face.open(path).delete, "a"), identity(path))

    def test_an_unsaved_change_of_the_key_goes_with_it(self, face, path):
        """Deleting a key drops its unsaved change; other keys stay unsaved."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(a=2, c=3)

        assert (True, {}, {"c"}) == (face.do(ctx.delete, "a"), stored(path), ctx.unsaved_keys())

    def test_a_key_that_is_only_here_was_there(self, face, path):
        """A key that this context has only set in memory counts as present."""
        ctx = face.open(path)
        ctx.set("a", 1)

        assert (True, set()) == (face.do(ctx.delete, "a"), ctx.unsaved_keys())


class TestTake:
    def test_only_one_of_many_gets_it(self, face, path):
        """One of several callers gets the value; the others get the default."""
        path.write_text('{"job": {"id": 1}}', encoding="utf-8")
        one, other = face.open(path), face.open(path)

        assert [{"id": 1}, None, "none"] == [
            face.do(one.take, "job"),
            face.do(other.take, "job"),
            face.do(other.take, "job", "none"),
        ]
        assert {} == stored(path)

    def test_it_takes_the_unsaved_value(self, face, path):
        """take() returns the value with this context's unsaved change."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        ctx = face.open(path)
        ctx["jobs"].append(2)

        assert ([1, 2], {}) == (face.do(ctx.take, "jobs"), stored(path))


class TestAppend:
    def test_it_returns_the_new_length(self, face, path):
        """append() returns the new length, and a missing key starts as an empty list."""
        ctx, other = face.open(path), face.open(path)

        assert [1, 2, 3] == [
            face.do(ctx.append, "l", "é"),
            face.do(other.append, "l", {"a": []}),
            face.do(ctx.append, "l", [1]),
        ]
        assert {"l": ["é", {"a": []}, [1]]} == stored(path)

    @pytest.mark.parametrize("text", ["[]", "[ ]", "[1]", "[1 ,2 ]", "[\n1,\n[2]\n]"])
    def test_it_appends_to_a_list_in_any_layout(self, face, path, text):
        """append() accepts a list in any layout that another program may have written."""
        path.write_text(f'{{"l": {text}}}', encoding="utf-8")
        expected = [*json.loads(text), 9]

        assert (len(expected), expected) == (face.do(face.open(path).append, "l", 9), stored(path)["l"])

    @pytest.mark.parametrize(("value", "kind"), [(1, "int"), ("[", "str"), ({}, "dict"), (None, "NoneType")])
    def test_a_value_that_is_not_a_list_is_refused(self, face, path, value, kind):
        """A value that is not a list raises TypeError, and the file is unchanged."""
        path.write_text(json.dumps({"l": value}), encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        for call in (ctx.append, ctx.extend):
            with pytest.raises(TypeError, match=f"the value of 'l' must be a list, not {kind}"):
                face.do(call, "l", [1])

        assert before == identity(path)

    def test_an_item_that_json_cannot_hold_is_refused(self, face, path):
        """An item that JSON cannot hold is refused before anything is written."""
        with pytest.raises(UnserializableValueError, match="when"):
            face.do(face.open(path).append, "l", {"when": {1}})

        assert not path.exists()

    def test_it_comes_after_what_is_unsaved(self, face, path):
        """An appended item comes after the items that were appended in memory."""
        path.write_text('{"l": [1]}', encoding="utf-8")
        ctx = face.open(path)
        known = ctx["l"]
        known.append(2)

        assert (3, [1, 2, 3], [1, 2, 3], True) == (
            face.do(ctx.append, "l", 3),
            stored(path)["l"],
            known,
            known is ctx["l"],
        )


class TestExtend:
    def test_it_appends_all(self, face, path):
        """extend() appends in order, from any iterable."""
        ctx = face.open(path)

        assert (3, 5) == (face.do(ctx.extend, "l", [1, 2, 3]), face.do(ctx.extend, "l", iter([4, 5])))
        assert [1, 2, 3, 4, 5] == stored(path)["l"]

    def test_nothing_to_append_writes_nothing(self, face, path):
        """With nothing to append, extend() returns the length and does not write."""
        path.write_text('{"l": [1]}', encoding="utf-8")
        ctx, before = face.open(path), identity(path)

        assert (1, 0, before) == (face.do(ctx.extend, "l", []), face.do(ctx.extend, "no", ()), identity(path))

    @pytest.mark.parametrize("items", ["abc", b"abc", {"a": 1}], ids=["str", "bytes", "dict"])
    def test_a_str_or_dict_as_items_is_refused(self, face, path, items):
        """Strings, bytes and dictionaries are refused; the error says which call appends one item."""
        ctx = face.open(path)
        with pytest.raises(TypeError, match=rf"not {type(items).__name__}; append\(\) appends one"):
            face.do(ctx.extend, "l", items)

        assert not path.exists()


class TestInTransactions:
    def test_they_work_on_the_transaction(self, face, path):
        """In a transaction, the operations change the transaction and are committed together."""
        path.write_text('{"a": 1, "b": 2, "l": [1]}', encoding="utf-8")
        seen = []

        def work(tx):
            seen.extend(
                [
                    tx.delete("a"),
                    tx.delete("a"),
                    tx.take("b"),
                    tx.take("b", 0),
                    tx.append("l", 2),
                    tx.extend("m", [3, 4]),
                ]
            )
            seen.append(stored(path))

        face.inside(face.open(path).transaction, work)

        assert [True, False, 2, 0, 2, 2, {"a": 1, "b": 2, "l": [1]}] == seen
        assert {"l": [1, 2], "m": [3, 4]} == stored(path)

    def test_a_value_that_is_not_a_list_is_refused(self, face, path):
        """Nothing is committed if the error ends the block."""
        path.write_text('{"l": 5}', encoding="utf-8")
        with pytest.raises(TypeError, match="the value of 'l' must be a list, not int"):
            face.inside(face.open(path).transaction, lambda tx: tx.append("l", 1))

        assert {"l": 5} == stored(path)

    def test_nothing_to_append_makes_no_list(self, face, path):
        """In a transaction too, appending nothing does not create a list."""
        face.inside(face.open(path).transaction, lambda tx: tx.extend("l", []))

        assert not path.exists()


class TestRefresh:
    def test_it_takes_over_what_others_changed(self, face, path):
        """refresh() takes over others' changes and keeps the unsaved ones, without writing."""
        path.write_text('{"a": 1, "b": 1, "jobs": [1], "gone": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        ctx["a"] = 2
        ctx["jobs"].append("mine")
        other.update(b=2, new=3)
        other["jobs"].append("theirs")
        del other["gone"]
        face.do(other.save)
        before = identity(path)
        face.do(ctx.refresh)

        assert {"a": 2, "b": 2, "jobs": [1, "theirs", "mine"], "new": 3} == dict(ctx)
        assert ({"a", "jobs"}, before) == (ctx.unsaved_keys(), identity(path))

    @pytest.mark.parametrize("policy", ["mine", "theirs", "raise"])
    def test_a_conflict_is_settled_by_the_next_save(self, face, path, policy):
        """The next save applies the policy to a conflict, with the original base."""
        path.write_text('{"a": {"x": 1, "y": 1}}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict=policy), face.open(path)
        ctx["a"]["x"] = "mine"
        other["a"].update(x="theirs", y="theirs")
        face.do(other.save)
        for _ in range(2):
            face.do(ctx.refresh)

        assert ({"x": "mine", "y": "theirs"}, {"a"}) == (ctx["a"], ctx.unsaved_keys())
        if policy == "raise":
            with pytest.raises(PersistentContextError, match=r'\["a"\]\["x"\]'):
                face.do(ctx.save)
        else:
            face.do(ctx.save)
            assert {"x": policy, "y": "theirs"} == ctx["a"] == stored(path)["a"]

    def test_a_change_taken_back_after_a_refresh_gives_way(self, face, path):
        """A change that is undone after a refresh gives way to what others wrote."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        ctx["a"] = 2
        other["a"] = 3
        face.do(other.save)
        face.do(ctx.refresh)
        ctx["a"] = 1
        face.do(ctx.refresh)

        assert (3, set()) == (ctx["a"], ctx.unsaved_keys())

    def test_a_missing_file_says_nothing(self, face, path):
        """After a refresh without a file memory stays, and the next save writes all of it."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        path.unlink()
        face.do(ctx.refresh)

        assert ({"a": 1}, False) == (dict(ctx), path.exists())
        face.do(ctx.save)
        assert {"a": 1} == stored(path)

    def test_a_corrupt_file_is_moved_aside(self, face, path):
        """refresh() moves a corrupt file aside, like load(), and memory stays."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        path.write_text("{", encoding="utf-8")
        face.do(ctx.refresh)

        assert ({"a": 1}, 1) == (dict(ctx), len(list(path.parent.glob("*.corrupt-*"))))

    def test_it_takes_no_lock(self, face, path, hold):
        """refresh() works while another program holds the lock."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path, lock_timeout=0.1)
        with hold(path):
            path.write_text('{"a": 2}', encoding="utf-8")
            face.do(ctx.refresh)

        assert 2 == ctx["a"]
