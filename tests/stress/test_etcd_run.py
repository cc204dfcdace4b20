"""The stress run on a cluster of etcd: it passes on this library, and fails on builds that lose or repeat commits."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import etcd as members
import persistent_context

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.documents import etcd
from stress.logs.history import Fault, History, Kind, Log, Operation, Outcome, read_logs
from stress.mutants.build import build
from stress.mutants.model import Edit
from stress.run import network, proxy
from stress.run.gaps import gaps, gaps_after_kills
from stress.run.options import parse
from stress.run.plan import KINDS
from stress.run.proxy import Orders, Schedule
from stress.run.venue import disagreements

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ROOT = Path(persistent_context.__file__).resolve().parents[1]
CALM = tuple(
    word
    for option in ("kill-member", "stop-member", "restart-member", "cut-off", "compact", "long-stop")
    for word in (f"--{option}-every", 0)
)
UNHURT = tuple(
    word
    for option in ("kill", "stop", "cancel", "fork", "cut-answer", "delay-request", "lose-request")
    for word in (f"--{option}-every", 0)
)
WORKERS_ONLY = tuple(word for kind in KINDS if kind not in ("foreign", "pages") for word in (f"--{kind}", 0))

WITHOUT_SETTLING = (Edit("etcd/commit", "if revision := self._settled(state, identity, fence):", "if revision := 0:"),)
WITHOUT_FENCING = (
    Edit(
        "etcd/session",
        "when = [nobody_is_in_line(state) if turn is None else turn.comparison()]",
        "when = [nobody_is_in_line(state)] if turn is None else []",
    ),
    Edit("etcd/commit", "comparisons = [*when, is_mod", "comparisons = [] if not when else [*when, is_mod"),
)


def command(*arguments):
    """Return the command of a run in etcd."""
    return [sys.executable, "-m", "stress", "--store", "etcd", "--tier", "quick", *map(str, arguments)]


def stress(*arguments, library=IMPORT_ROOT):
    """Do a run with the library that is found in a directory."""
    environment = dict(os.environ, PYTHONPATH=str(library))
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


def living(what):
    """Return the command lines that contain a text, of all processes, as Linux shows them."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [one for one in commands if what in one]


def namespaces():
    """Return the network namespaces of stress runs, if there can be any."""
    if shutil.which("ip") is None:
        return []
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    return [line for line in listed.splitlines() if line.startswith(f"{network.PREFIX}")]


@pytest.fixture(scope="module", autouse=True)
def _with_etcd():
    members.require_etcd()


