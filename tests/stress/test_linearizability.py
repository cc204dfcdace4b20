"""The search for an order: it accepts every history that has one, and no other."""

from __future__ import annotations

import math
import sys
from itertools import combinations, permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.evidence import Evidence
from stress.checking.linearizability import GaveUpError, No, Step, search
from stress.checking.register import check_registers, steps_of
from stress.logs.history import Operation, Outcome

KEY = "register/0"


def op(name, span, token="a", *, result=None, expected=None, outcome=Outcome.OK):
    """Make an operation on a register, from the first to the second moment of `span`."""
    invoked, finished = span
    return Operation(
        id=token,
        workload="register",
        name=name,
        key=KEY,
        invoked=invoked,
        finished=finished,
        outcome=outcome,
        result=result,
        note=None if name in ("write", "read_register") else {"expected": expected},
    )


def write(span, token, outcome=Outcome.OK):
    return op("write", span, token, outcome=outcome)


def read(span, result):
    return op("read_register", span, f"read-{span}", result=result)


def swap(span, token, expected, result=True, outcome=Outcome.OK):
    return op("swap", span, token, result=result, expected=expected, outcome=outcome)


def steps(*operations):
    return [step for operation in operations for step in steps_of(operation)]


def culprit(*operations, **options):
    """Return the id of the operation that no order explains, or None."""
    found = search(steps(*operations), **options)
    return found and found.culprit.id


class TestRightHistories:
    """Histories that have an order."""

    def test_one_after_the_other(self):
        """A history without overlap is correct if each operation fits the state that the one before left."""
        operations = [
            read((1, 2), None),
            op("create", (3, 4), "a", result=True),
            op("create", (5, 6), "b", result=False),
            swap((7, 8), "c", "a"),
            op("exchange", (9, 10), "d", expected="c"),
            op("remove", (11, 12), "e", result=True, expected="d"),
            read((13, 14), None),
            write((15, 16), "f"),
            read((17, 18), "f"),
        ]

        assert culprit(*operations) is None

    def test_overlapping_operations_stand_in_any_order(self):
        """Operations that overlap may have happened in another order than the one in which they began or ended."""
        operations = [write((1, 20), "a"), write((2, 19), "b"), read((3, 4), "b"), read((5, 6), "a")]

        assert culprit(*operations) is None

    def test_those_that_touch_at_one_moment_overlap(self):
        """An operation that begins at the same moment at which another ends may come before it."""
        assert culprit(write((1, 2), "a"), read((2, 3), None)) is None

    @pytest.mark.parametrize("seen", [None, "a"])
    @pytest.mark.parametrize("span", [(1, 2), (1, 6), (1, math.inf), (4, 6)])
    def test_an_unknown_operation_happened_or_not(self, span, seen):
        """An unknown operation explains reads of its value if it happened, and reads of the old one if it did not."""
        operations = [write(span, "a", Outcome.UNKNOWN), read((5, 6), seen), read((7, 8), seen)]

        assert culprit(*operations) is None

    def test_an_unknown_operation_may_happen_late(self):
        """An unknown operation whose process lived on may take effect between two reads after it was given up."""
        operations = [write((1, math.inf), "a", Outcome.UNKNOWN), read((5, 6), None), read((7, 8), "a")]

        assert culprit(*operations) is None

    def test_a_write_that_failed_may_be_carried_later(self):
        """A save that failed leaves its change in memory, and another save may write it."""
        assert culprit(write((1, 2), "a", Outcome.FAIL), read((3, 4), None), read((5, 6), "a")) is None


class TestWrongHistories:
    """Histories that have no order."""

    def test_a_stale_read(self):
        """A read after a write has ended does not see the value before it."""
        assert culprit(write((1, 2), "a"), read((3, 4), None)) == "read-(3, 4)"

    def test_a_read_that_goes_back(self):
        """Once a read has seen the newer value, no later read sees the older one, even while the write is pending."""
        operations = [write((1, 20), "a"), read((2, 3), "a"), read((4, 5), None)]

        assert culprit(*operations) == "read-(4, 5)"

    def test_a_lost_update(self):
        """Of two operations that replaced the same value, one cannot have done so."""
        operations = [write((1, 2), "a"), swap((3, 6), "b", "a"), swap((4, 7), "c", "a")]

        assert culprit(*operations) == "c"

    def test_a_transaction_that_another_overwrote(self):
        """Two transactions that both saw the same value were not exclusive."""
        exchanges = [op("exchange", span, token, expected=None) for span, token in (((1, 4), "a"), ((2, 5), "b"))]

        assert culprit(*exchanges) == "b"

    def test_a_value_out_of_thin_air(self):
        """No read sees a value that was never written."""
        assert culprit(write((1, 2), "a"), read((3, 4), "z")) == "read-(3, 4)"

    def test_a_value_from_the_future(self):
        """No read sees a value that is only written later."""
        assert culprit(read((1, 2), "a"), write((3, 4), "a")) == "read-(1, 2)"

    def test_a_refusal_without_a_reason(self):
        """No operation is refused a value that is there."""
        assert culprit(write((1, 2), "a"), swap((3, 4), "b", "a", result=False)) == "b"

    def test_what_failed_did_not_happen(self):
        """An operation that failed explains nothing."""
        assert culprit(swap((1, 2), "a", None, outcome=Outcome.FAIL), read((3, 4), "a")) == "read-(3, 4)"

    def test_what_was_cancelled_did_not_happen_later(self):
        """An unknown operation that is known to be over cannot take effect after that."""
        operations = [write((1, 3), "a", Outcome.UNKNOWN), read((5, 6), None), read((7, 8), "a")]

        assert culprit(*operations) == "read-(7, 8)"

    def test_an_unknown_operation_happens_once(self):
        """An unknown operation explains one change, not two."""
        operations = [
            write((1, math.inf), "a", Outcome.UNKNOWN),
            op("remove", (2, 3), "b", result=True, expected="a"),
            op("remove", (4, 5), "c", result=True, expected="a"),
        ]

        assert culprit(*operations) == "c"


