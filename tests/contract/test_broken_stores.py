"""Each test of the contract fails on a store that breaks its promise: the one in memory, with a method replaced."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import time

import pytest
from hypothesis import Phase, given, settings

from contract import test_reports as reports
from contract import test_sessions as sessions
from contract import test_snapshots as snapshots
from contract import test_subscriptions as subscriptions
from contract.memorystore import MemorySession, MemorySnapshot, MemoryStore, MemorySubscription, Place, Turn
from contract.places import MemoryPlace
from persistent_context._model.snapshot import Changes
from persistent_context._model.values import Raw
from persistent_context._stores.protocol import CorruptStateError, SessionLostError
from persistent_context.errors import DurabilityUnknownError
from persistent_context.types import Holder

PATIENCE = 0.3
ATTEMPTS = 3
KINDS = [
    kind
    for module in (reports, sessions, snapshots, subscriptions)
    for name, kind in vars(module).items()
    if name.startswith("Test")
]
BROKEN = []


def breaks(kind, name, *tests):
    """Replace a method by a function that also gets the original one; each of the tests must then fail."""

    def register(broken):
        BROKEN.extend(pytest.param(kind, name, broken, test, id=f"{broken.__name__}-{test.__name__}") for test in tests)
        return broken

    return register


def arguments_of(test):
    """Yield the arguments of each parametrised run of a test."""
    sets = [[{}]]
    for mark in getattr(test, "pytestmark", []):
        names = mark.args[0].split(", ") if isinstance(mark.args[0], str) else mark.args[0]
        sets.append([dict(zip(names, values if len(names) > 1 else [values], strict=True)) for values in mark.args[1]])
    for combined in itertools.product(*sets):
        yield dict(itertools.chain.from_iterable(map(dict.items, combined)))


# -------------------------------- broken snapshots


@breaks(
    MemoryStore,
    "read",
    snapshots.TestContent.test_it_has_what_was_committed,
    snapshots.TestRevision.test_it_is_another_one_for_another_state,
    sessions.TestWaiting.test_it_sees_what_was_committed_meanwhile,
    sessions.TestCommit.test_a_session_begins_with_what_others_committed,
)
def reads_once(self, original):
    self.known = getattr(self, "known", None) or original(self)
    return self.known


@breaks(MemorySnapshot, "keys", snapshots.TestContent.test_its_views_agree)
def keys_in_another_order(self, original):
    return reversed(list(original(self)))


@breaks(MemorySnapshot, "parts", snapshots.TestContent.test_its_parts_are_bounded)
def all_in_one_part(self, original):
    yield {key: Raw(text) for key, text in self.texts.items()}


@breaks(MemorySnapshot, "changed", snapshots.TestContent.test_later_commits_do_not_change_it)
def is_mutable(self, original, changes):
    after = original(self, changes)
    self.texts, self.exists, self.revision = after.texts, after.exists, after.revision
    return self


@breaks(MemorySnapshot, "get", snapshots.TestContent.test_what_it_gives_away_is_not_part_of_it)
def gives_itself_away(self, original, keys):
    return self.texts


@breaks(MemorySnapshot, "parts", snapshots.TestContent.test_threads_share_it)
def has_a_position(self, original):
    self.position = 0
    parts = list(original(self))
    while self.position < len(parts):
        yield from parts[self.position : self.position + 1]
        self.position += 1


@breaks(MemorySnapshot, "__init__", snapshots.TestExistence.test_at_first_nothing_is_stored)
def always_exists(self, original, revision, texts):
    original(self, revision, texts or {})


@breaks(
    MemorySnapshot,
    "__init__",
    snapshots.TestExistence.test_a_commit_creates,
    snapshots.TestExistence.test_it_exists_without_keys,
)
def does_not_exist_without_keys(self, original, revision, texts):
    original(self, revision, texts or None)


@breaks(MemorySnapshot, "changed", snapshots.TestExistence.test_a_commit_of_nothing_does_not_create)
def always_creates(self, original, changes):
    return original(self, changes._replace(creates=True))


@breaks(MemorySnapshot, "changed", snapshots.TestExistence.test_what_exists_is_not_created_again)
def creates_again(self, original, changes):
    return MemorySnapshot(self.revision + 1, {}) if changes.creates else original(self, changes)


@breaks(MemorySnapshot, "changed", snapshots.TestOrder.test_new_and_moved_keys_come_last)
def moves_nothing(self, original, changes):
    return original(self, changes._replace(moved=()))


@breaks(
    MemorySnapshot,
    "changed",
    snapshots.TestOrder.test_new_and_moved_keys_come_last,
    snapshots.TestOrder.test_a_key_that_was_removed_comes_last_when_it_returns,
)
def sorts_keys(self, original, changes):
    after = original(self, changes)
    after.texts = dict(sorted(after.texts.items()))
    return after


@breaks(MemoryStore, "read", snapshots.TestRevision.test_it_is_the_same_until_something_is_committed)
def reading_is_a_revision(self, original):
    self.place.state = MemorySnapshot(self.place.state.revision + 1, self.place.state.texts)
    return original(self)


@breaks(
    MemorySnapshot,
    "changed",
    snapshots.TestRevision.test_it_is_another_one_for_another_state,
    snapshots.TestRevision.test_it_tells_states_apart,
)
def keeps_its_revision(self, original, changes):
    return MemorySnapshot(self.revision, original(self, changes).texts)


@breaks(MemorySession, "commit", snapshots.TestRevision.test_that_of_a_commit_is_read_afterwards)
def returns_another_revision(self, original, changes, *, durable):
    after = original(self, changes, durable=durable)
    return MemorySnapshot(after.revision + 1, after.texts)


@breaks(
    MemorySnapshot,
    "changes_since",
    snapshots.TestChanges.test_they_are_those_between_two_states,
    snapshots.TestChanges.test_they_lead_from_any_state_to_any_later_one,
)
def forgets_what_is_gone(self, original, older):
    return self.get(original(self, older))


@breaks(
    MemorySnapshot,
    "changes_since",
    snapshots.TestChanges.test_since_there_was_nothing,
)
def begins_at_the_first_state(self, original, older):
    return original(self, older) if older.exists else {}


# -------------------------------- broken sessions


@breaks(
    MemoryStore,
    "begin",
    sessions.TestExclusive.test_another_does_not_begin,
    sessions.TestExclusive.test_nor_in_another_thread,
    sessions.TestExclusive.test_nothing_is_lost_among_threads,
)
def excludes_nobody(self, original, purpose, *, wait):
    turn = Turn(purpose)
    self.place.turns.append(turn)
    return MemorySession(self, turn, self.place.turns, 0.0)


@breaks(MemorySession, "close", sessions.TestExclusive.test_once_it_is_closed_another_begins)
def stays_open(self, original):
    pass


@breaks(MemorySession, "commit", sessions.TestExclusive.test_it_may_go_from_thread_to_thread)
def belongs_to_a_thread(self, original, changes, *, durable):
    assert threading.current_thread() is threading.main_thread()
    return original(self, changes, durable=durable)


@breaks(MemorySession, "__init__", sessions.TestWaiting.test_it_ends_with_the_session)
def does_not_say_that_it_waited(self, original, store, turn, turns, waited):
    original(self, store, turn, turns, 0.0)


@breaks(
    MemorySession,
    "__init__",
    sessions.TestExclusive.test_once_it_is_closed_another_begins,
    sessions.TestWaiting.test_is_not_needed_when_it_is_free,
)
def always_says_that_it_waited(self, original, store, turn, turns, waited):
    original(self, store, turn, turns, waited + 0.001)


@breaks(MemorySession, "close", sessions.TestWaiting.test_is_in_order)
def serves_the_last_first(self, original):
    with self._place.changed:
        self._turns[1:] = reversed(self._turns[1:])
        original(self)


@breaks(MemorySession, "commit", sessions.TestCommit.test_others_see_it_at_once)
def writes_at_the_close(self, original, changes, *, durable):
    before = self._place.state
    self.after = original(self, changes, durable=durable)
    self._place.state = before
    return self.after


@breaks(MemorySession, "commit", sessions.TestCommit.test_the_session_has_what_it_wrote)
def keeps_what_it_has_read(self, original, changes, *, durable):
    before = self.snapshot
    after = original(self, changes, durable=durable)
    self._snapshot = before
    return after


@breaks(MemorySession, "close", sessions.TestClose.test_it_tells_how_long_others_had_to_wait)
def does_not_tell_how_long_it_was_open(self, original):
    original(self)
    self.held = 0.0


@breaks(MemorySession, "commit", sessions.TestCommit.test_it_lasts)
def forgets_what_is_not_durable(self, original, changes, *, durable):
    return original(self, changes, durable=durable) if durable else self.snapshot.changed(changes)


@breaks(
    MemorySession,
    "commit",
    sessions.TestCommit.test_it_is_seen_as_a_whole,
    sessions.TestCommit.test_that_fails_leaves_what_was_there,
    sessions.TestLost.test_its_commit_writes_nothing,
)
def writes_key_by_key(self, original, changes, *, durable):
    for key, text in changes.texts.items():
        self._place.write(self._place.state.changed(Changes({key: text})))
        time.sleep(0)  # let others run
    return original(self, changes, durable=durable)


@breaks(MemorySession, "close", sessions.TestCommit.test_without_one_nothing_changes)
def always_commits(self, original):
    if not self._is_over:
        self.commit(Changes(creates=True), durable=False)
    original(self)


@breaks(MemorySession, "commit", sessions.TestCommit.test_that_may_not_survive_is_there)
def takes_back_what_may_not_survive(self, original, changes, *, durable):
    before = self.snapshot
    try:
        return original(self, changes, durable=durable)
    except DurabilityUnknownError:
        self._place.write(before)
        raise


@breaks(
    MemorySession,
    "close",
    sessions.TestClose.test_a_second_time_does_nothing,
    sessions.TestClose.test_nor_does_it_when_the_same_store_has_another_one,
    sessions.TestLost.test_another_may_have_begun,
)
def ends_whichever_is_open(self, original):
    del self._place.turns[:1]


@breaks(MemorySession, "commit", sessions.TestLost.test_its_commit_writes_nothing)
def is_lost_after_it_has_written(self, original, changes, *, durable):
    try:
        return original(self, changes, durable=durable)
    except SessionLostError:
        self._place.write(self.snapshot.changed(changes))
        raise


@breaks(MemorySession, "commit", sessions.TestLost.test_another_may_have_begun)
def does_not_know_that_it_is_lost(self, original, changes, *, durable):
    self._turns = self._place.turns
    return original(self, changes, durable=durable)


@breaks(MemoryStore, "begin", sessions.TestLost.test_what_waited_for_it_gets_another_one)
def waits_for_nothing(self, original, purpose, *, wait):
    turns = self.place.turns
    session = original(self, purpose, wait=wait)
    return session if turns is self.place.turns else None


@breaks(MemoryStore, "is_waiting", sessions.TestAWait.test_it_is_seen)
def always_waits(self, original):
    return True


@breaks(
    MemoryStore,
    "abandon_vain_wait",
    sessions.TestWaitingInVain.test_it_can_be_abandoned,
    sessions.TestWaitingInVain.test_no_other_wait_is,
)
def abandons_in_words_only(self, original):
    return True


@breaks(MemoryStore, "snapshot", sessions.TestCorrupt.test_reading_leaves_it_alone)
def reading_sets_aside(self, original):
    self.place.is_corrupt = False
    return original(self)


@breaks(MemorySession, "snapshot", sessions.TestCorrupt.test_a_session_leaves_it_alone_too)
def sets_aside_unasked(self, original):
    self.set_aside()
    return original(self)


@breaks(MemorySession, "set_aside", sessions.TestCorrupt.test_a_session_sets_it_aside)
def believes_what_is_corrupt(self, original):
    self._place.is_corrupt = False


@breaks(
    MemorySession,
    "set_aside",
    sessions.TestCorrupt.test_a_session_sets_it_aside,
    sessions.TestCorrupt.test_once_it_is_set_aside_nothing_is_there,
)
def leaves_what_is_corrupt(self, original):
    self._snapshot = MemorySnapshot(self._place.state.revision + 1, None)


@breaks(MemorySession, "set_aside", sessions.TestCorrupt.test_what_is_not_corrupt_stays)
def sets_aside_what_is_there(self, original):
    self._place.is_corrupt = True
    original(self)


# -------------------------------- broken subscriptions


@breaks(MemorySubscription, "ring", subscriptions.TestNotifying.test_every_change_is_told)
def every_other_change(self, original):
    self.rings = not getattr(self, "rings", False)
    if self.rings:
        original(self)


@breaks(MemorySubscription, "ring", subscriptions.TestNotifying.test_it_is_in_another_thread)
def in_the_thread_that_commits(self, original):
    self._notify()


@breaks(Place, "write", subscriptions.TestNotifying.test_all_subscriptions_are_told)
def to_one_subscription(self, original, state):
    self.state = state
    list(self.subscriptions)[0].ring()


@breaks(
    MemorySubscription,
    "_wait",
    subscriptions.TestNotifying.test_a_change_during_a_call_leads_to_another_one,
    subscriptions.TestNotifying.test_the_last_change_is_told_at_whatever_moment_it_comes,
)
def not_what_comes_during_a_call(self, original):
    while not self._signals.empty():
        self._signals.get()
    return original(self)


@breaks(
    MemorySubscription,
    "close",
    subscriptions.TestEnding.test_a_closed_one_is_not_told,
    subscriptions.TestEnding.test_it_may_be_closed_by_the_function,
)
def goes_on_when_closed(self, original):
    pass


@breaks(MemorySubscription, "close", subscriptions.TestEnding.test_one_ends_without_the_others)
def closes_all(self, original):
    for subscription in list(self._place.subscriptions):
        original(subscription)


@breaks(MemorySubscription, "_run", subscriptions.TestEnding.test_the_function_may_end_it)
def goes_on_after_false(self, original):
    while self._wait():
        self._notify()


@breaks(MemorySubscription, "_run", subscriptions.TestEnding.test_an_error_is_told_before_the_last_call)
def ends_without_a_word(self, original):
    try:
        while self._wait():
            self._notify()
    except RuntimeError:
        self._notify()


# -------------------------------- broken reports


@breaks(MemoryStore, "holder", reports.TestHolder.test_it_is_who_has_the_session)
def says_not_who(self, original, *, probe=True):
    return original(self, probe=probe) and Holder()


@breaks(MemoryStore, "holder", reports.TestHolder.test_it_is_nobody_when_no_session_is_open)
def somebody_is_nobody(self, original, *, probe=True):
    return original(self, probe=probe) or Holder()


@breaks(MemoryStore, "holder", reports.TestHolder.test_it_changes_with_the_session)
def the_first_one_for_ever(self, original, *, probe=True):
    self.known = getattr(self, "known", None) or original(self, probe=probe)
    return self.known


@breaks(MemoryStore, "traffic", reports.TestTraffic.test_it_begins_with_nothing)
def begins_with_one(self, original):
    return original(self)._replace(commits=original(self).commits + 1)


@breaks(MemoryStore, "count_commit", reports.TestTraffic.test_commits_are_counted)
def counts_twice(self, original, changes):
    return original(self, changes) + original(self, changes)


@breaks(MemorySession, "commit", reports.TestTraffic.test_what_fails_is_not_counted)
def counts_attempts(self, original, changes, *, durable):
    self._store.count_commit(changes)
    return original(self, changes, durable=durable)


@breaks(MemoryStore, "read", reports.TestTraffic.test_what_was_read_is_counted)
def counts_no_reading(self, original):
    return self.place.state


@breaks(MemoryStore, "close", reports.TestClosing.test_a_closed_store_can_be_used_again)
def is_gone_when_closed(self, original):
    self.place = Place()


@breaks(MemoryStore, "close", reports.TestClosing.test_what_was_read_before_can_be_looked_at)
def takes_its_snapshots_along(self, original):
    self.place.state.texts.clear()


@breaks(MemoryStore, "close", reports.TestClosing.test_it_leaves_others_alone)
def ends_the_sessions_of_others(self, original):
    self.place.turns.clear()


class TestBrokenStores:
    @pytest.mark.parametrize(("kind", "name", "broken", "test"), BROKEN)
    def test_is_found(self, request, tmp_path, monkeypatch, kind, name, broken, test):
        """The test fails in at least one of its runs; tests that depend on timing get several chances."""
        fixtures = {
            name: request.getfixturevalue(name)
            for name in inspect.signature(test).parameters.keys() & {"caplog", "listen"}
        }
        original = getattr(kind, name)
        replaced = functools.partialmethod(broken, original)
        if isinstance(original, property):
            replaced = property(lambda self: broken(self, original.fget))
        monkeypatch.setattr(kind, name, replaced)
        monkeypatch.setattr(MemoryPlace, "patience", PATIENCE)
        for number, arguments in enumerate([*arguments_of(test)] * ATTEMPTS):
            directory = tmp_path / str(number)
            directory.mkdir()
            try:
                run(test, MemoryPlace(directory), **arguments, **fixtures)
            except (AssertionError, CorruptStateError, pytest.fail.Exception):
                return

        pytest.fail("it passes")

    def test_every_test_has_one(self):
        """Every test of the contract has a store on which it fails."""
        tests = {
            f"{kind.__name__}.{name}": test
            for kind in KINDS
            for name, test in vars(kind).items()
            if name.startswith("test_") and "place" in inspect.signature(test).parameters
        }
        seen = {one.values[3] for one in BROKEN}

        assert [] == [name for name, test in tests.items() if test not in seen]


def run(test, place, **arguments):
    """Run a test, at a place that is not a fixture."""
    case = next(kind() for kind in KINDS if test in vars(kind).values())
    if hasattr(test, "hypothesis"):
        search = settings(database=None, phases=[Phase.generate])
        search(given(steps=snapshots.STEPS)(lambda steps: test.hypothesis.inner_test(case, place, steps)))()
    else:
        test(case, place, **arguments)
