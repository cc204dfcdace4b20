"""The fixture compute_once: one worker computes a value, and all get it."""

import pytest

pytestmark = pytest.mark.timeout(240)

COMPUTED_ONCE = """
def factory():
    log("computed")
    time.sleep(0.3)
    return {"answer": 42}

@pytest.fixture(scope="session")
def answer(compute_once):
    return compute_once("answer", factory)

@pytest.mark.parametrize("number", range(12))
def test_it(answer, number):
    log("test")
    assert answer == {"answer": 42}
"""


class TestComputeOnce:
    @pytest.mark.parametrize(
        "options",
        [
            ("-n", "4"),
            ("-n", "2", "--dist", "worksteal"),
            ("-n", "2", "--dist", "loadscope"),
            ("-n", "2", "--dist", "loadfile"),
            ("-n", "2", "--dist", "loadgroup"),
            ("-n", "0"),
            ("-p", "no:xdist"),
        ],
        ids=" ".join,
    )
    def test_the_factory_runs_once(self, runs, options):
        """However the tests are distributed, one worker computes the value, and all get it."""
        result = runs.run(COMPUTED_ONCE, *options)

        result.assert_outcomes(passed=12)
        assert ("computed", 1, 12) == (runs.log[0], runs.log.count("computed"), runs.log.count("test"))

    def test_every_worker_runs_all_tests(self, runs):
        """With --dist each, too, one worker computes, although all have asked by then."""
        result = runs.run(
            """
def factory():
    log("computed")
    while LOG.read_text().split().count("asked") < 3:
        time.sleep(0.01)
    time.sleep(0.3)
    return 42

@pytest.fixture(scope="session")
def answer(compute_once):
    log("asked")
    return compute_once("answer", factory)

@pytest.mark.parametrize("number", range(12))
def test_it(answer, number):
    assert answer == 42
""",
            "--dist",
            "each",
            "--tx",
            "3*popen",
        )

        result.assert_outcomes(passed=36)
        assert 1 == runs.log.count("computed")

    def test_values_are_copies(self, runs):
        """If a test changes a value, no other test sees the change."""
        result = runs.run("""
def test_it(compute_once):
    compute_once("list", list).append(1)
    assert compute_once("list", list) == []
""")

        result.assert_outcomes(passed=1)

    def test_an_async_factory(self, runs, workers):
        """The result of an asynchronous factory is awaited, even if a loop is running."""
        result = runs.run(
            """
import asyncio

async def factory():
    log("computed")
    await asyncio.sleep(0.1)
    return "value"

async def down(value):
    await asyncio.sleep(0)
    log("down:" + value)

@pytest.mark.parametrize("number", range(4))
def test_sync(compute_once, number):
    assert compute_once("key", factory, down) == "value"

@pytest.mark.parametrize("number", range(4))
async def test_async(compute_once, number):
    assert compute_once("key", factory, down) == "value"
""",
            *workers,
        )

        result.assert_outcomes(passed=8)
        assert ["computed", "down:value"] == runs.log

    def test_a_factory_that_fails(self, runs, workers):
        """The test whose factory raised fails with that error; the next one that asks computes."""
        result = runs.run(
            """
def factory():
    log("tried")
    if LOG.read_text().count("tried") < 3:
        raise ValueError("not yet")
    return 1

@pytest.mark.parametrize("number", range(8))
def test_it(compute_once, number):
    assert compute_once("key", factory) == 1
""",
            *workers,
        )

        result.assert_outcomes(passed=6, failed=2)
        result.stdout.fnmatch_lines(["*ValueError: not yet*"])
        assert ["tried"] * 3 == runs.log

    def test_a_worker_that_is_killed_while_it_computes(self, runs):
        """If a worker is killed while it computes, another one computes."""
        result = runs.run(
            """
def factory():
    log("tried")
    if LOG.read_text().count("tried") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1

@pytest.mark.parametrize("number", range(12))
def test_it(compute_once, number):
    assert compute_once("key", factory, lambda value: log("down")) == 1
""",
            "-n",
            "4",
        )

        result.assert_outcomes(passed=11, failed=1)
        assert ["tried", "tried", "down"] == runs.log

    def test_others_wait_without_the_lock_of_the_context(self, runs):
        """While one worker computes and another waits, the shared context is free for all."""
        result = runs.run(
            """
def factory():
    log("computing")
    wait_for("drawn")
    return 1

def test_it(worker_id, shared_context, compute_once):
    if worker_id == "gw2":
        wait_for("computing")
        shared_context.incr("drawn")
        log("drawn")
    assert compute_once("key", factory) == 1
""",
            "--dist",
            "each",
            "--tx",
            "3*popen",
        )

        result.assert_outcomes(passed=3)

    def test_a_value_that_json_cannot_hold(self, runs, each):
        """The error names the key and the problem; what the factory started is torn down at once, where it was."""
        result = runs.run(
            """
def test_it(compute_once, request):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    with contextlib.suppress(TypeError):
        compute_once("key", lambda: log(f"up:{worker}") or {1}, lambda value: log(f"down:{worker}:{value}"))
    log("test")
    compute_once("the key", lambda: {"when": {1, 2}})
""",
            *each,
        )
        logged = {worker: [one for one in runs.log if worker in one] for worker in ("None", "gw0", "gw1", "gw2")}

        result.assert_outcomes(failed=runs.log.count("test"))
        result.stdout.fnmatch_lines(
            ["*UnserializableValueError*when*is a set*; the factory of 'the key' returned {'when': {1, 2}}"]
        )
        result.stdout.no_fnmatch_line("*persistent_context*.py:*: *")  # no frame of the library
        assert [] == [one for name, one in logged.items() if one not in ([], [f"up:{name}", f"down:{name}:{{1}}"])]
        assert 2 * runs.log.count("test") == sum(map(len, logged.values()))

    def test_a_hanging_async_factory_is_interrupted(self, runs):
        """Ctrl-C cancels the factory, and waits for its clean-up."""
        result = runs.run("""
import asyncio

async def factory():
    log("up")
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(1.1)
        log("cleaned")

def test_it(compute_once):
    compute_once("key", factory, lambda value: log("down"))
""")

        assert (pytest.ExitCode.INTERRUPTED, ["up", "cleaned"]) == (result.ret, runs.log)

    def test_an_async_factory_that_is_too_slow(self, runs):
        """A signal handler that fails the test, as pytest-timeout does, cancels the factory; the next test computes."""
        result = runs.run("""
import asyncio

async def factory():
    log("up")
    if len(LOG.read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGALRM)
        await asyncio.sleep(3600)
    return 1

signal.signal(signal.SIGALRM, lambda *_: pytest.fail("too slow"))

@pytest.mark.parametrize("number", range(2))
def test_it(compute_once, number):
    assert compute_once("key", factory, lambda value: log("down")) == 1
""")

        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*Failed: too slow*"])
        assert ["up", "up", "down"] == runs.log

    def test_an_async_factory_that_will_not_be_cancelled(self, runs):
        """A second Ctrl-C does not wait for the factory."""
        result = runs.run("""
import asyncio

async def factory():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            log("up")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

def test_it(compute_once):
    compute_once("key", factory)
""")

        assert (pytest.ExitCode.INTERRUPTED, ["up", "up"]) == (result.ret, runs.log)

    def test_an_interruption_when_the_value_is_there(self, runs):
        """A value that was computed but is not kept is torn down."""
        result = runs.run("""
import asyncio

async def factory():
    log("up")
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return 1

def test_it(compute_once):
    compute_once("key", factory, lambda value: log(f"down:{value}"))
""")

        assert (pytest.ExitCode.INTERRUPTED, ["up", "down:1"]) == (result.ret, runs.log)

    def test_a_factory_that_asks_for_its_own_key(self, runs):
        """A factory that asks for its own key gets an error, and does not wait for itself."""
        result = runs.run("""
def test_it(compute_once):
    compute_once("key", lambda: compute_once("key", int))

def test_another_key(compute_once):
    assert compute_once("key", lambda: compute_once("other", lambda: 1) + 1) == 2
""")

        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*ReentrantTransactionError*"])
