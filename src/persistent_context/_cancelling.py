"""Waiting in spite of being cancelled: the one module that imports anyio."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Any


def shielded() -> AbstractContextManager[Any]:
    """Return a scope that anyio's cancel scopes around it leave alone.

    They cancel a task anew at every turn of the loop, for as long as it waits: without a shield, waiting on would
    spin. A native ``task.cancel()`` comes once each time, and is for the caller to catch. Where nobody has imported
    anyio there is no such scope, and importing it would make the loop stand still.
    """
    if "anyio" not in sys.modules:
        return contextlib.nullcontext()
    import anyio  # noqa: PLC0415

    return anyio.CancelScope(shield=True)
