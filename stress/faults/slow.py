"""Several callers in one process, whose disk is slow: at each acknowledgement the power is cut, and it must hold."""

from __future__ import annotations

from collections.abc import Sequence

from stress.faults import media, strace
from stress.faults.document import caller_key, read, tell
from stress.faults.lab import Lab
from stress.faults.media import Medium
from stress.faults.model import Result, Series
from stress.faults.power import ACKNOWLEDGED
from stress.faults.steps import Tracer
from stress.faults.trial import Trial

CALLERS = 5
SYNC_MILLISECONDS = 20
"""How long each sync takes at least: what is acknowledged before its sync is caught in between."""


class SlowDisk:
    """Cuts the power at each acknowledgement in turn, while the syncs of the other callers are under way."""

    def __init__(self, kind: str, face: str) -> None:
        """Choose the file system and the face."""
        self.name = f"slow:{kind}:{face}"
        self.about = f"power loss at an acknowledgement, while the syncs of others are under way, on {kind}"
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
        slowly = Tracer(lab, f"fsync,fdatasync:delay_enter={SYNC_MILLISECONDS * 1000}")
        acknowledged: list[str] = []
        with Trial(lab, "incr", self._face, lab.fresh(self._medium.root)) as trial:
            with slowly(trial.victim.pid):
                trial.victim.say("several", CALLERS)
                while len(acknowledged) < number and (answer := trial.victim.hear()) and "acknowledged" in answer:
                    acknowledged.append(answer["acknowledged"])
                trial.end()
            self._medium.cut_power()
            found = read(trial.path)
            callers = {caller_key(caller) for caller in range(CALLERS)}
            if not isinstance(found, dict):
                trial.problems.append(f"after {acknowledged} were acknowledged: {tell(found)}")
            else:
                if lost := [key for key in acknowledged if found.get(key) != 1]:
                    trial.problems.append(f"the call said done, and the file holds {tell(found)}: lost is {lost}")
                rest = {key: value for key, value in found.items() if key not in callers}
                if rest != trial.old:
                    trial.problems.append(f"the file holds {tell(rest)} of what it held before: {tell(trial.old)}")
                trial.found = found
            with lab.nursery.fork(trial.path, self._face) as neighbour:
                trial.follow_up(neighbour)
        hit = len(acknowledged) == number
        return Result(self.name, fault, number, hit, "acknowledged" if hit else "clean", tuple(trial.problems))
