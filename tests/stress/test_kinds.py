"""The children of a stress run other than workers: each kind finds the violations it is made for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import persistent_context
from logged import kinds, logged
from persistent_context import LockTimeoutError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.ending import check_endings, check_signals
from stress.checking.evidence import Evidence
from stress.checking.jobs import check_jobs
from stress.checking.watching import check_watching
from stress.children.ending.program import COUNTER
from stress.children.patience import PATIENCE
from stress.documents.watched import COUNTERS, DONE, LATEST, filler
from stress.logs.history import Log, Outcome, read_logs
from stress.logs.scribe import Desk, Scribe
from stress.run.options import TIERS
from stress.run.plan import KINDS

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ROOT = Path(persistent_context.__file__).resolve().parents[1]
OWN = "ending/ending-0/0/t1"
LONG = int((PATIENCE + 1) * 1e9)
LAST = LATEST[0]

HURRIED = """
from stress.children import patience

patience.PATIENCE = 5.0
"""
"""Broken builds may never do what is waited for, so the wait is short."""

SECONDS = {"ending": 4, "jobs": 8, "pages": 4}
"""Seconds of the runs that need more than two: programs that hang, or a thousand jobs between two measurements."""

BROKEN = {
    "ending: lost": """
        import asyncio
        from persistent_context import PersistentContext

        save = PersistentContext.save

        async def save_unless_cancelled(self):
            if not asyncio.current_task().cancelling():
                await save(self)

        PersistentContext.save = save_unless_cancelled
    """,
    "ending: hung": """
        import threading
        from persistent_context import SyncPersistentContext

        save = SyncPersistentContext.save

        def save_unless_over(self):
            save(self)
            if not threading.main_thread().is_alive():
                threading.Event().wait()

        SyncPersistentContext.save = save_unless_over
    """,
    "signals: duplicated": """
        import threading
        from persistent_context import SyncPersistentContext

        incr = SyncPersistentContext.incr

        def incr_all_the_same(self, key):
            try:
                return incr(self, key)
            except BaseException:
                threading.Thread(target=incr, args=(self, key)).start()
                raise

        SyncPersistentContext.incr = incr_all_the_same
    """,
    "watching: missed": """
        from persistent_context import PersistentContext

        watch = PersistentContext.watch

        async def watch_not_everything(self, *keys):
            async for changes in watch(self, *keys):
                yield {key: changes[key] for key in changes if "latest" not in key}

        PersistentContext.watch = watch_not_everything
    """,
    "jobs: grown": """
        from persistent_context import PersistentContext

        compare_and_set, memory = PersistentContext.compare_and_set, []

        async def compare_and_remember(self, key, expected, new):
            memory.append([[key] for _ in range(200)])
            return await compare_and_set(self, key, expected, new)

        PersistentContext.compare_and_set = compare_and_remember
    """,
    "pages: not linearizable": """
        from persistent_context import PersistentContext

        async def pretend_to_compare_and_set(self, key, expected, new):
            return True

        PersistentContext.compare_and_set = pretend_to_compare_and_set
    """,
    "threads: lost": """
        from persistent_context import SyncPersistentContext

        def incr_in_memory(self, key):
            self[key] = number = self.get(key, 0) + 1
            return number

        SyncPersistentContext.incr = incr_in_memory
    """,
    "observing: missed": """
        from persistent_context import SyncPersistentContext

        watch = SyncPersistentContext.watch

        class Forgetful:
            def __init__(self, watch):
                self.close, self.watch = watch.close, watch

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.close()

            def __iter__(self):
                for changes in self.watch:
                    yield {key: changes[key] for key in changes if "register" not in key}

        SyncPersistentContext.watch = lambda self, *keys: Forgetful(watch(self, *keys))
    """,
}


REMEMBER = """
import sys

sys.path.insert(0, sys.argv[1])
from stress.children.memory import measure

