"""What the library reports about its work: metrics, statistics and the log."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from persistent_context import (
    LockTimeoutError,
    PersistentContext,
    ReentrantTransactionError,
    SyncPersistentContext,
    metrics,
)

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


@pytest.fixture
def cycles(path):
    """The cycles on the test's file, as reported to a listener."""
    heard = []
    real = os.path.realpath(path)
    stop = metrics.listen(lambda cycle: heard.append(cycle) if cycle.filepath == real else None)
    yield heard
    stop()


@pytest.fixture
def log(caplog):
    """The log at DEBUG."""
    caplog.set_level(logging.DEBUG, "persistent_context")
    return caplog


def call_that_waits(call, held, log):
    """Make a call in a thread, and release the lock once the call waits for it."""
    waiting = threading.Thread(target=call)
    with held:
        waiting.start()
        while "waiting for the lock" not in log.text:
            time.sleep(0.01)
    waiting.join()


class TestListening:
    def test_a_cycle_is_reported_before_its_call_returns(self, face, path, cycles):
        """When a call returns, its cycle has been reported, with its figures."""
        link = path.with_name("link.json")
        link.symlink_to(path.name)
        ctx = face.open(link)
        face.do(ctx.incr, "n")
        (cycle,) = cycles

        assert (os.path.realpath(path), "incr", 1, 0.0, path.stat().st_size) == (
            cycle.filepath,
            cycle.purpose,
            cycle.operations,
            cycle.waited,
            cycle.bytes_written,
        )
        assert cycle.held > 0

    async def test_calls_that_share_a_cycle_are_counted_in_it(self, path, cycles):
        """Every call belongs to one cycle, and there are fewer cycles than calls."""
        ctx = await PersistentContext.create(path)
        await asyncio.gather(*(ctx.incr("n") for _ in range(100)))

        assert 100 == sum(cycle.operations for cycle in cycles) == ctx.statistics().operations
        assert 100 > len(cycles) == ctx.statistics().cycles

    def test_a_transaction_is_one_operation(self, face, path, cycles):
        """A transaction counts as one operation, and writes nothing if it changes nothing."""
        ctx = face.open(path)
        face.inside(ctx.transaction, lambda tx: tx.update(a=1))
        face.inside(ctx.transaction, lambda tx: tx.get("a"))

        assert [("transaction", 1, True), ("transaction", 1, False)] == [
            (cycle.purpose, cycle.operations, cycle.bytes_written > 0) for cycle in cycles
        ]
        assert 2 == ctx.statistics().operations

    def test_waiting_for_another_process_is_reported(self, path, cycles, log, hold_transaction):
        """The cycle and the statistics report how long a call had to wait."""
        ctx = SyncPersistentContext.create(path)
        call_that_waits(lambda: ctx.incr("n"), hold_transaction(path), log)
        (cycle,) = cycles

        assert cycle.waited > 0 < cycle.held
        assert (1, cycle.waited) == (ctx.statistics().waits, ctx.statistics().wait_seconds)

    def test_a_call_that_fails_is_reported_as_well(self, face, path, cycles):
        """The cycle of a failed call is reported as one that wrote nothing."""
        ctx = face.open(path)
        face.do(ctx.add, "n", "text")
        with pytest.raises(TypeError):
            face.do(ctx.incr, "n")

        assert [("add", True), ("incr", False)] == [(cycle.purpose, cycle.bytes_written > 0) for cycle in cycles]

    def test_a_listener_that_fails_does_no_harm(self, face, path, cycles, log):
        """The listener's error is logged; the call returns, and other listeners are called."""

        def fail(cycle):
            raise SystemExit("the listener is broken")

        stop = metrics.listen(fail)
        try:
            ctx = face.open(path)
            results = [face.do(ctx.incr, "n") for _ in range(2)]
        finally:
            stop()

        assert ([1, 2], 2) == (results, len(cycles))
        assert "the listener is broken" in log.text

    def test_a_listener_that_calls_the_same_file_gets_an_error(self, path, log):
        """The call gets an error instead of waiting for itself."""
        ctx = SyncPersistentContext.create(path, lock_timeout=60)
        stop = metrics.listen(lambda cycle: ctx.incr("cycles"))
        try:
            assert 1 == ctx.incr("n")
        finally:
            stop()

        assert ReentrantTransactionError.__name__ in log.text
        assert 2 == ctx.incr("n")

    def test_stopping_ends_one_listening(self, path):
        """The same function may listen twice; each registration is ended separately, once."""
        heard = []
        first, second = metrics.listen(heard.append), metrics.listen(heard.append)
        ctx = SyncPersistentContext.create(path)
        counts = []
        for stop in (lambda: None, first, first, second):
            stop()
            heard.clear()
            ctx.incr("n")
            counts.append(len([cycle for cycle in heard if cycle.filepath == os.path.realpath(path)]))

        assert [2, 1, 1, 0] == counts

    def test_a_cycle_is_safe_to_print(self, tmp_path):
        """Control characters in a file name are escaped in the report of a cycle."""
        cycle = metrics.Cycle(str(tmp_path / "\x1b[2J.json"), "save", 3, 0.0125, 0.002, 77)

        assert "\x1b" not in str(cycle)
        assert str(cycle).endswith("save: waited 12.5 ms, held 2.0 ms, operations 3, bytes written 77")