class TestFindings:
    """The report of a wrong history."""

    def test_show_the_smallest_piece(self):
        """Of a long history, only the operations that are needed are shown, and the values that were possible."""
        before = [one for n in range(0, 400, 4) for one in (write((n, n + 1), f"w{n}"), read((n + 2, n + 3), f"w{n}"))]
        wrong = [
            write((500, 501), "a"),
            read((502, 503), "a"),
            write((504, 520), "b"),
            read((505, 506), "b"),
            read((507, 508), "b"),
            read((509, 510), "a"),
        ]
        after = [write((n, n + 1), f"w{n}") for n in range(600, 700, 2)]

        found = search(steps(*before, *wrong, *after))

        assert found
        assert [operation.id for operation in found.window] == ["b", "read-(505, 506)", "read-(509, 510)"] or [
            operation.id for operation in found.window
        ] == ["b", "read-(507, 508)", "read-(509, 510)"]
        assert list(found.states) == ["a"]

    def test_name_who_wrote_the_value_before(self):
        """The checker shows the writer of the value that the register held before, and the final value counts."""
        (violation,) = check_registers(Evidence([write((1, 2), "a.0.0.0"), read((3, 4), "a.0.0.0")], {KEY: "b"}))

        assert violation.kind == "not linearizable"
        assert [one.name for one in violation.operations] == ["write", "read_register"]
        assert violation.operations[-1].result == "b"

    def test_accept_the_value_that_is_left(self):
        """A correct history with its final value is accepted."""
        assert list(check_registers(Evidence([write((1, 2), "a")], {KEY: "a"}))) == []

    def test_are_given_up_aloud(self):
        """A search that would take too long raises an error, and its register is reported as not judged."""
        crowd = [write((n, 100 + n), f"w{n}") for n in range(40)]

        with pytest.raises(GaveUpError):
            search(steps(*crowd, read((200, 201), "nobody's")), limit=10_000)
        assert [one.kind for one in check_registers(Evidence(crowd, {KEY: "nobody's"}), limit=10_000)] == ["undecided"]


def brute_force(all_steps):
    """Try every order of every choice of what happened: the definition, taken literally."""
    uncertain = [step for step in all_steps if not step.certain]
    certain = [step for step in all_steps if step.certain]
    return any(
        explains(order)
        for number in range(len(uncertain) + 1)
        for happened in combinations(uncertain, number)
        for order in permutations([*certain, *happened])
    )


def explains(order: tuple[Step, ...]) -> bool:
    """Return whether an order agrees with the times, and each of its steps fits the state before."""
    state = None
    for place, step in enumerate(order):
        if any(later.finished < step.invoked for later in order[place + 1 :]):
            return False
        state = step.leads(state)
        if isinstance(state, No):
            return False
    return True


VALUES = st.sampled_from([None, "0", "1", "2", "3", "4"])


@st.composite
def histories(draw):
    """Draw a few operations with much overlap, and with values that make it likely that some orders fit."""
    operations = []
    for number in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, 12))
        outcome = draw(st.sampled_from([Outcome.OK, Outcome.OK, Outcome.OK, Outcome.UNKNOWN, Outcome.FAIL]))
        end = draw(
            st.integers(begin, 12) if outcome is not Outcome.UNKNOWN else st.integers(begin, 12) | st.just(math.inf)
        )
        name = draw(st.sampled_from(["write", "read_register", "swap", "create", "remove", "exchange"]))
        expected = None if name == "create" else draw(VALUES)
        result = draw(VALUES) if name == "read_register" else draw(st.booleans())
        result = result if outcome is Outcome.OK and name not in ("write", "exchange") else None
        operations.append(op(name, (begin, end), str(number), result=result, expected=expected, outcome=outcome))
    return operations


class TestAgainstTheDefinition:
    """The search and the definition agree."""

    @settings(max_examples=600, deadline=None)
    @given(histories())
    def test_on_small_histories(self, operations):
        """A history is accepted if and only if one of all its permutations explains it."""
        all_steps = steps(*operations)

        assert (search(all_steps) is None) == brute_force(all_steps)

    @settings(max_examples=300, deadline=None)
    @given(histories())
    def test_on_the_pieces_that_are_shown(self, operations):
        """The operations that are shown for a wrong history are themselves wrong, after the values possible before."""
        found = search(steps(*operations))

        if found:
            assert all(search(steps(*found.window), [state]) is not None for state in found.states)
