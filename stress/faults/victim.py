"""The processes that faults are injected into: `python -m stress.faults.victim FD` forks one on each request.

A victim changes a file as ordered. It talks through a socket by `send` and `recv` only, so that the only calls on files
that are counted, failed or killed are the library's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Iterator
from typing import Any, TypedDict

from persistent_context import DurabilityUnknownError, PersistentContext, SyncPersistentContext
from persistent_context._stores.journal import idle
from stress.children.faces import Context, ThreadedContext
from stress.faults.document import NEIGHBOUR, SIZE, WITHOUT_JOURNAL, caller_key, value_of
from stress.faults.wire import Wire

LOCK_TIMEOUT = 5.0
"""Seconds. No process holds the lock for long: a wait that reaches this limit waits for a dead process."""
NEVER_SECONDS = 3600.0
CALLER_SECONDS = 0.005
"""The delay between the starts of two of several callers: a fraction of the time of a sync on the slow disk."""


class Options(TypedDict):
    """The options of a context."""

    lock_timeout: float
    durable: bool
    journal: bool | None


class Victim:
    """One forked child, and the context that it changes."""

    def __init__(self, wire: Wire, face: str, *, durable: bool, journal: bool | None) -> None:
        """Prepare; nothing is opened yet."""
        self._wire = wire
        self._face = face
        self._options: Options = {"lock_timeout": LOCK_TIMEOUT, "durable": durable, "journal": journal}
        self._plain: PersistentContext | SyncPersistentContext
        self._context: Context

    async def live(self, path: str) -> None:
        """Warm up, load the file, and obey."""
        with tempfile.TemporaryDirectory() as warm:  # late imports, threads and caches come before the faults
            await self._open(os.path.join(warm, "warm.json"))
            for operation in ("create", "incr", "save", "transaction", "checkpoint"):
                await self._change(operation, 0, SIZE)
        await self._open(path)
        self._wire.say(ready=True)
        while (order := self._wire.hear()) is not None:
            with _limited(order.get("limit")):
                report = await self._attempt(order["operation"], order["number"], order.get("size", SIZE))
            self._wire.say(**report)

    async def _open(self, path: str) -> None:
        if self._face == "async":
            self._plain = self._context = await PersistentContext.create(path, **self._options)
        else:
            self._plain = SyncPersistentContext.create(path, **self._options)
            self._context = ThreadedContext(self._plain)

    async def _change(self, operation: str, number: int, size: int) -> None:
        match WITHOUT_JOURNAL.get(operation, operation):
            case "checkpoint":
                await self._context.checkpoint()
            case "incr":
                await self._context.incr("n")
            case "neighbour":
                await self._context.incr(NEIGHBOUR)
            case "resave":
                await self._context.save()
            case "rewrite":
                async with self._context.transaction() as tx:
                    tx["n"] = tx["n"]
            case "several":
                await self._change_several(number)
            case "transaction" | "commit":
                async with self._context.transaction() as tx:
                    tx["n"] += 1
                    tx["new"] = value_of(number, size)
                    if operation == "commit":
                        self._wire.say(inside=True)
                        self._wire.hear()
            case _:
                self._context.set("new", value_of(number, size))
                await self._context.save()

    async def _change_several(self, number: int) -> None:
        """Let that many callers, which begin one after the other, count a key each; report the outcome of each."""

        async def change(caller: int) -> None:
            key = caller_key(caller)
            outcome, error = await _outcome(self._context.incr(key))
            self._wire.say(caller=key, outcome=outcome, error=repr(error))

        def change_in_a_thread(caller: int) -> None:
            with contextlib.suppress(StopIteration):
                change(caller).send(None)

        if self._face == "async":
            async with asyncio.TaskGroup() as tasks:
                for caller in range(number):
                    tasks.create_task(change(caller))
                    await asyncio.sleep(CALLER_SECONDS)
            return
        threads = [threading.Thread(target=change_in_a_thread, args=(caller,)) for caller in range(number)]
        for thread in threads:
            thread.start()
            time.sleep(CALLER_SECONDS)  # noqa: ASYNC251 (there is no loop)
        for thread in threads:
            thread.join()

    async def _attempt(self, operation: str, number: int, size: int) -> dict[str, Any]:
        """Do it, and report the outcome, according to the library."""
        outcome, error = await _outcome(self._change(operation, number, size))
        return {
            "outcome": outcome,
            "error": repr(error),
            "unsaved": sorted(self._plain.unsaved_keys()),
            "memory": {key: self._plain.get(key) for key in ("n", "new")},
        }


async def _outcome(change: Awaitable[object]) -> tuple[str, BaseException | None]:
    """Return the outcome of a change, in one word, and the error."""
    try:
        await change
    except DurabilityUnknownError as failure:
        return "unknown", failure
    except OSError as failure:
        return "refused", failure
    except BaseException as failure:  # noqa: BLE001 (a failure of another type is what is looked for)
        return "wrong", failure
    return "done", None


@contextlib.contextmanager
def _limited(bytes_in_file: int | None) -> Iterator[None]:
    """Limit the size of files that this process may write; Python ignores SIGXFSZ, so a write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if bytes_in_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_in_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _begin(wire: Wire, path: str, face: str, *, durable: bool, journal: bool | None) -> None:
    """Be a victim. The synchronous face has no loop: nothing that it awaits ever suspends."""
    logging.getLogger("persistent_context").addHandler(logging.NullHandler())  # warnings are expected
    vars(idle)["QUIET_SECONDS"] = NEVER_SECONDS  # only explicit checkpoints
    life = Victim(wire, face, durable=durable, journal=journal).live(path)
    if face == "async":
        asyncio.run(life)
    else:
        with contextlib.suppress(StopIteration):
            life.send(None)


def main() -> None:
    """Fork and reap on request, until the supervisor is gone."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    wire = Wire(channel)
    while (order := wire.hear()) is not None:
        if "reap" in order:
            wire.say(status=os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1]))
            continue
        wire.say(send=True)
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        pid = os.fork()
        if pid == 0:
            channel.close()
            status = 70
            try:
                own = Wire(socket.socket(fileno=descriptors[0]))
                _begin(own, order["path"], order["face"], durable=order["durable"], journal=order["journal"])
                status = 0
            except BaseException:  # noqa: BLE001 (told, and the process ends)
                traceback.print_exc()
            os._exit(status)
        os.close(descriptors[0])
        wire.say(pid=pid)


if __name__ == "__main__":
    main()
