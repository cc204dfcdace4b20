"""Cancels calls of a worker's tasks: at random moments, and at the worst ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from random import Random

from stress.children.assignment import Assignment
from stress.children.stamp import holder
from stress.children.worker.actor import Actor
from stress.logs.history import Kind, Log

LOOKS = 500
"""How often to check whether this process has the lock, before a call is cancelled in any case."""
LOOK_EVERY = 0.001
"""Seconds."""


async def cancel_now_and_then(actors: Sequence[Actor], assignment: Assignment, log: Log) -> None:
    """Cancel a random call in flight, again and again; the task that made it continues with another one.

    Most calls wait for their turn most of the time, and are simply withdrawn. So every other time this waits until the
    process has the lock, and cancels the call that has waited longest: its turn has come. In a cluster most of a call's
    time is its own, so there is nothing to wait for.
    """
    if not assignment.cancel_every:
        return
    random = Random(f"{assignment.seed} {actors[0].name} cancels")
    while True:
        await asyncio.sleep(assignment.cancel_every * random.uniform(0.5, 1.5))
        if at_work := random.randrange(2):
            for _ in range(0 if assignment.endpoints else LOOKS):
                if holder(assignment.lock) == os.getpid():
                    break
                await asyncio.sleep(LOOK_EVERY)
        calling = [actor for actor in actors if (call := actor.calling) and not call.done() and not call.cancelling()]
        if calling:
            victim = min(calling, key=lambda actor: actor.since) if at_work else random.choice(calling)
            log.write(Kind.FAULT, name="cancel", target=victim.name)
            assert victim.calling is not None
            victim.calling.cancel()
