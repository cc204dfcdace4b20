"""The file of many pages in the stress run: its checker finds values that were lost, mixed up, or never written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from logged import logged

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.evidence import Evidence
from stress.checking.pages import check_pages
from stress.documents.paged import ALL, BOUND, LENGTHS, PARTS, REGISTERS, filler, opening_paged, padded
from stress.logs.history import Outcome

SINGLE, BUNDLE = REGISTERS[7], BOUND[0]
PAGE = 64 * 1024


def op(name, register, span, **details):
    """Make an operation on a register."""
    return logged(name, getattr(register, "name", register), span, by="pages-0.0.task0", **details)


def left(register, token):
    """Return the file after an operation wrote to a register."""
    return {**opening_paged(), **dict.fromkeys(register.keys, padded(token))}


def found(operations, final):
    """Return the kinds of the violations, and their messages."""
    acted = op("rewrite", "pages", (0, 0))
    return [(violation.kind, violation.message) for violation in check_pages(Evidence([acted, *operations], final))]


class TestTheFile:
    def test_it_has_many_pages_and_bundles_that_span_them(self):
        """It has a megabyte, and the keys of each bundle are pages apart."""
        text = json.dumps(opening_paged())
        places = [sorted(text.index(json.dumps(key)) for key in register.keys) for register in BOUND]

        assert 10 * PAGE < len(text) < 60 * PAGE
        assert all(len({place // PAGE for place in some}) == PARTS for some in places)

    def test_values_are_as_different_as_pages_can_bear(self):
        """Some values are longer than a page, and some are no more than a token."""
        lengths = sorted(len(padded(f"pages-0.0.task0.{number}")) for number in range(1_000))

        assert lengths[0] == LENGTHS[0]
        assert lengths[-1] == LENGTHS[-1] > PAGE

    @pytest.mark.parametrize(
        "spoil", [lambda text: text[:-1], lambda text: text + "-", lambda _: 7], ids=["cut", "longer", "no text"]
    )
    def test_a_value_that_is_not_whole_is_nobodys(self, spoil):
        """A value that was cut, or has additional text, does not count as any operation's."""
        value = padded("pages-0.0.task0.1")

        assert SINGLE.held({SINGLE.name: value}.get) == "pages-0.0.task0.1"
        assert SINGLE.held({}.get) is None
        assert "a mixture" in str(SINGLE.held({SINGLE.name: spoil(value)}.get))


class TestTheChecker:
    def test_accepts_a_right_history(self):
        """Values that were written, replaced and removed, and seen in between, are accepted."""
        write = op("write", SINGLE, (1, 2))
        remove = op("remove", SINGLE, (3, 4), result=True, note={"expected": write.id})
        exchange = op("exchange", BUNDLE, (5, 6), note={"expected": f"opening.0.0.{len(REGISTERS)}"})
        survey = op("survey", "pages", (7, 8), result={SINGLE.name: None, BUNDLE.name: exchange.id})
        final = left(BUNDLE, exchange.id)
        del final[SINGLE.name]

        assert found([write, remove, exchange, survey], final) == []
        assert found([], opening_paged()) == []

    @pytest.mark.parametrize("register", [SINGLE, BUNDLE], ids=["one key", "a bundle"])
    def test_finds_a_change_that_got_lost(self, register):
        """An acknowledged change is in the file at the end."""
        ((kind, message),) = found([op("write", register, (1, 2))], opening_paged())

        assert kind == "not linearizable"
        assert register.name in message

    @pytest.mark.parametrize("key", [SINGLE.name, filler(3)], ids=["written", "never touched"])
    def test_finds_a_key_that_is_gone(self, key):
        """A key that was not removed is there, whether it was ever written or not."""
        final = opening_paged()
        del final[key]

        assert len(found([], final)) == 1

    def test_finds_a_value_that_nobody_wrote(self):
        """Permanent values are unchanged, and every other value is an operation's as a whole."""
        assert [kind for kind, _ in found([], {**opening_paged(), filler(3): "+"})] == ["lost"]
        assert [kind for kind, _ in found([], left(SINGLE, "pages-0.0.task0.9"))] == ["not linearizable"]
        assert [kind for kind, _ in found([], {**opening_paged(), SINGLE.name: "+"})] == ["not linearizable"]

    def test_finds_half_a_transaction(self):
        """The keys of a bundle change together, on whatever pages they are."""
        exchange = op("exchange", BUNDLE, (1, 2), note={"expected": f"opening.0.0.{len(REGISTERS)}"})
        whole = left(BUNDLE, exchange.id)

        assert found([exchange], whole) == []
        assert [kind for kind, _ in found([exchange], {**whole, BUNDLE.keys[-1]: padded("opening.0.0.0")})] == [
            "not linearizable"
        ]

    @pytest.mark.parametrize("name", ["read_register", "survey"])
    def test_finds_a_stale_look(self, name):
        """A read after a change was acknowledged sees it, also when it reads all values."""
        write = op("write", SINGLE, (1, 2))
        old = f"opening.0.0.{ALL.index(SINGLE)}"
        look = op(name, SINGLE, (3, 4), result=old if name == "read_register" else {SINGLE.name: old})

        assert [kind for kind, _ in found([write, look], left(SINGLE, write.id))] == ["not linearizable"]

    def test_finds_a_change_that_was_refused_and_made(self):
        """A swap that failed leaves no trace, and one whose process was killed may."""
        swap = {"note": {"expected": f"opening.0.0.{ALL.index(SINGLE)}"}}
        failed = op("swap", SINGLE, (1, 2), outcome=Outcome.FAIL, **swap)
        killed = op("swap", SINGLE, (1, 2), outcome=Outcome.UNKNOWN, **swap)

        assert [kind for kind, _ in found([failed], left(SINGLE, failed.id))] == ["not linearizable"]
        assert found([killed], left(SINGLE, killed.id)) == found([killed], opening_paged()) == []
