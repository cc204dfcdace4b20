"""Several callers in one process: each gets an acknowledgement or an error, for a write that they may share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stress.faults import media, strace
from stress.faults.document import Document, caller_key, read, tell
from stress.faults.lab import Lab
from stress.faults.media import Medium
from stress.faults.model import Result, Series
from stress.faults.power import ACKNOWLEDGED
from stress.faults.steps import Tracer
from stress.faults.trial import Trial

CALLERS = 5
SYNCS = "fsync,fdatasync"
SYNC_MILLISECONDS = 100
"""The shortest time that a sync takes: the power is cut within it if an acknowledgement comes before its sync."""


class SlowDisk:
    """Cuts the power at each acknowledgement in turn, while the syncs of the other callers are in flight."""

    def __init__(self, kind: str, face: str) -> None:
        """Choose the file system and the face."""
        self.name = f"slow:{kind}:{face}"
        self.about = f"power loss at an acknowledgement, while others wait for their syncs, on {kind}"
        self._kind = kind
        self._face = face
        self._medium: Medium

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return media.missing(self._kind) or strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Make the file system; return a series with a point for each caller."""
        self._medium = media.mount(self._kind, lab)
        return [Series(ACKNOWLEDGED, CALLERS)]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Let all callers begin, and cut the power when that many are acknowledged."""
        slowly = Tracer(lab, f"{SYNCS}:delay_enter={SYNC_MILLISECONDS * 1000}")
        with Trial(lab, "incr", self._face, lab.fresh(self._medium.root)) as trial:
            with slowly(trial.victim.pid):
                trial.victim.say("several", CALLERS)
                answers = _answers(trial, number)
                trial.end()
            self._medium.cut_power()
            _judge(trial, answers, "done")
            with lab.nursery.fork(trial.path, self._face) as neighbour:
                trial.follow_up(neighbour)
        hit = len(answers) == number
        return Result(self.name, fault, number, hit, "acknowledged" if hit else "clean", tuple(trial.problems))


class FailingDisk:
    """Fails all syncs of the directory, slowly: each caller must learn that its change may not survive a power loss."""

    def __init__(self, face: str) -> None:
        """Choose the face."""
        self.name = f"error:several:{face}"
        self.about = "an error of a system call, and several callers"
        self._face = face

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Return the one series."""
        del lab
        return [Series("fsync-of-directory=EIO", 1, once=True)]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Let all callers run into the error; after it, everything works again."""
        with Trial(lab, "incr", self._face) as trial:
            failing = Tracer(lab, f"{SYNCS}:error=EIO:delay_enter={SYNC_MILLISECONDS * 1000}", trial.path.parent)
            with failing(trial.victim.pid):
                trial.victim.say("several", CALLERS)
                answers = _answers(trial, CALLERS)
                trial.victim.hear()
            hit = any(call.injected for call in failing.trace.calls())
            _judge(trial, answers, "unknown")
            trial.judge_tidiness("after the error")
            trial.go_on()
            trial.follow_up()
            seen = ", ".join(sorted({answer["outcome"] for answer in answers}))
            return Result(self.name, fault, number, hit, seen, tuple(trial.problems))


def _answers(trial: Trial, number: int) -> list[dict[str, Any]]:
    """Return the answers of the first callers, up to that number."""
    answers: list[dict[str, Any]] = []
    while len(answers) < number and (answer := trial.victim.hear()) and "caller" in answer:
        answers.append(answer)
    return answers


def _judge(trial: Trial, answers: Sequence[dict[str, Any]], outcome: str) -> None:
    """All these callers must have that outcome, and be in the file; others may be, and nothing else may be changed."""
    trial.problems += [
        f"the call of {answer['caller']} said {answer['outcome']} instead of {outcome}: {answer['error']}"
        for answer in answers
        if answer["outcome"] != outcome
    ]
    found = read(trial.path)
    content: Document = found if isinstance(found, dict) else {}
    told = [answer["caller"] for answer in answers]
    lost = [caller for caller in told if content.get(caller) != 1]
    callers = {caller_key(caller): 1 for caller in range(CALLERS)}
    others = {key: value for key, value in content.items() if callers.get(key) != value}
    if lost or others != trial.old:
        trial.problems.append(f"the call said {outcome} to {told}, and the file holds {tell(found)}; lost: {lost}")
    trial.found = content
