"""One experiment: changes that are acknowledged, one more that a fault befalls, and what must hold after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from stress.faults import document
from stress.faults.document import JOURNALED, Document, leftovers, read, tell
from stress.faults.lab import Lab
from stress.faults.nursery import Victim, VictimFailedError
from stress.faults.state import journal_of, read_state

Answer = dict[str, Any] | None
FAULTED = 2
"""The number of the operation that the fault befalls."""


class Trial:
    """One file, the victim that changes it, and a neighbour that changes another key of it.

    The victim does the operation once, acknowledged, then the neighbour does its own: the victim has not seen that.
    """

    def __init__(
        self,
        lab: Lab,
        operation: str,
        face: str,
        path: Path | None = None,
        size: int = document.SIZE,
        *,
        durable: bool = True,
    ) -> None:
        """Lay out; nothing is started yet."""
        self.lab = lab
        self.operation = operation
        self.face = face
        self.size = size
        self.durable = durable
        self.path = path or lab.fresh()
        if operation == "create":
            self.path = self.path.parent / "new" / "directories" / self.path.name
        self.problems: list[str] = []
        self.old: Document | None = None
        """What the file holds before the fault."""
        self.found: Document | None = None
        """What it holds now, as far as that was looked at."""

    def __enter__(self) -> Self:
        """Bring the file to where the fault finds it."""
        wanted = JOURNALED.get(self.operation)
        if self.operation != "create":
            document.write(self.path, document.opening())
        self.victim = self.lab.nursery.fork(self.path, self.face, durable=self.durable, journal=wanted)
        has_journal = self.operation in JOURNALED and self.operation != "begin"
        self.neighbour = self.lab.nursery.fork(self.path, self.face, journal=True if has_journal else None)
        found = self.read()
        self.found = found if isinstance(found, dict) else None
        if self.operation not in {"create", "begin", "end"}:
            self._do(self.victim, self.operation, 1, after=document.after(document.opening(), self.operation, 1))
        if self.operation != "create":
            self._do(self.neighbour, "neighbour", after=document.with_neighbour(self.found))
        self.old = self.found
        return self

    def __exit__(self, *_: object) -> None:
        """End both processes."""
        self.end()

    @property
    def new(self) -> Document:
        """What the file holds if the faulted operation took effect."""
        return document.after(self.old, self.operation, FAULTED, self.size)

    @property
    def state(self) -> str:
        """Which file was found."""
        return "new file" if self.found == self.new else "old file" if self.found == self.old else "another file"

    def read(self) -> Document | str | None:
        """Return what is stored, or what is wrong with it."""
        return read_state(self.path) if self.operation in JOURNALED else read(self.path)

    def end(self) -> int:
        """End both processes; return the victim's exit status."""
        self.neighbour.end()
        return self.victim.end()

    def strike(self, fault: Callable[[int], AbstractContextManager[object]] = nullcontext, **more: Any) -> Answer:
        """Let the victim do the operation under a fault; return its answer, or `None` if it died.

        Args:
            fault: makes, of the victim's process id, the block in which the fault lurks.
            more: what else the victim is told.
        """
        order = {"number": FAULTED, "size": self.size, **more}
        try:
            if self.operation == "commit":
                if answer := self.victim.enter(**order):
                    return answer
                with fault(self.victim.pid):
                    self.victim.go_on()
                    return self._answer()
            with fault(self.victim.pid):
                self.victim.say(self.operation, **order)
                return self._answer()
        except VictimFailedError as error:
            self.problems.append(str(error))
            return None

    def _answer(self) -> Answer:
        answer = self.victim.hear()
        if answer is None:
            self.victim.end()  # a process that is traced is gone only when it is reaped
        return answer

    def judge_file(self, answer: Answer, *, power_lost: bool = False) -> None:
        """The file must be whole, and the old or the new one: whichever the call said, if it said something."""
        outcome = answer and answer["outcome"]
        found = self.read()
        allowed: dict[str | None, list[Document | None]] = {
            None: [self.old, self.new],
            "done": [self.new],
            "unknown": [self.old, self.new] if power_lost else [self.new],
            "refused": [self.old],
        }
        if outcome not in allowed:
            self.problems.append(f"an error of a type that was not promised: {answer and answer['error']}")
        elif found not in allowed[outcome]:
            said = f"the call said {outcome}" if outcome else "a kill"
            self.problems.append(f"{said}, and the file holds {tell(found)}; before: {tell(self.old)}")
        self.found = found if isinstance(found, dict) else None
        if outcome == "done" and self.operation in {"checkpoint", "begin", "end"} and read(self.path) != found:
            self.problems.append("the call said done, and the JSON file is not up to date")

    def judge_memory(self, answer: dict[str, Any]) -> None:
        """After an error before the replace the change is still unsaved; after the replace memory is as the file."""
        if self.operation == "checkpoint":  # memory has nothing to do with it
            return
        saving = self.operation in {"save", "append-save", "create"}
        refused = answer["outcome"] == "refused"
        unsaved = ["new"] if refused and saving else []
        if answer["unsaved"] != unsaved:
            self.problems.append(f"the call said {answer['outcome']}, and unsaved are {answer['unsaved']}")
        wanted = {key: (self.found or {}).get(key) for key in ("n", "new")}
        if refused and saving:
            wanted["new"] = self.new["new"]
        if answer["memory"] != wanted:
            self.problems.append(f"the call said {answer['outcome']}, and memory holds {tell(answer['memory'])}")

    def judge_tidiness(self, when: str) -> None:
        """Nothing may lie beside the file and its lock."""
        if left := leftovers(self.path):
            self.problems.append(f"left behind {when}: {', '.join(left)}")

    def go_on(self) -> None:
        """The same context must work again, and catch up with what it could not do to the journal."""
        if self.problems:  # there may be nothing to go on from
            return
        self._do(self.victim, self.operation, 3, after=document.after(self.found, self.operation, 3))
        if self.operation in JOURNALED and journal_of(self.path).exists() == (self.operation == "end"):
            self.problems.append("the same context went on, and the journal was not begun, or not ended")

    def follow_up(self, neighbour: Victim | None = None) -> None:
        """Another process must get the lock at once, lose nothing, and tidy up."""
        self._do(neighbour or self.neighbour, "neighbour", after=document.with_neighbour(self.found))
        self.judge_tidiness("after the next write")

    def _do(self, victim: Victim, operation: str, number: int = 0, *, after: Document) -> None:
        """Do something that must succeed, and look whether the file holds that."""
        who = "another process" if operation == "neighbour" else "the same context"
        try:
            answer = victim.attempt(operation, number)
        except VictimFailedError as error:
            self.problems.append(f"{who}: {error}")
            return
        found = self.read()
        if answer["outcome"] != "done":
            self.problems.append(f"{who} could not go on: {answer['outcome']}, {answer['error']}")
        elif found != after:
            self.problems.append(f"{who} went on, and the file holds {tell(found)} instead of {tell(after)}")
        self.found = found if isinstance(found, dict) else None
