"""The number of system calls of each name that an operation makes, and a tracer for a trial."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from stress.faults.lab import Lab
from stress.faults.nursery import VictimFailedError
from stress.faults.strace import Trace, most_in_a_thread
from stress.faults.trial import Trial


class Tracer:
    """Attaches strace to the process it is given, and keeps the trace.

    Args:
        lab: the lab, which has the directory of the log.
        inject: the fault, in strace's syntax.
        path: the path that the calls must be on; see `Trace`.
        log: the name of the log; processes that are traced at the same time need different ones.
    """

    def __init__(self, lab: Lab, inject: str | None = None, path: Path | None = None, log: str = "strace.log") -> None:
        """Prepare; nothing is attached yet."""
        self._log = lab.scratch / log
        self._inject = inject
        self._path = path
        self.trace: Trace

    def __call__(self, pid: int) -> Trace:
        """Return the context manager in which the process is traced."""
        self.trace = Trace(pid, self._log, self._inject, self._path)
        return self.trace


def count_calls(lab: Lab, operation: str, face: str, path: Path | None = None) -> Counter[str]:
    """Return how often an operation makes each call.

    Raises:
        VictimFailedError: the operation did not succeed, so there is nothing to count.
    """
    tracer = Tracer(lab)
    with Trial(lab, operation, face, path) as trial:
        answer = trial.strike(tracer)
        trial.judge_file(answer)
    if trial.problems or answer is None or answer["outcome"] != "done":
        msg = f"{operation} ({face}) fails without any fault: {answer and answer['error']}; {trial.problems}"
        raise VictimFailedError(msg)
    return most_in_a_thread(tracer.trace.calls())
