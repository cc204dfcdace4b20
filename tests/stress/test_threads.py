"""The threads of one process in the stress run: their checker finds lost changes, for each kind of key."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from logged import logged

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.evidence import Evidence
from stress.checking.threads import check_threads
from stress.documents.threaded import COUNTERS, LISTS, REGISTERS, own_key

COUNTER, LIST, REGISTER = COUNTERS[0], LISTS[0], REGISTERS[0].name
ALONE, SHARING, TASK = "threads-0.0.alone0", "threads-0.0.sharing0", "threads-0.0.loop0-1"
OWN = own_key(SHARING)


op = partial(logged, by=ALONE)


def found(operations, final):
    """Return the kinds of the violations."""
    return [violation.kind for violation in check_threads(Evidence(operations, final))]


RIGHT = [
    op("incr", COUNTER, (1, 3), result=1),
    op("incr_exclusively", COUNTER, (2, 4), by=TASK, result=2),
    op("append", LIST, (5, 6)),
    op("append_in_place", LIST, (5, 7), by=TASK),
    op("replace", OWN, (8, 9), by=SHARING),
    op("change", OWN, (10, 11), by=SHARING),
    op("read_back", OWN, (12, 13), by=SHARING, result=f"{SHARING}.10"),
    op("write", REGISTER, (14, 16)),
    op("exchange", REGISTER, (15, 17), by=TASK, note={"expected": f"{ALONE}.14"}),
]
END = {COUNTER: 2, LIST: [f"{TASK}.5", f"{ALONE}.5"], OWN: [f"{SHARING}.10"], REGISTER: f"{TASK}.15"}


def test_a_right_history_is_accepted():
    """Operations of threads and tasks that overlap may have happened in either order."""
    assert found(RIGHT, END) == []


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({COUNTER: 1}, "lost"),
        ({COUNTER: 3}, "duplicated"),
        ({LIST: [f"{ALONE}.5"]}, "lost"),
        ({LIST: [f"{ALONE}.5", f"{ALONE}.5", f"{TASK}.5"]}, "duplicated"),
        ({LIST: [f"{ALONE}.5", f"{TASK}.5", f"{TASK}.6"]}, "foreign"),
        ({OWN: [f"{SHARING}.8"]}, "lost"),
        ({REGISTER: f"{ALONE}.14"}, "not linearizable"),
        ({REGISTER: None}, "not linearizable"),
    ],
    ids=["count lost", "counted twice", "token lost", "twice", "nobody's token", "older", "overwritten", "gone"],
)
def test_a_wrong_end_is_found(wrong, kind):
    """A change that was lost, made twice or never made is found, whichever key it is of."""
    assert kind in found(RIGHT, END | wrong)


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        (op("read_back", OWN, (20, 21), by=SHARING, result=f"{SHARING}.8"), "lost"),
        (op("read_register", REGISTER, (20, 21), result=f"{ALONE}.14"), "not linearizable"),
        (op("incr", COUNTER, (20, 21), by=TASK, result=2), "lost"),
    ],
    ids=["own", "register", "counter"],
)
def test_a_wrong_result_is_found(look, kind):
    """The result that one thread gets includes what all threads of the process had done by then."""
    assert kind in found([*RIGHT, look], END)
