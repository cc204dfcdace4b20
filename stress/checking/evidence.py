"""The input and the output of a checker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stress.children.patience import PATIENCE
from stress.logs.history import Operation, Outcome


@dataclass(frozen=True, slots=True)
class Evidence:
    """The operations of one workload, what readers saw in the meantime, and the final document."""

    operations: Sequence[Operation]
    final: Mapping[str, Any]
    """The document in the file."""
    reads: Sequence[Operation] = ()
    """Successful reads of the whole file from outside. The result of each is the numbers in the document, by key."""
    everything: Sequence[Operation] = ()
    """The operations of all workloads."""
    patience: float = PATIENCE
    """How long a call may take, in seconds."""

    def having(self, outcome: Outcome, *names: str) -> list[Operation]:
        """Return the operations with this outcome, of any name or of the given ones."""
        return [
            operation
            for operation in self.operations
            if operation.outcome is outcome and (not names or operation.name in names)
        ]

    def by_key(self) -> dict[str, list[Operation]]:
        """Return the operations on each key, in the order of their invocation."""
        groups: defaultdict[str, list[Operation]] = defaultdict(list)
        for operation in sorted(self.operations, key=lambda operation: operation.invoked):
            groups[operation.key].append(operation)
        return groups


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and the operations that show it."""

    kind: str
    """Lost, duplicated, foreign, reordered, stale, torn, missing, not linearizable, hung, missed, echoed or grown; or
    undecided: nothing was shown."""
    message: str
    operations: Sequence[Operation] = ()
