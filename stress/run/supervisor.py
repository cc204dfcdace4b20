"""The supervisor of a run: starts the children, kills and replaces workers, and stops them all at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from stress.children.assignment import Assignment, kind_of
from stress.documents.openings import OPENINGS, STATE
from stress.logs.history import History, Kind, Log, read_logs
from stress.run.chaos import Clock, Stopper, delete_lock
from stress.run.child import Child
from stress.run.plan import JOURNAL, KINDS, LAST, MORTAL, Plan

START_LIMIT = 60.0
"""Seconds in which all children must have begun to work."""
STOP_LIMIT = 30.0
"""Seconds in which a child that was asked to stop must have finished its operations."""
PAUSE = 0.01
"""Seconds between two rounds of the supervisor, which uses little processor time."""
ONE_IN = 8
"""Of so many kills, one strikes another child that is killed now and then instead of a worker."""
READER = "reader"


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
        for name, opening in OPENINGS.items():
            if opening is not None:
                file = self._assignment(READER).file(name)
                file.write_text(json.dumps(opening, indent=0), encoding="utf-8")
        self._lock_file = self._assignment(READER).lock
        self._stopper = Stopper(Random(f"{plan.seed} stops"), self._lock_file, self._log)

    @property
    def directory(self) -> Path:
        """The directory of all files of the run."""
        return self._directory

    def execute(self, tick: Callable[[], None]) -> None:
        """Start, hammer, stop; call `tick` many times a second."""
        try:
            if self._start():
                self._hammer(tick)
                self._stop()
        finally:
            for child in self._children.values():
                child.kill()
            self._log.close()

    def acknowledged(self) -> int:
        """Return the number of operations acknowledged so far, for a display."""
        return self._acknowledged_by_killed + sum(child.acknowledged() for child in self._children.values())

    def history(self) -> History:
        """Return all that the children logged."""
        return read_logs(sorted((self._directory / "logs").glob("*.jsonl")))

    def final_document(self) -> dict[str, Any]:
        """Return the content of all files: each key is in one of them.

        Raises:
            OSError: The file that the workers hammer is missing. The keys of any other missing file are left out.
            ValueError: A file is not valid.
        """
        document: dict[str, Any] = {}
        for name in OPENINGS:
            reader = self._assignment(READER)
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
        }
        due = {act: Clock(Random(f"{plan.seed} {act.__name__}"), every) for act, every in clocks.items()}
        while self.course.seconds < plan.seconds and not self._anyone_dead():
            for act, clock in due.items():
                if clock.rings(self.course.seconds):
                    act()
            self._stopper.continue_due(self.course.seconds)
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

    def _delete_lock(self) -> None:
        """Delete the lock file."""
        delete_lock(self._lock_file, self._log)

    def _stop(self) -> None:
        """Stop all children, and last those that check what the others have left."""
        for last in (False, True):
            self._stop_some([child for child in self._children.values() if (child.assignment.kind == LAST) is last])

    def _stop_some(self, children: Sequence[Child]) -> None:
        """Ask children to finish their operations, and wait until they have."""
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_LIMIT
        while any(child.exit_code is None for child in children) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for child in children:
            if child.exit_code is None:
                self.course.hung[child.name] = child.dump_stacks()
            elif child.exit_code != 0:
                self.course.died[child.name] = child.last_words()

    def _anyone_dead(self) -> bool:
        """Record the children that ended before they were asked to; return whether there are any."""
        dead = [child for child in self._children.values() if child.exit_code is not None]
        self.course.died |= {child.name: child.last_words() for child in dead}
        return bool(dead)
