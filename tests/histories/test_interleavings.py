"""Small programs under every interleaving of their calls, jobs and turns of the loop, against a specification.

A violation prints the program, a schedule that leads to it, and what was observed; ``replay`` of ``exploring.search``
runs it again.
"""

import random
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="the explorer looks at the lock by flock")

from exploring.programs import draw
from exploring.search import Violated, explore, sample, shrink

MEMORY_DISK = Path("/dev/shm")


@pytest.fixture
def directory(tmp_path):
    """A directory in which thousands of files are written quickly."""
    path = tempfile.mkdtemp(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else tmp_path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def programs(request):
    """How many random programs a test runs."""
    return 150 if request.config.getoption("--thorough") else 20


@pytest.fixture
def schedules(request):
    """How many schedules of a program a test runs, if it has that many."""
    return 500 if request.config.getoption("--thorough") else 100


PROGRAMS = {
    "a change during a save": ("a.set k 2; a.save; a.set k 3; edit k 9; a.save", "ask"),
    "a change taken back during a save": ("a.set k 2; a.save; a.set k 1; a.save", "mine"),
    "increments of a changed key": ("a.set k 10; a.incr k; a.incr k; a.save", "mine"),
    "a load beside an increment": ("a.load; a.incr k; edit k 9", "mine"),
    "a load beside a save": ("a.set k 2; a.save; a.load; a.set k 3", "mine"),
    "a conflict": ("a.set k 2; edit k 9; a.save; a.incr k", "raise"),
    "a failed call beside a save": ("a.set k 2; a.fail k; a.save", "raise"),
    "a transaction beside a save": ("a.set k 2; a.tx k; a.save", "theirs"),
    "a cancelled call before another": ("a.set k 2; a.incr k; cancel 0; a.save", "ask"),
}
GROWING = {
    "a list that grows during a save": ("a.grow l 2; a.save; a.grow l 3; push l 4; a.save", "mine"),
    "a list that grows again and again": ("a.grow l 2; a.save; a.grow l 3; a.save; a.grow l 4; push l 5", "raise"),
    "a list that grows beside an append": ("a.grow l 2; a.append l 3; a.grow l 4; push l 5; a.save", "theirs"),
    "a list that grows during a refresh": ("a.grow l 2; push l 3; a.refresh; a.grow l 4; a.save", "raise"),
    "an object that is filled during a save": ("a.fill o 2; a.save; a.fill o 3; put o 4; a.save", "raise"),
    "two contexts": ("a.grow l 2; b.grow l 3; a.save; b.save; a.grow l 4; b.grow l 5", "mine"),
    "a cancelled save": ("a.grow l 2; a.save; cancel 0; a.grow l 3; push l 4; a.save", "ask"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_schedule(name, directory, schedules):
    """Under every schedule, the program behaves as specified."""
    run(*PROGRAMS[name], directory, schedules)


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_under_every_schedule(name, directory, schedules):
    """Under every schedule, nothing is lost, and nothing is there twice."""
    run(*GROWING[name], directory, schedules, grows=True)


def run(text, policy, directory, schedules, *, grows=False):
    """Run a program with random schedules of all kinds, and then with all schedules, up to the number wanted."""
    policies = {action.partition(".")[0]: policy for action in text.split("; ") if "." in action.split()[0]}
    sample(text, policies, directory, times=schedules // 2, grows=grows)
    explore(text, policies, directory, limit=schedules, grows=grows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("contexts", ["a", "ab"])
def test_random_programs(contexts, seed, directory, programs):
    """Random programs of one or two contexts behave as specified, under random schedules."""
    order = random.Random(seed)
    for _ in range(programs):
        text, policies = draw(order, contexts)
        if violated := violation(text, policies, directory, seed):
            pytest.fail(str(shrink(text, policies, directory) or violated), pytrace=False)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("contexts", ["a", "ab"])
def test_random_programs_in_which_everything_grows(contexts, seed, directory, programs):
    """Random programs that only add lose nothing and have nothing twice, under random schedules."""
    order = random.Random(seed)
    for _ in range(programs):
        text, policies = draw(order, contexts, longest=7, grows=True)
        if violated := violation(text, policies, directory, seed, grows=True):
            pytest.fail(str(shrink(text, policies, directory, grows=True) or violated), pytrace=False)


def violation(text, policies, directory, seed, *, grows=False):
    """Return the violation of some schedule of a program, if there is one."""
    try:
        sample(text, policies, directory, times=8, seed=seed, grows=grows)
    except Violated as violated:
        return violated
    return None


FOUND_BEFORE = {
    "a change that has arrived is not the last word of its late callers": (
        "a.incr k; a.set k 50; a.save; a.incr k; a.save",
        "ask",
    ),
    "a key set back after a call stays so when a save tells": (
        "a.save; a.tx k; a.set k 50; a.mutate k; a.set k 1; edit k 80",
        "theirs",
    ),
    "a deletion that was none is followed by a change": ("edit k -; a.del k; a.swap k 1 -; a.set k 1; a.save", "mine"),
    "a saved change is not made again by a late call": ("a.set k 30; a.save; a.load; a.tx k; a.mutate k", "raise"),
    "a change that several calls have seen is not made again": (
        "a.set k 2; a.save; a.save; a.swap k 2 -; a.save; a.save",
        "mine",
    ),
    "a change that is none, seen by an earlier call": ("a.add k 20; a.tx k; a.set k 1; a.incr k", "mine"),
    "a change that is none beside a save": ("a.save; edit k 30; a.set k 1; a.incr k", "ask"),
    "a key set anew to the same value during an increment": ("a.set k 10; a.incr k; a.set k 10", "mine"),
    "a failed add is no own write": ("edit k 9; a.add k 5; a.set k 4; a.save", "raise"),
    "a failed swap is no own write": ("a.swap k 1 20; a.set k 30; edit k 50; a.incr k", "theirs"),
    "a key set back during a call": ("a.incr k; a.set k 30; a.mutate k; a.set k 1", "mine"),
    "a key deleted during an increment": ("a.swap k 1 -; a.incr k; a.del k", "ask"),
    "a save does not undo a transaction that saw more": ("a.tx k; a.set k 40; a.save; a.set k 1", "mine"),
    "an increment does not undo a transaction that saw more": ("a.set k 20; a.tx k; a.incr k; a.set k 1", "theirs"),
    "a save does not undo a mutation that saw the same": ("a.add k 30; a.set k 1; a.mutate k; a.save", "ask"),
    "a swap does not undo an increment that saw the same": (
        "a.swap k 1 20; a.set k 1; a.incr k; a.swap k 1 50",
        "raise",
    ),
    "a load is newer than what a transaction tells late": ("a.tx k; edit k 40; a.load", "mine"),
    "a load is newer than what a failed swap tells late": ("a.tx l; a.swap k 5 6; edit k 50; a.load", "mine"),
    "a load is newer than what another's call made known": ("b.tx k; a.swap k 1 40; edit k 50; b.load", "mine"),
    "a resolver sees what an earlier save wrote as base": ("a.set k 2; a.save; a.set k 3; a.save; edit k 9", "ask"),
}


@pytest.mark.parametrize("name", FOUND_BEFORE)
def test_found_before(name, directory, schedules):
    """Programs that were violated once behave as specified under every schedule."""
    run(*FOUND_BEFORE[name], directory, schedules)
