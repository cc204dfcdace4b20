"""The options of a context, and their checks."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias, TypedDict

from .._model.merge import OnConflict

TRY_ONLY_SECONDS: Final = 0.01
"""A shorter timeout could expire before the lock is tried; it means one try, which succeeds if the lock is free."""


OnCorrupt: TypeAlias = Literal["aside", "raise"]
"""What a context does if its file is corrupt: moves it aside, or raises :class:`CorruptFileError`."""


class Options(TypedDict, total=False):
    """The options of a context, for functions that pass them on: ``**options: Unpack[Options]``."""

    durable: bool
    lock_timeout: float
    on_conflict: OnConflict
    on_corrupt: OnCorrupt
    journal: bool | None


def check_durable(durable: object) -> bool:
    """Return the option if it is valid, else raise TypeError."""
    if isinstance(durable, bool):
        return durable
    msg = f"durable must be True or False, not {durable!r}"
    raise TypeError(msg)


def check_timeout(timeout: float, name: str) -> float:
    """Return a valid timeout in seconds; raise TypeError or ValueError otherwise."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"{name} must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(msg)
    if math.isnan(timeout) or timeout < 0:
        msg = f"{name} must be from 0 (try once) to math.inf (wait forever) seconds, not {timeout!r}"
        raise ValueError(msg)
    return timeout


def check_on_corrupt(on_corrupt: object) -> OnCorrupt:
    """Return the option if it is valid, else raise ValueError."""
    if on_corrupt == "aside":
        return "aside"
    if on_corrupt == "raise":
        return "raise"
    msg = f"on_corrupt must be 'aside' or 'raise', not {on_corrupt!r}"
    raise ValueError(msg)


def check_journal(journal: object) -> bool | None:
    """Return the option if it is valid, else raise TypeError."""
    if journal is None or isinstance(journal, bool):
        return journal
    msg = f"journal must be True, False or None (leave it unchanged), not {journal!r}"
    raise TypeError(msg)
