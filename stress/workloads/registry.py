"""Where the modules of this package register their operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from stress.children.worker.actor import Action, Actor, Call

Body = Callable[[Actor, Call], Awaitable[Any]]

WORKLOADS: defaultdict[str, list[Action]] = defaultdict(list)


def operation(workload: str, pick_key: Callable[[Actor], str]) -> Callable[[Body], Body]:
    """Make a function one of the operations of a workload."""

    def register(body: Body) -> Body:
        WORKLOADS[workload].append(Action(workload, body.__name__, pick_key, body))
        return body

    return register
