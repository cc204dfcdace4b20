"""The supervisor of a run: starts the children, kills and replaces workers, and stops them all at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from stress.children.assignment import Assignment, kind_of
from stress.children.patience import PATIENCE, PATIENCE_WITH_ETCD
from stress.documents.openings import FILES_ONLY, OPENINGS, STATE
from stress.logs.history import History, Kind, Log, read_logs
from stress.run.chaos import Clock, Stopper, delete_lock
from stress.run.child import Child
from stress.run.plan import ETCD, JOURNAL, JSON, KINDS, LAST, MORTAL, Plan
from stress.run.venue import disagreements, venue_of

START_LIMIT = 60.0
"""Seconds in which all children must have begun to work."""
STOP_LIMIT = 30.0
"""Seconds in which a child that was asked to stop must have finished its operations."""
PAUSE = 0.01
"""Seconds between two rounds of the supervisor, which uses little processor time."""
ONE_IN = 8
"""Of so many kills, one strikes another child that is killed now and then instead of a worker."""
READER = "reader"
LAG = 15.0
"""Seconds after the death of a process in which a request that it had sent may still reach a cluster of etcd, at most:
a proxy holds it back, a member is stopped, and a leader has to be elected."""


@dataclass(slots=True)
class Course:
    """The processes of a run: how many there were, and how they ended."""

    started: int = 0
    kills: int = 0
    seconds: float = 0.0
    """From the moment when all had begun to work until they were asked to stop."""
    died: dict[str, str] = field(default_factory=dict)
    """The last output of children that failed to start, or ended without being killed or stopped."""
    hung: dict[str, Path] = field(default_factory=dict)
    """Children that did not end when asked to, with the files that show where their threads were."""
    remarks: list[str] = field(default_factory=list)
    """What was not done, although it may be expected."""


class Run:
    """One run, in its own empty directory."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Prepare the directory; no process is started yet."""
        self.plan = plan
        self.course = Course()
        self._directory = directory
        self._random = Random(plan.seed)
        self._began = time.monotonic_ns()
        self._children: dict[str, Child] = {}
        """The live ones, by their places."""
        self._acknowledged_by_killed = 0
        (directory / "logs").mkdir()
        self._log = Log(directory / "logs" / "supervisor.jsonl")
        self._venue = venue_of(plan, directory, self._log)
        self._stopper = Stopper(Random(f"{plan.seed} stops"), self._venue.holder, self._log)

    @property
    def directory(self) -> Path:
        """The directory of all files of the run."""
        return self._directory

    def execute(self, tick: Callable[[], None]) -> None:
        """Start, hammer, stop; call `tick` many times a second."""
        try:
            names = [name for name in OPENINGS if self.plan.store == JSON or name not in FILES_ONLY]
            self._venue.open({name: opening for name in names if (opening := OPENINGS[name]) is not None})
            self.course.remarks += self._venue.remarks
            if self._start():
                self._hammer(tick)
                self._venue.calm()
                self._stop()
                self._venue.leave(names)
        except OSError as error:
            self.course.died["the store"] = str(error)
        finally:
            for child in self._children.values():
                child.kill()
            self._venue.close()
            self._log.close()

    def acknowledged(self) -> int:
        """Return the number of operations acknowledged so far, for a display."""
        return self._acknowledged_by_killed + sum(child.acknowledged() for child in self._children.values())

    def history(self) -> History:
        """Return all that the children logged."""
        return read_logs(
            sorted((self._directory / "logs").glob("*.jsonl")), lag=LAG if self.plan.store == ETCD else 0.0
        )

    def disagreements(self) -> list[str]:
        """Return where what the library reads differs from what others do."""
        return list(disagreements(self._directory, [*OPENINGS]))

    @property
    def patience(self) -> float:
        """How long a call may take, in seconds."""
        return PATIENCE_WITH_ETCD if self.plan.store == ETCD else PATIENCE

    def final_document(self) -> dict[str, Any]:
        """Return the content of all files: each key is in one of them.

        Raises:
            OSError: The file that the workers hammer is missing. The keys of any other missing file are left out.
            ValueError: A file is not valid.
        """
        document: dict[str, Any] = {}
        reader = replace(
            self._assignment(READER), endpoints=(), members=()
        )  # of a cluster, its content is left in files
        for name in OPENINGS:
            if name == STATE or reader.file(name).exists():
                document |= reader.document(name)
        return document

    def _assignment(self, place: str, incarnation: int = 0) -> Assignment:
        kind = kind_of(place)
        return Assignment(
            place=place,
            incarnation=incarnation,
            directory=str(self._directory),
            tasks=self.plan.tasks,
            seed=self.plan.seed,
            began=self._began,
            seconds=self.plan.seconds,
            cancel_every=self.plan.cancel_every,
            fork_every=self.plan.fork_every,
            peers=getattr(self.plan, kind) if kind in KINDS else 1,
            workers=self.plan.processes,
            journal=bool(self.plan.journal),
            endpoints=self._venue.endpoints,
            members=self._venue.members,
        )

    def _launch(self, assignment: Assignment) -> None:
        module = "worker" if assignment.place.isdecimal() else assignment.kind
        self._children[assignment.place] = Child(f"stress.children.{module}", assignment)
        self.course.started += 1

    def _start(self) -> bool:
        """Start all children, and wait until each is at work; return whether that succeeded."""
        others = [f"{kind}-{number}" for kind in (*KINDS, JOURNAL) for number in range(getattr(self.plan, kind))]
        for place in (READER, *map(str, range(self.plan.processes)), *others):
            self._launch(self._assignment(place))
        deadline = time.monotonic() + START_LIMIT
        while idle := [child for child in self._children.values() if not child.working]:
            if self._anyone_dead():
                return False
            if time.monotonic() > deadline:
                self.course.died |= {child.name: f"not at work after {START_LIMIT:g} seconds" for child in idle}
                return False
            time.sleep(PAUSE)
        return True

    def _hammer(self, tick: Callable[[], None]) -> None:
        """Cause faults now and then, until the time is over or a child has died by itself."""
        began = time.monotonic()
        plan = self.plan
        clocks = {
            self._kill_one: plan.kill_every,
            self._stop_one: plan.stop_every,
            self._delete_lock: plan.delete_lock_every,
            self._stop_one_for_long: plan.long_stop_every,
        }
        due = {act: Clock(Random(f"{plan.seed} {act.__name__}"), every) for act, every in clocks.items()}
        while self.course.seconds < plan.seconds and not self._anyone_dead():
            for act, clock in due.items():
                if clock.rings(self.course.seconds):
                    act()
            self._stopper.continue_due(self.course.seconds)
            self._venue.go_on(self.course.seconds)
            tick()
            time.sleep(PAUSE)
            self.course.seconds = time.monotonic() - began
        self._stopper.continue_due(math.inf)

    def _workers(self) -> list[Child]:
        """Return the workers that are at work."""
        return [child for place, child in self._children.items() if place.isdecimal() and child.working]

    def _kill_one(self) -> None:
        """Kill a random worker, or another child that may be killed, and start a new one in its place."""
        others = [child for child in self._children.values() if child.assignment.kind in MORTAL and child.working]
        possible = others if others and not self._random.randrange(ONE_IN) else self._workers()
        if not possible:
            return
        victim = self._random.choice(possible)
        victim.kill()
        self._log.write(Kind.KILLED, id=victim.name)
        self._log.write(Kind.FAULT, name="kill", target=victim.name)
        self.course.kills += 1
        self._acknowledged_by_killed += victim.acknowledged()
        self._launch(self._assignment(victim.assignment.place, victim.assignment.incarnation + 1))

    def _stop_one(self) -> None:
        """Stop the holder of the lock, or another process."""
        self._stopper.stop_one(self.course.seconds, self._workers())

    def _stop_one_for_long(self) -> None:
        """Stop the holder of the lock, or another process, until it has lost the lock."""
        self._stopper.stop_one(self.course.seconds, self._workers(), long=True)

    def _delete_lock(self) -> None:
        """Delete the lock file."""
        delete_lock(self._assignment(READER).lock, self._log)

    def _stop(self) -> None:
        """Stop all children, and last those that check what the others have left."""
        for last in (False, True):
            self._stop_some([child for child in self._children.values() if (child.assignment.kind == LAST) is last])

    def _stop_some(self, children: Sequence[Child]) -> None:
        """Ask children to finish their operations, and wait until they have."""
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_LIMIT + self.patience - PATIENCE
        while any(child.exit_code is None for child in children) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for child in children:
            if child.exit_code is None:
                self.course.hung[child.name] = child.dump_stacks()
            elif child.exit_code != 0:
                self.course.died[child.name] = child.last_words()

    def _anyone_dead(self) -> bool:
        """Record the processes that ended before they were asked to; return whether there are any."""
        dead = [child for child in self._children.values() if child.exit_code is not None]
        self.course.died |= {child.name: child.last_words() for child in dead} | dict(self._venue.died())
        return bool(self.course.died)
