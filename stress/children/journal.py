"""Begins and ends the journals of all files, and folds them. `python -m stress.children.journal ASSIGNMENT`."""

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
"""How often a journal is begun, or there already, rather than ended."""


def main() -> None:
    """Switch as the command line says, until told to stop."""
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
