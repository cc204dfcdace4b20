"""The page about a stress run: whole, safe, self-contained, small, and true to the logs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import persistent_context

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.checkers import CHECKERS
from stress.checking.evidence import Violation
from stress.documents.hammered import opening_document
from stress.logs.history import Log, Operation, Outcome, read_logs
from stress.page.html import VOID, html
from stress.page.record import STORED, Record
from stress.page.tally import SLICES, Latencies, tally
from stress.page.write import page
from stress.run.plan import KINDS
from stress.run.report import Verdict

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ROOT = Path(persistent_context.__file__).resolve().parents[1]
MS = 1_000_000
PLAN = {"processes": 2, "tasks": 3, "seconds": 1.0, "seed": 5, "kill_every": 0.5}
COURSE = {"started": 3, "kills": 0, "seconds": 1.0, "died": {}, "hung": {}}
HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=y>&amp;\u202eevil\x00\x1b[31m\ud800"
LIMIT = 1_500_000
"""Bytes that no page may have."""


class Page(HTMLParser):
    """A page as a program would read it; one that is not well-formed is refused."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.text, self._cell = [], [], [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.tables and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def shown(self):
        return "".join(self.text)

    def rows(self, heading):
        """Return the rows of the table with this first heading, each as a list of texts."""
        (found,) = [table for table in self.tables if table[0][0] == heading]
        return found[1:]


def event(kind, at, **fields):
    return {"kind": kind, "at": at, **fields}


def incr(token, span, result=None, *, key="counter/incr", error=None):
    """Return the events of an increment; one that has neither result nor error is pending."""
    invoked, ended = span
    events = [event("invoke", invoked, id=token, workload="counter", name="incr", key=key)]
    if error is not None:
        events.append(event("fail", ended, id=token, error=error))
    elif result is not None:
        events.append(event("ok", ended, id=token, result=result))
    return events


def store(directory, logs, *, final=None, plan=(), course=()):
    """Create the directory of a run that is over, with the logs of some processes."""
    (directory / "logs").mkdir(parents=True)
    for name, events in {"supervisor": [], **logs}.items():
        lines = "".join(json.dumps(one) + "\n" for one in events)
        (directory / "logs" / f"{name}.jsonl").write_text(lines)
    (directory / "state.json").write_text(json.dumps({**opening_document(), **(final or {})}))
    told = {
        "plan": PLAN | dict(plan),
        "course": COURSE | dict(course),
        "machine": {"cores": "12345"},
        "written": "1999-12-31 23:59",
    }
    (directory / STORED).write_text(json.dumps(told))
    return directory


