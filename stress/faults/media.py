"""File systems whose power can be cut: the lossy one and images of real ones, under one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from stress.faults import forgetful, image
from stress.faults.forgetful import LossyMount
from stress.faults.image import Image
from stress.faults.lab import Lab

LOSSY = "lossy"
MEDIA = (LOSSY, *image.KINDS)


class Medium(Protocol):
    """A mounted file system."""

    root: Path

    def cut_power(self) -> None:
        """Lose everything that was not made durable, and go on with what is left."""

    def close(self) -> None:
        """Unmount it."""


def mount(kind: str, lab: Lab) -> Medium:
    """Mount one of `MEDIA` until the scenario ends.

    Raises:
        CannotSetUpError: the machine lacks something for it.
    """
    directory = lab.fresh().parent
    return lab.keep(LossyMount(directory) if kind == LOSSY else Image(kind, directory))


def missing(kind: str) -> tuple[str, str] | None:
    """Return what this machine lacks for one of `MEDIA`, and how to get it."""
    return forgetful.missing() if kind == LOSSY else image.missing(kind)