class TestLog:
    def test_it_says_nothing_by_default(self, path):
        """A program that does not set up logging sees no log lines."""
        code = "import sys, persistent_context as p; c = p.SyncPersistentContext.create(sys.argv[1]); c.incr('n')"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

        assert ("", "") == (done.stdout, done.stderr)

    def test_it_tells_every_cycle_at_debug(self, face, path, log):
        """Each cycle is one line, with its figures."""
        face.do(face.open(path).incr, "n")

        assert re.search(rf"{path}: incr: waited 0\.0 ms, held [0-9.]+ ms, operations 1, bytes written 11", log.text)

    def test_it_tells_for_whom_it_waits(self, path, log, hold_transaction):
        """While a call waits, the log names the process that holds the lock."""
        ctx = SyncPersistentContext.create(path, lock_timeout=0.3)
        with hold_transaction(path) as held, pytest.raises(LockTimeoutError):
            ctx.incr("n")
        messages = [record.getMessage() for record in log.records]

        assert any(f"waiting for the lock, held by process {held.pid} on" in message for message in messages)
        assert any(
            f"held by process {held.pid} on" in message and "could not get the lock within 0.3 s" in message
            for message in messages
        )

    def test_it_tells_that_a_cycle_starts_again(self, path, log):
        """A lock file deleted under a cycle is logged at INFO."""
        ctx = SyncPersistentContext.create(path)

        def delete_once(value):
            if not calls:
                os.unlink(f"{path}.lock")
            calls.append(value)
            return 1

        calls = []
        ctx.mutate("n", delete_once)
        (record,) = [record for record in log.records if "session was lost" in record.getMessage()]

        assert (logging.INFO, True) == (record.levelno, str(path) in record.getMessage())


class TestOpenTelemetry:
    def test_it_records_times_and_counts(self, path, log, hold_transaction):
        """Histograms of waiting and holding, in seconds, and counters are recorded, by file and purpose."""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        stop = metrics.record_to_opentelemetry(provider)
        try:
            ctx = SyncPersistentContext.create(path)
            for _ in range(3):
                ctx.incr("n")
            call_that_waits(lambda: ctx.add("a", 1), hold_transaction(path), log)
        finally:
            stop()
        ctx.incr("n")
        points = {
            (metric.name, point.attributes["persistent_context.purpose"]): (metric.unit, point)
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if point.attributes["file.path"] == os.path.realpath(path)
        }
        provider.shutdown()
        unit, wait = points["persistent_context.lock.wait", "add"]
        _, hold = points["persistent_context.lock.hold", "incr"]
        _, operations = points["persistent_context.operations", "incr"]
        _, written = points["persistent_context.written", "incr"]

        assert ("s", 1, True) == (unit, wait.count, wait.sum > 0)
        assert ("persistent_context.lock.wait", "incr") not in points
        assert (3, True, 0.0005) == (hold.count, hold.sum > 0, hold.explicit_bounds[0])
        assert (3, 3 * len('{\n"n": 1\n}\n')) == (operations.value, written.value)

    def test_without_it_the_error_names_it(self):
        """Without the extra, the error names the missing package; everything else works."""
        code = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "from persistent_context import metrics\n"
            "try: metrics.record_to_opentelemetry()\n"
            "except ImportError as error: print(error.name)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert "opentelemetry.metrics\n" == done.stdout


class TestPage:
    def test_its_examples_print_what_it_says(self, tmp_path):
        """The examples of the page run, and print the output shown below them."""
        page = PAGE.read_text(encoding="utf-8")
        examples = re.findall(r"```python\n(.*?)```\n\nIt prints (.*?)\. ", page, re.DOTALL)
        for example, said in examples:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
            )

            assert re.findall("`(.*?)`", said) == done.stdout.splitlines()
        assert len(examples) == 2 == page.count("```python")
