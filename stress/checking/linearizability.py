"""Decides whether the operations on one register can be ordered so that each happens at one moment while it ran.

That is linearizability (Herlihy and Wing, 1990), and it can be checked key by key. The search is that of Wing and Gong,
"Testing and Verifying Concurrent Objects" (Journal of Parallel and Distributed Computing 17, 1993), in the
"just-in-time" form of Lowe, "Testing for linearizability" (Concurrency and Computation 29, 2017): events are taken in
the order of time, an operation is placed only when it has to be over or when one that does needs it, and two paths
that place the same operations and lead to the same state are treated as one from there on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from stress.logs.history import Operation

State: TypeAlias = "str | None"
"""A register's value; `None` means that it is absent."""

LONGEST_WINDOW = 300
"""Up to so many operations, each is left out in turn to find a small part of a history that fails."""
LIMIT = 2_000_000
"""Steps of one search. A search that needs more gives up and says so: that proves nothing."""


class No(Enum):
    """The answer of an operation to a state in which it cannot have happened as reported."""

    NO = "no"


@dataclass(frozen=True, slots=True)
class Step:
    """An operation, and what it does to the register if it happens."""

    operation: Operation
    leads: Callable[[State], State | No]
    """Gives the state after it, or `No.NO`."""
    invoked: float
    finished: float
    """It happened by then, if at all."""
    certain: bool
    """Whether it did happen. An operation that was refused, or that only read, is certain as well."""
    changes: bool
    """Whether it can change the state."""


@dataclass(frozen=True, slots=True)
class Impossible:
    """Shows that a history is not linearizable: as few operations as were found that no order explains."""

    culprit: Operation
    """The operation that could not be placed before it was over."""
    window: Sequence[Operation]
    """That operation, and those since the last moment of rest that matter to it."""
    states: Sequence[State]
    """The possible values of the register at the last moment of rest."""


class GaveUpError(Exception):
    """The search took more steps than allowed."""


_Configuration: TypeAlias = tuple[State, frozenset[int]]
"""The state, and the pending steps that have been placed."""


def search(steps: Sequence[Step], states: Iterable[State] = (None,), *, limit: int = LIMIT) -> Impossible | None:
    """Look for an order that explains all steps; return `None` if there is one.

    Args:
        steps: the operations on one register, in any order.
        states: the possible values of the register before them.
        limit: the greatest number of search steps.

    Raises:
        GaveUpError: the limit was reached.
    """
    states = list(states)
    failure = _first_failure(steps, states, limit)
    return failure and _explain(steps, states, *failure, limit)


@dataclass(frozen=True, slots=True)
class _Rest:
    """A moment at which only operations that may happen at any time or never were in flight."""

    at: float
    states: Sequence[State]


class _Frontier:
    """All configurations that are possible at one moment."""

    def __init__(self, steps: Sequence[Step], states: Iterable[State], limit: int) -> None:
        self.pending: set[int] = set()
        self._steps = steps
        self._configurations: set[_Configuration] = {(state, frozenset()) for state in states}
        self._left = limit
        self.rest = _Rest(-1, list(states))

    def end(self, number: int) -> bool:
        """End a step: it is placed now or, unless it is certain, never; return whether that is possible."""
        placed = set(self._place(number))
        if not self._steps[number].certain:
            placed |= {one for one in self._configurations if number not in one[1]}
        self.pending.discard(number)
        self._configurations = self._best((state, done - {number}) for state, done in placed)
        if self._configurations and all(self._steps[other].finished == math.inf for other in self.pending):
            self.rest = _Rest(self._steps[number].finished, [state for state, _ in self._configurations])
        return bool(self._configurations)

    def _best(self, configurations: Iterable[_Configuration]) -> set[_Configuration]:
        """Leave out configurations that are no better than another: the same, with more optional steps used up."""
        groups: defaultdict[_Configuration, list[frozenset[int]]] = defaultdict(list)
        for state, done in set(configurations):
            optional = frozenset(number for number in done if not self._steps[number].certain)
            groups[state, done - optional].append(optional)
        return {
            (state, done | optional)
            for (state, done), options in groups.items()
            for optional in options
            if not any(other < optional for other in options)
        }

    def _place(self, number: int) -> Iterator[_Configuration]:
        """Yield the configurations that are possible once a step is placed, after as many others as it needs."""
        todo = [self._with_looks(*one) for one in self._configurations]
        seen = set(todo)
        while todo:
            state, done = todo.pop()
            if number in done:
                yield state, done
                continue
            for other in self.pending - done:
                self._left -= 1
                if self._left < 0:
                    raise GaveUpError
                after = self._steps[other].leads(state)
                if isinstance(after, No):
                    continue
                following = self._with_looks(after, done | {other})
                if following not in seen:
                    seen.add(following)
                    todo.append(following)

    def _with_looks(self, state: State, done: frozenset[int]) -> _Configuration:
        """Place all steps that only read and saw this state: that is always right, since they change nothing."""
        looks = [other for other in self.pending - done if not self._steps[other].changes]
        return state, done.union(look for look in looks if not isinstance(self._steps[look].leads(state), No))


def _events(steps: Sequence[Step]) -> list[tuple[float, bool, int]]:
    """Return beginnings and ends in order; at the same moment, beginnings come first, so that the steps overlap."""
    begun = [(step.invoked, False, number) for number, step in enumerate(steps)]
    ended = [(step.finished, True, number) for number, step in enumerate(steps)]
    return sorted(begun + ended)


def _first_failure(steps: Sequence[Step], states: Sequence[State], limit: int) -> tuple[int, _Rest] | None:
    """Return the first step that had to be over and could not be placed, and the last moment of rest before it."""
    frontier = _Frontier(steps, states, limit)
    for at, is_end, number in _events(steps):
        if at == math.inf:
            break
        if not is_end:
            frontier.pending.add(number)
        elif not frontier.end(number):
            return number, frontier.rest
    return None


def _explain(steps: Sequence[Step], states: Sequence[State], culprit: int, rest: _Rest, limit: int) -> Impossible:
    """Reduce a history that is not linearizable to a small part that is not linearizable either.

    Operations that only read can be left out of a linearizable history: if the rest still cannot be explained, they
    were not needed to show that.
    """
    last = steps[culprit]
    whole = [step for step in steps if step.invoked <= last.finished]
    window = [step for step in whole if step.finished > rest.at]
    if not _fails(window, rest.states, limit):
        window, rest = whole, _Rest(-1, states)
    for step in list(window) if len(window) <= LONGEST_WINDOW else ():
        fewer = [other for other in window if other is not step]
        if step is not last and not step.changes and _fails(fewer, rest.states, limit):
            window = fewer
    window.sort(key=lambda step: step.invoked)
    return Impossible(last.operation, [step.operation for step in window], rest.states)


def _fails(steps: Sequence[Step], states: Sequence[State], limit: int) -> bool:
    try:
        return _first_failure(steps, states, limit) is not None
    except GaveUpError:
        return False
