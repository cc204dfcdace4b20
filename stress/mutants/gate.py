"""The gate: every catcher passes the unbroken build, and catches each build that it is named for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path

from stress.mutants import catching
from stress.mutants.build import PACKAGE, InapplicableError, build, copy_library, edited
from stress.mutants.catching import LIMIT, Run, Sight
from stress.mutants.model import Catcher, Edit, Mutant, Suite


class Verdict(Enum):
    """The verdict on a mutant with one of its catchers."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    NOT_SHOWN = "not shown"
    """The catcher needs something that this machine lacks."""
    NO_PROOF = "NO PROOF"
    """The mutant does not apply, the catcher also fails on the unbroken build, or the run was an accident."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result for a mutant with one of its catchers."""

    mutant: Mutant
    catcher: Catcher
    verdict: Verdict
    words: str
    seconds: float = 0.0


class Gate:
    """Runs catchers against builds, several at a time.

    Args:
        directory: where the builds and the outputs go.
        jobs: how many run at a time.
        keep: keep the build and the output of each run.
        package: the source of the builds.
        limit: seconds after which a catcher is killed.
    """

    def __init__(
        self, directory: Path, *, jobs: int, keep: bool = False, package: Path = PACKAGE, limit: float = LIMIT
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._keep = keep
        self._package = package
        self._source = directory / "source" / package.name
        """The source of all builds: the package as it is now, even if it is edited during the run."""
        self._limit = limit
        self._numbers = count(1)

    def run(self, mutants: Sequence[Mutant], tell: Callable[[str], None] = lambda _: None) -> list[Result]:
        """Run the catchers of the mutants on them, and return the results."""
        copy_library(self._package, self._source)
        hopeless = dict(self._inapplicable(mutants))
        results = [
            Result(mutant, catcher, Verdict.NO_PROOF, hopeless[mutant.name])
            for mutant in mutants
            if mutant.name in hopeless
            for catcher in mutant.catchers
        ]
        pairs = [(mutant, catcher) for mutant in mutants if mutant.name not in hopeless for catcher in mutant.catchers]
        pool = ThreadPoolExecutor(self._jobs)
        try:
            unbroken = self._unbroken(pool, list(dict.fromkeys(catcher for _, catcher in pairs)), tell)
            shown = [(mutant, catcher) for mutant, catcher in pairs if unbroken[catcher].sight is Sight.SOUND]
            runs = [self._submit(pool, mutant.name, mutant.edits, catcher) for mutant, catcher in shown]
            for (mutant, catcher), future in zip(shown, runs, strict=True):
                results.append(_verdict(mutant, catcher, future.result()))
                tell(f"{mutant.name}: {results[-1].verdict.value}")
        finally:
            pool.shutdown(cancel_futures=True)
        results += [_without_a_run(*pair, unbroken[pair[1]]) for pair in pairs if pair not in shown]
        return results

    def _unbroken(
        self, pool: ThreadPoolExecutor, catchers: Sequence[Catcher], tell: Callable[[str], None]
    ) -> dict[Catcher, Run]:
        """Run every catcher on the unbroken build: tests together, and one by one if not all passed."""
        tell(f"{len(catchers)} catchers on the unbroken build")
        suites = [catcher for catcher in catchers if isinstance(catcher, Suite)]
        groups = [group for number in range(self._jobs) if (group := suites[number :: self._jobs])]
        together = [self._submit(pool, "unbroken", (), _joined(group), len(group)) for group in groups]
        runs: dict[Catcher, Run] = {}
        for group, future in zip(groups, together, strict=True):
            if (run := future.result()).sight is Sight.SOUND:
                runs |= dict.fromkeys(group, run)
        alone = {catcher: self._submit(pool, "unbroken", (), catcher) for catcher in catchers if catcher not in runs}
        for catcher, future in alone.items():
            runs[catcher] = future.result()
            tell(f"the unbroken build: {runs[catcher].words}")
        return runs

    def _inapplicable(self, mutants: Iterable[Mutant]) -> Iterator[tuple[str, str]]:
        for mutant in mutants:
            try:
                edited(mutant.edits, self._source)
            except InapplicableError as error:
                yield mutant.name, f"it does not apply: {error}"

    def _submit(
        self, pool: ThreadPoolExecutor, name: str, edits: Sequence[Edit], catcher: Catcher, times: int = 1
    ) -> Future[Run]:
        directory = self._directory / f"{next(self._numbers):03}-{name}"
        return pool.submit(self._run, directory, edits, catcher, self._limit * times)

    def _run(self, directory: Path, edits: Sequence[Edit], catcher: Catcher, limit: float) -> Run:
        directory.mkdir()
        try:
            return catching.run(catcher, build(directory, edits, self._source), directory, limit=limit)
        finally:
            if not self._keep:
                shutil.rmtree(directory, ignore_errors=True)


def _joined(suites: Sequence[Suite]) -> Suite:
    """Return one suite of all the tests."""
    nodes = dict.fromkeys(node for suite in suites for node in suite.nodes)
    return Suite(tuple(nodes), max(suite.limit for suite in suites))


def _verdict(mutant: Mutant, catcher: Catcher, run: Run) -> Result:
    verdict = {
        Sight.BROKEN: Verdict.CAUGHT,
        Sight.SOUND: Verdict.SURVIVED,
        Sight.NOTHING: Verdict.NO_PROOF,  # it was not skipped on the unbroken build
        Sight.ACCIDENT: Verdict.NO_PROOF,
    }[run.sight]
    return Result(mutant, catcher, verdict, run.words, run.seconds)


def _without_a_run(mutant: Mutant, catcher: Catcher, unbroken: Run) -> Result:
    if unbroken.sight is Sight.NOTHING:
        return Result(mutant, catcher, Verdict.NOT_SHOWN, unbroken.words)
    words = f"the catcher does not pass the unbroken build: {unbroken.words}"
    return Result(mutant, catcher, Verdict.NO_PROOF, words)
