"""Memory, the live dictionary and the tracker, without a file: what an interrupt, or another thread, may do to them."""

import gc
import itertools

import msgspec
import pytest

from persistent_context._model.live import LiveDict
from persistent_context._model.memory import Arrival, Differences, Memory
from persistent_context._model.tracking import Own, Tracker
from persistent_context._model.updates import incr
from persistent_context._model.values import MISSING
from persistent_context._stores.jsonfile.document import EMPTY

FILE = EMPTY.changed({"a": b"1", "b": b"2"})


@pytest.fixture
def memory():
    """A memory that was loaded."""
    memory = Memory()
    memory.load(1, FILE, LiveDict.of(FILE), memory.now())
    return memory


def increment(memory, key):
    return memory.update("incr", key, incr(key, 1, 0), "mine")


def arrival(position, write, **texts):
    """What is known when a call is over, and what the file holds then."""
    return Arrival(position, FILE.changed(texts), dict.fromkeys(write.keys, write), texts, over=[write])


class TestTheLiveDictionary:
    def test_a_key_that_is_just_being_set_has_its_old_value(self):
        """Whoever looks in the midst of that sees the value, and the text, that the key had."""
        live = LiveDict.of(FILE)
        live._touch("a", b"1")
        texts = live.text("a")

        assert (b"1", 1, b"1") == (texts, live["a"], live.text("a"))

    def test_a_key_that_is_looked_at_while_all_are_taken_over_has_the_new_value(self):
        """A handler that looks at a key just before it is replaced leaves no text behind in the place of a value."""
        live = LiveDict.of(FILE)

        class Interrupted(dict):
            def __iter__(self):
                return super().__iter__()

            def keys(self):
                assert 1 == live["a"]  # as a handler does
                return super().keys()

        live.take_over_all(Interrupted(a=msgspec.Raw(b"7")), ())

        assert (7, b"7", 2) == (live["a"], live.base("a"), live["b"])

    def test_what_is_set_and_stays_is_not_set_again(self):
        """A handler's change that nothing was taken over for is left as it is."""
        live = LiveDict.of(FILE)
        with live.keeping():
            live["a"] = 5
        moment = live.touched["a"].moment

        assert (5, True) == (live["a"], moment < next(live.moments))

    def test_a_text_that_the_user_sets_is_not_decoded(self):
        """A value of the very type in which undecoded texts are kept is a value, and one that JSON cannot hold."""
        live = LiveDict()
        live["a"] = msgspec.Raw(b"1")

        assert msgspec.Raw is type(live["a"])


class TestMemory:
    def test_a_call_that_was_interrupted_before_it_was_noted_ends(self, memory):
        """A call whose key was not noted yet leaves nothing behind."""
        write = increment(memory, "a")
        memory._flights.clear()
        memory.is_over(write)

        assert {} == memory._writes

    def test_a_change_after_a_call_that_is_over_stays(self, memory):
        """What was set after a call was made stays, though the call is over before its outcome is taken over."""
        write = increment(memory, "a")
        memory.data["a"] = 1
        memory.is_over(write)
        memory.absorb(arrival(2, write, a=b"2"))

        assert (1, {"a"}) == (memory.data["a"], memory.unsaved_keys())

    def test_what_arrives_while_another_thread_loads_is_dropped(self, memory, monkeypatch):
        """An outcome that is taken over while the file is loaded, by another thread, ends there."""
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
        """A key that is set or deleted just before it is replaced by what the file holds is an unsaved change."""
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
        assert {} == memory._writes

    def test_a_call_is_over_when_its_outcome_has_arrived(self, memory):
        """Its caller may be told later, and what another one does meanwhile does not count on it."""
        write = increment(memory, "a")
        memory.absorb(arrival(2, write, a=b"2"))

        assert ({}, {}) == (memory._writes, memory._flights)


class TestTheTracker:
    def test_the_file_is_not_read_while_it_is_written(self):
        """A reading beside a write says nothing of whether it is older or newer."""
        tracker, readings = Tracker(), []
        tracker.is_writing = True

        assert (None, []) == (tracker.read_between(3, lambda: readings.append(None)), readings)

    def test_a_listener_that_is_gone_is_not_told(self):
        """Only those who still listen are told of what is written."""
        tracker, told = Tracker(), []

        class Listener:
            def note(self, position, snapshot, texts):
                told.append((position, dict(texts)))

        one, other = Listener(), Listener()
        tracker.listen(one)
        tracker.listen(other)
        del one
        gc.collect()
        tracker.note(3, FILE, {"a": Own(MISSING, 3)}, {"a": MISSING})

        assert [(3, {"a": MISSING})] == told

    def test_keys_are_forgotten_when_all_calls_know_of_them(self):
        """What was written up to the horizon is not kept; what was written again since is."""
        tracker = Tracker()
        for position, key in zip(itertools.count(1), "aba"):
            tracker.note(position, FILE, {key: Own(b"1", position)}, {key: b"1"})
        tracker.horizon = 2
        tracker.note(4, FILE, {}, {})

        assert (0, 3) == (tracker.own("b").written, tracker.own("a").written)
