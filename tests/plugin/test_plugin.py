"""The pytest plugin, in real runs of pytest with real workers."""

import json
import os
import re
from pathlib import Path

import pytest

import persistent_context

pytestmark = pytest.mark.timeout(240)

GUIDE = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text(encoding="utf-8")

LOG = """
import contextlib, os, pathlib, pytest, signal, time
LOG = pathlib.Path({log!r})

def log(line):
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)

def wait_for(line):
    until = time.monotonic() + 60
    while not LOG.exists() or line not in LOG.read_text().split():
        assert time.monotonic() < until, line
        time.sleep(0.01)
"""

INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
"""

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


class Runs:
    """Runs pytest on a file of tests, in a process of its own, and reads what the tests have logged."""

    def __init__(self, pytester):
        self._pytester = pytester
        self._log = pytester.path / "the.log"

    def run(self, tests, *options, ini="", asyncio_mode="auto", plugins=()):
        unwanted = {"hypothesispytest", "timeout", "anyio", *([] if "async def test" in tests else ["asyncio"])}
        left_out = "".join(f" -p no:{name}" for name in sorted(unwanted - {*plugins}))
        self._pytester.makeini(f"""
[pytest]
addopts = -ra -p no:cacheprovider{left_out}
asyncio_mode = {asyncio_mode}
asyncio_default_fixture_loop_scope = function
{ini}
""")
        self._pytester.makeconftest(INTERRUPTIBLE)
        self._pytester.makepyfile(test_it=LOG.format(log=str(self._log)) + tests)
        return self._pytester.runpytest_subprocess(*options, timeout=100)

    @property
    def log(self):
        return self._log.read_text(encoding="utf-8").split()


@pytest.fixture
def runs(pytester, monkeypatch):
    """Runs of pytest that know nothing of the one around them."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    paths = [str(Path(persistent_context.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return Runs(pytester)


@pytest.fixture(params=[("--dist", "each", "--tx", "3*popen"), ("-p", "no:xdist")], ids=["each of 3", "alone"])
def each(request):
    """Three workers that run all tests each, and a pytest without pytest-xdist."""
    return request.param


@pytest.fixture(params=[("-n", "3"), ("-p", "no:xdist")], ids=" ".join)
def workers(request):
    """Three workers, and a pytest without pytest-xdist."""
    return request.param


