"""Each checker of the stress run finds the violations it is made for, and none in what the contract allows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from logged import kinds, logged

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.checkers import (
    check,
    check_bank,
    check_counters,
    check_lists,
    check_once,
    check_owned,
    check_reads,
)
from stress.checking.leases import check_computed, check_leases
from stress.checking.nested import check_nested
from stress.checking.prefixes import check_prefixes
from stress.documents.hammered import (
    ACCOUNTS,
    BASE,
    GENERATION,
    JOURNAL,
    JOURNAL_LENGTH,
    OPENING_BALANCE,
    TRANSFERS,
    enter,
    opening_document,
    replays,
    snapshot,
)
from stress.logs.history import History, Outcome

KEY = "a key"
ALICE, BOB, *_ = ACCOUNTS


def op(name, span, *, key=KEY, **details):
    """Make an operation, by default on the one key."""
    return logged(name, key, span, noted=span[0], **details)


def unknown(name, span, **details):
    """Make an operation that was pending when its process was killed, at the second moment of `span`."""
    return op(name, span, outcome=Outcome.UNKNOWN, **details)


class TestCounters:
    """The checker of counters."""

    def test_accept_concurrent_increments_and_an_unknown_one(self):
        """A correct history is accepted: overlapping operations in any order, and a value made by a killed worker."""
        operations = [
            op("incr", (1, 9), by="0.0.0", result=2),
            op("incr", (2, 8), by="1.0.0", result=1),
            unknown("incr", (10, 20), by="2.0.0"),
            op("incr", (15, 30), by="0.0.0", result=4),
            op("compare_and_set", (16, 30), by="1.0.0"),
        ]
        reads = [op("read", (9, 11), result={KEY: 2}), op("read", (31, 32), result={KEY: 4})]

        assert kinds(check_counters, operations, {KEY: 4}, reads) == []

    def test_find_an_increment_that_another_overwrote(self):
        """Two increments that returned the same value are one lost increment."""
        operations = [op("incr", (1, 5), by="0.0.0", result=1), op("incr", (2, 6), by="1.0.0", result=1)]

        assert kinds(check_counters, operations, {KEY: 1}) == ["lost"]

    def test_find_an_increment_that_is_missing_at_the_end(self):
        """An acknowledged value above the final one is a lost increment."""
        operations = [op("incr", (1, 2), result=1), op("incr", (3, 4), result=2)]

        assert kinds(check_counters, operations, {KEY: 1}) == ["lost"]

    def test_find_an_increment_made_twice(self):
        """A value that no operation can have made is a duplicated increment."""
        operations = [op("incr", (1, 2), result=1), op("incr", (3, 4), result=3)]

        assert kinds(check_counters, operations, {KEY: 3}) == ["duplicated"]

    @pytest.mark.parametrize("span", [(1, 4), (21, 30)], ids=["dead before", "begun after"])
    def test_find_a_value_that_no_unknown_operation_can_have_made_in_time(self, span):
        """An unknown operation explains only a value that was made while it was pending."""
        operations = [
            op("incr", (5, 6), by="0.0.0", result=1),
            op("incr", (10, 20), by="0.0.0", result=3),
            unknown("incr", span, by="1.0.0"),
        ]

        assert kinds(check_counters, operations, {KEY: 3}) == ["duplicated"]

    def test_find_a_cancelled_increment_that_happened_late(self):
        """A cancelled increment has happened by the time the call ended, or never: later reads do not change."""
        operations = [unknown("incr", (1, 5)), op("incr", (20, 30), by="1.0.0", result=2)]
        reads = [op("read", (7, 8), by="reader.0.0", result={KEY: 0})]

        assert kinds(check_counters, operations, {KEY: 2}) == []
        assert kinds(check_counters, operations, {KEY: 2}, reads) == ["duplicated"]

    def test_find_a_failed_increment_that_happened(self):
        """An increment that failed must not count."""
        operations = [op("incr", (1, 2), outcome=Outcome.FAIL)]

        assert kinds(check_counters, operations, {KEY: 1}) == ["duplicated"]

    def test_find_an_increment_that_went_back_in_time(self):
        """An increment that begins after another has ended gets a higher value."""
        operations = [op("incr", (1, 2), by="0.0.0", result=2), op("incr", (3, 4), by="1.0.0", result=1)]

        assert kinds(check_counters, operations, {KEY: 2}) == ["stale"]

    def test_find_a_reader_that_saw_an_old_value(self):
        """A read that begins after an increment was acknowledged sees it."""
        operations = [op("incr", (1, 2), result=1)]

        assert kinds(check_counters, operations, {KEY: 1}, [op("read", (3, 4), by="reader.0.0", result={})]) == [
            "stale"
        ]


class TestOwnedKeys:
    """The checker of keys that only one task writes."""

    def test_accept_the_last_value_or_a_later_unknown_one(self):
        """A correct history is accepted, whatever the outcome of the last save of a killed worker."""
        operations = [op("replace", (1, 2)), op("change", (3, 4)), op("read_back", (5, 6), result="0.0.0.3")]
        pending = unknown("delete", (7, 9))

        assert kinds(check_owned, operations, {KEY: ["0.0.0.3"]}) == []
        assert kinds(check_owned, [*operations, pending], {KEY: ["0.0.0.3"]}) == []
        assert kinds(check_owned, [*operations, pending], {}) == []

    def test_accept_that_a_failed_save_comes_later(self):
        """A save that failed leaves its change unsaved, and another save of the same context may write it."""
        operations = [op("replace", (1, 2)), op("replace", (3, 4), outcome=Outcome.FAIL)]

        assert kinds(check_owned, operations, {KEY: ["0.0.0.3"]}) == []

    @pytest.mark.parametrize("final", [{}, {KEY: ["0.0.0.1"]}, {KEY: ["foreign"]}], ids=["gone", "older", "foreign"])
    def test_find_a_lost_save(self, final):
        """A key without its last acknowledged value has lost it."""
        operations = [op("replace", (1, 2)), op("replace", (3, 4))]

        assert kinds(check_owned, operations, final) == ["lost"]

    def test_find_a_deleted_key_that_came_back(self):
        """A key whose deletion was acknowledged stays deleted."""
        operations = [op("replace", (1, 2)), op("delete", (3, 4))]

        assert kinds(check_owned, operations, {KEY: ["0.0.0.1"]}) == ["lost"]

    def test_find_a_value_that_was_lost_for_a_while(self):
        """A task that reads its key back sees what it last saved."""
        operations = [op("replace", (1, 2)), op("read_back", (3, 4)), op("replace", (5, 6))]

        assert kinds(check_owned, operations, {KEY: ["0.0.0.5"]}) == ["lost"]


class TestNested:
    """The checker of the members of an object that all tasks fill."""

    def member(self, name, span, **how):
        """Make an operation on a member."""
        return op(name, span, key="nested/0.0", **how)

    def final(self, token=None):
        """The document in the end."""
        return {"nested": {"by": {"seat": {} if token is None else {"0.0": token}}}}

    def test_accept_the_last_value_or_a_later_unknown_one(self):
        """A correct history is accepted."""
        operations = [self.member("fill", (1, 2)), self.member("read_back", (3, 4), result="0.0.0.1")]
        pending = unknown("empty", (5, 6), key="nested/0.0")

        assert kinds(check_nested, operations, self.final("0.0.0.1")) == []
        assert kinds(check_nested, [*operations, pending], self.final()) == []
        assert kinds(check_nested, [*operations, self.member("empty", (5, 6))], self.final()) == []

    @pytest.mark.parametrize("token", [None, "older", "0.0.0.1"])
    def test_find_a_lost_member(self, token):
        """An acknowledged member is in the object."""
        operations = [self.member("fill", (1, 2)), self.member("fill", (3, 4))]

        assert kinds(check_nested, operations, self.final(token)) == ["lost"]
        assert kinds(check_nested, operations, {}) == ["lost"]


class TestLists:
    """The checker of lists."""

    def test_accept_tokens_drained_or_left(self):
        """A correct history is accepted: tokens that were drained, or perhaps drained, or are left."""
        operations = [
            op("append", (1, 2)),
            op("append", (3, 4)),
            op("drain", (5, 6), by="1.0.0", note=["0.0.0.1", "0.0.0.3"]),
            op("append", (7, 8)),
            unknown("drain", (9, 10), by="1.0.0", note=["0.0.0.7"]),
            op("append", (11, 12)),
            unknown("append", (13, 14)),
        ]

        assert kinds(check_lists, operations, {KEY: ["0.0.0.11"]}) == []
        assert kinds(check_lists, operations, {KEY: ["0.0.0.7", "0.0.0.11", "0.0.0.13"]}) == []

    def test_find_a_lost_token(self):
        """An acknowledged token that is in no list is lost."""
        assert kinds(check_lists, [op("append", (1, 2)), op("append", (3, 4))], {KEY: ["0.0.0.3"]}) == ["lost"]

    @pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.UNKNOWN])
    def test_find_a_duplicated_token(self, outcome):
        """A token is in a list only once."""
        assert kinds(check_lists, [op("append", (1, 2), outcome=outcome)], {KEY: ["0.0.0.1"] * 2}) == ["duplicated"]

    def test_find_a_drained_token_that_came_back(self):
        """A token that was drained is not in the list any more."""
        operations = [op("append", (1, 2)), op("drain", (3, 4), by="1.0.0", note=["0.0.0.1"])]

        assert kinds(check_lists, operations, {KEY: ["0.0.0.1"]}) == ["duplicated"]

    def test_find_foreign_tokens(self):
        """A list holds no token that failed to be appended, was meant for another list, or was never written."""
        operations = [
            op("append", (1, 2), outcome=Outcome.FAIL),
            op("append", (3, 4), key="another list"),
        ]
        final = {KEY: ["0.0.0.1", "0.0.0.3", "9.9.9.9"], "another list": []}

        assert kinds(check_lists, operations, final) == ["foreign"] * 3

    def test_find_half_a_transaction(self):
        """A drain takes all tokens that it saw, or none."""
        operations = [
            op("append", (1, 2)),
            op("append", (3, 4)),
            unknown("drain", (5, 6), by="1.0.0", note=["0.0.0.1", "0.0.0.3"]),
        ]

        assert kinds(check_lists, operations, {KEY: ["0.0.0.3"]}) == ["torn"]

    def test_find_tokens_out_of_order(self):
        """Tokens of one task are in the order in which it appended them, drained or not."""
        operations = [op("append", (1, 2)), op("append", (3, 4))]
        drain = op("drain", (5, 6), by="1.0.0", note=["0.0.0.3"])

        assert kinds(check_lists, operations, {KEY: ["0.0.0.3", "0.0.0.1"]}) == ["reordered"]
        assert kinds(check_lists, [*operations, drain], {KEY: ["0.0.0.1"]}) == ["reordered"]


class TestBank:
    """The checker of transfers."""

    @staticmethod
    def note(number, amount, after):
        """Return the note of a transfer from Alice to Bob."""
        return {"number": number, "from": ALICE, "to": BOB, "amount": amount, "after": after}

    @staticmethod
    def document(number, alice, bob):
        """Return a document with the balances of Alice and Bob, and an empty journal since."""
        balances = {**dict.fromkeys(ACCOUNTS, OPENING_BALANCE), ALICE: alice, BOB: bob}
        return {**opening_document(), **balances, BASE: balances, TRANSFERS: number}

    def transfers(self):
        """Return the history of an acknowledged, an unknown and another acknowledged transfer."""
        return [
            op("transfer", (1, 2), note=self.note(1, 10, [990, 1010])),
            unknown("transfer", (3, 4), by="1.0.0", note=self.note(2, 30, [960, 1040])),
            unknown("transfer", (5, 6), by="2.0.0", note=self.note(2, 20, [970, 1030])),
            op("transfer", (7, 8), note=self.note(3, 5, [965, 1035])),
        ]

    def test_accepts_a_replay(self):
        """A correct history is accepted: of two unknown transfers with the same number, the later one happened."""
        read = op("read", (2, 3), by="reader.0.0", result=self.document(1, 990, 1010))

        assert kinds(check_bank, self.transfers(), self.document(3, 965, 1035), [read]) == []

    def test_finds_a_wrong_total(self):
        """Money that appears or disappears shows in the final document."""
        assert kinds(check_bank, [], self.document(0, 990, 1000)) == ["torn", "lost"]

    def test_finds_a_reader_who_saw_half_a_transfer(self):
        """A reader never sees one balance changed without the other."""
        read = op("read", (1, 3), by="reader.0.0", result=self.document(0, 990, 1000))

        assert kinds(check_bank, self.transfers(), self.document(3, 965, 1035), [read]) == ["torn"]

    def test_finds_a_lost_transfer(self):
        """A transfer that was acknowledged is in the balances."""
        assert kinds(check_bank, self.transfers(), self.document(3, 975, 1025)) == ["lost", "lost"]
        assert kinds(check_bank, self.transfers(), self.document(2, 970, 1030)) == ["lost"]

    def test_finds_a_transfer_that_another_overwrote(self):
        """Two transfers with the same number are one lost transfer."""
        operations = [op("transfer", (1, 3), by=by, note=self.note(1, 10, [990, 1010])) for by in ("0.0.0", "1.0.0")]

        assert kinds(check_bank, operations, self.document(1, 990, 1010)) == ["lost"]

    def test_finds_an_aborted_transfer_that_happened(self):
        """An aborted transfer leaves no trace."""
        assert kinds(check_bank, [op("abort", (1, 2))], self.document(1, 990, 1010)) == ["foreign"]

    def test_finds_an_audit_that_went_wrong(self):
        """An audit through the library must satisfy the same conditions as a read from outside."""
        audits = [
            op(name, (2, 3), by="1.0.0", result=snapshot(self.document(0, *balances)))
            for name, balances in (("audit", (990, 1000)), ("audit_exclusively", (1000, 1000)))
        ]

        assert kinds(
            check_bank,
            [*audits, op("transfer", (0, 1), note=self.note(1, 10, [990, 1010]))],
            (self.document(1, 990, 1010)),
        ) == ["torn", "stale"]

    def test_finds_a_journal_that_does_not_lead_to_the_balances(self):
        """Values written in one transaction are never seen apart: neither by a reader, nor at the end."""
        final = self.document(1, 990, 1010)
        final[BASE] = opening_document()[BASE]
        read = op("read", (2, 3), by="reader.0.0", result=snapshot(final))
        transfer = op("transfer", (1, 2), note=self.note(1, 10, [990, 1010]))

        assert kinds(check_bank, [transfer], final, [read]) == ["torn", "torn"]
        assert kinds(check_bank, [transfer], {**final, JOURNAL: [["0.0.0.1", ALICE, BOB, 10]]}) == []

    def test_finds_a_transfer_that_the_journal_gives_to_another(self):
        """The transfer that was acknowledged with a number is the one that has it in the journal."""
        final = {**self.document(1, 990, 1010), BASE: opening_document()[BASE]}
        final[JOURNAL] = [["5.0.0.0", ALICE, BOB, 10]]

        assert kinds(check_bank, [op("transfer", (1, 2), note=self.note(1, 10, [990, 1010]))], final) == ["lost"]

    def test_keeps_a_short_journal(self):
        """However many transfers are entered, the journal stays short and leads to the balances."""
        document = opening_document()
        for number in range(3 * JOURNAL_LENGTH):
            document[ALICE] -= number
            document[BOB] += number
            enter(document, [f"0.0.0.{number}", ALICE, BOB, number])

        assert len(document[JOURNAL]) == JOURNAL_LENGTH
        assert replays(document)
        assert not replays({**document, BOB: 0})


class TestPrefixes:
    """The checker of lists that only grow."""

    def test_accepts_reads_that_are_prefixes(self):
        """A correct history is accepted: acknowledged and unknown tokens, and a list that was begun anew."""
        operations = [
            op("extend", (1, 2), result=[0, 1]),
            unknown("extend", (3, 4), by="1.0.0"),
            op("see", (5, 6), by="2.0.0", result=[0, ["0.0.0.1", "1.0.0.3"]]),
            op("see_exclusively", (1, 6), by="2.0.0", result=[0, []]),
            op("extend_exclusively", (7, 8), result=[0, 3]),
        ]

        assert kinds(check_prefixes, operations, {KEY: [0, ["0.0.0.1", "1.0.0.3", "0.0.0.7"]]}) == []

    def test_accepts_the_next_generation(self):
        """A full list makes room for the next one, and nothing is missing."""
        appends = [op("extend", (n, n), result=[0, n]) for n in range(1, GENERATION + 1)]
        last = GENERATION + 1

        assert (
            kinds(check_prefixes, [*appends, op("extend", (last, last), result=[1, 1])], {KEY: [1, [f"0.0.0.{last}"]]})
            == []
        )

    def test_finds_a_lost_token(self):
        """An acknowledged token is in its place at the end."""
        operations = [op("extend", (1, 2), result=[0, 1]), op("extend", (3, 4), result=[0, 2])]

        assert kinds(check_prefixes, operations, {KEY: [0, ["0.0.0.1"]]}) == ["lost"]

    def test_finds_a_token_that_was_put_there_too_late(self):
        """A place that an unknown append filled was filled while the append was pending."""
        operations = [unknown("extend", (1, 2)), op("extend", (8, 9), by="1.0.0", result=[0, 2])]
        read = op("see", (5, 6), by="2.0.0", result=[0, []])
        final = {KEY: [0, ["0.0.0.1", "1.0.0.8"]]}

        assert kinds(check_prefixes, operations, final) == []
        assert kinds(check_prefixes, [*operations, read], final) == ["stale"]

    def test_finds_a_token_that_nobody_saw_and_nobody_can_have_put_there(self):
        """A place that no read shows was filled by an unknown append that was pending at the time."""
        appends = [op("extend", (n, n), result=[0, n]) for n in range(1, GENERATION)]
        late = op("extend", (90, 91), result=[1, 1])
        final = {KEY: [1, [late.id]]}
        read = op("see", (70, 71), by="2.0.0", result=[0, [append.id for append in appends]])
        pending = unknown("extend", (50, 60), by="1.0.0")

        assert kinds(check_prefixes, [*appends, pending, late], final) == []
        assert kinds(check_prefixes, [*appends, pending, read, late], final) == ["duplicated"]

    def test_finds_two_tokens_in_one_place(self):
        """A place is filled once, and every read of it sees the same token."""
        operations = [op("extend", (1, 4), result=[0, 1]), op("extend", (2, 4), by="1.0.0", result=[0, 1])]
        read = op("see", (1, 5), by="2.0.0", result=[0, ["1.0.0.2"]])

        assert "lost" in kinds(check_prefixes, operations, {KEY: [0, ["0.0.0.1"]]})
        assert "reordered" in kinds(
            check_prefixes, [operations[0], unknown("extend", (2, 4), by="1.0.0"), read], {KEY: [0, ["0.0.0.1"]]}
        )

    def test_finds_a_reader_who_saw_no_prefix(self):
        """Of any two reads of a list, one is the beginning of the other."""
        operations = [unknown("extend", (1, 2), by=by) for by in ("0.0.0", "1.0.0")]
        reads = [
            op("see", (n, n + 1), by="2.0.0", result=[0, [token]]) for n, token in ((5, "0.0.0.1"), (7, "1.0.0.1"))
        ]

        assert "reordered" in kinds(check_prefixes, [*operations, *reads], {KEY: [0, ["1.0.0.1"]]})

    def test_finds_a_reader_who_saw_a_shorter_list(self):
        """A read after an append was acknowledged sees at least that token."""
        operations = [op("extend", (1, 2), result=[0, 1]), op("see", (3, 4), by="2.0.0", result=[0, []])]

        assert kinds(check_prefixes, operations, {KEY: [0, ["0.0.0.1"]]}) == ["stale"]

    @pytest.mark.parametrize("maker", [[], [op("extend", (1, 2), outcome=Outcome.FAIL)], [unknown("extend", (9, 10))]])
    def test_finds_a_token_that_nobody_can_have_appended(self, maker):
        """A token that was never written, whose append failed, or that was written later is foreign."""
        token = maker[0].id if maker else "7.7.7.7"
        read = op("see", (3, 4), by="2.0.0", result=[0, [token]])

        assert "foreign" in kinds(check_prefixes, [*maker, read], {KEY: [0, [token]]})


class TestOnce:
    """The checker of keys that only one can create."""

    def test_accepts_one_winner(self):
        """A correct history is accepted: one winner, acknowledged or unknown, whom every read shows."""
        winner = op("add", (1, 5), by="0.0.0", result=True)
        loser = op("expect_missing", (2, 6), by="1.0.0", result=False)
        reads = [op("read_winner", (3, 4), by="2.0.0"), op("read_winner", (6, 7), by="2.0.0", result="0.0.0.1")]

        assert kinds(check_once, [winner, loser, *reads], {KEY: "0.0.0.1"}) == []
        assert kinds(check_once, [unknown("add", (1, 5)), loser], {KEY: "0.0.0.1"}) == []
        assert kinds(check_once, [unknown("add", (1, 5))], {}) == []

    def test_finds_two_winners(self):
        """A key is created once."""
        operations = [op("add", (1, 5), by="0.0.0", result=True), op("add", (1, 5), by="1.0.0", result=True)]

        assert kinds(check_once, operations, {KEY: "1.0.0.1"}) == ["duplicated"]

    @pytest.mark.parametrize("final", [{}, {KEY: "1.0.0.2"}], ids=["gone", "the loser's"])
    def test_finds_a_lost_winner(self, final):
        """The value of the acknowledged winner stays."""
        operations = [op("add", (1, 5), by="0.0.0", result=True), op("add", (2, 6), by="1.0.0", result=False)]

        assert kinds(check_once, operations, final) == ["lost"]

    def test_finds_a_refusal_of_a_free_key(self):
        """No operation is refused a key that is still free."""
        operations = [op("add", (1, 2), by="0.0.0", result=False), op("add", (3, 4), by="1.0.0", result=True)]

        assert kinds(check_once, operations, {KEY: "1.0.0.3"}) == ["stale"]

    @pytest.mark.parametrize("seen", [None, "1.0.0.3"], ids=["nobody", "somebody else"])
    def test_finds_a_reader_who_saw_no_winner(self, seen):
        """A read after a key was created sees the winner."""
        operations = [op("add", (1, 2), result=True), op("read_winner", (3, 4), by="2.0.0", result=seen)]

        assert kinds(check_once, operations, {KEY: "0.0.0.1"}) == ["stale"]


class TestReads:
    """The checker of the document as a whole."""

    def test_find_torn_and_missing_documents(self):
        """A missing file and a torn document are different findings, and both are reported."""
        operations = [
            op("read", (1, 2), outcome=Outcome.FAIL, error="JSONDecodeError: Expecting value"),
            op("read", (3, 4), outcome=Outcome.FAIL, error="FileNotFoundError: state.json"),
        ]

        assert kinds(check_reads, operations, {}) == ["torn", "missing"]

    def test_find_keys_that_nobody_wrote(self):
        """A key in the final document that no operation named is foreign."""
        found = check(History(), {**opening_document(), "surprise": 1})

        assert [violation.kind for violations in found.values() for violation in violations] == ["foreign"]


class TestLeases:
    """A lease has one holder at a time, with a token that grows."""

    def test_accept_holders_in_turn(self):
        """Each holder begins after the one before it, with a greater token; other leases are held at the same time."""
        held = [op("hold", (0, 9), result=[5, 1, 3]), op("hold", (1, 9), result=[7, 3, 8]), unknown("hold", (2, 6))]
        held.append(op("hold", (0, 9), key="another", result=[6, 2, 7]))

        assert [] == kinds(check_leases, held, {})

    def test_find_two_holders_at_once(self):
        """The second holder began before the first had ended."""
        held = [op("hold", (0, 9), result=[5, 1, 4]), op("hold", (1, 9), result=[7, 3, 8])]

        assert ["reordered"] == kinds(check_leases, held, {})

    def test_find_a_token_that_went_back(self):
        """A later holder had a smaller token."""
        held = [op("hold", (0, 9), result=[7, 1, 3]), op("hold", (1, 9), result=[5, 4, 8])]

        assert ["reordered"] == kinds(check_leases, held, {})

    def test_find_a_token_given_twice(self):
        """Two holders had the same token."""
        held = [op("hold", (0, 9), result=[5, 1, 3]), op("hold", (1, 9), result=[5, 4, 8])]

        assert ["duplicated"] == kinds(check_leases, held, {})


class TestComputedValues:
    """A value is computed once."""

    def test_accept_one_that_computes_and_one_that_was_killed(self):
        """All callers have the value of the last computation."""
        made = op("compute", (2, 5), result="0.0.0.2", note="computed")
        others = [unknown("compute", (0, 1), note="computed"), op("compute", (3, 6), result="0.0.0.2")]

        assert [] == kinds(check_computed, [made, *others], {KEY: "0.0.0.2"})

    def test_find_a_value_computed_twice(self):
        """Two callers computed, although neither was killed."""
        made = [op("compute", (at, 9), result="0.0.0.1", note="computed") for at in (1, 2)]

        assert ["duplicated"] == kinds(check_computed, made, {KEY: "0.0.0.1"})

    def test_find_a_caller_with_another_value(self):
        """A caller got another value than the stored one."""
        made = [op("compute", (1, 9), result="0.0.0.1", note="computed"), op("compute", (2, 9), result="0.0.0.0")]

        assert ["lost"] == kinds(check_computed, made, {KEY: "0.0.0.1"})

    def test_find_a_value_of_nobody(self):
        """No factory returned the stored value."""
        assert ["foreign"] == kinds(check_computed, [op("compute", (1, 9), result="x")], {KEY: "x"})
