"""Begins, ends and folds the journals of all files. `python -m stress.children.journal ASSIGNMENT`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from random import Random

from persistent_context import LockTimeoutError, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.children.reader import read, write
from stress.documents.openings import OPENINGS
from stress.logs.history import Log

PAUSE = 0.3
"""Mean seconds between two turns."""
WITH = 0.8
"""The part of the turns that begin a journal, or leave it, rather than end it."""


def main() -> None:
    """Work as the command line says, until asked to stop."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    random = Random(f"{assignment.seed} {assignment.name}")
    log = Log(assignment.log)
    for path in filter(Path.exists, map(assignment.file, OPENINGS)):
        SyncPersistentContext(path, journal=True).save()
    for serial in count():
        write(log, read(assignment.document, f"{assignment.name}.0.{serial}"), assignment)
        if stop.wait(PAUSE * random.uniform(0.5, 1.5)):
            return
        path = assignment.file(random.choice(list(OPENINGS)))
        if not path.exists():
            continue
        context = SyncPersistentContext(path, journal=random.random() < WITH)
        try:
            random.choice([context.save, context.checkpoint])()
        except LockTimeoutError:
            continue


if __name__ == "__main__":
    main()
