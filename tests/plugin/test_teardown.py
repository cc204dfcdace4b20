"""The teardown of values that were computed once: once, after all tests that use them, whatever happens to workers."""

import pytest

pytestmark = pytest.mark.timeout(240)


class TestTeardown:
    def test_it_runs_once_after_the_last_test(self, runs, workers):
        """The value is torn down when all workers have run their tests, including those that never asked for it."""
        result = runs.run(
            """
def test_first(compute_once):
    assert compute_once("a", lambda: log("up:a") or 1, lambda value: log(f"down:a:{value}")) == 1
    assert compute_once("b", lambda: log("up:b") or 2, lambda value: log(f"down:b:{value}")) == 2
    log("test")

@pytest.mark.parametrize("number", range(6))
def test_more(number, compute_once):
    compute_once("a", lambda: log("up:a") or 1, lambda value: log(f"down:a:{value}"))
    log("test")

def test_slow():
    wait_for("up:a")
    time.sleep(1)
    log("test")
""",
            *workers,
        )

        result.assert_outcomes(passed=8)
        assert {"down:a:1", "down:b:2"} == set(runs.log[-2:])
        assert (8, 1, 1) == tuple(map(runs.log.count, ("test", "up:a", "up:b")))
        assert 2 == sum(line.startswith("down") for line in runs.log)

    def test_a_worker_that_is_killed(self, runs):
        """A killed worker is not waited for."""
        result = runs.run(
            """
@pytest.mark.parametrize("number", range(6))
def test_it(number, compute_once):
    compute_once("a", lambda: log("up") or 1, lambda value: log("down"))
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
""",
            "-n",
            "2",
        )

        result.assert_outcomes(passed=5, failed=1)
        assert ["up", "down"] == runs.log

    @pytest.mark.parametrize(
        ("each", "raised"),
        [
            ("each of 3", 'ValueError("no way")'),
            ("each of 3", 'pytest.skip("no way")'),
            ("alone", 'pytest.fail("no way")'),
            ("alone", 'pytest.skip("no way")'),
        ],
        indirect=["each"],
    )
    def test_one_that_fails(self, runs, each, raised):
        """An error of a teardown fails the run and is reported; the other teardowns still run, each of them once."""
        result = runs.run(
            f"""
def down(value):
    log("b")
    raise {raised}

def test_it(compute_once):
    compute_once("a", int, lambda value: log("a"))
    compute_once("b", int, down)
    compute_once("c", int, lambda value: log("c"))
""",
            *each,
        )

        assert ["c", "b", "a"] == runs.log
        assert 1 == result.ret
        assert "failed" not in result.parseoutcomes()
        result.stdout.fnmatch_lines(["*ERROR in a teardown of compute_once*", "*: no way"])

    def test_a_refused_key_has_nothing_to_tear_down(self, runs):
        """A test that expects the error passes, and so does the run."""
        result = runs.run(
            """
import pytest
from persistent_context import UnserializableValueError

@pytest.mark.parametrize(("key", "factory", "error"), [(3, int, UnserializableValueError), ("a", 5, TypeError)])
def test_it(compute_once, key, factory, error):
    with pytest.raises(error):
        compute_once(key, factory, log)
""",
        )

        result.assert_outcomes(passed=2)
        assert 0 == result.ret

    @pytest.mark.parametrize(
        ("end", "options"),
        [('pytest.exit("enough")', ()), ("raise KeyboardInterrupt", ()), ("assert False", ("-x",))],
        ids=["exit", "Ctrl-C", "-x"],
    )
    def test_it_comes_after_the_fixtures_that_use_the_value(self, runs, each, end, options):
        """However the run ends, fixtures that use the value, in any worker, are finalised before it."""
        runs.run(
            f"""
@pytest.fixture(scope="session")
def server(compute_once):
    return compute_once("server", lambda: log("up") or 1, lambda value: log("down"))

@pytest.fixture(scope="session")
def client(server):
    log("open")
    yield server
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        time.sleep(0.5)
    log("closed")

def test_first(client):
    while LOG.read_text().count("open") < int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)):
        time.sleep(0.01)

def test_last():
    {end}

def test_never(client):
    pass
""",
            *each,
            *options,
        )
        opened = runs.log.count("open")

        assert ["closed"] * opened + ["down"] == runs.log[-opened - 1 :]
        assert 1 == runs.log.count("up")

    def test_a_fixture_that_cannot_be_finalised(self, runs):
        """If a fixture cannot be finalised, the values are torn down all the same."""
        result = runs.run("""
@pytest.fixture(scope="session")
def client(compute_once):
    yield compute_once("server", lambda: 1, lambda value: log("down"))
    log("closed")
    raise ValueError("cannot close")

def test_it(client):
    pytest.exit("enough")
""")

        assert ["closed", "down"] == runs.log
        assert 0 != result.ret

    def test_an_interruption_while_a_worker_waits_for_the_others(self, runs):
        """An interrupted worker that waits for the others tears down when they end; Ctrl-C reaches all processes."""
        runs.run(
            """
def test_it(worker_id, compute_once):
    if worker_id == "gw0":
        compute_once("server", lambda: log(f"pid:{os.getpid()}") or 1, lambda value: log("down"))
        return
    while not LOG.exists() or any(file.name == "gw0" for file in LOG.parent.rglob("workers/*")):
        time.sleep(0.01)
    other = int(LOG.read_text().split()[0].partition(":")[2])
    log("waiting")
    for pid in (other, os.getppid(), os.getpid()):
        os.kill(pid, signal.SIGINT)
    time.sleep(60)

@pytest.fixture(scope="session", autouse=True)
def last():
    yield
    log("ended")
""",
            "--dist",
            "each",
            "--tx",
            "2*popen",
            "--basetemp",
            "temporary",
        )

        assert ["ended", "waiting", "ended", "down"] == runs.log[1:]

    def test_a_worker_that_will_not_end(self, runs):
        """After an interruption, a worker that does not end is waited for only a few seconds."""
        runs.run(
            """
def test_it(worker_id, compute_once):
    if worker_id == "gw0":
        compute_once("server", lambda: log(f"pid:{os.getpid()}") or 1, lambda value: log("down"))
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    while not LOG.exists() or any(file.name == "gw0" for file in LOG.parent.rglob("workers/*")):
        time.sleep(0.01)
    os.kill(int(LOG.read_text().partition(":")[2]), signal.SIGINT)
    wait_for("down")
    log("last")
""",
            "--dist",
            "each",
            "--tx",
            "2*popen",
            "--basetemp",
            "temporary",
        )

        assert ["down", "last"] == runs.log[1:]

    def test_a_worker_that_crashed_after_a_while(self, runs):
        """The replacement of a crashed worker can run its tests, however long the crashed one had lived."""
        result = runs.run(
            """
def test_it(worker_id, compute_once):
    compute_once("server", lambda: log("up") or 1, lambda value: log("down"))
    if worker_id == "gw0":
        (present,) = LOG.parent.rglob("workers/gw0")
        os.utime(present, (0, 0))
        os.kill(os.getpid(), signal.SIGKILL)

def test_more(worker_id):
    log(worker_id)
""",
            "--dist",
            "each",
            "--tx",
            "2*popen",
            "--basetemp",
            "temporary",
        )

        result.assert_outcomes(passed=3, failed=1)
        assert ["gw1", "gw2", "up"] == sorted(runs.log[:-1])
        assert "down" == runs.log[-1]
