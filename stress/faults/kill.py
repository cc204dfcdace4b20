"""SIGKILL before every system call of an operation: the file is whole, the lock free, nothing acknowledged is lost."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from stress.faults import strace
from stress.faults.lab import Lab
from stress.faults.model import Result, Series
from stress.faults.steps import Tracer, count_calls
from stress.faults.trial import Trial


class Kill:
    """Kills one operation of one face, before each of its calls in turn."""

    def __init__(self, operation: str, face: str) -> None:
        """Choose the operation and the face."""
        self.name = f"kill:{operation}:{face}"
        self.about = "SIGKILL before a system call"
        self._operation = operation
        self._face = face

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Return one series for each call that the operation makes."""
        counted = count_calls(lab, self._operation, self._face)
        return [Series(call, counted[call]) for call in strace.CALLS if counted[call]]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Kill before that call, look at the file, and let another process go on."""
        with Trial(lab, self._operation, self._face) as trial:
            answer = trial.strike(Tracer(lab, f"{fault}:signal=KILL:when={number}"))
            status = trial.victim.end()
            hit = answer is None
            if hit and status != -signal.SIGKILL:
                trial.problems.append(f"it should have been killed, but ended with {status}")
            trial.judge_file(answer)
            seen = f"{'killed' if hit else 'clean'}: {trial.state}"
            if not hit:
                trial.judge_tidiness("after a success")
            trial.follow_up()
            return Result(self.name, fault, number, hit, seen, tuple(trial.problems))