before = measure()
table = {f"job {number}": "payload" * 100 + str(number) for number in range(20_000)}
owner = [table]  # the collector does not track a dictionary of strings
after = measure()
print(after.objects - before.objects, after.bytes - before.bytes, after.longest)
"""
"""Runs in a separate process, whose memory is small: the process of the tests would take long to measure."""


op = partial(logged, by="ending-0.3.t1")


class TestRun:
    """A run of one kind."""

    def test_has_every_kind_by_default(self):
        """In every tier, each kind has at least one process."""
        assert all(tier[kind] > 0 for tier in TIERS.values() for kind in KINDS)

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("found", BROKEN)
    def test_finds_a_broken_library(self, tmp_path, found):
        """A library that breaks what a kind is made for is found by it, under the right name."""
        kind = found.partition(":")[0]
        code = "\n".join(line.removeprefix(" " * 8) for line in BROKEN[found].splitlines())
        (tmp_path / "sitecustomize.py").write_text(HURRIED + code)
        counts = [text for one in KINDS for text in (f"--{one}", "1" if one == kind else "0")]
        for longer in (1, 2, 4):  # on a crowded machine, a short run may end before there is anything to find
            done = subprocess.run(
                [sys.executable, "-m", "stress", "--processes", "1", "--tasks", "1", "--kill-every", "0", "--seed", "3"]
                + ["--seconds", str(longer * SECONDS.get(kind, 2)), "--dir", str(tmp_path), *counts],
                cwd=ROOT,
                env=dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (tmp_path, IMPORT_ROOT, ROOT)))),
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            if f"\n{found}" in done.stdout:
                break

        assert done.returncode == 1, done.stdout + done.stderr
        assert f"\n{found}" in done.stdout


class TestScribes:
    """The scribes, which log the operations."""

    @pytest.fixture
    def scribe(self, tmp_path):
        """Return a scribe whose calls are interrupted by Ctrl-C."""
        with closing(Log(tmp_path / "log")) as log:
            yield Scribe(Desk(log, "any", threading.Event()), "0.0.0", interruptions=(KeyboardInterrupt,))

    def logged(self, tmp_path):
        """Return the history that was logged."""
        return read_logs([tmp_path / "log"])

    def test_log_what_was_acknowledged_and_what_failed(self, scribe, tmp_path):
        """A call that returned was acknowledged with its result, and one that timed out had no effect."""
        with scribe.operation("incr", "n") as entry:
            entry.result = 7
        with scribe.operation("incr", "n"):
            raise LockTimeoutError(1.0, 1.0, None)

        history = self.logged(tmp_path)

        assert [(one.outcome, one.result) for one in history.operations] == [(Outcome.OK, 7), (Outcome.FAIL, None)]
        assert not scribe.desk.stop.is_set()

    def test_pass_an_interruption_on(self, scribe, tmp_path):
        """A call that was interrupted may have had its effect, and the interruption propagates."""
        with pytest.raises(KeyboardInterrupt), scribe.operation("incr", "n"):
            raise KeyboardInterrupt

        assert [one.outcome for one in self.logged(tmp_path).operations] == [Outcome.UNKNOWN]

    @pytest.mark.parametrize("error", [AttributeError, asyncio.CancelledError])
    def test_tell_what_must_not_be_raised(self, scribe, tmp_path, error):
        """Any other error, including an unrequested cancellation, is a finding and stops the process."""
        with scribe.operation("incr", "n"):
            raise error

        assert len(self.logged(tmp_path).crashes) == 1
        assert scribe.desk.crashed
        assert scribe.desk.stop.is_set()


class TestEndings:
    """The checker of programs that end."""

    def program(self, error=""):
        """Return the run of a program."""
        outcome = Outcome.FAIL if error else Outcome.OK
        run = op("cancel_all", "ending-0", (1, 100), outcome=outcome, error=error)
        return replace(run, id="ending-0.3.end.0")

    def test_accepts_what_was_cancelled_and_saved(self):
        """A correct history is accepted: calls cancelled in the middle, and a last save."""
        operations = [
            self.program(),
            op("incr", COUNTER, (2, 3), result=1),
            op("incr", COUNTER, (4, 5), outcome=Outcome.UNKNOWN),
            op("save", OWN, (6, 7), outcome=Outcome.UNKNOWN),
            op("last_save", OWN, (8, 9)),
        ]

        assert kinds(check_endings, operations, {COUNTER: 1, OWN: ["ending-0.3.t1.8"]}) == []
        assert kinds(check_endings, operations, {COUNTER: 2, OWN: ["ending-0.3.t1.8"]}) == []

    @pytest.mark.parametrize("final", [{}, {OWN: ["ending-0.3.t1.6"]}], ids=["gone", "older"])
    def test_finds_a_last_save_that_was_lost(self, final):
        """The value of an acknowledged last save is in the file."""
        operations = [self.program(), op("save", OWN, (6, 7)), op("last_save", OWN, (8, 9))]

        assert kinds(check_endings, operations, final) == ["lost"]

    def test_finds_a_program_that_does_not_end(self):
        """A program that had to be killed, or ended with an error, is reported with its unfinished calls."""
        last_save = op("last_save", OWN, (8, 9), outcome=Outcome.UNKNOWN)
        (found,) = check_endings(Evidence([self.program("it did not end in 20 s"), last_save], {}))

        assert found.kind == "hung"
        assert last_save in found.operations


class TestSignals:
    """The checker of calls that are hit by signals."""

    def test_accepts_a_call_that_took_effect_or_did_not(self):
        """A correct history is accepted: an interrupted call counts or not, and one that waited does not."""
        operations = [
            op("incr", "signals/counter", (1, 2), result=1),
            op("incr_exclusively", "signals/counter", (3, 4), outcome=Outcome.UNKNOWN),
            op("incr_in_vain", "signals/counter", (5, 6), outcome=Outcome.FAIL),
        ]

        assert kinds(check_signals, operations, {"signals/counter": 1}) == []
        assert kinds(check_signals, operations, {"signals/counter": 2}) == []
        assert kinds(check_signals, operations, {"signals/counter": 3}) == ["duplicated"]

    def test_finds_a_call_that_took_effect_although_it_was_withdrawn(self):
        """A call that was interrupted while it waited for its turn never takes effect."""
        operations = [op("incr_in_vain", "signals/counter", (5, 6), outcome=Outcome.FAIL)]

        assert kinds(check_signals, operations, {"signals/counter": 1}) == ["duplicated"]

    def test_finds_a_call_that_waited_for_one_that_hung(self):
        """A call that took longer than any wait for a turn has waited for a lock that outlived its call."""
        operations = [op("incr", "signals/counter", (1, LONG), result=1)]

        assert kinds(check_signals, operations, {"signals/counter": 1}) == ["hung"]


class TestWatching:
    """The checker of the views of a file of many pages."""

    MINE, THEIRS = "watching-0.0.loop0-1", "watching-1.0.loop0-1"
    WATCHER = "watching-0.0.loop0-watcher"

    def watched(self, *told, outcome=Outcome.OK):
        """Return the values of the key that a watcher was told, until everything was over."""
        tellings = [op("told", LAST, (20 + n, 20 + n), by=self.WATCHER, result=value) for n, value in enumerate(told)]
        return [op("watch", DONE, (0, 90), by=self.WATCHER, outcome=outcome), *tellings]

    def puts(self, *by):
        """Return puts of a value by each of these, one after the other."""
        puts = [op("put", LAST, (n, n), by=who) for n, who in enumerate(by, 1)]
        return [replace(put, result=put.id) for put in puts]

    def test_accepts_who_is_told_of_the_last_change_of_others(self):
        """A correct history is accepted: values in between may be missed, and the context's own are not reported."""
        theirs, mine = self.puts(self.THEIRS, self.MINE), self.puts(self.MINE, self.THEIRS)
        looks = [op("look", filler(3), (5, 6), result=True)]
        looks += [op("incr", COUNTERS[0], (7, 8), by=self.MINE, result=1)]
        end = {filler(3): "-", COUNTERS[0]: 1}

        assert kinds(check_watching, [*theirs, *looks, *self.watched()], {LAST: theirs[-1].id, **end}) == []
        assert kinds(check_watching, [*mine, *self.watched(mine[-1].id)], {LAST: mine[-1].id}) == []

    @pytest.mark.parametrize("told", [[], ["watching-1.0.loop0-1.1"]], ids=["nothing", "an older one"])
    def test_finds_a_last_change_that_was_missed(self, told):
        """A watcher is told of the last change, if it was made through another context."""
        puts = self.puts(self.THEIRS, self.THEIRS)

        assert kinds(check_watching, [*puts, *self.watched(*told)], {LAST: puts[-1].id}) == ["missed"]

    @pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.FAIL])
    def test_finds_a_watcher_that_waits_for_ever(self, outcome):
        """A watcher that is never told that everything is over has missed that."""
        assert kinds(check_watching, self.watched(outcome=outcome), {}) == ["missed"]

    def test_finds_a_watcher_that_is_told_of_itself(self):
        """A watcher is not told of what its own context wrote."""
        puts = self.puts(self.MINE)

        assert kinds(check_watching, [*puts, *self.watched(puts[0].id)], {LAST: puts[0].id}) == ["echoed"]

    def test_finds_a_key_that_was_not_there(self):
        """A permanent key is seen by every operation, and at the end."""
        looks = [op(name, filler(3), (5, 6), result=False) for name in ("look", "look_exclusively")]

        assert kinds(check_watching, looks, {filler(3): "-"}) == ["lost", "lost"]
        assert kinds(check_watching, [op("edit", filler(3), (5, 6))], {}) == ["lost"]

    def test_finds_a_counter_that_started_anew(self):
        """Counters are exact."""
        counts = [op("incr", COUNTERS[0], (n, n), result=n) for n in (1, 2)]
        anew = op("incr", COUNTERS[0], (3, 3), result=1)

        assert "lost" in kinds(check_watching, [*counts, anew], {COUNTERS[0]: 1})


