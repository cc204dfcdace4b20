"""The pytest plugin with a state in etcd, in real runs of pytest with real workers."""

import os
import re

import pytest

import etcd
from persistent_context import SyncPersistentContext
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.gateway import Gateway

pytestmark = pytest.mark.timeout(300)

DRAWS = """
def test_draw(shared_context, compute_once):
    log(str(shared_context.incr("drawn")))
    assert compute_once("answer", lambda: log("computed") or 42) == 42
    compute_once("own", lambda: log("own"), lambda value: log("down"))
"""
FIXTURES = {
    "shared_context": """
def test_it(shared_context):
    pass
""",
    "async_shared_context": """
async def test_it(async_shared_context):
    pass
""",
    "compute_once": """
def test_it(compute_once):
    compute_once("answer", lambda: 42)
""",
}


@pytest.fixture
def url():
    """The URL of a state that does not exist yet."""
    return etcd.url()


@pytest.fixture(scope="module")
def guarded():
    """A member that requires a user, who may use what begins with ``app/``."""
    etcd.require_etcd()
    member = etcd.Member("guarded", etcd.free_ports(2), etcd.temporary_directory()).start().until_healthy()
    gateway = Gateway(parse(f"etcd://{member.endpoint}/app"))
    for path, body in (
        ("user/add", {"name": "root", "password": "wheel"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "worker", "password": "pencil"}),
        ("role/add", {"name": "app"}),
        ("role/grant", {"name": "app", "perm": {"permType": "READWRITE", "key": "YXBwLw==", "range_end": "YXBwMA=="}}),
        ("user/grant", {"user": "worker", "role": "app"}),
        ("enable", {}),
    ):
        gateway.ask(member.endpoint, f"/v3/auth/{path}", body)
    yield member
    member.kill()


def printed(result):
    """Return all that a run has printed."""
    return result.stdout.str() + result.stderr.str()


class TestSharedContext:
    def test_all_workers_have_one_state(self, runs, workers, url):
        """Every number drawn from the shared context is drawn only once, by any worker, with a loop or without."""
        result = runs.run(
            """
@pytest.mark.parametrize("number", range(10))
def test_draw(shared_context, number):
    log(str(shared_context.incr("drawn")))

@pytest.mark.parametrize("number", range(10))
async def test_draw_in_a_loop(async_shared_context, number):
    log(str(await async_shared_context.incr("drawn")))
""",
            *workers,
            "--shared-context",
            url,
        )

        result.assert_outcomes(passed=20)
        assert list(range(1, 21)) == sorted(map(int, runs.log))
        assert {"drawn": 20} == SyncPersistentContext.create(url).get_all_data()

    @pytest.mark.parametrize("how", ["option", "ini"])
    def test_runs_may_share(self, runs, pytester, url, how):
        """As with a file, a run continues where the last one stopped; a value with a teardown is that of one run."""
        options, ini = (("--shared-context", url), "") if how == "option" else ((), f"shared_context = {url}")
        runs.run(DRAWS, *options, ini=ini).assert_outcomes(passed=1)
        runs.run(DRAWS, "-n", "2", *options, ini=ini).assert_outcomes(passed=1)

        assert ["1", "computed", "own", "down", "2", "own", "down"] == runs.log
        assert {"drawn": 2} == SyncPersistentContext.create(url).get_all_data()
        assert {"answer": 42} == SyncPersistentContext.create(f"{url}/once").get_all_data()
        assert [] == [file.name for file in pytester.path.iterdir() if file.name.startswith("etcd")]

    def test_without_it_nothing_is_in_etcd(self, runs, url):
        """A run without the option begins with nothing, whatever others have in etcd."""
        runs.run(DRAWS, "--shared-context", url)
        runs.run(DRAWS)

        assert ["1", "computed", "own", "down"] * 2 == runs.log


class TestSecrets:
    @pytest.mark.parametrize("fixture", FIXTURES)
    def test_right_ones_are_used(self, runs, guarded, fixture):
        """A user who may use what begins with the namespace and a slash can use all fixtures."""
        url = f"etcd://worker:pencil@{guarded.endpoint}/app"
        result = runs.run(FIXTURES[fixture], "-n", "2", "--shared-context", url)

        result.assert_outcomes(passed=1)
        assert [] == re.findall("worker:|pencil", printed(result))

    @pytest.mark.parametrize("fixture", FIXTURES)
    def test_wrong_ones_are_not_shown(self, runs, guarded, fixture):
        """Even with local variables in tracebacks, the error says that they are wrong, without them."""
        url = f"etcd://somebody:chalk@{guarded.endpoint}/app"
        result = runs.run(FIXTURES[fixture], "--shared-context", url, "--showlocals", "-vv")

        result.assert_outcomes(errors=1)
        assert "invalid user ID or password" in printed(result)
        assert [] == re.findall("somebody|chalk", printed(result))

    def test_a_url_that_is_not_valid_ends_the_run_at_once(self, runs, guarded):
        """It is wrong usage, reported before any test runs, without user and password."""
        result = runs.run(DRAWS, "--shared-context", f"etcd://somebody:chalk@{guarded.endpoint}", "-n", "2")

        assert pytest.ExitCode.USAGE_ERROR == result.ret
        assert "--shared-context: an etcd URL must be of the form" in printed(result)
        assert [] == re.findall("somebody|chalk", printed(result))

    def test_without_its_package_it_says_what_to_install(self, runs, pytester, monkeypatch):
        """A URL needs urllib3; without it, the run ends at once, and names the extra."""
        (pytester.path / "sitecustomize.py").write_text("import sys; sys.modules['urllib3'] = None", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
        result = runs.run(DRAWS, "--shared-context", "etcd://somebody:chalk@127.0.0.1:1/app")

        assert pytest.ExitCode.USAGE_ERROR == result.ret
        assert "pip install '.[etcd]'" in printed(result)
        assert [] == re.findall("somebody|chalk", printed(result))

    def test_a_cluster_that_cannot_be_reached_is_named(self, runs):
        """When the time of the context is over, the error of the fixture names the endpoint and the reason."""
        result = runs.run(FIXTURES["shared_context"], "--shared-context", "etcd://somebody:chalk@127.0.0.1:1/app")

        result.assert_outcomes(errors=1)
        assert "127.0.0.1:1: Connection refused" in printed(result)
        assert [] == re.findall("somebody|chalk", printed(result))
