"""A reader process: opens the file with plain `json.load`, all the time. `python -m stress.reader ASSIGNMENT`."""

from __future__ import annotations

import json
from itertools import count

from stress.assignment import Assignment, prepare
from stress.history import Kind, Log


def main() -> None:
    """Read as the command line says, until told to stop."""
    assignment = Assignment.from_command_line()
    stop = prepare(assignment)
    log = Log(assignment.log)
    for serial in count():
        if stop.is_set():
            return
        token = f"{assignment.name}.0.{serial}"
        log.write(Kind.INVOKE, id=token, workload="read", name="read", key=assignment.state.name)
        try:
            with assignment.state.open(encoding="utf-8") as file:
                document = json.load(file)
            numbers = {key: value for key, value in document.items() if isinstance(value, int)}
        except (OSError, ValueError, AttributeError) as error:  # missing, torn, or no object
            log.write(Kind.FAIL, id=token, error=f"{type(error).__name__}: {error}")
        else:
            log.write(Kind.OK, id=token, result=numbers)


if __name__ == "__main__":
    main()
