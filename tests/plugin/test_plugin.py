"""The pytest plugin, in real runs of pytest with real workers."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)

GUIDE = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text(encoding="utf-8")


class TestSharedContext:
    def test_all_workers_have_one_file(self, runs, workers):
        """Every number drawn from the shared context is drawn only once, by any worker."""
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
        """Tests in different event loops share one file with each other, and with tests that have no loop."""
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
        """The asynchronous context holds the content of the file when a test begins."""
        result = runs.run("""
def test_sync(shared_context):
    shared_context["word"] = "here"
    shared_context.save()

async def test_async(async_shared_context):
    assert async_shared_context["word"] == "here"
""")

        result.assert_outcomes(passed=2)

    def test_a_run_begins_with_nothing(self, runs):
        """A run does not see what an earlier run has left."""
        tests = """
def test_draw(shared_context):
    log(str(shared_context.incr("drawn")))
"""
        runs.run(tests)
        runs.run(tests)

        assert ["1", "1"] == runs.log

    @pytest.mark.parametrize("how", ["option", "ini"])
    def test_runs_may_share(self, runs, pytester, how):
        """With --shared-context, or the setting, a run continues where the last one stopped."""
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


class TestTheGuide:
    def test_its_examples_run(self, runs, workers):
        """The examples in docs/pytest.md work; by hand and with the plugin, the token is the same."""
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
            *(workers if workers[1] != "no:xdist" else ()),  # the recipe by hand needs the fixtures of pytest-xdist
        )

        result.assert_outcomes(passed=6)
        assert ("stop:8000", 1) == (runs.log[-1], runs.log.count("stop:8000"))
