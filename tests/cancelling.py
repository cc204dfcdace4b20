"""Calls to cancel, ways to do it, and what to check of what they leave behind."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from persistent_context import PersistentContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator
    from pathlib import Path

BEFORE: dict[str, Any] = {"n": 1, "other": [1]}

# ---------------------------------------- the calls


def _save(ctx: PersistentContext) -> Coroutine[Any, Any, None]:
    ctx.set("n", 2)  # before the task begins: a task that is cancelled before its first step does nothing at all
    return ctx.save()


async def _incr(ctx: PersistentContext) -> None:
    assert 2 == await ctx.incr("n")


async def _add(ctx: PersistentContext) -> None:
    assert await ctx.add("new", 2)


async def _compare_and_set(ctx: PersistentContext) -> None:
    assert await ctx.compare_and_set("n", 1, 2)


async def _mutate(ctx: PersistentContext) -> None:
    assert [1, 2] == await ctx.mutate("other", lambda value: [*value, 2])


async def _transaction(ctx: PersistentContext) -> None:
    async with ctx.transaction() as tx:
        tx["n"] += 1
        await asyncio.sleep(0)
        tx["new"] = 2


async def _context_manager(ctx: PersistentContext) -> None:
    async with PersistentContext(ctx.filepath) as own:
        own["n"] += 1
        await asyncio.sleep(0)
        own["new"] = 2


WRITES: dict[str, tuple[Callable[[PersistentContext], Coroutine[Any, Any, None]], dict[str, Any]]] = {
    "save": (_save, {"n": 2, "other": [1]}),
    "incr": (_incr, {"n": 2, "other": [1]}),
    "add": (_add, {"n": 1, "other": [1], "new": 2}),
    "compare_and_set": (_compare_and_set, {"n": 2, "other": [1]}),
    "mutate": (_mutate, {"n": 1, "other": [1, 2]}),
    "transaction": (_transaction, {"n": 2, "other": [1], "new": 2}),
    "async with": (_context_manager, {"n": 2, "other": [1], "new": 2}),
}

every_write = pytest.mark.parametrize("call", WRITES)

# ---------------------------------------- the tools


class Cancelling:
    """Awaits a coroutine, counts its suspensions, and cancels the task at one or at all of them."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int | None, how: str) -> None:
        self.coroutine = coroutine
        self.at = at
        self.how = how
        self.suspensions = 0
        self.hit = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                waiting_for = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.at is None or self.at == self.suspensions:
                self.hit = True
                self.cancel()
            error = None
            try:
                yield waiting_for
            except BaseException as thrown:  # noqa: BLE001  # handed on to the coroutine
                error = thrown

    def cancel(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.how == "at once":
            task.cancel()
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def spin(times: int) -> None:
    """Let the loop turn this number of times."""
    for _ in range(times):
        await asyncio.sleep(0)


def spins(limit: int = 20_000) -> list[int]:
    """Return numbers of turns of the loop: every small one, then ever larger ones."""
    numbers = list(range(12))
    while numbers[-1] < limit:
        numbers.append(numbers[-1] * 5 // 4)
    return numbers


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def fresh(directory: Path, name: object) -> Path:
    """Return a new file in its own directory."""
    path = directory / str(name) / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(BEFORE))
    return path


def take_and_give_back(path: Path) -> None:
    with FileLock(f"{path}.lock", timeout=20):
        pass


async def settled(task: asyncio.Task[Any]) -> None:
    """Wait for the end of `task`, but not forever."""
    finished, _ = await asyncio.wait({task}, timeout=30)

    assert finished, "the call did not end"


async def check(path: Path, ctx: PersistentContext, call: str, *, hit: bool, effect: bool | None = None) -> bool:
    """Check what a call left behind; return whether it had an effect."""
    found = read(path)
    whole = WRITES[call][1]

    assert found in (BEFORE, whole)
    if effect is not None:
        assert (whole if effect else BEFORE) == found
    if not hit:
        assert whole == found

    await asyncio.to_thread(take_and_give_back, path)

    assert found == read(path)
    assert {path.name, path.name + ".lock"} == set(os.listdir(path.parent))
    if call == "save":
        assert ({"n"} if found == BEFORE else set()) == ctx.unsaved_keys()
        assert 2 == ctx.get("n")
    elif call != "async with":
        assert set() == ctx.unsaved_keys()
        assert found == ctx.get_all_data()

    # The context still works, and the next call does not include what was withdrawn.
    assert 1 == await ctx.incr("probe")
    assert {**found, "probe": 1} == read(path)
    if call == "save":
        await ctx.save()
        assert {**whole, "probe": 1} == read(path)
    return found != BEFORE


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[FileLock]:
    """Hold the lock as another program would."""
    lock = FileLock(f"{path}.lock", thread_local=False)
    await asyncio.to_thread(lock.acquire)
    try:
        yield lock
    finally:
        lock.release()


async def opened(path: Path, task: asyncio.Task[Any]) -> None:
    """Return once the library has the lock file open, in addition to the test: it does while it waits for the lock."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc/self/fd to see that a call waits for the lock: run on Linux")
    lock = os.path.realpath(f"{path}.lock")
    while not task.done():
        count = 0
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += lock == os.readlink(f"/proc/self/fd/{descriptor}")
        if count > 1:
            return
        await asyncio.sleep(0)


LOCKING = {name: call for name, call in WRITES.items() if name != "async with"}
every_locking_write = pytest.mark.parametrize("call", LOCKING)
