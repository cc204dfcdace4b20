"""The demonstration: processes increment a counter in one file, some are killed, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from .._api.blocking import SyncPersistentContext

_LOOK_SECONDS: Final = 0.1
_KILL_EVERY_LOOKS: Final = 5
_PIPE_BYTES: Final = 65536
_COUNT: Final = """
import sys
from persistent_context import SyncPersistentContext
ctx = SyncPersistentContext(sys.argv[1])
while True:
    ctx.incr("count")
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
"""


class _Counter:
    """A process that counts, and reports each acknowledged count."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _COUNT, path],
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C reaches only the demonstration, which then kills it
        )
        assert self._process.stdout is not None, "a pipe"
        self._output = self._process.stdout
        self.acknowledged = 0
        self.failed = False
        self.pid = self._process.pid

    def await_first(self) -> None:
        """Wait until it has counted for the first time, or has failed; call this before listening."""
        self.acknowledged = len(self._output.read(1))
        os.set_blocking(self._output.fileno(), False)

    def listen(self) -> None:
        """Note what was acknowledged since the last call."""
        while said := self._output.read(_PIPE_BYTES):
            self.acknowledged += len(said)

    def kill(self) -> None:
        """Kill the process with SIGKILL; note what it had acknowledged, and whether it had already ended."""
        self.failed = self._process.poll() is not None
        self._process.kill()
        self._process.wait()
        self.listen()
        self._output.close()


def run(processes: int, seconds: float, console: Console) -> bool | None:
    """Run the demonstration; return whether nothing was lost, or None after a Ctrl-C. Blocks."""
    with _noticed_interrupts() as interrupts, tempfile.TemporaryDirectory(prefix="persistent-context-demo-") as place:
        path = os.path.join(place, "demo.json")
        console.print(f"{processes} processes increment a counter in {path} durably; one is killed every half second.")
        living: list[_Counter] = []
        killed: list[_Counter] = []
        try:
            _start(living, path, processes)
            with Live(console=console, transient=True) as live:
                for turn in range(1, 1 + round(seconds / _LOOK_SECONDS)):
                    time.sleep(_LOOK_SECONDS)
                    if interrupts:
                        return None
                    if turn % _KILL_EVERY_LOOKS == 0:
                        victim = living.pop(0)
                        victim.kill()
                        killed.append(victim)
                        _start(living, path, 1)
                    for counter in living:
                        counter.listen()
                    live.update(_table(living, killed))
        finally:
            for counter in living:
                counter.kill()
        console.print(_table(living, killed))
        count: int = SyncPersistentContext.create(path).get("count", 0)
    everyone = living + killed
    acknowledged = sum(counter.acknowledged for counter in everyone)
    kept = 0 < acknowledged <= count <= acknowledged + len(everyone) and not any(one.failed for one in everyone)
    console.print(
        f"Acknowledged: {acknowledged}. In the file: {count}; each process may have made one more, unacknowledged."
    )
    console.print("[bold green]Nothing was lost.[/]" if kept else "[bold red]COUNTS WERE LOST, or a process failed.[/]")
    return kept


@contextlib.contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """Yield a list that grows with each Ctrl-C: an exception could come between beginning something and noting it."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _start(living: list[_Counter], path: str, processes: int) -> None:
    """Start processes, and wait until each has counted."""
    for _ in range(processes):
        living.append(_Counter(path))  # noqa: PERF401 - each is noted at once, so that it is always killed
    for counter in living[-processes:]:
        counter.await_first()


def _table(living: list[_Counter], killed: list[_Counter]) -> Table:
    table = Table("process", Column("acknowledged", justify="right"), "")
    for counter in living:
        table.add_row(str(counter.pid), str(counter.acknowledged))
    table.add_row(f"{len(killed)} more", str(sum(counter.acknowledged for counter in killed)), "killed by SIGKILL")
    return table
