"""Waiting despite cancellation: the only module that imports anyio."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Any


def shielded() -> AbstractContextManager[Any]:
    """Return a scope that shields from surrounding anyio cancel scopes.

    These cancel a waiting task again in every iteration of the loop: without a shield, waiting would spin. A native
    ``task.cancel()`` is delivered once, and the caller has to catch it. If anyio has not been imported there is no such
    scope, and importing it would block the loop.
    """
    if "anyio" not in sys.modules:
        return contextlib.nullcontext()
    import anyio  # noqa: PLC0415

    return anyio.CancelScope(shield=True)
