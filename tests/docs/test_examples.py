"""The examples do what they say: run as by a user, killed, stopped, and several at once."""

import contextlib
import functools
import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from persistent_context import LeaseHeldError, SyncPersistentContext

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "examples.md"
STOPPED = "stopped; start it again to go on\n"
CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL and no SIGSTOP")


class Program:
    """A real process whose output, including standard error, is read in lines."""

    def __init__(self, *command):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOX", "FORCE_COLOR"))}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            text=True,
            encoding="utf-8",
            start_new_session=True,  # the kernel continues stopped processes of a process group whose shell ends
        )
        self.heard = []

    def hear(self):
        """Wait for one line."""
        line = self.process.stdout.readline()
        assert line, f"it ended:\n{''.join(self.heard)}"
        self.heard.append(line)
        return line.rstrip("\n")

    def finish(self):
        """Wait for its successful end; return all lines that it has printed."""
        assert 0 == self.end(), "".join(self.heard)
        return "".join(self.heard).splitlines()

    def end(self, number=None):
        """Wait for its end, after an optional signal, and for all processes it has started; return its exit code."""
        if number is not None:
            self.process.send_signal(number)
        self.heard.extend(self.process.stdout)
        return self.process.wait()

    def stop(self):
        """Stop it by SIGSTOP, and wait until all of its threads have stopped."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self):
        """Continue it after that."""
        self.process.send_signal(signal.SIGCONT)

    def discard(self):
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start():
    """Start a program: ``start(EXAMPLES / "crawler.py", *arguments)``."""
    programs = []

    def one(*command):
        programs.append(Program(*command))
        return programs[-1]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts out ignoring it
    yield one
    signal.signal(signal.SIGINT, before)
    for program in programs:
        program.discard()


@contextlib.contextmanager
def held_when(condition, path, program):
    """Wait until the content of the file fulfils the condition, and then hold the lock."""
    store = SyncPersistentContext(path, lock_timeout=100)
    while True:
        store.load()
        if condition(store):
            with store.transaction() as tx:
                if condition(tx):
                    yield dict(tx)
                    return
        assert program.process.poll() is None, f"it ended too early:\n{program.process.stdout.read()}"
        time.sleep(0.005)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def runs_of(log):
    """Return how often each job ran."""
    return Counter(f"primes below {limit}" for limit in log.read_text(encoding="utf-8").split())


def leased(path, jobs):
    """Return the jobs whose leases are held."""
    store, held = SyncPersistentContext(path), set()
    for job in jobs:
        try:
            with store.lease(job, wait=False):
                pass
        except LeaseHeldError:
            held.add(job)
    return held


class TestTaskRunner:
    JOBS = 32

    @pytest.fixture
    def path(self, tmp_path):
        """The file of the state, in a directory that has only what the runner puts there."""
        (tmp_path / "run").mkdir()
        return tmp_path / "run" / "state.json"

    @pytest.fixture
    def run(self, start, path):
        """Start a runner on it."""
        command = ("-W", "error", EXAMPLES / "task_runner.py", path, "--jobs", self.JOBS, "--processes", 2)
        return lambda: start(*command)

    def assert_complete(self, path):
        """Check that all results are there and correct, and no temporary file is left behind."""
        assert self.right_results() == read(path)
        assert {"state.json", "state.json.lock", "state.json.log"} == {
            name for name in os.listdir(path.parent) if ".lease-" not in name
        }

    @functools.cache
    def right_results(self):
        """The expected results, calculated in another way."""
        limit = 1000 * self.JOBS
        sieve = bytearray([0, 0]) + bytearray([1]) * limit
        for number in range(2, math.isqrt(limit) + 1):
            sieve[number * number :: number] = bytes(len(range(number * number, len(sieve), number)))
        return {f"primes below {below}": sum(sieve[:below]) for below in range(1000, limit + 1, 1000)}

    def test_killed_again_and_again_it_does_what_was_not_recorded_and_no_more(self, run, path):
        """However it ends, it leaves no process; a job runs again only if it was leased and not recorded then."""
        may_run = Counter(self.right_results().keys())
        for moment, number in [(0, signal.SIGKILL), (3, signal.SIGINT), (7, signal.SIGKILL), (12, signal.SIGKILL)]:
            program = run()

            def now(content, moment=moment):
                assert content.items() <= self.right_results().items()
                return len(content) >= moment and leased(path, may_run)

            with held_when(now, path, program):
                may_run.update(leased(path, may_run))
                code = program.end(number)

            assert (-number if number == signal.SIGKILL else 1) == code
            assert (number == signal.SIGINT) == (program.heard[-1:] == [STOPPED])
        run().finish()
        times = runs_of(path.with_name("state.json.log"))

        self.assert_complete(path)
        assert {} == {job: times[job] for job in may_run if not 1 <= times[job] <= may_run[job]}

    def test_two_at_once_run_every_job_once(self, run, path):
        """Runners that are started at the same time share the work."""
        programs = [run(), run()]
        for program in programs:
            program.finish()
        times = runs_of(path.with_name("state.json.log"))

        self.assert_complete(path)
        assert {1} == set(times.values())

    @pytest.mark.parametrize("killed", [False, True], ids=["goes-on", "killed"])
    def test_what_a_stopped_runner_has_leased_stays_its_own_until_it_dies(self, run, path, killed):
        """A second runner does all other jobs; those of the first only if it is dead, and then without being told."""
        jobs, first = self.right_results().keys(), run()
        with held_when(lambda _: leased(path, jobs), path, first):
            first.stop()
            its_own = leased(path, jobs)
            left = its_own - read(path).keys() if path.exists() else its_own
        second = run()
        with held_when(lambda now: len(now) == self.JOBS - len(left), path, second) as now:
            assert left == jobs - now.keys()
        if killed:
            first.end(signal.SIGKILL)
        else:
            first.go_on()
            first.finish()
        second.finish()
        times = runs_of(path.with_name("state.json.log"))

        self.assert_complete(path)
        assert {1} == {times[job] for job in times if not (killed and job in left)}


class TestCounters:
    @pytest.fixture
    def texts(self, tmp_path):
        """Some text files, and the words in them."""
        rng = random.Random(7)
        texts = {}
        for number in range(30):
            file = tmp_path / f"{number}.txt"
            texts[str(file)] = rng.choices(["a", "be", "sea", "tide", "ünïcode"], k=rng.randrange(1, 200))
            file.write_text(" ".join(texts[str(file)]), encoding="utf-8")
        return texts

    @pytest.fixture
    def run(self, start, tmp_path, texts):
        """Count the words of the texts."""
        command = ("-W", "error", EXAMPLES / "multiprocessing_counters.py", tmp_path / "words.json", *texts, "--method")
        return lambda method: start(*command, method)

    def assert_counted(self, texts, content):
        """Check that each file is counted once."""
        assert Counter(word for text in texts.values() for word in text) == Counter(content["words"])
        assert {file: len(text) for file, text in texts.items()} == content["files"]
        assert "ünïcode" == content["longest"]

    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_every_word_of_every_file_is_counted_once(self, run, tmp_path, texts, method):
        """Two programs at once, and another one later, count all files, and none twice."""
        for program in [run(method), run(method)]:
            program.finish()
        first = read(tmp_path / "words.json")
        shown = run(method).finish()
        second = read(tmp_path / "words.json")

        self.assert_counted(texts, first)
        assert (60, 90) == (first.pop("readings"), second.pop("readings"))
        assert first == second
        assert f"{sum(first['words'].values())} words in 30 files, read 90 times;" == shown[0]

    @pytest.mark.skipif(not CHILDREN.exists(), reason="only Linux tells a process's children")
    def test_a_process_that_is_killed_is_told_and_made_up_for(self, run, tmp_path, texts):
        """The program fails if one of its processes was killed during its work, and the next one counts the rest."""
        program = run("fork")
        children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children")
        with held_when(lambda now: len(now.get("files", ())) >= 3, tmp_path / "words.json", program) as content:
            for pid in children.read_text(encoding="utf-8").split():
                os.kill(int(pid), signal.SIGKILL)
        code = program.end()
        after = read(tmp_path / "words.json")
        run("fork").finish()

        assert (1, "a process failed; start it again to go on\n") == (code, program.heard[-1])
        assert 3 <= len(content["files"]) < 30
        assert content == after
        self.assert_counted(texts, read(tmp_path / "words.json"))


class TestCrawler:
    PROGRAM = EXAMPLES / "crawler.py"
    PAGES = 80

    def found(self, content):
        return {page for page, found in content.items() if found}

    def test_it_goes_on_and_is_watched_meanwhile(self, start, tmp_path):
        """Interrupted and killed, it fetches no recorded page again; a watcher is told of each page once, at once."""
        path = tmp_path / "crawl.json"
        watcher = start("-W", "error", self.PROGRAM, path, "--watch")
        command = ("-W", "error", self.PROGRAM, path, "--pages", self.PAGES, "--delay", 0.02)
        done, told, again = set(), [], set()
        for moment, number, code in [(3, signal.SIGINT, 1), (12, signal.SIGKILL, -9), (25, signal.SIGKILL, -9)]:
            crawler = start(*command)
            with held_when(lambda now, moment=moment: len(self.found(now)) >= moment, path, crawler) as content:
                assert code == crawler.end(number), "".join(crawler.heard)
            assert (number == signal.SIGINT) == (crawler.heard[-1] == STOPPED)
            again |= done & set(re.findall("^GET (.*)$", "".join(crawler.heard), re.MULTILINE))
            done = self.found(content)
            while len(told) < len(done):
                told.append(watcher.hear().partition(":")[0])
        again |= done & {line.removeprefix("GET ") for line in start(*command).finish()}
        lines = watcher.finish()
        pages = {
            f"/{n}": {"title": f"Page {n}", "links": [f"/{(3 * n + step) % self.PAGES}" for step in (1, 2, 3)]}
            for n in range(self.PAGES)
        }

        assert set() == again
        assert pages == read(path)
        assert sorted(pages) == sorted(line.partition(":")[0] for line in lines)
        assert lines[-1].endswith("; 0 to go")

    def test_who_watches_later_is_told_all(self, start, tmp_path):
        """A watcher that starts later is also told what the crawler found before, and does not wait for more."""
        start(self.PROGRAM, tmp_path / "crawl.json", "--pages", 5, "--delay", 0).finish()
        lines = start(self.PROGRAM, tmp_path / "crawl.json", "--watch").finish()

        assert {f"/{number}: Page {number}; 0 to go" for number in range(5)} == set(lines)

    def test_watching_is_ended_by_an_interrupt(self, start, tmp_path):
        """Ctrl-C ends a watch that has nothing to report."""
        with SyncPersistentContext(tmp_path / "crawl.json") as store:
            store.update({"/0": {"title": "Page 0", "links": ["/1"]}, "/1": None})
        watcher = start(self.PROGRAM, tmp_path / "crawl.json", "--watch")

        assert "/0: Page 0; 1 to go" == watcher.hear()
        assert 1 == watcher.end(signal.SIGINT)
        assert STOPPED == watcher.heard[-1]


@pytest.mark.skipif(importlib.util.find_spec("nox") is None, reason="nox is not installed")
class TestNox:
    def test_one_of_two_runs_builds(self, start, hold, tmp_path):
        """If two runs ask at the same time, one builds, both use the same archive, and both count."""
        modules = {path.stem for path in EXAMPLES.glob("*.py")} - {"noxfile"}
        for path in EXAMPLES.glob("*.py"):
            shutil.copy(path, tmp_path)
        (tmp_path / ".nox" / "shared").mkdir(parents=True)
        with hold(tmp_path / ".nox" / "shared" / "archives.json"):
            programs = [start("-m", "nox", "-f", tmp_path / "noxfile.py") for _ in range(2)]
            for program in programs:
                while "Running session check" not in program.hear():
                    pass
        told = "\n".join(line for program in programs for line in program.finish())
        (archive,) = (tmp_path / ".nox" / "shared").glob("*.zip")

        assert 1 == told.count("-m zipfile -c")
        assert 2 * len(modules) == len(re.findall(rf"^{re.escape(str(archive))}/", told, re.MULTILINE))
        assert {f"{name} passed": 2 for name in modules} == read(tmp_path / ".nox" / "shared" / "results.json")
        assert set() == {name for name in modules if f"{name} passed: 2" not in told}

    def test_changed_sources_are_built_anew(self, start, tmp_path):
        """A second run uses what the first has built, until a source changes."""
        for name in ("noxfile.py", "crawler.py"):
            shutil.copy(EXAMPLES / name, tmp_path)
        builds = []
        for addition in ("", "", "# changed"):
            with (tmp_path / "crawler.py").open("a", encoding="utf-8") as file:
                file.write(addition)
            told = "\n".join(start("-m", "nox", "-f", tmp_path / "noxfile.py", "-s", "check").finish())
            builds.append(told.count("-m zipfile -c"))

        assert [1, 0, 1] == builds


class TestThePage:
    def test_its_code_is_that_of_the_examples(self):
        """Every code block of the page is in an example, literally."""
        blocks = re.findall(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        sources = [path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")]

        assert blocks
        assert [] == [block for block in blocks if not any(block in source for source in sources)]

    def test_every_example_is_explained(self):
        """Every example is named on the page, and says itself how to run it."""
        page = PAGE.read_text(encoding="utf-8")
        for path in EXAMPLES.glob("*.py"):
            assert f"examples/{path.name}" in page
            assert f"examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]
