"""The two faces for tests that are written as stories: coroutines that run with and without an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from persistent_context import PersistentContext, SyncPersistentContext


class AsyncFace:
    """The awaited face: a story runs on an event loop."""

    name = "async"
    context = PersistentContext

    @staticmethod
    def run(story: Coroutine[Any, Any, Any]) -> Any:
        """Run a story; return what it returns."""
        return asyncio.run(story)


class SyncFace:
    """The face without a loop: the same story runs through in one go, since nothing in it suspends."""

    name = "sync"
    context = SyncPersistentContext

    @staticmethod
    def run(story: Coroutine[Any, Any, Any]) -> Any:
        """Run a story; return what it returns."""
        try:
            story.send(None)
        except StopIteration as stop:
            return stop.value
        story.close()
        pytest.fail("the face without a loop suspended")


@pytest.fixture(params=[AsyncFace, SyncFace], ids=["async", "sync"], name="face")
def either_face(request: pytest.FixtureRequest) -> Any:
    """Each of the two faces in turn, for a module with ``face = either_face``."""
    return request.param


async def done(result: Any) -> Any:
    """Await the result of the awaited face, or return that of the other one."""
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def transaction(ctx: Any, **options: Any) -> AsyncIterator[Any]:
    """Open a transaction of a context of either face."""
    if isinstance(ctx, SyncPersistentContext):
        with ctx.transaction(**options) as tx:
            yield tx
    else:
        async with ctx.transaction(**options) as tx:
            yield tx


async def load(ctx: Any) -> None:
    """Load."""
    await done(ctx.load())


async def save(ctx: Any) -> None:
    """Set a key, and save."""
    ctx.set("fresh", 1)
    await done(ctx.save())


async def incr(ctx: Any) -> None:
    """Increment a key."""
    await done(ctx.incr("fresh"))


async def change(ctx: Any) -> None:
    """Set a key in a transaction."""
    async with transaction(ctx) as tx:
        tx["fresh"] = 1


CALLS: dict[str, Callable[[Any], Coroutine[Any, Any, None]]] = {
    "load": load,
    "save": save,
    "incr": incr,
    "transaction": change,
}
"""Calls of either face; all but the first leave ``{"fresh": 1}`` in a new file."""
WRITES = {name: call for name, call in CALLS.items() if name != "load"}
