"""Waiting in spite of being cancelled: the one module that imports anyio.

anyio is imported when something is first cancelled or timed out, as most programs that hammer a file see neither.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def shielded() -> AbstractContextManager[Any]:
    """Return a scope that anyio's cancel scopes around it leave alone.

    They cancel a task anew at every turn of the loop, for as long as it waits: without a shield, waiting on would
    spin. A native ``task.cancel()`` comes once each time, and is for the caller to catch.
    """
    import anyio  # noqa: PLC0415

    return anyio.CancelScope(shield=True)


async def run_in_other_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread that is none of the default executor's: that one may be full of those who wait."""
    import anyio.to_thread  # noqa: PLC0415

    return await anyio.to_thread.run_sync(function, *args)