class TestJobs:
    """The checker of jobs that come and go."""

    def look(self, moment, **sizes):
        """Return a measurement of the memory."""
        return op("measure", "memory", (moment, moment), result={"objects": 9_000, "bytes": 10**6, **sizes})

    def test_accepts_jobs_that_came_and_went(self):
        """A correct history is accepted: jobs that were done, one that was kept, and a memory that grows a little."""
        operations = [
            op("job", "jobs/1", (1, 2), result=[True, True]),
            op("keep", "jobs/2", (3, 4)),
            op("count", "jobs/count", (5, 6), result=1),
            self.look(7, jobs=1_000),
            self.look(8, jobs=11_000, objects=9_900, bytes=1_400_000),
        ]

        assert kinds(check_jobs, operations, {"jobs/2": "ending-0.3.t1.3", "jobs/count": 1}) == []

    @pytest.mark.parametrize("result", [[False, True], [True, False]], ids=["not put", "not there"])
    def test_finds_a_job_that_got_lost(self, result):
        """A job is put, and is there to be taken."""
        assert kinds(check_jobs, [op("job", "jobs/1", (1, 2), result=result)], {}) == ["lost"]

    def test_finds_a_job_that_came_back(self):
        """A job that was taken does not come back, and one that was kept stays."""
        done, kept = op("job", "jobs/1", (1, 2), result=[True, True]), op("keep", "jobs/2", (3, 4))

        assert kinds(check_jobs, [done], {"jobs/1": "again"}) == ["lost"]
        assert kinds(check_jobs, [kept], {}) == ["lost"]

    @pytest.mark.parametrize("sizes", [{"objects": 19_000}, {"bytes": 6_000_000}])
    def test_finds_a_memory_that_grows_with_the_jobs(self, sizes):
        """Memory that keeps an object for each job, or its payload, is found."""
        looks = [self.look(1, jobs=1_000), self.look(2, jobs=11_000, **sizes)]

        assert kinds(check_jobs, looks, {}) == ["grown"]

    def test_measure_what_is_remembered(self, run):
        """The content of a table is counted: the objects, their bytes, and the table's length."""
        objects, size, longest = map(int, run(REMEMBER, ROOT)[0].split())

        assert objects > 2 * 20_000 - 1_000
        assert size > 700 * 20_000
        assert longest >= 20_000
