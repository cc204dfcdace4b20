"""Power loss at every system call of an operation, on real file systems: what was acknowledged is there, and whole."""

from __future__ import annotations

from collections.abc import Sequence

from stress.faults import image, strace
from stress.faults.image import Image
from stress.faults.lab import Lab
from stress.faults.model import Result, Series
from stress.faults.steps import Tracer, count_calls
from stress.faults.trial import Trial

ACKNOWLEDGED = "acknowledged"
"""The fault that comes right after the call has returned."""


class PowerLoss:
    """Kills one operation of one face before each of its calls in turn, and cuts the power of the file system."""

    def __init__(self, kind: str, operation: str, face: str) -> None:
        """Choose the file system, the operation and the face."""
        self.name = f"power:{kind}:{operation}:{face}"
        self.about = f"power loss before a system call, on {kind}"
        self._kind = kind
        self._operation = operation
        self._face = face
        self._image: Image

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return image.missing(self._kind) or strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Make the file system; return one series for each call of the operation that changes something."""
        directory = lab.scratch / self.name
        directory.mkdir()
        self._image = lab.keep(Image(self._kind, directory))
        counted = count_calls(lab, self._operation, self._face, lab.fresh(self._image.root))
        calls = [Series(call, counted[call]) for call in strace.CHANGING if counted[call]]
        return [Series(ACKNOWLEDGED, 1, once=True), *calls]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Kill before that call, cut the power, look at the file, and let another process go on."""
        tracer = Tracer(lab, f"{fault}:signal=KILL:when={number}")
        with Trial(lab, self._operation, self._face, lab.fresh(self._image.root)) as trial:
            answer = trial.strike() if fault == ACKNOWLEDGED else trial.strike(tracer)
            trial.end()
            self._image.cut_power()
            trial.judge_file(answer, power_lost=True)
            seen = f"{'acknowledged' if answer else 'cut off'}: {trial.state}"
            with lab.nursery.fork(trial.path, self._face) as neighbour:
                trial.follow_up(neighbour)
        hit = answer is None or fault == ACKNOWLEDGED
        return Result(self.name, fault, number, hit, seen, tuple(trial.problems))
