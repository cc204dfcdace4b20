"""The holder of a lock file, and the processes that wait for it, according to the kernel."""

from __future__ import annotations

from pathlib import Path

WAITS = "->"


def holds(pid: int, path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    return (pid, False) in _of(path)


def waits(pid: int, path: Path) -> bool:
    """Return whether a process waits for the lock of a file."""
    return (pid, True) in _of(path)


def _of(path: Path) -> set[tuple[int, bool]]:
    """Return the processes that hold or wait for the lock of a file, and whether they wait."""
    inode = str(path.stat().st_ino)
    found = set()
    for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        is_waiting = WAITS in fields
        if is_waiting:
            fields.remove(WAITS)
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
            found.add((int(fields[4]), is_waiting))
    return found
