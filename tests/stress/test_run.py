"""The stress run: it passes on this library, fails on one that loses changes, and its logs show what happened."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path

import pytest

import persistent_context

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the stress run is not installed

from stress.checking.checkers import CHECKERS
from stress.logs.history import Fault, Kind, Log, Outcome, parse, read_logs
from stress.run.options import parse as parse_command_line
from stress.run.plan import ABOUT_ETCD, FILES, KINDS, Plan
from stress.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ROOT = Path(persistent_context.__file__).resolve().parents[1]
KEY = "a key"

SHORT_SOAK = ("--tier", "soak", "--processes", 2, "--tasks", 5, "--seconds", 6, "--kill-every", 3)
"""Workers live for so long that each workload is acknowledged, computations too, which take several turns."""

INCREMENTS_IN_MEMORY = """
from persistent_context import PersistentContext

async def incr(self, key):
    self[key] = value = self.get(key, 0) + 1
    await self.save()
    return value

PersistentContext.incr = incr
"""


def stress(*arguments: object, path: tuple[Path, ...] = (IMPORT_ROOT,)) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with the library that is found on a path."""
    return subprocess.run(
        [sys.executable, "-m", "stress", *map(str, arguments)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, path))),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def living() -> list[str]:
    """Return the command lines of all processes, as Linux shows them."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return commands


class TestRun:
    """The whole run."""

    @pytest.mark.timeout(300)
    def test_loses_nothing(self, tmp_path):
        """A run with faults of every kind ends with PASS and exit code 0, and cleans up."""
        often = ("--kill-every", 1, "--stop-every", 0.5, "--fork-every", 0.5)  # a call takes seconds
        for seconds in (10, 40):  # on a crowded machine, a short run may end before every workload had a turn
            runs = tmp_path / f"{seconds} s"
            runs.mkdir()
            done = stress("--tier", "quick", "--seconds", seconds, "--seed", 1, *often, "--dir", runs)
            if "no operation was acknowledged" not in done.stdout:
                break
        killed = re.search(r"(\d+) killed", done.stdout)
        acknowledged = re.search(r"([\d,]+) acknowledged operations/s", done.stdout)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "PASS: nothing was lost" in done.stdout
        assert killed
        assert int(killed[1]) > 0
        assert re.search(r"\d calls cancelled, \d+ forks, \d+ processes stopped,", done.stdout)
        assert acknowledged
        assert int(acknowledged[1].replace(",", "")) > 0
        assert list(runs.iterdir()) == []

    def test_goes_on_after_an_interruption(self, tmp_path):
        """An interrupted soak continues with the next round and its totals, and keeps nothing of rounds that passed."""
        begun = stress(*SHORT_SOAK, "--hours", 1 / 3600, "--seed", 5, "--dir", tmp_path)
        (directory,) = tmp_path.iterdir()
        before = json.loads((directory / "soak.json").read_text())
        resumed = stress("--resume", directory, "--hours", 1 / 3600)
        after = json.loads((directory / "soak.json").read_text())

        assert begun.returncode == resumed.returncode == 0, begun.stdout + resumed.stdout
        assert (before["rounds"], after["rounds"]) == (1, 2)
        assert after["totals"]["ok"] > before["totals"]["ok"] > 0
        assert after["plan"] == before["plan"]
        assert [path.name for path in directory.iterdir()] == ["soak.json"]

    def test_in_rounds_ends_with_the_one_that_fails(self, tmp_path):
        """A soak ends with a round in which something was lost, keeps its logs, and prints how to repeat it."""
        (tmp_path / "sitecustomize.py").write_text(INCREMENTS_IN_MEMORY)
        (tmp_path / "runs").mkdir()
        done = stress(*SHORT_SOAK, "--seed", 5, "--dir", tmp_path / "runs", path=(tmp_path, IMPORT_ROOT))
        (directory,) = (tmp_path / "runs").iterdir()

        assert done.returncode == 1, done.stdout + done.stderr
        assert "seed 5; to repeat the run:" in done.stdout
        assert " -m stress --processes 2 --tasks 5 --seconds 6 --seed 5 " in done.stdout
        assert list((directory / "round-0" / "logs").iterdir())

    def test_finds_a_library_that_loses_changes(self, tmp_path):
        """A run of a library without atomic increments ends with FAIL and exit code 1, and names the lost ones."""
        (tmp_path / "sitecustomize.py").write_text(INCREMENTS_IN_MEMORY)
        others = [word for kind in KINDS if kind != "foreign" for word in (f"--{kind}", 0)]
        done = stress(
            "--processes", 3, "--tasks", 5, "--seconds", 2, *others, "--dir", tmp_path, path=(tmp_path, IMPORT_ROOT)
        )

        assert done.returncode == 1, done.stdout + done.stderr
        assert "\nFAIL\n" in done.stdout
        assert re.search(r"counter: lost: .*\n +\d+\.\d+\.\d+\.\d+ incr\(counter/incr\)", done.stdout)

    def test_in_which_nothing_happened_is_no_pass(self, tmp_path):
        """A run whose workers cannot work ends with exit code 2, and says why."""
        (tmp_path / "persistent_context.py").write_text("raise ImportError('no library here')")
        done = stress("--processes", 2, "--seconds", 1, "--dir", tmp_path, path=(tmp_path,))

        assert done.returncode == 2
        assert "BROKEN SET-UP" in done.stdout
        assert "no library here" in done.stdout

    def test_prints_a_command_that_repeats_it(self, tmp_path):
        """The last line, pasted into a shell, does a run of the same plan."""
        others = [word for kind in KINDS for word in (f"--{kind}", 0)]
        done = stress("--processes", 2, "--tasks", 2, "--seconds", 0.7654321, *others, "--dir", tmp_path)
        *_, told, command = done.stdout.splitlines()
        environment = dict(os.environ, PYTHONPATH=str(IMPORT_ROOT), TMPDIR=str(tmp_path), PATH="/nowhere")
        again = subprocess.run(
            ["/bin/sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

        assert done.returncode == again.returncode == 0, done.stdout + again.stdout + again.stderr
        assert told.endswith("to repeat the run:")
        assert again.stdout.splitlines()[-1] == command
        assert " --seconds 0.7654321 " in command

    def test_explains_its_table(self, tmp_path):
        """Each column is explained below the table, and why calls take long and end unknown."""
        others = [word for kind in KINDS for word in (f"--{kind}", 0)]
        done = stress("--processes", 2, "--tasks", 2, "--seconds", 0.5, *others, "--dir", tmp_path)
        _, heading, *_ = done.stdout.splitlines()
        columns = heading.replace("┃", " ").split()[1:]

        assert columns == re.findall("^(" + "|".join(columns) + ")  +[a-z]", done.stdout, re.MULTILINE)
        assert "Calls take long here because" in done.stdout
        assert "Calls end unknown because" in done.stdout

    @pytest.mark.parametrize(("arguments", "told"), [((), "nothing was shown"), (SHORT_SOAK[:2], "rounds passed: 0")])
    def test_says_what_an_interruption_leaves(self, tmp_path, arguments, told):
        """After Ctrl-C the directory that is left is named, with its size, and no process lives on."""
        running = subprocess.Popen(
            [sys.executable, "-m", "stress", "--processes", "2", *map(str, arguments), "--dir", tmp_path],
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
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate()
        (directory,) = tmp_path.iterdir()
        mentioned = re.search(rf"interrupted: [^\n]*{told}[^\n]* in {directory} \(\d+\.\d MB\)\n", output)

        assert running.returncode == 130, output
        assert mentioned
        assert "Traceback" not in output
        assert [] == [one for one in living() if str(directory) in one]

    def test_workloads_all_have_a_checker(self):
        """Every workload of the actors has a checker."""
        assert {*WORKLOADS, *KINDS, "read"} == set(CHECKERS)


class TestLogs:
    """What the logs of a run say."""

    def test_tell_what_was_acknowledged(self, tmp_path):
        """An operation in a log has the outcome, the result and the times that were logged."""
        with closing(Log(tmp_path / "0.0.jsonl")) as log:
            log.write(Kind.INVOKE, id="0.0.0.0", workload="counter", name="incr", key=KEY)
            log.write(Kind.OK, id="0.0.0.0", result=7)

        (operation,) = read_logs([tmp_path / "0.0.jsonl"]).operations

        assert operation.outcome is Outcome.OK
        assert operation.result == 7
        assert operation.invoked <= operation.finished < math.inf

    def test_of_the_killed_end_in_unknown_operations(self, tmp_path):
        """An operation that a killed worker had begun is unknown, and happened before the worker was dead, or never."""
        with closing(Log(tmp_path / "0.0.jsonl")) as worker:
            worker.write(Kind.INVOKE, id="0.0.0.0", workload="counter", name="incr", key=KEY)
        with closing(Log(tmp_path / "supervisor.jsonl")) as supervisor:
            supervisor.write(Kind.KILLED, id="0.0")

        history = read_logs(sorted(tmp_path.iterdir()))

        assert [(one.outcome, one.finished) for one in history.operations] == [(Outcome.UNKNOWN, history.deaths["0.0"])]

    def test_may_end_in_half_a_line(self):
        """An acknowledgement that a kill cut short was not reported, so its operation is unknown."""
        invoke = json.dumps(
            {"kind": "invoke", "at": 1, "id": "0.0.0.0", "workload": "list", "name": "append", "key": KEY}
        )

        history = parse(f'{invoke}\n{{"kind":"ok","at":2,"i'.encode())

        assert [operation.outcome for operation in history.operations] == [Outcome.UNKNOWN]

    def test_tell_the_faults_and_the_span(self, tmp_path):
        """Every fault is in the history, in the order of the times, whichever process logged it; and so is the span."""
        with closing(Log(tmp_path / "0.jsonl")) as worker, closing(Log(tmp_path / "1.jsonl")) as supervisor:
            worker.write(Kind.FAULT, at=20, name="cancel", target="0.0.1")
            supervisor.write(Kind.FAULT, at=10, name="stop", target="77")
            supervisor.write(Kind.STATISTICS, at=30, commits=1)

        history = read_logs(sorted(tmp_path.iterdir()))

        assert history.faults == [Fault("stop", "77", 10), Fault("cancel", "0.0.1", 20)]
        assert (history.began, history.ended) == (10, 30)


class TestCommandLine:
    """The options."""

    def test_is_told_by_the_plan(self):
        """The command that a plan prints gives the same plan."""
        values = {field.name: number for number, field in enumerate(fields(Plan), 1)}
        of_files = values | dict.fromkeys(ABOUT_ETCD, 0) | {"store": "json"}
        of_etcd = values | dict.fromkeys(FILES, 0) | {"store": "etcd"}
        plans = [
            *(Plan(**of_files | {name: 0}) for name in ("foreign", "delete_lock_every")),  # which exclude each other
            Plan(**of_etcd),
        ]

        assert [parse_command_line(str(plan).split()[3:]).plan for plan in plans] == plans

    @pytest.mark.parametrize("tier", ["quick", "run", "soak"])
    def test_chooses_a_tier_with_every_fault_that_goes_together(self, tier):
        """Each tier kills, stops, cancels, forks, and lets foreign programs write."""
        plan = parse_command_line(["--tier", tier]).plan

        assert min(plan.kill_every, plan.stop_every, plan.cancel_every, plan.fork_every, plan.foreign) > 0

    @pytest.mark.parametrize(
        "arguments",
        [
            "--delete-lock-every 1",
            "--processes 0",
            "--kill-every -1",
            "--dir /does/not/exist",
            "--resume /nowhere",
            "--kill-member-every 1",
            "--store etcd --foreign 1",
            "--store etcd --members 0",
        ],  # fmt: skip
    )
    def test_refuses_what_shows_nothing(self, arguments, capsys):
        """A run that is not possible, or could not be judged, is refused."""
        with pytest.raises(SystemExit) as refused:
            parse_command_line(arguments.split())

        assert refused.value.code == 2
        assert "error:" in capsys.readouterr().err
