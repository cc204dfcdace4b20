"""The warning about a change in a context that is made inside a transaction, which does not commit it."""

from __future__ import annotations

import inspect
import warnings
from typing import Final

from ..errors import UnsavedInTransactionWarning
from .link import Link

_MESSAGE: Final = (
    "this changes the context inside a transaction on the same file, which does not commit the change unless it "
    "touches the key later: use tx[...] instead of the context"
)
"""It names neither file nor key, so that Python shows it once for each line of a program."""


def warn_if_inside(link: Link) -> None:
    """Warn of a change if the caller is inside a transaction on the same file."""
    if link.is_held_by_caller():
        warnings.warn(_MESSAGE, UnsavedInTransactionWarning, stacklevel=_users_level())


def _users_level() -> int:
    """Return the ``stacklevel`` of the line of the program that made the change, for the caller."""
    level = 0
    frame = inspect.currentframe()
    while frame is not None and _passes_on(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _passes_on(module: str) -> bool:
    """Whether a module is not part of the program: ``collections.abc`` implements methods of a mapping with others."""
    return module.startswith("persistent_context.") or module == "collections.abc"
