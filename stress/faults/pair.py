"""Two writers and a power loss: one has renamed and not yet synced, and the other builds on that and is acknowledged.

The first writer is stopped after each of its calls that matter, from the last one before the rename on. Then the second
one makes a call. If the first one holds the lock, the second one gets it when the first one is killed or goes on. At
the end the power is cut: the file must hold what was acknowledged to either, and everything that the second built on.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.faults import document, media, strace
from stress.faults.document import JOURNALED, Document, tell
from stress.faults.lab import Lab
from stress.faults.locks import holds, waits
from stress.faults.media import Medium
from stress.faults.model import Result, Series
from stress.faults.nursery import PATIENCE, Victim, VictimFailedError
from stress.faults.power import ACKNOWLEDGED
from stress.faults.state import journal_of
from stress.faults.steps import Tracer
from stress.faults.strace import Call, Trace
from stress.faults.trial import FAULTED, Answer, Trial

KILLED = "killed"
"""The first writer does not go on after its stop: it is killed when the second one is done or waits for its lock."""
CONTINUED = "continued"
"""The first writer goes on when the second one is done or waits for its lock, and is acknowledged too."""
OVERTAKEN = "overtaken"
"""The second writer is stopped before it syncs the names; the first one goes on and is acknowledged."""
SECOND = 4
"""The number of the second writer's operation."""
VOLATILE = "-volatile"
"""The suffix of an operation of a context that is not durable: its acknowledgement promises nothing."""
APPENDS = ("append", "append-save")
"""Operations that rename nothing."""
RENAMES = ("rename", "renameat", "renameat2")
EFFECTS = (
    *("write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "flock", *RENAMES),
    *("link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat"),
)
"""Calls that affect the other writer or what a power loss leaves; there is no stop after others."""
GLANCE = 0.001
"""Seconds between two checks of a condition."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The call after which a process is stopped: the call of that number on that path, counted in each thread."""

    calls: str
    number: int = 1
    path: str | None = None
    """Relative to the directory of the file; if there is none, calls on all paths count."""

    @contextmanager
    def of(self, lab: Lab, victim: Victim, directory: Path) -> Iterator[Callable[[], bool]]:
        """Attach; yield a function that waits for the stop, and returns whether that came before the answer."""
        path = None if self.path is None else directory / self.path
        tracer = Tracer(lab, f"{self.calls}:signal=STOP:when={self.number}", path, f"strace-{victim.pid}.log")
        with tracer(victim.pid) as trace:
            yield lambda: _stops(victim, trace)


class Pair:
    """Lets two processes write to one file, and cuts the power when the second or the first one is acknowledged.

    Args:
        kind: the file system, one of `MEDIA`.
        first: the operation of the first writer, which renames.
        second: the operation of the second writer.
    """

    def __init__(self, kind: str, first: str, second: str) -> None:
        """Choose the writers' operations, and the file system."""
        self.name = f"pair:{kind}:{first}:{second}"
        self.about = f"power loss when one of two writers is done, on {kind}"
        self._kind = kind
        self._first = first.removesuffix(VOLATILE)
        self._second = second.removesuffix(VOLATILE)
        self._first_is_durable = not first.endswith(VOLATILE)
        self._second_is_durable = not second.endswith(VOLATILE)
        self._medium: Medium
        self._halts: dict[str, Sequence[Halt]]

    def missing(self) -> tuple[str, str] | None:
        """Return what the machine lacks."""
        return media.missing(self._kind) or strace.missing()

    def series(self, lab: Lab) -> Sequence[Series]:
        """Make the file system, and find the calls after which the first writer is stopped."""
        self._medium = media.mount(self._kind, lab)
        tracer = Tracer(lab)
        with self._trial(lab) as trial:
            answer = trial.strike(tracer)
            trial.judge_file(answer)
        calls = [call for call in tracer.trace.calls() if call.name in EFFECTS]
        appends = self._first in APPENDS
        changes = [index for index, call in enumerate(calls) if _takes_effect(call, appends=appends)]
        if trial.problems or answer is None or answer["outcome"] != "done" or not changes:
            msg = f"{self._first} fails without any fault, or changes nothing: {answer}; {trial.problems}"
            raise VictimFailedError(msg)
        halts = list(_halts(calls, trial.path.parent))
        unlocks = [index for index, call in enumerate(calls) if call.name == "flock" and "LOCK_UN" in call.text]
        from_the_change = halts[changes[0] - 1 :]
        self._halts = {
            KILLED: from_the_change,
            CONTINUED: from_the_change,
            OVERTAKEN: halts[unlocks[-1] :] if unlocks else [],
        }
        series = [Series(fault, len(self._halts[fault])) for fault in (KILLED, CONTINUED, OVERTAKEN)]
        return [Series(ACKNOWLEDGED, 1, once=True), *series]

    def attempt(self, lab: Lab, fault: str, number: int) -> Result:
        """Stop the first writer there, let the second one write, cut the power, and look at the file."""
        if fault != ACKNOWLEDGED and number > len(self._halts[fault]):
            return Result(self.name, fault, number, hit=False, seen="clean")
        with self._trial(lab) as trial, self._second_of(lab, trial) as second:
            meeting = Meeting(lab, trial, second, self._second)
            hit = True
            try:
                if fault == ACKNOWLEDGED:
                    meeting.one_after_the_other()
                else:
                    hit = meeting.stop_the_first(fault, self._halts[fault][number - 1])
            except VictimFailedError as error:
                trial.problems.append(str(error))
            second.end()
            trial.end()
            self._medium.cut_power()
            self._judge(meeting)
            with lab.nursery.fork(trial.path, trial.face) as neighbour:
                trial.follow_up(neighbour)
        return Result(self.name, fault, number, hit, meeting.seen, tuple(trial.problems))

    def _trial(self, lab: Lab) -> Trial:
        path = lab.fresh(self._medium.root)
        return Trial(lab, self._first, "sync", path, durable=self._first_is_durable)

    def _second_of(self, lab: Lab, trial: Trial) -> Victim:
        """Return the second writer, a separate process."""
        if self._second_is_durable:
            return trial.neighbour
        return lab.nursery.fork(trial.path, trial.face, durable=False)

    def _judge(self, meeting: Meeting) -> None:
        """The file must hold what was acknowledged, and what was built on."""
        trial = meeting.trial
        found = trial.read()
        trial.found = found if isinstance(found, dict) else None
        first, second = meeting.first_answer, meeting.second_answer
        for who, answer in (("first", first), ("second", second)):
            if answer is not None and answer["outcome"] != "done":
                trial.problems.append(f"the {who} writer failed without a fault: {answer['error']}")
        needed = {
            name
            for name, answer, is_durable in (
                ("first", first, self._first_is_durable),
                ("second", second, self._second_is_durable),
            )
            if answer is not None and is_durable
        }
        if "second" in needed and meeting.found_by_second == trial.new:
            needed.add("first")  # it was built on, or confirmed
        allowed = meeting.outcomes(needed)
        if found not in allowed:
            said = f"the call said done to {' and '.join(sorted(needed)) or 'neither'}{meeting.stopped_after}"
            wanted = " or ".join(map(tell, allowed))
            trial.problems.append(f"{said}, and the file holds {tell(found)} instead of {wanted}")


class Meeting:
    """The two writers of one trial, and their answers."""

    def __init__(self, lab: Lab, trial: Trial, second: Victim, operation: str) -> None:
        """Prepare; nothing is done yet."""
        self.trial = trial
        self.first_answer: Answer = None
        self.second_answer: Answer = None
        self.found_by_second: Document | str | None = None
        """The content of the file when the second writer began."""
        self.seen = "acknowledged"
        self.stopped_after = ""
        """The call after which the first writer was stopped, in words."""
        self._lab = lab
        self._second = second
        self._operation = operation
        self._lock = trial.path.with_name(f"{trial.path.name}.lock")

    def one_after_the_other(self) -> None:
        """Let the second writer begin when the first one is acknowledged."""
        self.first_answer = self.trial.strike()
        self._begin_second()
        self.second_answer = self._answer_of_second()

    def stop_the_first(self, fault: str, halt: Halt) -> bool:
        """Stop the first writer after that call and let the second one write; return whether it was stopped."""
        trial = self.trial
        inside = trial.operation == "commit"
        if inside:
            trial.victim.enter(FAULTED)
        with halt.of(self._lab, trial.victim, trial.path.parent) as is_stopped:
            if inside:
                trial.victim.go_on()
            else:
                trial.victim.say(trial.operation, FAULTED)
            if not is_stopped():
                self.first_answer = trial.victim.hear()
                return False
            locked = holds(trial.victim.pid, self._lock)
            self.seen = "stopped with the lock" if locked else "stopped without the lock"
            self.stopped_after = f", the first one being stopped after {halt.calls}"
            if fault == OVERTAKEN and not locked:
                self._overtake()
                return True
            self._begin_second()
            if locked:
                _wait_until(lambda: waits(self._second.pid, self._lock), self._second)
            else:
                self.second_answer = self._answer_of_second()
            if fault == KILLED:
                trial.victim.end()  # now: without the tracer it could go on
            else:
                self._continue_first()
            self.second_answer = self.second_answer or self._answer_of_second()
        return True

    def outcomes(self, needed: set[str]) -> list[Document | None]:
        """Return what the file may hold if no needed operation is lost, in any possible order."""
        outcomes: list[Document | None] = []
        both: dict[str, tuple[str, int]] = {
            "first": (self.trial.operation, FAULTED),
            "second": (self._operation, SECOND),
        }
        for names in (*itertools.permutations(both), *((name,) for name in both), ()):
            if not needed <= {*names}:
                continue
            if self.found_by_second == self.trial.new and names == ("second", "first"):
                continue
            result = self.trial.old
            for name in names:
                result = document.after(result, *both[name])
            if result not in outcomes:
                outcomes.append(result)
        return outcomes

    def _overtake(self) -> None:
        """Let the second writer replace the first one's file and stop; then let the first one go on."""
        path = self.trial.path
        changes = self._operation not in document.UNCHANGING
        halt = Halt("/^rename") if changes else Halt("fsync", path=path.name)
        if self._operation in APPENDS:
            halt = Halt("pwrite64", path=journal_of(path).name)
        elif self.trial.operation in JOURNALED and not changes:
            halt = Halt("/^f(data)?sync")
        self._note()
        with halt.of(self._lab, self._second, path.parent) as is_stopped:
            self._second.say(self._operation, SECOND)
            if not is_stopped():
                self.second_answer = self._answer_of_second()
            self._continue_first()
            self._second.end()  # now: without the tracer it could go on

    def _begin_second(self) -> None:
        self._note()
        self._second.say(self._operation, SECOND)

    def _note(self) -> None:
        self.found_by_second = self.trial.read()

    def _answer_of_second(self) -> dict[str, Any]:
        return _answer(self._second, "second")

    def _continue_first(self) -> None:
        os.kill(self.trial.victim.pid, signal.SIGCONT)
        self.first_answer = _answer(self.trial.victim, "first")


def _answer(victim: Victim, who: str) -> dict[str, Any]:
    if (answer := victim.hear()) is None:
        msg = f"the {who} writer died: exit status {victim.end()}"
        raise VictimFailedError(msg)
    return answer


def _takes_effect(call: Call, *, appends: bool) -> bool:
    """Return whether others see a change from this call on."""
    return ".journal" in call.text if appends and call.name == "pwrite64" else not appends and call.name in RENAMES


def _halts(calls: Sequence[Call], directory: Path) -> Iterator[Halt]:
    """Yield what stops a process after each of these calls, when it makes them again in another directory."""
    counted: Counter[tuple[str, str, str | None]] = Counter()
    for call in calls:
        on = Path(call.on)
        # The temporary has another name each time: it has no other calls of the kind, or all of them count.
        path = None if on.suffix == ".tmp" or not on.is_relative_to(directory) else str(on.relative_to(directory))
        counted[call.thread, call.name, path] += 1
        counted[call.thread, call.name, "all"] += 1
        yield Halt(call.name, counted[call.thread, call.name, "all" if path is None else path], path)


def _stops(victim: Victim, trace: Trace) -> bool:
    return _wait_until(lambda: trace.has_stopped, victim)


def _wait_until(condition: Callable[[], bool], victim: Victim) -> bool:
    """Wait until a condition holds; return False if the process answers before that."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if victim.has_said_something(GLANCE):
            return condition()
        if time.monotonic() > deadline:
            msg = f"the process was neither stopped nor done in {PATIENCE:.0f} s"
            raise VictimFailedError(msg)
    return True
