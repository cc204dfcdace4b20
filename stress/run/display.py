"""The live progress of a run."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stress.run.supervisor import Run

INTERVAL = 0.25
"""Seconds between two updates."""


class Display:
    """A line that shows the time, the acknowledged operations and the kills."""

    def __init__(self, console: Console, run: Run, *, shown: bool) -> None:
        """Prepare the line; nothing is shown yet."""
        self._run = run
        self._next = 0.0
        self._told = 0
        self._progress = Progress(
            TimeElapsedColumn(),
            BarColumn(),
            TextColumn("{task.fields[acknowledged]:,} acknowledged, {task.fields[kills]} killed"),
            console=console,
            transient=True,
            disable=not shown,
        )
        self._line = self._progress.add_task("", total=run.plan.seconds, acknowledged=0, kills=0)

    def __enter__(self) -> Self:
        """Show the line."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        self._progress.stop()

    def update(self) -> None:
        """Update the line, if it is time to; first say what is not done, although it may be expected."""
        for remark in self._run.course.remarks[self._told :]:
            self._progress.console.print(remark, style="bold yellow", highlight=False, soft_wrap=True)
            self._told += 1
        if self._progress.disable or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + INTERVAL
        course = self._run.course
        self._progress.update(
            self._line, completed=course.seconds, acknowledged=self._run.acknowledged(), kills=course.kills
        )
