"""The benchmarks of etcd: their members start, fail over, and are gone at the end; what cannot be run is said aloud."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import etcd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed


def the(module):
    """Return a module of the benchmarks; skip the test where it cannot be imported."""
    return pytest.importorskip(
        f"stress.bench.{module}", reason="needs the dependency group bench", exc_type=ImportError
    )


def exists(pid):
    """Whether there is a process, dead or alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestMembers:
    @pytest.mark.parametrize("number", [1, 3])
    def test_nothing_is_left_of_a_cluster(self, number, tmp_path):
        """Its members have one leader; at the end, also after an error, they are dead and their data is gone."""
        etcd.require_etcd()
        with pytest.raises(KeyError), the("members").cluster(number, tmp_path) as started:
            pids = [member._process.pid for member in started.members]
            leaders = [member for member in started.members if member.is_leader()]

            assert [started.wait_for_leader()] == leaders

            raise KeyError

        assert number == len(pids)
        assert [] == [pid for pid in pids if exists(pid)] + list(tmp_path.iterdir())

    def test_another_one_leads_after_the_leader(self, tmp_path):
        """A killed leader is replaced, and rejoins the cluster with its data when it is started again."""
        etcd.require_etcd()
        with the("members").cluster(3, tmp_path) as started:
            first = started.wait_for_leader()
            pid = first._process.pid
            first.kill()

            assert not exists(pid)

            first.start()
            second = started.wait_for_leader()

            assert all(member.is_healthy() for member in started.members)
            assert [second] == [member for member in started.members if member.is_leader()]

    def test_a_member_that_ends_shows_its_log(self, tmp_path):
        """If a member cannot run, the error says why, and does not wait."""
        etcd.require_etcd()
        with the("members").cluster(1, tmp_path) as started:
            started.members[0]._process.send_signal(signal.SIGTERM)
            started.members[0]._process.wait()
            started.members[0]._log.write_text("why it ended", encoding="utf-8")

            with pytest.raises(OSError, match="why it ended"):
                started.wait_for_leader()


class TestChoice:
    def test_a_group_is_all_its_works(self):
        """``--only etcd`` means all works on etcd; the name of a work means only that one."""
        main = the("__main__")

        assert [work.name for work in main.ETCD] == main.chosen("etcd")
        assert ["big"] == main.chosen("big")
        assert ["etcd-3-watch"] == main.chosen("etcd-3-watch")
        with pytest.raises(argparse.ArgumentTypeError, match="etcd-3-watch"):
            main.chosen("etc")

    def test_what_is_skipped_is_said_aloud(self, tmp_path):
        """Without etcd, the works that need it are named as skipped, and a run of nothing else fails."""
        the("__main__")
        ended = subprocess.run(
            [sys.executable, "-m", "stress.bench", "--only", "etcd-1", "--quick", "--out", tmp_path / "out"],
            cwd=ROOT,
            env=dict(os.environ, PATH=str(tmp_path)),
            capture_output=True,
            text=True,
            check=False,
        )

        assert 1 == ended.returncode, ended.stderr
        assert "SKIPPED: etcd-1-calls, etcd-1-processes" in " ".join(ended.stdout.split())
        assert "install" in ended.stdout

    def test_the_others_are_run(self, monkeypatch):
        """Without etcd, only the works that need it are left out."""
        main = the("__main__")
        monkeypatch.setattr(main.members, "PROGRAM", None)
        console = main.Console(quiet=True)

        assert (["watch"], ["etcd-1-calls"]) == main.possible(["watch", "etcd-1-calls"], console)


class TestWorks:
    @pytest.mark.parametrize("kind", ["_ours", "_bare_put", "_with_lock"])
    def test_each_competitor_counts(self, kind, tmp_path):
        """Every competitor stores what it has acknowledged, and nothing else."""
        etcd.require_etcd()
        module = the("etcd")
        with the("members").cluster(1, tmp_path) as started:
            store = getattr(module, kind)(started, "counted")()
            store.seed({"counter": 0, "other": 7})
            incr = store.incr if kind != "_ours" else lambda key: asyncio.run(store.incr(key))

            assert [1, 2, 3] == [incr("counter") for _ in range(3)]
            assert (3, 7) == (store.read("counter"), store.read("other"))

            store.close()

    def test_the_worst_kill_counts(self):
        """The figure for killed leaders is the longest of all rounds, not their median."""
        module, figures = the("etcd"), the("figures")
        work = next(work for work in module.ETCD if work.name == module.work_name("killed", 3))
        table = the("model").Table(work)
        table.runs[module.PROJECT] += [{module.WORST.metric: seconds} for seconds in (1.0, 3.5, 1.1)]
        (figure,) = figures.figures({work.name: table})

        assert (3.5, False) == (figure.measured, figure.met)
