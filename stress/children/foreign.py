"""A foreign process: uses only `filelock` and `json`. `python -m stress.children.foreign ASSIGNMENT`.

It takes the plain lock of the file, reads, counts, and writes the whole document, each time in another layout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from stress.children.assignment import Assignment, prepare
from stress.logs.history import Kind, Log

PATIENCE = 20.0
"""Seconds to wait for the lock."""
POLL = 0.001
"""Seconds between two tries: `filelock` has no queue, so a process that tries seldom never gets a turn."""
PAUSE = 0.05
"""Mean seconds between two turns."""
LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"indent": 4},
    {"separators": (",", ":")},
    {"sort_keys": True, "indent": "\t"},
    {"ensure_ascii": False, "indent": 0},
)

Result = TypeVar("Result")


def main() -> None:
    """Count as the command line says, until asked to stop."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    random = Random(f"{assignment.seed} {assignment.name}")
    key = f"foreign/{assignment.place}"
    lock = FileLock(assignment.lock)
    for serial in count():
        token = f"{assignment.name}.0.{serial}"
        log.write(Kind.INVOKE, id=token, workload="foreign", name="count", key=key)
        try:
            with lock.acquire(timeout=PATIENCE, poll_interval=POLL):
                result = rewrite(assignment.state, random.choice(LAYOUTS), partial(count_one, key))
        except Timeout as error:
            log.write(Kind.FAIL, id=token, error=str(error))
        else:
            log.write(Kind.OK, id=token, result=result)
        if stop.wait(PAUSE * random.uniform(0.5, 1.5)):
            return


def count_one(key: str, document: dict[str, Any]) -> int:
    """Add one to a number, and return it."""
    document[key] = number = document.get(key, 0) + 1
    return int(number)


def rewrite(state: Path, layout: dict[str, Any], change: Callable[[dict[str, Any]], Result]) -> Result:
    """Change the content of the file, and rewrite it; return what the change returns."""
    document = json.loads(state.read_bytes())
    result = change(document)
    temporary = state.with_name(f"{state.name}.foreign-{os.getpid()}")
    temporary.write_text(json.dumps(document, **layout), encoding="utf-8")
    temporary.replace(state)
    return result


if __name__ == "__main__":
    main()
