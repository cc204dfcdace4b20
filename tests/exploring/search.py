"""Searches the schedules of a program: all that differ, or a limited number of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from .programs import parse
from .running import Run
from .specification import ViolationError
from .stepping import threads_are_jobs

_names = itertools.count()


@dataclass
class _Node:
    steps: list[str]
    touches: dict[str, frozenset[str]]
    asleep: set[str]
    """Steps that were made before others, with which they may be swapped, in a schedule that has been explored."""
    chosen: str = ""
    done: set[str] = field(default_factory=set)

    def choices(self) -> list[str]:
        return [step for step in self.steps if step not in self.asleep and step not in self.done]

    def asleep_after(self) -> set[str]:
        chosen = self.touches[self.chosen]
        return {step for step in self.asleep | self.done if step in self.touches and not self.touches[step] & chosen}


class Violated(AssertionError):
    """A schedule was found with an observation that is not allowed."""


def explore(
    text: str, policies: dict[str, str], directory: str, *, limit: int, seed: int = 0, grows: bool = False
) -> int:
    """Run a program with all schedules that differ, or ``limit`` of them; return how many.

    Raises:
        Violated: one of them is against the specification.
    """
    order = random.Random(f"{seed} {text} {policies}")
    nodes: list[_Node] = []
    for number in range(limit):
        with _running(text, policies, directory, grows=grows) as run:
            for node in nodes:
                _do(run, node.chosen)
            if _go_on(run, nodes, order):
                _check(run)
            else:
                run.abandon()
        if not _turn_back(nodes, order):
            return number + 1
    return limit


def sample(
    text: str, policies: dict[str, str], directory: str, *, times: int, seed: int = 0, grows: bool = False
) -> int:
    """Run a program with some schedules, chosen independently of each other.

    Raises:
        Violated: one of them is against the specification.
    """
    order = random.Random(f"{seed} {text} {policies}")
    for _ in range(times):
        with _running(text, policies, directory, grows=grows) as run:
            _go_on(run, [], order)
            _check(run)
    return times


def replay(text: str, policies: dict[str, str], directory: str, schedule: str, *, grows: bool = False) -> Run:
    """Run a program with one schedule, and then to its end."""
    with _running(text, policies, directory, grows=grows) as run:
        for step in schedule.split():
            _do(run, step)
        _check(run)
    return run


@contextlib.contextmanager
def _running(text: str, policies: dict[str, str], directory: str, *, grows: bool) -> Iterator[Run]:
    path = os.path.join(directory, f"{next(_names)}.json")
    try:
        with threads_are_jobs():
            yield Run(parse(text), policies, path, grows=grows)
    finally:
        for name in (path, f"{path}.lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def _go_on(run: Run, nodes: list[_Node], order: random.Random) -> bool:
    """Continue a run from its present state; return False if everything that can follow has been explored."""
    while steps := run.steps():
        asleep = nodes[-1].asleep_after() if nodes else set()
        node = _Node(steps, {step: run.touches(step) for step in steps}, asleep)
        choices = node.choices()
        if not choices:
            return False
        node.chosen = order.choice(choices)
        nodes.append(node)
        _do(run, node.chosen)
    return True


def _turn_back(nodes: list[_Node], order: random.Random) -> bool:
    """Make another choice at the last place where there is one."""
    while nodes:
        node = nodes[-1]
        node.done.add(node.chosen)
        if choices := node.choices():
            node.chosen = order.choice(choices)
            return True
        nodes.pop()
    return False


def _do(run: Run, step: str) -> None:
    try:
        run.do(step)
    except ViolationError as violation:
        raise Violated(run.describe(violation)) from None


def _check(run: Run) -> None:
    try:
        run.finish()
    except ViolationError as violation:
        raise Violated(run.describe(violation)) from None


def shrink(
    text: str, policies: dict[str, str], directory: str, *, limit: int = 300, grows: bool = False
) -> Violated | None:
    """Leave out as many actions as possible; return the violation of the shortest program found, if there is one."""
    violated = _violation(text, policies, directory, limit, grows=grows)
    if violated is None:
        return None
    actions = text.split("; ")
    for left_out in range(len(actions)):
        shorter = [action for number, action in enumerate(actions) if number != left_out]
        found = shrink("; ".join(shorter), policies, directory, limit=limit, grows=grows) if len(shorter) > 1 else None
        if found:
            return found
    return violated


def _violation(text: str, policies: dict[str, str], directory: str, limit: int, *, grows: bool) -> Violated | None:
    try:
        sample(text, policies, directory, times=limit // 5, grows=grows)
        explore(text, policies, directory, limit=limit, grows=grows)
    except Violated as violated:
        return violated
    return None