def command(*arguments):
    """Run a module of the stress run as a user would."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(IMPORT_ROOT)),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def number(text):
    return float(text.replace(",", ""))


@pytest.fixture(scope="module")
def ran(compute_once, tmp_path_factory):
    """A short run with kills, made once for all workers: its directory, the text of its page, and its history."""
    directory, page = map(Path, compute_once("a short run", lambda: short_run(tmp_path_factory.mktemp("run"))))
    return directory, page.read_text(encoding="utf-8"), read_logs(sorted((directory / "logs").glob("*.jsonl")))


def short_run(base):
    options = "--processes 2 --tasks 3 --seconds 2 --seed 3 --kill-every 0.5 --stop-every 0 --fork-every 0"
    options += " --foreign 1 --ending 0 --signals 0 --watching 0 --jobs 1"
    told = command("stress", *options.split(), "--keep", "--report", base / "page.html", "--dir", base)
    assert (base / "page.html").exists(), told.stdout + told.stderr
    (directory,) = (one for one in base.iterdir() if one.is_dir())
    return [str(directory), str(base / "page.html")]


class TestTruth:
    """The page agrees with the logs."""

    def test_counts_are_those_of_the_logs(self, ran):
        """Invoked, acknowledged, failed and unknown operations are counted right, by workload and by name."""
        _, text, history = ran
        counted = Counter((one.workload, one.name, one.outcome) for one in history.operations)
        expected = {}
        for workload in CHECKERS:
            names = sorted({name for of, name, _ in counted if of == workload})
            lines = [[counted[workload, name, outcome] for outcome in Outcome] for name in names]
            whole = [sum(column) for column in zip([0] * len(Outcome), *lines, strict=True)]
            expected[workload, ""] = [sum(whole), *whole]
            expected |= {(workload, name): [sum(line), *line] for name, line in zip(names, lines, strict=True)}
        told, workload = {}, ""
        for name, *cells in Page(text).rows("workload, operation"):
            workload, name = (name, "") if (name, "") in expected and (name, "") not in told else (workload, name)
            told[workload, name] = [int(number(cell)) for cell in cells[:4]]

        assert told == expected
        assert sum(one.outcome is Outcome.OK for one in history.operations) > 100

    def test_what_was_under_way_at_faults_is_that_of_the_logs(self, ran):
        """The matrix counts the operations in flight when a process was killed, including its own."""
        _, text, history = ran
        kills = [min(fault.at, history.deaths[fault.target]) for fault in history.faults if fault.name == "kill"]
        struck = [one for one in history.operations if any(one.invoked <= at <= one.finished for at in kills)]
        rows = Page(text).rows("workload")
        (column,) = (place for place, told in enumerate(Page(text).tables[0][0]) if told.startswith("kill"))

        assert Page(text).tables[0][0][column] == f"kill{len(kills)} times"
        assert {row[0]: int(number(row[column])) for row in rows} == {
            workload: sum(one.workload == workload for one in struck) for workload in CHECKERS
        }
        assert any(one.outcome is Outcome.UNKNOWN for one in struck)

    def test_percentiles_are_those_of_the_logs(self, ran):
        """Each percentile is at most 1.6 % above the exact one, and never below it; the longest is exact."""
        _, text, history = ran
        rows = Page(text).rows("operation")
        for label, *cells in rows:
            done = [o for o in history.operations if f"{o.workload} · {o.name}" == label and o.outcome is Outcome.OK]
            took = sorted(o.finished - o.invoked for o in done)
            exact = [took[math.ceil(len(took) * percent / 100) - 1] / MS for percent in (50, 90, 99, 99.9)]
            for told, right in zip(map(number, cells[:4]), exact, strict=True):
                assert right - 0.006 <= told <= right * 1.016 + 0.006
            assert number(cells[4]) == pytest.approx(took[-1] / MS, abs=0.006)

        assert len(rows) == len({(o.workload, o.name) for o in history.operations if o.outcome == "ok"})

    def test_fairness_and_group_commit_are_those_of_the_logs(self, ran):
        """The smallest and greatest numbers of a worker, and the operations per commit, are right."""
        _, text, history = ran
        counts = Counter(
            one.id.partition(".")[0]
            for one in history.operations
            if one.outcome is Outcome.OK and one.workload not in ("read", *KINDS)
        )

        assert f"least {min(counts.values()):,}, most {max(counts.values()):,} (" in Page(text).shown
        assert f"({counts.total():,} in {history.commits:,})" in Page(text).shown

    def test_every_checker_says_what_it_proves(self, ran):
        """Each checker is shown with its promise and its source."""
        _, text, _ = ran
        shown = Page(text).shown
        promises = [checker.__doc__.strip().splitlines()[0] for checker in CHECKERS.values()]

        assert [promise for promise in promises if promise not in shown] == []
        assert "def check_bank(" in shown

    def test_command_repeats_the_run(self, ran):
        """The command that repeats the run is on the page, with its seed and its faults."""
        _, text, _ = ran

        assert "python -m stress --processes 2 --tasks 3 --seconds 2 --seed 3 --kill-every 0.5" in Page(text).shown

    def test_stored_run_gives_the_same_page(self, ran):
        """`python -m stress.page DIRECTORY` makes from a kept run the same page that the run itself made."""
        directory, text, _ = ran
        done = command("stress.page", directory)

        assert done.returncode == 0, done.stderr
        assert (directory / "report.html").read_text(encoding="utf-8") == text

    def test_stored_run_keeps_its_time_and_machine(self, tmp_path):
        """A page that is made later has the time and the machine of the run, not of the page."""
        shown = Page(page(Record.stored(store(tmp_path / "run", {})))).shown

        assert "1999-12-31 23:59" in shown
        assert "cores12345" in shown

    def test_faults_that_never_struck_are_shown(self, tmp_path):
        """A kind of fault that was asked for and never struck is in the matrix with a zero."""
        record = Record.stored(
            store(tmp_path / "run", {"0.0": incr("0.0.0.0", (MS, 2 * MS), 1)}, final={"counter/incr": 1})
        )

        assert Page(page(record)).tables[0][0] == ["workload", "kill0 times"]


class TestVerdicts:
    """The page begins with the result of the run."""

    def test_lost_update_is_drawn(self, tmp_path):
        """A run that lost something says FAIL, counts it, and shows the operations with their times and results."""
        events = [*incr("0.0.0.0", (10 * MS, 12 * MS), 1), *incr("0.0.1.0", (11 * MS, 14 * MS), 1)]
        record = Record.stored(store(tmp_path / "run", {"0.0": events}, final={"counter/incr": 1}))
        whole = Page(page(record))

        assert "✗FAIL" in whole.shown
        assert "1 finding speaks against" in whole.shown
        assert ["counter", "2", "2", "0", "0", "1", "0"] in whole.rows("workload, operation")
        assert [
            ["0.0.0.0", "incr(counter/incr)", "0.000000", "2.00 ms", "ok", "→ 1"],
            ["0.0.1.0", "incr(counter/incr)", "0.001000", "3.00 ms", "ok", "→ 1"],
        ] in [table[1:] for table in whole.tables]
        assert sum(attrs.get("class") == "span ok" for _, attrs in whole.tags) == 2

    def test_process_that_hung(self, tmp_path):
        """For a process that did not stop, the page shows what was pending, and where its threads were."""
        events = [*incr("0.0.0.0", (MS, 2 * MS), 1), *incr("0.0.1.7", (2 * MS, math.inf))]
        directory = store(tmp_path / "run", {"0.0": events}, course={"hung": {"0.0": "0.0.stacks"}})
        (directory / "logs" / "0.0.stacks").write_text('File "_group.py", line 1 in wait')
        whole = Page(page(Record.stored(directory)))

        assert "✗FAIL" in whole.shown
        assert "Process 0.0 did not stop" in whole.shown
        assert 'File "_group.py", line 1 in wait' in whole.shown
        assert ["0.0.1.7", "incr(counter/incr)", "0.001000", "—", "unknown", ""] in [r for t in whole.tables for r in t]

    def test_process_that_died(self, tmp_path):
        """If a process ended by itself, the page says that the run shows nothing, and has the process's last output."""
        directory = store(tmp_path / "run", {}, course={"died": {"1.0": "exit code 1\nImportError: no such thing"}})
        whole = Page(page(Record.stored(directory)))

        assert "?BROKEN SET-UP" in whole.shown
        assert "process 1.0 ended by itself" in whole.shown
        assert "ImportError: no such thing" in whole.shown

    def test_check_that_gave_up(self, tmp_path):
        """A checker that gave up is not shown as one that found nothing."""
        record = Record.stored(store(tmp_path / "run", {}))
        found = {"register": [Violation("undecided", "register/1: the search gave up")]}
        whole = Page(page(replace(record, verdict=Verdict.UNDECIDED, violations=found)))

        assert "?UNDECIDED" in whole.shown
        assert "?registergave up 1 times" in whole.shown
        assert "✓" not in whole.shown

    def test_checkers_that_did_not_run(self, tmp_path):
        """If the final file cannot be read, no checker is shown as having found nothing."""
        directory = store(tmp_path / "run", {"0.0": incr("0.0.0.0", (MS, 2 * MS), 1)})
        (directory / "state.json").write_text("{")
        whole = Page(page(Record.stored(directory)))

        assert "✗FAIL" in whole.shown
        assert "the final document cannot be read" in whole.shown
        assert "?counterdid not run" in whole.shown
        assert "✓" not in whole.shown

    def test_run_in_which_nothing_happened(self, tmp_path):
        """A run without a single operation has a page, which shows no checker as passed."""
        whole = Page(page(Record.stored(store(tmp_path / "run", {}))))

        assert "?BROKEN SET-UP" in whole.shown
        assert "no operation of counter, owned, nested, list" in whole.shown
        assert "had nothing to check" in whole.shown
        assert "✓" not in whole.shown

    def test_no_run_in_the_directory(self, tmp_path):
        """A directory without a run is refused with exit code 2 and its name, and gets no page."""
        done = command("stress.page", tmp_path)

        assert done.returncode == 2
        assert str(tmp_path / STORED) in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_run_of_another_version(self, tmp_path):
        """A run that was stored with other options than the present ones is refused with exit code 2."""
        done = command("stress.page", store(tmp_path / "run", {}, plan={"unheard_of": 1}))

        assert done.returncode == 2
        assert "was written by another version" in done.stderr