class TestRun:
    """The whole run."""

    @pytest.mark.timeout(300)
    def test_loses_nothing(self, tmp_path):
        """A run with troubles of every kind ends with PASS, says what is left out, and leaves nothing behind."""
        often = ("--kill-member-every", 4, "--cut-off-every", 5, "--cut-answer-every", 0.3)
        # A call takes seconds.
        few = ("--ending", 0, "--signals", 0, "--jobs", 0, "--kill-every", 5, "--cancel-every", 4)
        done = stress("--processes", 2, "--tasks", 10, "--seconds", 12, "--seed", 1, *often, *few, "--dir", tmp_path)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "PASS: nothing was lost" in done.stdout
        assert "left out, as they are about JSON files: foreign, pages, journal, and deleted lock files" in done.stdout
        for what in ("members killed", "answers lost", "requests delayed", "requests lost", "compactions"):
            assert re.search(rf"[1-9]\d* {what},", done.stdout), what
        assert list(tmp_path.iterdir()) == []
        assert [] == living(str(tmp_path))

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize(
        ("edits", "options", "kinds"),
        [
            (WITHOUT_SETTLING, (*CALM, "--seconds", 12, "--cut-answer-every", 0.1), "lost|duplicated|not linearizable"),
            (
                WITHOUT_FENCING,
                (*CALM, *UNHURT, "--seconds", 60, "--long-stop-every", 9),
                "lost|duplicated|not linearizable|torn|stale",
            ),
        ],
        ids=["blind retries", "lost turns"],
    )
    def test_finds_a_library_that_breaks_its_promise(self, tmp_path, edits, options, kinds):
        """A build that repeats unanswered commits, or commits in a turn that it has lost, is found."""
        library = build(tmp_path, edits, IMPORT_ROOT / "persistent_context")
        runs = tmp_path / "runs"
        runs.mkdir()
        few = ("--processes", 4, "--tasks", 4, *WORKERS_ONLY)
        for seed in (3, 4):  # whether a commit meets the fault is a matter of chance
            done = stress(*few, *options, "--seed", seed, "--dir", runs, library=library)
            if done.returncode:
                break

        assert done.returncode == 1, done.stdout + done.stderr
        assert "\nFAIL\n" in done.stdout
        assert re.search(rf"^\w+: ({kinds}): ", done.stdout, re.MULTILINE), done.stdout

    def test_without_a_cluster_is_no_pass(self, tmp_path, monkeypatch):
        """A run whose members cannot start ends with exit code 2, and shows what they said."""
        program = tmp_path / "etcd"
        program.write_text("#!/bin/sh\necho this is no cluster\nexit 3\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "runs").mkdir()
        done = stress("--dir", tmp_path / "runs")

        assert done.returncode == 2, done.stdout + done.stderr
        assert "BROKEN SET-UP" in done.stdout
        assert "exit code 3\nthis is no cluster" in done.stdout

    @pytest.mark.timeout(300)
    def test_leaves_nothing_after_an_interruption(self, tmp_path):
        """After Ctrl-C no member, proxy or namespace is left."""
        running = subprocess.Popen(
            command("--processes", 2, "--dir", tmp_path),
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(IMPORT_ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        while running.poll() is None and not list(tmp_path.rglob("0.0.jsonl")):
            time.sleep(0.05)
        during = living(f"{tmp_path}")
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate()

        assert running.returncode == 130, output
        assert "interrupted: nothing was shown" in output
        assert any("--initial-cluster" in one for one in during)
        assert [] == living(f"{tmp_path}")
        assert [] == [one for one in namespaces() if one.startswith(f"{network.PREFIX}{running.pid}-")]


class TestCommandLine:
    """The options."""

    @pytest.mark.parametrize("tier", ["quick", "run", "soak"])
    def test_hurts_members_and_connections_in_each_tier(self, tier):
        """Each tier kills, stops, restarts and cuts off members, and loses answers and requests."""
        plan = parse(["--store", "etcd", "--tier", tier]).plan

        assert min(plan.kill_member_every, plan.stop_member_every, plan.restart_member_every, plan.cut_off_every) > 0
        assert min(plan.cut_answer_every, plan.delay_request_every, plan.lose_request_every, plan.compact_every) > 0
        assert plan.members == 3

    def test_leaves_out_what_is_about_files(self):
        """A run in etcd has no foreign programs, no file of many pages, and no journals."""
        plan = parse(["--store", "etcd"]).plan

        assert (plan.foreign, plan.pages, plan.journal, plan.delete_lock_every) == (0, 0, 0, 0.0)


class Member(http.server.BaseHTTPRequestHandler):
    """A member that notes what arrives."""

    protocol_version = "HTTP/1.1"
    arrived = ()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.arrived.append((body.decode(), time.monotonic()))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class TestProxy:
    """The proxies, in front of a server that notes what arrives."""

    @pytest.fixture
    def upstream(self):
        """Yield the address of a server, and the list of what has arrived there."""
        arrived = []
        handler = type("Handler", (Member,), {"arrived": arrived})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{server.server_address[1]}", arrived
            server.shutdown()

    @contextlib.contextmanager
    def started(self, tmp_path, member, **every):
        """Start the proxies as a run does; yield the address of one."""
        means = {"cut_answer_every": 0.0, "delay_request_every": 0.0, "lose_request_every": 0.0} | every
        orders = Orders(members=[member], seed=1, log=str(tmp_path / "proxies.jsonl"), **means)
        process = subprocess.Popen(
            [sys.executable, "-m", "stress.run.proxy", orders.to_argument()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            (address,) = json.loads(process.stdout.readline())
            yield address, process.stdin
            process.stdin.close()

    def ask(self, address, body="{}", seconds=5.0):
        """Send a request; return whether it was answered."""
        connection = http.client.HTTPConnection(address, timeout=seconds)
        try:
            connection.request("POST", "/v3/kv/txn", body)
            return connection.getresponse().read() == b"{}"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def commits_until_one_is_struck(self, address, **options):
        """Send commits until one has no answer; return it, and when its client had given up."""
        for number in range(10_000):
            body = f'{{"request_put": {number}}}'
            if not self.ask(address, body, **options):
                return body, time.monotonic()
        raise AssertionError("no request was struck")

    def test_pass_on_what_is_sent(self, tmp_path, upstream):
        """Without faults, each request arrives once and is answered, also several on one connection."""
        member, arrived = upstream
        with self.started(tmp_path, member) as (address, _):
            with closing(http.client.HTTPConnection(address)) as connection:
                for number in range(3):
                    connection.request("POST", "/v3/kv/txn", str(number))
                    assert connection.getresponse().read() == b"{}"

        assert [body for body, _ in arrived] == ["0", "1", "2"]

    def test_cut_an_answer_off(self, tmp_path, upstream):
        """The request was carried out, and the client has no answer."""
        member, arrived = upstream
        with self.started(tmp_path, member, cut_answer_every=0.01) as (address, _):
            struck, _ = self.commits_until_one_is_struck(address)

        assert [struck] == [body for body, _ in arrived if body == struck]
        assert [fault.name for fault in read_logs([tmp_path / "proxies.jsonl"]).faults] == ["cut_answer"]

    def test_lose_a_request(self, tmp_path, upstream):
        """The request is never carried out."""
        member, arrived = upstream
        with self.started(tmp_path, member, lose_request_every=0.01) as (address, _):
            struck, _ = self.commits_until_one_is_struck(address)

        assert struck not in [body for body, _ in arrived]

    def test_delay_a_request(self, tmp_path, upstream):
        """The request is carried out once, after its client has given up."""
        member, arrived = upstream
        with self.started(tmp_path, member, delay_request_every=0.01) as (address, _):
            struck, gave_up = self.commits_until_one_is_struck(address, seconds=0.2)
            while struck not in [body for body, _ in arrived]:
                assert time.monotonic() < gave_up + 60
                time.sleep(0.01)

        assert [at for body, at in arrived if body == struck] >= [gave_up - 0.2]

    def test_go_on_without_faults_when_told_to(self, tmp_path, upstream):
        """At the end of a run, every request is answered."""
        member, _ = upstream
        with self.started(tmp_path, member, cut_answer_every=0.001) as (address, orders):
            self.commits_until_one_is_struck(address)
            orders.write("calm\n")
            orders.flush()
            while not all(self.ask(address, '{"request_put": 1}') for _ in range(50)):
                pass

    def test_spare_requests_between_faults(self):
        """A call that is repeated succeeds, however often faults are due."""
        orders = Orders(members=[], seed=1, cut_answer_every=1e-9, delay_request_every=0, lose_request_every=0, log="")
        schedule = Schedule(orders)
        struck = [bool(schedule.fault_of(b"POST /v3/kv/txn ", b'"request_put"')) for _ in range(30)]

        assert sum(struck) > 3
        assert all(not any(struck[at + 1 : at + 1 + proxy.SPARED]) for at, one in enumerate(struck) if one)


class TestNetwork:
    """Where members are."""

    def test_says_why_nothing_is_cut_off(self, monkeypatch):
        """Without root, members are on loopback, and the reason is told."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        place = network.network(3)

        assert isinstance(place, network.Loopback)
        assert place.trouble
        with pytest.raises(RuntimeError, match="cannot be cut off"):
            place.cut(0, 1)

    def test_cuts_off_in_one_direction_and_mends(self):
        """What a member sends to another one gets lost until this is mended, and this machine reaches both."""
        place = network.network(2)
        if place.trouble:
            pytest.skip(f"needs network namespaces: {place.trouble}")
        with closing(place):
            first, second = (place.addresses(number)[0].partition(":")[0] for number in range(2))

            def reaches(target):
                ask = [*place.command(0), sys.executable, "-c", CONNECT, target]
                return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()

            assert reaches(second) == "refused"  # nobody listens there, and says so
            place.cut(0, 1)
            assert reaches(second) == "unreachable"
            here = subprocess.run([sys.executable, "-c", CONNECT, first], capture_output=True, text=True, check=True)
            assert here.stdout.strip() == "refused"
            place.mend()
            assert reaches(second) == "refused"
        assert [] == [one for one in namespaces() if one.startswith(f"{network.PREFIX}{os.getpid()}-")]

    def test_members_keep_no_mount_alive(self):
        """A member has no copy of the mounts, in which those that are unmounted here would live on."""
        place = network.network(1)
        if place.trouble:
            pytest.skip(f"needs network namespaces: {place.trouble}")
        with closing(place):
            look = [*place.command(0), "readlink", "/proc/self/ns/mnt"]
            there = subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip()

        assert os.readlink("/proc/self/ns/mnt") == there


CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=30)
except ConnectionRefusedError:
    print("refused")
except OSError:
    print("unreachable")
"""


class TestJudgement:
    """What a report says of a cluster."""

    def test_compares_what_the_library_reads_with_what_members_have(self, tmp_path):
        """A key that differs between the library and a member is told."""
        (tmp_path / "state.json").write_text('{"a": 1, "b": 2}')
        (tmp_path / "state.raw-0.json").write_text('{"b": 2, "a": 1}')
        (tmp_path / "state.raw-1.json").write_text('{"a": 1}')
        (message,) = disagreements(tmp_path, ["state", "jobs"])

        assert message == "state.raw-1 differs from what the library read at the end in b"

    def test_tells_how_long_nobody_could_write(self):
        """The gap after the kill of a leader is the longest time without an acknowledged write that begins then."""

        def incr(at, name="incr"):
            return Operation(
                id=f"0.0.0.{at}", workload="counter", name=name, key="n", invoked=0, finished=at, outcome=Outcome.OK
            )

        second = 10**9
        operations = [
            incr(9 * second),
            incr(10 * second),
            incr(11 * second, "read"),
            *(incr(at * second) for at in range(13, 20)),
            incr(30 * second),
        ]
        faults = [
            Fault("kill_member", "member-1 leader", int(10.5 * second)),
            Fault("kill_member", "member-2 follower", 20 * second),
        ]
        history = History(operations=operations, faults=faults)
        (gap,) = gaps(history)

        assert (gap.leader, gap.seconds) == ("member-1", 3.0)
        assert list(gaps_after_kills(history)) == [
            "the leader was killed once: writing again after 3.0 s (median), 3.0 s at most"
        ]
        assert list(gaps_after_kills(History(operations=operations))) == []

    def test_expects_the_last_requests_of_a_dead_process_later(self, tmp_path):
        """In a cluster, a request may take effect after its process is dead, and an unknown outcome at any time."""
        with closing(Log(tmp_path / "0.0.jsonl")) as worker:
            for number in range(2):
                worker.write(Kind.INVOKE, id=f"0.0.0.{number}", workload="counter", name="incr", key="n")
            worker.write(Kind.INVOKE, id="1.0.0.0", workload="counter", name="incr", key="n")
            worker.write(Kind.INFO, id="1.0.0.0", error="the outcome is not known", pending=True)
        with closing(Log(tmp_path / "supervisor.jsonl")) as supervisor:
            supervisor.write(Kind.KILLED, id="0.0", at=1_000)
        history = read_logs(sorted(tmp_path.iterdir()), lag=2.0)

        assert {one.finished for one in history.operations} == {1_000 + 2 * 10**9, math.inf}


class TestRawAccess:
    """The state in a cluster, read and written without the library."""

    def test_is_what_the_library_reads(self):
        """Both read the same keys and values, whoever wrote them."""
        endpoint = members.member().endpoint
        name = f"test-{os.getpid()}"
        opening = {f"key {number}": [number, "é\n"] for number in range(150)}
        etcd.write([endpoint], name, opening)
        context = persistent_context.SyncPersistentContext.create(etcd.location([endpoint], name))
        before = context.get_all_data()
        context.incr("n")

        assert before == opening
        assert etcd.read([endpoint], name) == {**opening, "n": 1}
        assert list(etcd.differences(before, etcd.read([endpoint], name))) == ["n"]

    def test_finds_the_holder(self):
        """The process in a transaction is named."""
        endpoint = members.member().endpoint
        context = persistent_context.SyncPersistentContext.create(etcd.location([endpoint], "state"))
        with context.transaction():
            during = etcd.holder([endpoint], "state")

        assert during == os.getpid()
        assert etcd.holder([endpoint], "state") is None
