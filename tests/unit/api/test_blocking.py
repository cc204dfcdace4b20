"""One blocking context shared by threads: each method is atomic, and each view shows one moment."""

import json
import sys
import threading

import pytest

from persistent_context import MISSING, SyncPersistentContext, UnserializableValueError
from persistent_context._model import values as _values


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def in_threads(number, function):
    """Run a function in several threads at once, and raise an exception of one of them."""
    failures = []

    def run(index):
        try:
            function(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[index]) for index in range(number)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    if failures:
        raise failures[0]


class TestThreads:
    def test_every_thread_gets_the_same_list(self, path):
        """``setdefault`` is atomic, as it is for a dictionary: no append is lost."""
        ctx = SyncPersistentContext.create(path, durable=False)

        def append(index):
            for round_ in range(300):
                ctx.setdefault(str(round_), []).append(index)

        in_threads(4, append)

        assert [4] * 300 == [len(ctx[str(number)]) for number in range(300)]

    def test_a_key_is_popped_once(self, path):
        """``pop`` with a default never raises, and returns each value to only one thread."""
        ctx = SyncPersistentContext(path, durable=False)
        ctx.update({str(number): number for number in range(2000)})
        popped = [[], [], [], []]

        def pop(index):
            for number in range(2000):
                value = ctx.pop(str(number), MISSING)
                if value is not MISSING:
                    popped[index].append(value)

        in_threads(4, pop)

        assert [*range(2000)] == sorted(sum(popped, []))

    def test_iteration_survives_changes_by_other_threads(self, path):
        """Keys, values and items are those of one moment, whatever is set, deleted or taken over during iteration."""
        ctx = SyncPersistentContext.create(path, durable=False)
        ctx.update({str(number): number for number in range(200)})
        looks = []

        def use(index):
            for round_ in range(100):
                if index == 0:
                    looks.append(len(dict(ctx.items())) + len(list(ctx)) + len(list(ctx.values())))
                else:
                    ctx[f"{index}-{round_}"] = round_
                    ctx.pop(f"{index}-{round_ - 5}", None)

        in_threads(3, use)

        assert 100 == len(looks)
        assert {str(number) for number in range(200)} <= set(ctx)

    @pytest.mark.parametrize("value", [list, dict])
    def test_a_value_that_another_thread_changes_is_saved_as_it_was_at_some_moment(self, path, value):
        """A list that grows while it is saved or copied is not refused as a value that JSON cannot hold."""
        ctx = SyncPersistentContext.create(path, durable=False)
        ctx["grows"] = value()
        done = threading.Event()

        def grow():
            for number in range(60_000):
                if value is list:
                    ctx["grows"].append(number)
                    del ctx["grows"][:-50]
                else:
                    ctx["grows"][str(number)] = number
                    ctx["grows"].pop(str(number - 50), None)
            done.set()

        def use(index):
            if index == 0:
                grow()
            while not done.is_set():
                if index == 1:
                    ctx.save()
                else:
                    ctx.get_all_data()

        in_threads(3, use)
        ctx.save()

        assert ctx.get_all_data() == stored(path)

    def test_a_list_that_grows_between_two_looks_at_it_is_saved(self, path, monkeypatch):
        """A value that another thread changes between encoding and comparison is not refused."""
        ctx = SyncPersistentContext(path, durable=False)
        ctx["grows"], decode = [1], _values.decode

        def changing(text):
            monkeypatch.undo()
            ctx["grows"].append(2)
            return decode(text)

        monkeypatch.setattr(_values, "decode", changing)
        ctx.save()

        assert {"grows": [1, 2]} == stored(path)

    def test_a_bad_item_that_is_gone_at_a_second_look_is_no_error(self, path, monkeypatch):
        """A value that another thread adds to a list, and removes again, does not make a call fail."""
        ctx, sound = SyncPersistentContext(path, durable=False), _values._is_sound
        ctx["list"] = [1, object()]

        def looking(value, key):
            value.pop()
            return sound(value, key)

        monkeypatch.setattr(_values, "_is_sound", looking)
        ctx.save()

        assert {"list": [1]} == stored(path)

    def test_saves_of_many_threads_leave_memory_and_file_the_same(self, path):
        """When all threads are done, memory and file are equal, and nothing is unsaved."""
        ctx, other = SyncPersistentContext(path, durable=False), SyncPersistentContext(path, durable=False)

        def use(index):
            for round_ in range(30):
                ctx.set(f"own-{index}", round_)
                if index == 0:
                    other.incr("n")
                elif index == 1:
                    ctx.load() if round_ % 7 == 0 else ctx.incr("n")
                ctx.save()

        in_threads(4, use)
        ctx.save()

        assert (stored(path), set()) == (dict(ctx), ctx.unsaved_keys())


