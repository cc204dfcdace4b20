"""The options of a context, and their checks."""

from __future__ import annotations

import math
from typing import Final, TypedDict

from .._model.merge import OnConflict

TRY_ONLY_SECONDS: Final = 0.01
"""A shorter timeout could expire before the lock is tried; it means one try, which succeeds if the lock is free."""


class Options(TypedDict, total=False):
    """The options of a context."""

    durable: bool
    lock_timeout: float
    on_conflict: OnConflict
    journal: bool | None


def check_timeout(timeout: float, name: str) -> float:
    """Return a valid timeout in seconds; raise TypeError or ValueError otherwise."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"{name} must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(msg)
    if math.isnan(timeout) or timeout < 0:
        msg = f"{name} must be from 0 (try once) to math.inf (wait forever) seconds, not {timeout!r}"
        raise ValueError(msg)
    return timeout


def check_journal(journal: object) -> bool | None:
    """Return the option if it is valid, else raise TypeError."""
    if journal is None or isinstance(journal, bool):
        return journal
    msg = f"journal must be True, False or None (as the file is), not {journal!r}"
    raise TypeError(msg)
