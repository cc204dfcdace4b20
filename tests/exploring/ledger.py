"""What may be observed of a program that only adds: nothing is lost, and nothing is there twice.

Contexts and other programs append items to the list ``l`` and add members to the object ``o``, in place or by calls;
all items differ. Whatever the schedule, the file keeps all that it has held, and at the end it has everything.
"""

from __future__ import annotations

import json
from typing import Any

from .specification import Call, Change, ViolationError, show


class Ledger:
    """What was added so far, and by which context; takes the place of a ``Specification``."""

    def __init__(self, policies: dict[str, str], initial: dict[str, str]) -> None:
        self.policies = policies
        self.arrivals: dict[int, int] = {}
        self._file = _items(initial)
        self._added: dict[str, list[str]] = {who: [] for who in policies}
        """What each context has in memory, or will have."""

    def changed(self, who: str, key: str, change: Change, _unsaved: set[str]) -> None:
        """An item was added in memory."""
        before, after = (_items({key: text}) for text in (change.before, change.mine))
        self._added[who] += [item for item in after if item not in before]

    def made(self, call: Call) -> None:
        """A call was made."""

    def edited(self, _key: str, _text: str | None, _step: int) -> None:
        """Another program added an item."""

    def job_ran(self, _step: int, file: dict[str, str]) -> None:
        """A job ran, and this is the file now."""
        items = _items(file)
        lost = [item for item in self._file if item not in items]
        twice = [item for item in items if items.count(item) > 1]
        if lost or twice:
            raise ViolationError(f"the file holds {show(file)}: lost {lost}, twice {twice}")
        self._file = items

    def turned(self, step: int) -> None:
        """The loop turned."""

    def is_over(self, call: Call, outcome: object, step: int) -> None:
        """A call is over."""
        call.over = step
        if call.action.name == "append" and outcome.startswith("returned"):
            self._added[call.action.context].append(f"l {json.dumps(call.action.values[0])}")
        elif not outcome.startswith("returned") and not call.cancelled:
            raise ViolationError(f"{call.action} {outcome}")

    def at_rest(self, who: str, memory: dict[str, str], unsaved: set[str], *, saved: bool = False) -> None:
        """All calls are over, and no step is left."""
        items = _items(memory)
        lost = [item for item in self._added[who] if item not in items]
        twice = [item for item in items if items.count(item) > 1]
        if lost or twice:
            raise ViolationError(f"at rest {who} has {show(memory)}: lost {lost}, twice {twice}")
        missing = [item for item in items if item not in self._file]
        if saved and (unsaved or missing):
            raise ViolationError(f"after a last save {who} has {show(memory)}, unsaved {sorted(unsaved)}: {missing}")


def _items(texts: dict[str, str | None]) -> list[str]:
    """Return all elements of lists and members of objects, by the names of their keys."""
    items = []
    for key, text in texts.items():
        value: Any = None if text is None else json.loads(text)
        if isinstance(value, list):
            items += [f"{key} {json.dumps(item)}" for item in value]
        elif isinstance(value, dict):
            items += [f"{key} {name}" for name in value]
    return items
