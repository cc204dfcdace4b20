"""The supervisor of a run: starts the children, kills and replaces workers, and stops them all in the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from stress.assignment import Assignment
from stress.child import Child
from stress.history import History, Kind, Log, read_logs
from stress.model import opening_document

START_LIMIT = 60.0
"""Seconds in which all children must be at work."""
STOP_LIMIT = 30.0
"""Seconds in which a child that was asked to stop must have finished its operations."""
PAUSE = 0.01
"""Seconds that the supervisor sleeps before it looks again: it needs little of the processor."""
READER = "reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the user asked for."""

    processes: int
    tasks: int
    """Tasks, or threads, in each process."""
    seconds: float
    seed: int
    kill_every: float
    """Mean seconds from one kill to the next; 0 for none."""

    def __str__(self) -> str:
        """Return the command that repeats the run."""
        return (
            f"python -m stress --processes {self.processes} --tasks {self.tasks} --seconds {self.seconds:g}"
            f" --seed {self.seed} --kill-every {self.kill_every:g}"
        )


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
        self._assignment(READER).state.write_text(json.dumps(opening_document()), encoding="utf-8")

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
        """Return what the file holds.

        Raises:
            OSError: There is none.
            ValueError: It is not valid.
        """
        document: dict[str, Any] = json.loads(self._assignment(READER).state.read_bytes())
        return document

    def _assignment(self, place: str, incarnation: int = 0) -> Assignment:
        return Assignment(
            place=place,
            incarnation=incarnation,
            directory=str(self._directory),
            tasks=self.plan.tasks,
            seed=self.plan.seed,
            began=self._began,
            seconds=self.plan.seconds,
        )

    def _launch(self, assignment: Assignment) -> None:
        module = "stress.reader" if assignment.place == READER else "stress.worker"
        self._children[assignment.place] = Child(module, assignment)
        self.course.started += 1

    def _start(self) -> bool:
        """Start all children, and wait until each is at work; return whether that succeeded."""
        for place in (READER, *map(str, range(self.plan.processes))):
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
        """Kill a random worker now and then, until the time is over or a child has died by itself."""
        began = time.monotonic()
        next_kill = self._until_next_kill()
        while self.course.seconds < self.plan.seconds and not self._anyone_dead():
            if self.course.seconds >= next_kill:
                self._kill_one()
                next_kill += self._until_next_kill()
            tick()
            time.sleep(PAUSE)
            self.course.seconds = time.monotonic() - began

    def _until_next_kill(self) -> float:
        """Return a random number of seconds."""
        return self.plan.kill_every * self._random.uniform(0.5, 1.5) or math.inf

    def _kill_one(self) -> None:
        """Kill a random worker that is at work, and put a new one in its place."""
        victims = [place for place, child in self._children.items() if place != READER and child.working]
        if not victims:
            return
        place = self._random.choice(victims)
        victim = self._children[place]
        victim.kill()
        self._log.write(Kind.KILLED, id=victim.name)
        self.course.kills += 1
        self._acknowledged_by_killed += victim.acknowledged()
        self._launch(self._assignment(place, victim.assignment.incarnation + 1))

    def _stop(self) -> None:
        """Ask all children to finish their operations, and wait until they have."""
        for child in self._children.values():
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_LIMIT
        while any(child.exit_code is None for child in self._children.values()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for child in self._children.values():
            if child.exit_code is None:
                self.course.hung[child.name] = child.dump_stacks()
            elif child.exit_code != 0:
                self.course.died[child.name] = child.last_words()

    def _anyone_dead(self) -> bool:
        """Record the children that ended before they were asked to; return whether there are any."""
        dead = [child for child in self._children.values() if child.exit_code is not None]
        self.course.died |= {child.name: child.last_words() for child in dead}
        return bool(dead)
