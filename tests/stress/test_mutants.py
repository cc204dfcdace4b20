"""The mutation gate: it fails unless every broken build applies, runs, and is caught for the right reason."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the mutation gate is not installed

from stress.mutants import catching
from stress.mutants.build import PACKAGE, InapplicableError, build, edited
from stress.mutants.catching import Sight, judge
from stress.mutants.gate import Gate, Result, Verdict
from stress.mutants.model import Edit, Mutant, Program, Promise, Suite, modules, suite
from stress.mutants.report import exit_code, write
from stress.mutants.table import ALL, MUTANTS

ROOT = Path(__file__).resolve().parents[2]
GET_WITH_A_DEFAULT = suite("base::TestGetAndSet::test_get_of_an_absent_key_with_a_default[sync]")
"""A fast test."""
LINE = "            return self._known(key).get(key, default)\n"
"""A line that it depends on, once in ``mapping``."""
NUMBERS = count()


def mutant(
    new: str, *, old: str = LINE, module: str = "mapping", catcher: Suite | Program = GET_WITH_A_DEFAULT
) -> Mutant:
    """Return a mutant for a test."""
    return Mutant(f"mutant-{next(NUMBERS)}", "Something.", Promise.MEMORY, (Edit(module, old, new),), (catcher,))


@pytest.fixture
def verdicts(tmp_path):
    """Return a function that runs the gate on mutants, and returns the results in their order."""

    def run(*mutants: Mutant) -> list[tuple[Verdict, str]]:
        results = {result.mutant: result for result in Gate(tmp_path, jobs=2).run(mutants)}

        assert ["source"] == os.listdir(tmp_path)
        return [(results[one].verdict, results[one].words) for one in mutants]

    return run


def functions(file: Path) -> set[str]:
    """Return the tests and classes of a file, by their pytest names."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


class TestTheTable:
    def test_every_mutant_applies_to_the_present_source(self):
        """The text that a mutant replaces occurs exactly once in the source, and the result is valid Python."""
        stale = []
        for one in ALL:
            try:
                edited(one.edits)
            except InapplicableError as error:
                stale.append(f"{one.name}: {error}")

        assert [] == stale

    def test_every_mutant_is_described_and_has_a_catcher(self):
        """Each has a unique name, a sentence, and at least one catcher."""
        assert len(ALL) == len(MUTANTS)
        assert [] == [one.name for one in ALL if not one.breaks.endswith(".") or not one.catchers or not one.edits]

    def test_every_promise_falls_with_some_mutant(self):
        """Every promise has a mutant that breaks it."""
        assert set(Promise) == {one.promise for one in ALL}

    def test_every_test_module_has_a_name_of_its_own(self):
        """Mutants name tests by their module, whatever folder it is in."""
        assert [] == [files for files in modules().values() if len(files) > 1]

    def test_every_catcher_that_is_a_test_exists(self):
        """All tests that a mutant names exist."""
        nodes = {
            node for one in ALL for catcher in one.catchers if isinstance(catcher, Suite) for node in catcher.nodes
        }
        missing = []
        for node in sorted(nodes):
            file, _, name = node.partition("::")
            if not (ROOT / file).is_file() or name.partition("[")[0] not in functions(ROOT / file):
                missing.append(node)

        assert [] == missing


class TestApplying:
    def test_the_copy_differs_from_the_source_by_the_edit_alone(self, tmp_path):
        """The source is unchanged, and the copy has the new text in one place."""
        before = (PACKAGE / "_api/mapping.py").read_text(encoding="utf-8")
        copy = build(tmp_path, [Edit("mapping", LINE, "            return None\n")]) / PACKAGE.name

        assert before.replace(LINE, "            return None\n") == (copy / "_api" / "mapping.py").read_text(
            encoding="utf-8"
        )
        assert before == (PACKAGE / "_api/mapping.py").read_text(encoding="utf-8")
        assert {file.name for file in PACKAGE.glob("*.py")} == {
            file.name for file in copy.iterdir() if file.suffix == ".py"
        }

    @pytest.mark.parametrize(
        ("edit", "why"),
        [
            (Edit("mapping", "no such text", "x"), "0 times"),
            (Edit("mapping", "import", "x"), "times, not once"),
            (Edit("_gone", "import", "x"), "no module _gone"),
            (Edit("mapping", LINE, LINE), "changes nothing"),
            (Edit("mapping", LINE, "            return (\n"), "no longer valid Python"),
        ],
        ids=["not there", "more than once", "no module", "no change", "not Python"],
    )
    def test_what_does_not_fit_is_refused(self, edit, why):
        """An edit that does not fit the source, or changes nothing, is an error."""
        with pytest.raises(InapplicableError, match=why):
            edited([edit])