class TestSafety:
    """A page is a file that can be given to anyone."""

    def test_loads_nothing(self, ran):
        """The page has no scripts, no links and nothing to load, and forbids loading."""
        _, text, _ = ran
        whole = Page(text)
        policies = [attrs["content"] for tag, attrs in whole.tags if attrs.get("http-equiv")]
        style = text[text.index("<style>") : text.index("</style>")]

        assert {tag for tag, _ in whole.tags} & {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "image",
            "use",
            "a",
        } == set()
        assert [attrs for _, attrs in whole.tags if {"src", "href", "xlink:href", "style", "onload"} & set(attrs)] == []
        assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
        assert "url(" not in style
        assert "@import" not in style

    def test_hostile_text_is_only_text(self, tmp_path):
        """Nothing in a log, such as a key, an error, a stack or last output, becomes HTML or a control character."""
        events = incr("0.0.0.0", (MS, 2 * MS), 7, key=HOSTILE)
        events += incr("0.0.0.1", (3 * MS, 4 * MS), error=HOSTILE)
        events.append(event("crash", 5 * MS, id=f"0.0.{HOSTILE}", error=HOSTILE))
        course = {"died": {HOSTILE: HOSTILE}, "hung": {"0.0": "0.0.stacks"}}
        directory = store(tmp_path / "run", {"0.0": events}, final={HOSTILE: 3}, course=course)
        (directory / "logs" / "0.0.stacks").write_bytes(HOSTILE.encode("utf-8", "surrogatepass"))
        told = replace(Record.stored(directory), machine={HOSTILE: HOSTILE}, written=HOSTILE)
        text = page(told)
        tags = {tag for tag, _ in Page(text).tags}

        assert "<script" not in text
        assert "<img" not in text
        assert not tags & {"script", "img"}
        assert "alert('1')" in Page(text).shown
        assert [c for c in "\u202e\x00\x1b\ud800" if c in text] == []
        assert r"\u202e" in text
        assert r"\ud800" in text

    def test_text_is_escaped_once(self):
        """HTML is not escaped again; everything else is escaped."""
        assert html(html("<b> & 'c'")) == "&lt;b&gt; &amp; &#x27;c&#x27;"


