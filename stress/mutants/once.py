"""Builds in which the workers of pytest-xdist compute more than once."""

from __future__ import annotations

from typing import Final

from stress.mutants.model import Edit, Mutant, Promise, suite

ONCE: Final = (
    Mutant(
        "computed-by-every-worker",
        "A worker that waited computes the value again.",
        Promise.ONCE,
        (Edit("once", "                if _VALUE not in tx:\n", "                if True:\n"),),
        (suite("compute_once::TestComputeOnce::test_every_worker_runs_all_tests"),),
    ),
    Mutant(
        "torn-down-by-every-worker",
        "A value stays when it was torn down, and every worker tears it down.",
        Promise.ONCE,
        (Edit("once", "                tx.clear()\n", ""),),
        (suite("teardown::TestTeardown::test_it_runs_once_after_the_last_test[-n 3]"),),
    ),
)
