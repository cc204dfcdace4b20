"""The doctor's checks of a file's surroundings: mount point, attributes, file system, permissions and free space."""

from __future__ import annotations

import array
import contextlib
import os
import re
import shutil
import stat
import struct
import sys
from collections.abc import Iterator
from shlex import quote
from typing import Final

from .findings import Finding, Level

if sys.platform != "win32":  # pragma: no branch - Windows has no fcntl
    import fcntl

_GET_FLAGS: Final = 0x80006601 | struct.calcsize("l") << 16
"""FS_IOC_GETFLAGS of Linux; other systems refuse it."""
_IMMUTABLE: Final = 0x10
_APPEND_ONLY: Final = 0x20
_KNOWN: Final = {
    **dict.fromkeys(
        ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "xfs", "zfs"),
        (Level.OK, "locks, renames and fsync can be trusted", ""),
    ),
    **dict.fromkeys(("ramfs", "tmpfs"), (Level.WARNING, "kept in memory, and lost on reboot", "")),
    **dict.fromkeys(
        ("9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "virtiofs"),
        (
            Level.PROBLEM,
            "locks, renames and fsync cannot be trusted between hosts",
            "use a local disk; for several hosts, a server such as Redis, etcd or PostgreSQL",
        ),
    ),
}
"""Findings by type of file system."""


def mount_point(path: str) -> Iterator[Finding]:
    if os.fsencode(path) in (point for point, _ in _mounts()):
        yield Finding(
            Level.PROBLEM,
            "mount",
            f"{path} is itself a mount point, such as a file bind-mounted into a container, and cannot be replaced",
            "mount its directory instead",
        )


def attributes(path: str, directory: str) -> Iterator[Finding]:
    """Report attributes of Linux file systems that prevent even root from replacing the file; see chattr(1)."""
    for place in (path, f"{path}.lock", f"{path}.journal", directory):
        flags = _flags(place)
        for flag, letter, name in ((_IMMUTABLE, "i", "immutable"), (_APPEND_ONLY, "a", "append-only")):
            if flags & flag:
                yield Finding(
                    Level.PROBLEM,
                    "attributes",
                    f"{place} is {name}, so no user can save",
                    f"chattr -{letter} {quote(place)}",
                )


def _flags(path: str) -> int:
    """Return the attributes of a file or directory; 0 if there are none, or they cannot be read."""
    flags = array.array("i", [0])
    if sys.platform == "win32":  # pragma: no cover - it has no such attributes
        return 0
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.ioctl(fd, _GET_FLAGS, flags)
        finally:
            os.close(fd)
    return flags[0]


def file_system(path: str) -> Finding:
    kind = _kind_of_file_system(os.path.dirname(path))
    level, text, advice = _KNOWN.get(kind, (Level.WARNING, "its locks may not work", "the trial tests them"))
    return Finding(level, "file system", f"{kind}: {text}", advice)


def _kind_of_file_system(directory: str) -> str:
    """Return the type of the file system that is mounted nearest above a real directory; see proc(5), mountinfo."""
    target = os.fsencode(directory)
    kind, longest = "an unknown file system", 0
    for point, its_kind in _mounts():
        if len(point) >= longest and os.path.commonpath([point, target]) == point:  # the last one hides the others
            kind, longest = its_kind, len(point)
    return kind


def _mounts() -> Iterator[tuple[bytes, str]]:
    """Yield where something is mounted, and the type of its file system."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/mountinfo", "rb") as lines:  # only on Linux
        for line in lines:
            fields, _, rest = line.partition(b" - ")
            point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields.split()[4])
            yield point, rest.split()[0].decode()


def access(directory: str) -> Finding:
    if not may(directory, os.W_OK | os.X_OK):  # pragma: no cover - tested as a user who may not write coverage's data
        return Finding(
            Level.PROBLEM,
            "access",
            f"this user cannot write to {directory}, so the file can be read but not saved",
            "the file is replaced, not written in place: give this user write permission on the directory",
        )
    mode = os.stat(directory).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return Finding(
            Level.WARNING,
            "access",
            "anyone can write to the directory, and so remove or replace the file and its lock",
            f"chmod o-w {quote(directory)}",
        )
    return Finding(Level.OK, "access", "this user may write to the directory")


def space(path: str) -> Finding:
    free = shutil.disk_usage(os.path.dirname(path)).free
    needed = 2 * os.path.getsize(path) if os.path.isfile(path) else 4096
    if free < needed:
        return Finding(Level.PROBLEM, "space", f"only {free} bytes are free; a save needs up to {needed}")
    return Finding(Level.OK, "space", f"{free // 2**20} MB are free")


def may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
