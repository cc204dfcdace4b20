"""The pure watchers of the stress run: their checker finds changes that were missed or reported wrongly."""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

from logged import logged
from persistent_context import MISSING
from persistent_context.types import Change

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.evidence import Evidence
from stress.checking.observing import check_observing
from stress.children.observing import Watcher, content_of
from stress.documents.hammered import ACCOUNTS
from stress.documents.openings import OPENINGS, file_of
from stress.documents.paged import REGISTERS, padded
from stress.logs.gist import SHORT, gist, tokens_in
from stress.logs.history import Log, Outcome, read_logs
from stress.logs.scribe import Desk, Scribe

REGISTER, COUNTER, LIST = "register/1", "counter/incr", "list/0"
PAGED = REGISTERS[0].name
TASK = "observing-0.0.task-state"


op = partial(logged, by=TASK)


def watched(*told, file="state.json", outcome=Outcome.OK):
    """Return what a watcher knew first, and then the reports in order."""
    names = ["known", *["told"] * (len(told) - 1)]
    gists = [{key: None if value is None else gist(value) for key, value in changes.items()} for changes in told]
    tellings = [
        op(name, file, (20 + n, 20 + n), result=one) for n, (name, one) in enumerate(zip(names, gists, strict=True))
    ]
    return [op("watch", file, (19, 90), outcome=outcome), *tellings]


def wrote(key, *moments):
    """Return the writes of one worker to a key at some moments."""
    return [op("write", key, (moment, moment), by="0.0.0") for moment in moments]


def found(watching, final, made=()):
    """Return the kinds of the violations."""
    evidence = Evidence(watching, final, everything=[*made, *watching])
    return [violation.kind for violation in check_observing(evidence)]


class TestLastValues:
    def test_who_was_told_of_all_is_accepted(self):
        """A correct history is accepted: what was there before, what changed, came and went, and what was skipped."""
        made = wrote(REGISTER, 1, 2, 3)
        told = watched({"a": 1, REGISTER: None}, {REGISTER: made[0].id}, {REGISTER: made[2].id, "b": 2}, {"b": None})

        assert found(told, {"a": 1, REGISTER: made[2].id}, made) == []

    @pytest.mark.parametrize("told", [({},), ({}, {REGISTER: "0.0.0.1"})], ids=["nothing", "an older value"])
    def test_a_last_value_that_was_missed_is_found(self, told):
        """The last change of every key must be reported."""
        assert found(watched(*told), {REGISTER: "0.0.0.2"}, wrote(REGISTER, 1, 2)) == ["missed"]

    def test_a_deletion_that_was_missed_is_found(self):
        """Deletions must be reported as well."""
        assert found(watched({REGISTER: "0.0.0.1"}), {}, wrote(REGISTER, 1)) == ["missed"]

    def test_every_watcher_is_held_against_its_own_file(self):
        """Only keys of the watcher's own file are expected."""
        made = [replace(one, key=PAGED) for one in wrote(REGISTER, 1)]
        value = padded(made[0].id)

        assert found(watched({}), {PAGED: value}, made) == []
        assert found(watched({}, file="pages.json"), {PAGED: value}, made) == ["missed"]
        assert {file_of(PAGED), file_of(REGISTER)} == {"pages", "state"} <= {*OPENINGS}

    @pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.UNKNOWN])
    def test_a_watcher_that_ended_early_is_found(self, outcome):
        """A watcher that raised, or did not end, has missed all later changes."""
        assert found(watched({}, outcome=outcome), {}) == ["missed"]


