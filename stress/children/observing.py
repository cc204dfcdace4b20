"""A process that writes nothing and watches every file of the run. `python -m stress.children.observing ASSIGNMENT`.

It watches each file twice: a thread through the synchronous face, and a task through the other one. It is stopped when
no process writes any more, and waits until every watcher knows the content of its file, or has had enough time to.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any

from persistent_context import MISSING, Change, PersistentContext, SyncPersistentContext
from stress.children.assignment import Assignment, prepare
from stress.logs.gist import gist
from stress.logs.history import Log
from stress.logs.scribe import Desk, Scribe

SHORTEST_WAIT = 0.001
LONGEST_WAIT = 0.5
"""Seconds after which a task stops waiting for changes, and starts again: no change may get lost by that."""
LONGEST_NAP = 0.2
"""The longest time between two fetches of a watcher, in seconds: changes that were not fetched may not get lost."""
LOOK_EVERY = 0.1
"""Seconds, at the end."""


class Watcher:
    """What one watcher of one file has been told."""

    def __init__(self, scribe: Scribe, name: str, location: str, random: Random) -> None:
        """Prepare; it knows nothing yet."""
        self.scribe = scribe
        self.name = name
        """The name of the file in the logs."""
        self.location = location
        self._random = random
        self._known: dict[str, Any] = {}
        self._guard = threading.Lock()

    def begin(self, data: Mapping[str, Any]) -> None:
        """Log what the context holds before anything is reported."""
        with self.scribe.operation("known", self.name) as entry, self._guard:
            self._known = _gists(data)
            entry.result = dict(self._known)

    def tell(self, changes: Mapping[str, Change]) -> float:
        """Log what was reported; return how many seconds the watcher may sleep now."""
        with self.scribe.operation("told", self.name) as entry, self._guard:
            entry.result = {key: _gist(change.new) for key, change in changes.items()}
            wrong = {key for key, change in changes.items() if _gist(change.old) != self._known.get(key)}
            if wrong:
                entry.note({"unexpected": sorted(wrong)})
            self._known |= entry.result
        return self._random.choice([0.0, self._random.uniform(0.0, LONGEST_NAP)])

    def patience(self) -> float:
        """Return how many seconds to wait for changes: often too few to read the file."""
        return math.exp(self._random.uniform(math.log(SHORTEST_WAIT), math.log(LONGEST_WAIT)))

    def knows(self, content: Mapping[str, Any]) -> bool:
        """Return whether it has been told this content of the file."""
        with self._guard:
            return {key: value for key, value in self._known.items() if value is not None} == content


def _gist(value: Any) -> Any:
    return None if value is MISSING else gist(value)


def _gists(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: gist(value) for key, value in data.items()}


def content_of(location: str) -> dict[str, Any]:
    """Return the content of a file, as watchers know it."""
    return _gists(SyncPersistentContext.create(location).get_all_data())


class Observatory:
    """The process: all watchers of all files."""

    def __init__(self, assignment: Assignment, desk: Desk) -> None:
        """Prepare; nothing is opened yet."""
        self._assignment = assignment
        self._desk = desk
        self._over = threading.Event()
        self._of_tasks = [self._watcher("task", name) for name in assignment.states]
        self._of_threads = [self._watcher("thread", name) for name in assignment.states]

    def run(self) -> None:
        """Watch until asked to stop, and then until everything has been reported."""
        with ThreadPoolExecutor(len(self._of_threads) + 1) as pool:
            parts = [pool.submit(self._watch_blocking, watcher) for watcher in self._of_threads]
            parts.append(pool.submit(asyncio.run, self._watch_all()))
            self._desk.stop.wait()
            self._wait_for_the_last()
            self._over.set()
            for part in parts:
                part.result()

    def _wait_for_the_last(self) -> None:
        """Wait until every watcher knows the content of its file, or has had enough time to."""
        deadline = time.monotonic() + self._assignment.patience
        waiting = [*self._of_tasks, *self._of_threads]
        # Read once, as nothing writes any more: reading all the time would keep the watchers' threads from running.
        contents = {location: content_of(location) for location in {watcher.location for watcher in waiting}}
        while waiting and time.monotonic() < deadline and not self._desk.crashed:
            time.sleep(LOOK_EVERY)
            waiting = [watcher for watcher in waiting if not watcher.knows(contents[watcher.location])]

    def _watch_blocking(self, watcher: Watcher) -> None:
        with watcher.scribe.operation("watch", watcher.name):
            context = SyncPersistentContext.create(watcher.location)
            watcher.begin(context.get_all_data())
            with context.watch() as watch:
                threading.Thread(target=self._close_at_the_end, args=(watch,), daemon=True).start()
                for changes in watch:
                    self._over.wait(watcher.tell(changes))

    def _close_at_the_end(self, watch: Any) -> None:
        self._over.wait()
        watch.close()

    async def _watch_all(self) -> None:
        await asyncio.gather(*(self._watch(watcher) for watcher in self._of_tasks))

    async def _watch(self, watcher: Watcher) -> None:
        with watcher.scribe.operation("watch", watcher.name):
            context = await PersistentContext.create(watcher.location)
            watcher.begin(context.get_all_data())
            watch = context.watch()
            while not self._over.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(watcher.patience()):
                        changes = await anext(watch)
                    await asyncio.sleep(watcher.tell(changes))
            await watch.aclose()

    def _watcher(self, face: str, name: str) -> Watcher:
        who = f"{self._assignment.name}.{face}-{name}"
        random = Random(f"{self._assignment.seed} {who}")
        location = self._assignment.location(name)
        return Watcher(Scribe(self._desk, who), self._assignment.file(name).name, location, random)


def main() -> int:
    """Watch as the command line says until asked to stop; return the exit code."""
    assignment = Assignment.from_command_line()
    desk = Desk(Log(assignment.log), "observing", prepare(assignment))
    Observatory(assignment, desk).run()
    return int(desk.crashed)


if __name__ == "__main__":
    sys.exit(main())
