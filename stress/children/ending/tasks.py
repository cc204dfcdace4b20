"""Programs with an event loop whose tasks are cancelled, all at once or one by one, and then save."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from persistent_context import PersistentContext
from stress.children.ending.program import COUNTER, LAST_SAVE, Program

SEATS = 10
"""Tasks of a program."""
TURNS = 4
"""The greatest number of turns of the loop between the moment when the end is due and the end."""

End = Callable[[Iterable["asyncio.Task[None]"]], Awaitable[None]]


def cancel_all(program: Program) -> None:
    """Cancel all tasks, and wait for those of the program, as servers and test runners do."""

    async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
        _cancel_others()
        await asyncio.gather(*tasks, return_exceptions=True)

    _run(program, end)


def leave_it_to_the_runner(program: Program) -> None:
    """Return from the main task: `asyncio.run` cancels the others."""

    async def end(_: Iterable[asyncio.Task[None]]) -> None:
        pass

    _run(program, end)


def cancel_twice(program: Program) -> None:
    """Cancel all tasks, and then let `asyncio.run` cancel those that are in their last save."""

    async def end(_: Iterable[asyncio.Task[None]]) -> None:
        _cancel_others()
        await _let_turns_pass(program)

    _run(program, end)


def interrupt(program: Program) -> None:
    """Let Ctrl-C cancel the main task, and `asyncio.run` the others."""

    async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.gather(*tasks)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if started in the background by a shell
    with suppress(KeyboardInterrupt):
        _run(program, end)


def terminate(program: Program) -> None:
    """Cancel all tasks in the loop's SIGTERM handler."""

    async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
        main = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel_others, main)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.gather(*tasks, return_exceptions=True)

    _run(program, end)


TASKS: tuple[Callable[[Program], None], ...] = (
    cancel_all,
    leave_it_to_the_runner,
    cancel_twice,
    interrupt,
    terminate,
)


def _run(program: Program, end: End) -> None:
    """Let many tasks hammer, and end them all."""

    async def main() -> None:
        if hasattr(asyncio, "eager_task_factory") and program.random.randrange(2):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        shared = program.context()
        tasks = [asyncio.create_task(_hammer(program, seat, shared)) for seat in range(SEATS)]
        await asyncio.sleep(program.hurry())
        await _let_turns_pass(program)
        await end(tasks)

    asyncio.run(main())


async def _hammer(program: Program, seat: int, shared: PersistentContext) -> None:
    """Make calls until cancelled; then save."""
    task = f"t{seat}"
    scribe = program.scribe(task)
    context = shared if seat % 2 else program.context()
    try:
        while True:
            one_shot = context if program.random.randrange(2) else program.context()
            with scribe.operation("incr", COUNTER) as entry:
                entry.result = await one_shot.incr(COUNTER)
            with scribe.operation("save", program.key(task)) as entry:
                context.set(entry.key, [entry.token])
                await context.save()
    finally:
        with scribe.operation(LAST_SAVE, program.key(task)) as entry:
            context.set(entry.key, [entry.token])
            await context.save()


def _cancel_others(*spared: object) -> None:
    """Cancel all tasks of the loop but the present one and those to spare."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task not in spared:
            task.cancel()


async def _let_turns_pass(program: Program) -> None:
    for _ in range(program.random.randrange(TURNS)):
        await asyncio.sleep(0)
