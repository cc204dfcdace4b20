"""Real file systems for a test: loop-mounted images whose power can be cut, and small tmpfs that fill up."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stress.faults.lab import CannotSetUpError

SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN of Linux."""
NO_LOG_FLUSH = 2
"""FS_SHUTDOWN_FLAGS_NOLOGFLUSH: what is not yet in the file system's journal is lost, as in a power loss."""
KINDS = {
    "xfs": (300, ["mkfs.xfs", "-q", "-f"], "loop", "xfsprogs"),
    "ext4": (32, ["mkfs.ext4", "-q", "-F"], "loop,noauto_da_alloc", "e2fsprogs"),
}
"""Size of the image in MiB, command that makes it, mount options, package. XFS images cannot be smaller.

`noauto_da_alloc`, since ext4 otherwise forgives the rename of an unsynced file.
"""
RIGHTS = "run as root in a container that may mount (docker: --privileged)"


def missing(kind: str | None = None) -> tuple[str, str] | None:
    """Return what this machine lacks for mounts, as far as can be seen without mounting, and how to get it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounts need root on Linux", RIGHTS
    if kind is None:
        return None
    _, make, _, package = KINDS[kind]
    if shutil.which(make[0]) is None:
        return f"{make[0]} is not installed", f"apt-get install {package}"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices", f"modprobe loop; {RIGHTS}"
    return None


@contextmanager
def mounted(mountpoint: Path, *command: str) -> Iterator[None]:
    """Mount for the length of a block."""
    _mount(mountpoint, *command)
    try:
        yield
    finally:
        unmount(mountpoint)


class Image:
    """A mounted image of a file system.

    Args:
        kind: one of `KINDS`.
        directory: an empty directory for the image and its mount point.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        """Make and mount it.

        Raises:
            CannotSetUpError: the machine lacks something for it.
        """
        size, make, options, _ = KINDS[kind]
        self._file = directory / "image"
        self.root = directory / "mounted"
        self.root.mkdir()
        self._command = ("-t", kind, "-o", options, str(self._file))
        with self._file.open("wb") as image:
            image.truncate(size * 1024 * 1024)
        made = subprocess.run([*make, str(self._file)], capture_output=True, text=True, check=False)
        if made.returncode:
            msg = f"{make[0]}: {made.stderr.strip()}"
            raise CannotSetUpError(msg, f"update {make[0]}")
        _mount(self.root, *self._command)

    def cut_power(self) -> None:
        """Lose everything that was not made durable, and mount what is left."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        unmount(self.root)
        _mount(self.root, *self._command)

    def close(self) -> None:
        """Unmount and remove it."""
        unmount(self.root)
        self._file.unlink()


def unmount(mountpoint: Path) -> None:
    """Unmount, if it is mounted; if a file is open, the mount ends when that is closed."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")  # stat(2) fails on a dead one
    if f" {mountpoint} " in mounts and subprocess.run(["umount", mountpoint], check=False).returncode:
        subprocess.run(["umount", "--lazy", mountpoint], check=True)


def _mount(mountpoint: Path, *command: str) -> None:
    done = subprocess.run(["mount", *command, str(mountpoint)], capture_output=True, text=True, check=False)
    if done.returncode:
        msg = done.stderr.partition("\n")[0]
        raise CannotSetUpError(msg, RIGHTS)