class TestTheGate:
    def test_only_a_failed_test_catches(self, verdicts):
        """Only a failed test catches; an unnoticed build survives; a programming error in a build proves nothing."""
        caught, survived, *slips = verdicts(
            mutant("            return self._memory.data.get(key)\n"),
            mutant(f"            pass\n{LINE}"),
            mutant("            return no_such_name\n"),
            mutant("            return self._memory.no_such_attribute\n"),
            mutant("import no_such_module\n", old="import builtins\n"),
            mutant("import no_such_program\n", old="import builtins\n", catcher=Program("stress", ("--help",))),
        )

        assert (Verdict.CAUGHT, "base.py::TestGetAndSet::test_get_of_an_absent_key_with_a_default[sync]") == caught
        assert (Verdict.SURVIVED, "1 passed") == survived
        assert [Verdict.NO_PROOF] * 4 == [verdict for verdict, _ in slips]
        assert [] == [words for _, words in slips if "no_such_" not in words]

    def test_a_mutant_that_does_not_apply_is_no_proof(self, verdicts):
        """A mutant whose old text is gone shows nothing, and says so."""
        ((verdict, words),) = verdicts(mutant("", old="no such text"))

        assert (Verdict.NO_PROOF, True) == (verdict, "does not apply" in words)

    def test_a_catcher_that_fails_on_the_unbroken_build_is_no_proof(self, verdicts):
        """A catcher that also fails on the unbroken build catches nothing."""
        gone = suite("base::TestGetAndSet::test_that_does_not_exist")
        ((verdict, words),) = verdicts(mutant("            return None\n", catcher=gone))

        assert (Verdict.NO_PROOF, True) == (verdict, "unbroken build" in words)

    def test_a_catcher_that_has_to_be_killed_is_no_proof(self, tmp_path):
        """A hang without a verdict proves nothing."""
        run = catching.run(GET_WITH_A_DEFAULT, build(tmp_path), tmp_path, limit=0.01)

        assert (Sight.ACCIDENT, "killed after 0.01 seconds without a verdict") == (run.sight, run.words)

    def test_a_hang_is_caught_by_the_timeout_of_a_test(self, verdicts):
        """A build that hangs is caught by the timeout of a test, which is named."""
        impatient = replace(GET_WITH_A_DEFAULT, limit=5)
        hanging = mutant("            while True:\n                pass\n", catcher=impatient)

        test = "base.py::TestGetAndSet::test_get_of_an_absent_key_with_a_default[sync]"
        assert [(Verdict.CAUGHT, f"{test} (hung, and pytest-timeout says so)")] == verdicts(hanging)

    def test_another_copy_than_the_one_that_was_built_is_refused(self, tmp_path):
        """A catcher that would test the installed library does not start."""
        child = subprocess.run(
            [sys.executable, "-m", "stress.mutants.child", tmp_path, "this"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

        assert (90, "", True) == (child.returncode, child.stdout, "which is not in" in child.stderr)


class TestJudging:
    @pytest.mark.parametrize("code", [2, 4, 5, -9, 90])
    def test_an_accident_of_pytest_is_no_failed_test(self, code):
        """Only the exit code for failed tests means that tests failed."""
        assert Sight.ACCIDENT is judge(GET_WITH_A_DEFAULT, code, "FAILED tests/test_x.py::test_y - assert\n").sight

    def test_a_failure_that_names_no_test_is_an_accident(self):
        """Errors before and after a test are not failures of the test."""
        assert (
            Sight.ACCIDENT is judge(GET_WITH_A_DEFAULT, 1, "ERROR tests/test_x.py::test_y - OSError\n1 error\n").sight
        )

    def test_no_test_at_all_is_an_accident(self):
        """A run in which no test passed shows nothing."""
        assert Sight.ACCIDENT is judge(GET_WITH_A_DEFAULT, 0, "3 deselected\n").sight

    def test_a_skipped_test_shows_nothing_and_says_why(self):
        """What this machine cannot show is reported, and does not count as sound."""
        output = "SKIPPED [1] tests/test_x.py:9: needs strace: apt-get install strace\n1 passed, 1 skipped in 1s\n"
        run = judge(GET_WITH_A_DEFAULT, 0, output)

        assert (Sight.NOTHING, "needs strace: apt-get install strace") == (run.sight, run.words)

    @pytest.mark.parametrize(
        ("code", "output", "sight"),
        [
            (0, "PASS: nothing was lost", Sight.SOUND),
            (1, "\ncount: lost: 3 of 9\n    (one)\n\nFAIL\n", Sight.BROKEN),
            (1, "\nregister: not linearizable: key/5\n\nFAIL\n", Sight.BROKEN),
            (1, "Traceback\n", Sight.ACCIDENT),
            (1, "SKIPPED power:xfs: no root; to run it: sudo\nNOTHING WAS TRIED", Sight.NOTHING),
            (2, "BROKEN SET-UP: this run shows nothing", Sight.ACCIDENT),
        ],
        ids=["pass", "found", "found in words", "died", "skipped", "broken set-up"],
    )
    def test_a_program_has_to_name_what_it_found(self, code, output, sight):
        """A stress run catches by a finding, not by dying."""
        assert sight is judge(Program("stress", ()), code, output).sight


class TestReporting:
    @pytest.mark.parametrize(
        ("verdicts", "code"),
        [
            ([Verdict.CAUGHT, Verdict.CAUGHT], 0),
            ([Verdict.CAUGHT, Verdict.SURVIVED], 1),
            ([Verdict.CAUGHT, Verdict.NO_PROOF, Verdict.NOT_SHOWN], 1),
            ([Verdict.CAUGHT, Verdict.NOT_SHOWN], 2),
            ([], 1),
        ],
        ids=["all caught", "one survived", "no proof", "not shown", "nothing run"],
    )
    def test_the_exit_code_tells_the_worst(self, verdicts, code, tmp_path):
        """A mutant that survived or proves nothing fails the gate, whatever the others do; the file says the same."""
        results = [Result(mutant("x"), GET_WITH_A_DEFAULT, verdict, "words") for verdict in verdicts]
        write(tmp_path / "results.json", results, 1.0)
        written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))

        assert code == exit_code(results) == written["exit_code"]
        assert [verdict.name.lower() for verdict in verdicts] == [row["verdict"] for row in written["results"]]

    def test_one_catcher_is_enough_where_others_cannot_run(self):
        """A mutant with catchers that cannot run on this machine can be caught by the others."""
        one = mutant("x")
        results = [Result(one, GET_WITH_A_DEFAULT, verdict, "words") for verdict in (Verdict.NOT_SHOWN, Verdict.CAUGHT)]

        assert 0 == exit_code(results)