class TestValues:
    @pytest.mark.parametrize(
        ("value", "made"),
        [
            ("0.0.0.9", wrote(REGISTER, 1)),
            ("0.0.0.1", wrote("register/2", 1)),
            ("0.0.0.50", wrote(REGISTER, 50)),
        ],
        ids=["nobody", "to another key", "later"],
    )
    def test_a_value_that_nobody_had_written_is_found(self, value, made):
        """A reported value must have been written to this key, before the report."""
        assert found(watched({}, {REGISTER: value}), {REGISTER: value}, made) == ["foreign"]

    def test_a_value_in_the_midst_of_a_long_list_counts_as_well(self):
        """Of a long value, the operations that it names are known, and the rest by its digest."""
        tokens = [f"0.0.0.{number}" for number in range(1, 19)]
        made = wrote(LIST, *range(1, 19))

        assert len(str(tokens)) > SHORT
        assert found(watched({}, {LIST: tokens}), {LIST: tokens}, made) == []
        assert found(watched({}, {LIST: tokens[:-1]}), {LIST: tokens}, made) == ["missed"]
        assert found(watched({}, {LIST: tokens}), {LIST: tokens}, made[:-1]) == ["foreign"]

    def test_half_a_value_of_a_page_is_found(self):
        """A report about the file of many pages has a whole value of an operation."""
        made = [replace(one, key=PAGED) for one in wrote(REGISTER, *range(1, 9))]
        long = max((padded(one.id) for one in made), key=len)
        told = watched({}, {PAGED: long[:-30]}, {PAGED: long}, file="pages.json")

        assert found(watched({}, {PAGED: long}, file="pages.json"), {PAGED: long}, made) == []
        assert found(told, {PAGED: long}, made) == ["foreign"]

    def test_a_number_beyond_the_last_one_is_found(self):
        """A counter is never reported above its final value. Balances go up and down."""
        account = ACCOUNTS[0]

        assert found(watched({}, {COUNTER: 9}, {COUNTER: 3}), {COUNTER: 3}) == ["reordered", "foreign"]
        assert found(watched({}, {account: 900}, {account: 30}), {account: 30}) == []


class TestOrder:
    def test_a_counter_that_went_back_is_found(self):
        """A number that only grows is never reported to have shrunk."""
        assert found(watched({COUNTER: 1}, {COUNTER: 3}, {COUNTER: 2}, {COUNTER: 4}), {COUNTER: 4}) == ["reordered"]

    def test_a_change_from_another_value_than_the_last_one_is_found(self):
        """Reports form a chain: each begins with the value that the one before it ended with."""
        watch, known, told = watched({COUNTER: 1}, {COUNTER: 3})
        broken = replace(told, note={"unexpected": [COUNTER]})

        assert found([watch, known, broken], {COUNTER: 3}) == ["reordered"]


class TestWatchers:
    def test_log_what_they_are_told(self, tmp_path):
        """The log has what was known, what was reported, and where the chain is broken."""
        with closing(Log(tmp_path / "log")) as log:
            watcher = Watcher(
                Scribe(Desk(log, "observing", threading.Event()), TASK), "f.json", str(tmp_path / "f.json"), Random(1)
            )
            watcher.begin({"a": 1, "b": "-" * 99})
            watcher.tell({"a": Change(1, 2), "c": Change(MISSING, 1)})
            watcher.tell({"a": Change(1, 3), "b": Change("-" * 99, MISSING)})

        known, first, second = read_logs([tmp_path / "log"]).operations
        assert known.result == {"a": 1, "b": gist("-" * 99)}
        assert (first.result, first.note) == ({"a": 2, "c": 1}, None)
        assert (second.result, second.note) == ({"a": 3, "b": None}, {"unexpected": ["a"]})

    def test_wait_until_they_know_what_is_in_the_file(self, tmp_path):
        """A watcher that was not told the whole file has to wait."""
        (tmp_path / "f.json").write_text('{"a": 2}')
        content = content_of(str(tmp_path / "f.json"))
        with closing(Log(tmp_path / "log")) as log:
            watcher = Watcher(
                Scribe(Desk(log, "observing", threading.Event()), TASK), "f.json", str(tmp_path / "f.json"), Random(1)
            )
            watcher.begin({"a": 1, "b": 1})
            before = watcher.knows(content)
            watcher.tell({"a": Change(1, 2), "b": Change(1, MISSING)})

        assert not before
        assert watcher.knows(content)


def test_a_gist_tells_long_values_apart():
    """Short values are kept, and of long ones the digest and the tokens at both ends."""
    tokens = [f"0.0.f1.{number}" for number in range(30)]

    assert gist(tokens[:2]) == tokens[:2]
    assert gist(tokens) != gist(tokens[1:-1] + tokens[:1])
    assert [*tokens_in(gist(tokens))] == [tokens[0], tokens[-1]]
    assert len(str(gist(padded(tokens[0])))) < 200