class TestSharedContext:
    def test_all_workers_have_one_file(self, runs, workers):
        """Numbers drawn from the shared context are drawn once each, whatever worker draws."""
        result = runs.run(
            """
@pytest.mark.parametrize("number", range(40))
def test_draw(shared_context, number):
    log(str(shared_context.incr("drawn")))
""",
            *workers,
        )

        result.assert_outcomes(passed=40)
        assert list(range(1, 41)) == sorted(map(int, runs.log))

    @pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
    def test_async_tests_have_the_same_file(self, runs, workers, plugin):
        """Tests in event loops of their own share with each other, and with tests that have none."""
        result = runs.run(
            f"""
@pytest.fixture
def anyio_backend():
    return "asyncio"

def test_sync(shared_context):
    shared_context["words"] = "shared"
    shared_context.save()
    log(str(shared_context.incr("drawn")))

@pytest.mark.{plugin}
@pytest.mark.parametrize("number", range(8))
async def test_async(async_shared_context, number):
    if number == 7:
        wait_for("1")
        await async_shared_context.load()
    log(str(await async_shared_context.incr("drawn")))
""",
            *workers,
            plugins=[plugin],
            asyncio_mode="strict",  # else all asynchronous tests are pytest-asyncio's
        )

        result.assert_outcomes(passed=9)
        assert list(range(1, 10)) == sorted(map(int, runs.log))

    def test_an_async_one_is_loaded(self, runs):
        """The asynchronous context holds what the file holds when a test begins."""
        result = runs.run("""
def test_sync(shared_context):
    shared_context["word"] = "here"
    shared_context.save()

async def test_async(async_shared_context):
    assert async_shared_context["word"] == "here"
""")

        result.assert_outcomes(passed=2)

    def test_a_run_begins_with_nothing(self, runs):
        """What a run leaves, the next one does not see."""
        tests = """
def test_draw(shared_context):
    log(str(shared_context.incr("drawn")))
"""
        runs.run(tests)
        runs.run(tests)

        assert ["1", "1"] == runs.log

    @pytest.mark.parametrize("how", ["option", "ini"])
    def test_runs_may_share(self, runs, pytester, how):
        """With --shared-context, or the setting, runs go on where the last one stopped."""
        tests = """
def test_draw(shared_context, compute_once):
    log(str(shared_context.incr("drawn")))
    compute_once("answer", lambda: log("computed"))
    compute_once("own", lambda: log("own"), lambda value: log("down"))
"""
        options, ini = (
            (("--shared-context", "kept.json"), "") if how == "option" else ((), "shared_context = kept.json")
        )
        runs.run(tests, *options, ini=ini)
        runs.run(tests, "-n", "2", *options, ini=ini)

        assert {"drawn": 2} == json.loads((pytester.path / "kept.json").read_text(encoding="utf-8"))
        assert ["1", "computed", "own", "down", "2", "own", "down"] == runs.log

    def test_it_costs_nothing_where_it_is_not_used(self, runs):
        """A suite that uses no fixture of the plugin does not import the package."""
        result = runs.run("""
import sys

def test_it():
    assert not [name for name in sys.modules if name.split(".")[0] in ("persistent_context", "filelock", "msgspec")]
""")

        result.assert_outcomes(passed=1)


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
        """However tests are distributed, one worker computes, and all have the value."""
        result = runs.run(COMPUTED_ONCE, *options)

        result.assert_outcomes(passed=12)
        assert ("computed", 1, 12) == (runs.log[0], runs.log.count("computed"), runs.log.count("test"))

    def test_every_worker_runs_all_tests(self, runs):
        """With --dist each, too, one worker computes."""
        result = runs.run(COMPUTED_ONCE, "--dist", "each", "--tx", "3*popen")

        result.assert_outcomes(passed=36)
        assert 1 == runs.log.count("computed")

    def test_values_are_copies(self, runs):
        """What a test does to a value, no other test sees."""
        result = runs.run("""
def test_it(compute_once):
    compute_once("list", list).append(1)
    assert compute_once("list", list) == []
""")

        result.assert_outcomes(passed=1)

    def test_an_async_factory(self, runs, workers):
        """What an asynchronous factory returns is awaited, also where a loop runs."""
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
        """Another worker computes what a killed one did not."""
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
        """While one computes and another waits, the shared context is free for all."""
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
        """The error names the key, and what is wrong; what the factory started is torn down at once, where it was."""
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
        result.stdout.fnmatch_lines(["*UnserializableValueError*when*set*", "*computed for 'the key'*"])
        assert [] == [one for name, one in logged.items() if one not in ([], [f"up:{name}", f"down:{name}:{{1}}"])]
        assert 2 * runs.log.count("test") == sum(map(len, logged.values()))

    def test_a_hanging_async_factory_is_interrupted(self, runs):
        """Ctrl-C cancels it, and waits for what it does at its end."""
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
        """So does a handler of signals that fails the test, as pytest-timeout's; the next test computes."""
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
        """A second Ctrl-C does not wait for it."""
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
        """What was started and is not kept is torn down."""
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
        """It is told so, and does not wait for itself."""
        result = runs.run("""
def test_it(compute_once):
    compute_once("key", lambda: compute_once("key", int))

def test_another_key(compute_once):
    assert compute_once("key", lambda: compute_once("other", lambda: 1) + 1) == 2
""")

        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*ReentrantTransactionError*"])


class TestTeardown:
    def test_it_runs_once_after_the_last_test(self, runs, workers):
        """The value is torn down when all workers have done their tests, also those that never asked for it."""
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

    @pytest.mark.parametrize("raised", ['ValueError("no way")', 'pytest.fail("no way")', 'pytest.skip("no way")'])
    def test_one_that_fails(self, runs, each, raised):
        """Whatever a teardown raises makes the run fail and is told; the others are run all the same, and all once."""
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

    @pytest.mark.parametrize(
        ("end", "options"),
        [('pytest.exit("enough")', ()), ("raise KeyboardInterrupt", ()), ("assert False", ("-x",))],
        ids=["exit", "Ctrl-C", "-x"],
    )
    def test_it_comes_after_the_fixtures_that_use_the_value(self, runs, each, end, options):
        """However the run ends, a fixture of any worker that uses the value is finalised before."""
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
        """What was computed is torn down all the same."""
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
        """It tears down when the others have ended, as if nothing had happened; Ctrl-C reaches all processes."""
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
        """After an interruption it is not waited for any longer than a few seconds."""
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
        """The one that replaces it has its tests to do, however long the crashed one had lived."""
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


class TestTheGuide:
    def test_its_examples_run(self, runs, workers):
        """What docs/pytest.md shows works; by hand and with the plugin, the token is the same."""
        computed, recipes, drawn = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
        by_hand, with_plugin = re.split(r"(?=@pytest.fixture.*# with this plugin)", recipes)
        result = runs.run(
            f"""
import json
from filelock import FileLock

def start_server():
    return 8000

def stop_server(port):
    log(f"stop:{{port}}")

def fetch_token():
    log("fetched")
    return "secret"

{computed}
{by_hand.replace("def token", "def token_by_hand")}
{with_plugin}
{drawn}
@pytest.mark.parametrize("number", range(4))
def test_it(database, token, token_by_hand, number):
    assert (database, token, token_by_hand) == (8000, "secret", "secret")
""",
            *(workers if workers[1] != "no:xdist" else ()),  # by hand it needs the fixtures of pytest-xdist
        )

        result.assert_outcomes(passed=6)
        assert ("stop:8000", 1) == (runs.log[-1], runs.log.count("stop:8000"))
