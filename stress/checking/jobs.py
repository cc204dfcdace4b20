"""Checks a queue of short-lived jobs: each was put and taken, and memory has forgotten it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stress.checking.counters import check_counters
from stress.checking.evidence import Evidence, Violation
from stress.logs.history import Operation, Outcome

SLACK = {"objects": (4_000, 0.1), "bytes": (500_000, 50.0)}
"""How much memory may grow: in total, and for each job. A job that is kept has at least an object and a key.

With a journal, up to 2,700 objects come and go, with the changes that are not folded into the JSON file yet.
"""


def check_jobs(evidence: Evidence) -> Iterator[Violation]:
    """Each job was put and taken, those that were kept are there, and memory does not grow with the number of jobs."""
    for job in evidence.having(Outcome.OK, "job"):
        if not all(job.result) or job.key in evidence.final:
            yield Violation("lost", "a job was not put, or not there to be taken, or came back", [job])
    for job in evidence.having(Outcome.OK, "keep"):
        if evidence.final.get(job.key) != job.id:
            yield Violation("lost", "a job that was kept is not there", [job])
    counts = [one for one in evidence.operations if one.name == "count"]
    for process in {one.process for one in evidence.operations}:
        looks = [one for one in evidence.having(Outcome.OK, "measure") if one.process == process]
        yield from _check_memory(sorted(looks, key=lambda look: look.invoked))
    yield from check_counters(Evidence(counts, evidence.final))


def _check_memory(looks: Sequence[Operation]) -> Iterator[Violation]:
    """Compare the first measurement, taken when all tables and caches exist, with the last one."""
    if not looks:
        return
    first, last = looks[0], looks[-1]
    jobs = last.result["jobs"] - first.result["jobs"]
    for what, (at_all, for_each) in SLACK.items():
        grown = last.result[what] - first.result[what]
        if grown > at_all + for_each * jobs:
            message = f"{grown:,} more {what} after {jobs:,} jobs that came and went"
            yield Violation("grown", message, [first, last])
