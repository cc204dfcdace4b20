"""A member for each task, in an object that all tasks of all processes fill, kept by saving memory."""

from __future__ import annotations

from typing import Any

from stress.children.worker.actor import Actor, Call
from stress.documents.hammered import MEMBERS, members_of
from stress.workloads.registry import operation


def _own_member(actor: Actor) -> str:
    return f"{MEMBERS}/{actor.seat}"


def _name(call: Call) -> str:
    return call.key.rpartition("/")[2]


@operation(MEMBERS, _own_member)
async def fill(actor: Actor, call: Call) -> None:
    """Set the member in place, and save."""
    actor.context.get(MEMBERS)["by"]["seat"][_name(call)] = call.token
    await actor.context.save()


@operation(MEMBERS, _own_member)
async def empty(actor: Actor, call: Call) -> None:
    """Delete the member in place, and save."""
    actor.context.get(MEMBERS)["by"]["seat"].pop(_name(call), None)
    await actor.context.save()


@operation(MEMBERS, _own_member)
async def read_back(actor: Actor, call: Call) -> Any:
    """Read the member from the file."""
    document = {MEMBERS: (await actor.fresh()).get(MEMBERS, {})}
    return members_of(document).get(_name(call))