class TestSize:
    """The page of a long run is as small as that of a short one, and counting takes as little memory."""

    def test_memory_does_not_grow_with_the_history(self):
        """Counting ten times as many operations takes hardly more memory."""

        def peak(count):
            tracemalloc.start()
            counted = tally(operations(count), (0, 3000 * MS * 1000), {"kill": range(0, 10**12, 10**9)})
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most, counted

        small, _ = peak(2_000)
        large, counted = peak(20_000)

        assert counted.invoked == 20_000
        assert len(counted.slices) == SLICES
        assert large < 3 * small

    def test_page_of_a_failing_giant_is_small(self, tmp_path):
        """A history of 50,000 operations, 1,000 faults and thousands of wordy findings makes a page below 1.5 MB."""
        record = Record.stored(store(tmp_path / "run", {}, plan={"processes": 200}))
        done = list(operations(50_000))
        wordy = [replace(one, result='"' * 5_000, note=["<"] * 900, error="&" * 5_000) for one in done[:40]]
        history = replace(
            record.history,
            operations=done,
            crashes=["0.0.0.0 incr(a)\n" + "<frame>\n" * 5_000] * 500,
            began=0,
            ended=done[-1].invoked,
        )
        found = {name: [Violation("lost", "\x00" * 5_000, wordy)] * 2_000 for name in CHECKERS}
        whole = page(replace(record, history=history, violations=found, verdict=Verdict.FAIL))
        Page(whole)

        assert len(whole.encode()) < LIMIT
        assert f"Findings ({2_000 * len(CHECKERS) + 500:,})" in whole

    def test_percentile_of_a_few(self):
        """Percentiles are nearest ranks: of a single latency all are that latency, and without any there are none."""
        one = Latencies()
        one.add(1_234_567)

        assert [one.percentile(percent) for percent in (0, 50, 99.9, 100)] == [1_234_567] * 4
        assert math.isnan(Latencies().percentile(50))


def operations(count):
    """Yield operations of many names, workers and latencies."""
    for serial in range(count):
        invoked = serial * 3 * MS
        yield Operation(
            id=f"{serial % 200}.0.{serial % 7}.{serial}",
            workload="counter",
            name=f"incr{serial % 30}",
            key="k",
            invoked=invoked,
            finished=invoked + 1_000 + (serial * 7_919) % (900 * MS),
            outcome=Outcome.OK if serial % 11 else Outcome.UNKNOWN,
        )


def test_log_of_a_run_is_what_the_tests_write(tmp_path):
    """The logs that these tests write by hand are read like those of a process."""
    with closing(Log(tmp_path / "0.0.jsonl")) as log:
        for one in incr("0.0.0.0", (MS, 2 * MS), 1):
            log.write(**one)
    by_hand = store(tmp_path / "run", {"0.0": incr("0.0.0.0", (MS, 2 * MS), 1)}) / "logs" / "0.0.jsonl"

    assert read_logs([tmp_path / "0.0.jsonl"]).operations == read_logs([by_hand]).operations
