"""One experiment: acknowledged changes, one more that a fault strikes, and what must hold after it."""

from __future__ import annotations

import time
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
FOLD_LIMIT = 5.0
"""Seconds in which a journal that cannot be trusted any more is folded."""
FAULTED = 2
"""The number of the operation that the fault strikes."""


class Trial:
    """One file, the victim that changes it, and a neighbour that changes another key of it.

    The victim does the operation once, acknowledged, then the neighbour does its own, which the victim has not seen.
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
        """Prepare; nothing is started yet."""
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
        """The content of the file before the fault."""
        self.found: Document | None = None
        """Its present content, if it was read."""

    def __enter__(self) -> Self:
        """Bring the file to its state before the fault."""
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
        """The content of the file if the faulted operation took effect."""
        return document.after(self.old, self.operation, FAULTED, self.size)

    @property
    def state(self) -> str:
        """Whether the old file, the new file or another one was found."""
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
            fault: makes the block that injects the fault, from the victim's process id.
            more: further parameters of the order.
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
            self.victim.end()  # a traced process is gone only after it is reaped
        return answer

    def judge_file(self, answer: Answer, *, power_lost: bool = False) -> None:
        """The file must be whole, and either old or new: if the call gave an answer, the one that matches it."""
        outcome = answer and answer["outcome"]
        found = self.read()
        allowed: dict[str | None, list[Document | None]] = {
            None: [self.old, self.new],
            "done": [self.new],
            "unknown": [self.old, self.new] if power_lost else [self.new],
            "refused": [self.old],
        }
        if outcome not in allowed:
            self.problems.append(f"the type of the error was not promised: {answer and answer['error']}")
        elif found not in allowed[outcome]:
            said = f"the call said {outcome}" if outcome else "a kill"
            self.problems.append(f"{said}, and the file holds {tell(found)}; before: {tell(self.old)}")
        self.found = found if isinstance(found, dict) else None
        if outcome == "done" and self.operation in {"checkpoint", "begin", "end"} and read(self.path) != found:
            self.problems.append("the call said done, but the JSON file is not up to date")

    def judge_memory(self, answer: dict[str, Any]) -> None:
        """After an error before the replacement the change is still unsaved; after it, memory agrees with the file."""
        if self.operation == "checkpoint":  # memory is not involved
            return
        saving = self.operation in {"save", "append-save", "create"}
        refused = answer["outcome"] == "refused"
        unsaved = ["new"] if refused and saving else []
        if answer["unsaved"] != unsaved:
            self.problems.append(f"the call said {answer['outcome']}, and the unsaved keys are {answer['unsaved']}")
        wanted = {key: (self.found or {}).get(key) for key in ("n", "new")}
        if refused and saving:
            wanted["new"] = self.new["new"]
        if answer["memory"] != wanted:
            self.problems.append(f"the call said {answer['outcome']}, and memory holds {tell(answer['memory'])}")

    def judge_tidiness(self, when: str) -> None:
        """No other files may be beside the file and its lock; a fold in another thread has one for a moment."""
        deadline = time.monotonic() + (FOLD_LIMIT if self.operation in JOURNALED else 0)
        while (left := leftovers(self.path)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            self.problems.append(f"left behind {when}: {', '.join(left)}")

    def go_on(self) -> None:
        """The same context must work again, and then begin or end the journal if it could not before."""
        if self.problems:  # there may be no state to continue from
            return
        self._do(self.victim, self.operation, 3, after=document.after(self.found, self.operation, 3))
        if self.operation in JOURNALED and journal_of(self.path).exists() == (self.operation == "end"):
            self.problems.append("the same context went on, but the journal was not begun or not ended")

    def follow_up(self, neighbour: Victim | None = None) -> None:
        """Another process must get the lock at once, lose nothing, and clean up."""
        self._do(neighbour or self.neighbour, "neighbour", after=document.with_neighbour(self.found))
        self.judge_tidiness("after the next write")

    def _do(self, victim: Victim, operation: str, number: int = 0, *, after: Document) -> None:
        """Do something that must succeed, and check that the file has the result."""
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