class TestViews:
    def test_what_is_reversed_comes_from_the_end(self, path):
        """Contexts and transactions are reversible, as dictionaries are."""
        ctx = SyncPersistentContext(path)
        ctx.update(a=1, b=2)
        ctx.save()
        with ctx.transaction() as tx:
            seen = [*reversed(tx)], [*reversed(tx.items())], [*reversed(tx.values())]

        assert (["b", "a"], [("b", 2), ("a", 1)], [2, 1]) == seen
        assert seen == ([*reversed(ctx)], [*reversed(ctx.items())], [*reversed(ctx.values())])

    def test_a_key_whose_deletion_is_taken_along_is_not_popped(self, path):
        """``popitem`` of a transaction leaves out keys whose deletion in the context is unsaved."""
        ctx = SyncPersistentContext(path)
        ctx.update(a=1, b=2)
        ctx.save()
        del ctx["b"]
        with ctx.transaction() as tx:
            length, item = len(tx), tx.popitem()
            with pytest.raises(KeyError):
                tx.popitem()

        assert (1, ("a", 1), {}) == (length, item, stored(path))

    def test_a_key_that_the_context_deletes_meanwhile_is_skipped(self, path):
        """Neither a view of a context nor the iteration over a transaction stumbles over the key."""
        ctx = SyncPersistentContext.create(path)
        ctx.update(a=1, b=2, c=3)
        ctx.save()

        class Deleting(int):
            def __eq__(self, other):
                ctx.pop("b", None)
                return False

            __hash__ = int.__hash__

        assert Deleting() not in ctx.values()
        assert {"a": 1, "c": 3} == dict(ctx)
        with ctx.transaction() as tx:
            steps = iter(tx)
            first = next(steps)
            deleting = threading.Thread(target=ctx.pop, args=["c"])
            deleting.start()
            deleting.join(60)

            assert ["a"] == [first, *steps]

    def test_a_load_drops_what_another_call_is_about_to_write(self, path, hold):
        """Memory is empty after the load, and has the saved value after the save."""
        ctx = SyncPersistentContext.create(path)
        ctx["k"] = "mine"
        with hold(path):
            saving = threading.Thread(target=ctx.save)
            saving.start()
            while not ctx._memory._flights.calls():
                pass
            ctx.load()
            loaded = dict(ctx)
        saving.join(60)

        assert ({}, {"k": "mine"}, {"k": "mine"}) == (loaded, dict(ctx), stored(path))

    def test_a_value_that_nests_too_deep_is_not_copied(self, path):
        """get_all_data() raises RecursionError for a value that is nested too deep to copy."""
        ctx, deep = SyncPersistentContext.create(path), []
        for _ in range(100_000):
            deep = [deep]
        ctx["deep"] = deep
        with pytest.raises(RecursionError):
            ctx.get_all_data()
        while deep:  # otherwise freeing it would recurse as deep
            deep = deep.pop()

    def test_a_value_that_changes_all_the_time_is_not_copied(self, path):
        """After many attempts to copy a changing value, Python's own error is raised."""

        class Restless(dict):
            def __deepcopy__(self, memo):
                raise RuntimeError("dictionary changed size during iteration")

        ctx = SyncPersistentContext.create(path)
        ctx["restless"] = Restless()
        with pytest.raises(RuntimeError, match="changed size"):
            ctx.get_all_data()

    def test_a_value_that_never_comes_back_equal_is_refused(self, path):
        """A value that changes at each comparison is not one that JSON can hold."""

        class Restless(list):
            def __eq__(self, other):
                self.append(len(self))
                return False

            __hash__ = None

        ctx = SyncPersistentContext(path)
        ctx["restless"] = Restless()
        with pytest.raises(UnserializableValueError, match="restless"):
            ctx.save()
