"""The supervisor of a run: starts the children, kills and replaces workers, and stops them all in the end."""

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
"""Seconds in which all children must be at work."""
STOP_LIMIT = 30.0
"""Seconds in which a child that was asked to stop must have finished its operations."""
PAUSE = 0.01
"""Seconds that the supervisor sleeps before it looks again: it needs little of the processor."""
ONE_IN = 8
"""Kills, one of which strikes not a worker but another child that is killed now and then."""
READER = "reader"


@dataclass(slots=True)
class Course:
    """What became of the processes of a run."""

    started: int = 0
    kills: int = 0
    seconds: float = 0.0
    """From the moment when all were at work until they were asked to stop."""
    died: dict[str, str] = field(default_factory=dict)
    """Children that failed to start, or ended although nobody had killed or stopped them: their last words."""
    hung: dict[str, Path] = field(default_factory=dict)
    """Children that did not end when asked to: the files that tell where their threads were."""


class Run:
    """One run, in an empty directory of its own."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Lay out the directory; nothing is started yet."""
        self.plan = plan
        self.course = Course()
        self._directory = directory
        self._random = Random(plan.seed)
        self._began = time.monotonic_ns()
        self._children: dict[str, Child] = {}
        """Those alive, by their places."""
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
        """Where all is that belongs to the run."""
        return self._directory

    def execute(self, tick: Callable[[], None]) -> None:
        """Start, hammer, stop; call `tick` many times a second meanwhile."""
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
        """Return what the files hold: each key is in one of them.

        Raises:
            OSError: The one that the workers hammer is missing. What is in another one is lost if that is missing.
            ValueError: One is not valid.
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
        """Hurt now and then, until the time is over or a child has died by itself."""
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
        """Kill a random worker, or another that is to be killed, and put a new one in its place."""
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
        """Stop who holds the lock, or another."""
        self._stopper.stop_one(self.course.seconds, self._workers())

    def _delete_lock(self) -> None:
        """Delete the lock file."""
        delete_lock(self._lock_file, self._log)

    def _stop(self) -> None:
        """Stop all children: at last those that see what the others have left."""
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
