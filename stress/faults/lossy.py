"""A file system in memory that forgets what was not synced: `python -m stress.faults.lossy MOUNTPOINT FD`.

After a power loss a file has the content of its last fsync, and a directory the names of its last fsync, or all its
names, since a disk may write those early. POSIX allows both.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from stress.faults.wire import Wire


@dataclass(slots=True, eq=False)
class Node:
    """A file or a directory: its present content, and what is kept of it."""

    mode: int
    owner: int = 0
    group: int = 0
    data: bytearray = field(default_factory=bytearray)
    kept_data: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    kept_names: dict[str, Node] = field(default_factory=dict)

    def forget(self, *, names_kept: bool) -> None:
        """Go back to what is kept, here and below."""
        self.data = bytearray(self.kept_data)
        self.names = dict(self.names if names_kept else self.kept_names)
        for node in self.names.values():
            node.forget(names_kept=names_kept)


class Lossy:
    """The callbacks of FUSE. Every change and every sync is a step; before a chosen one the power fails."""

    use_ns = True

    def __init__(self, wire: Wire) -> None:
        """Begin empty; nothing is mounted yet."""
        self._wire = wire
        self._root = Node(stat.S_IFDIR | 0o755)
        self._open: dict[int, Node] = {}
        self._handles = itertools.count(1)
        self._steps = 0
        self._last: int | None = None
        self._off = False

    # The orders of the supervisor, in a separate thread.

    def obey(self) -> None:
        """Obey until the supervisor is gone."""
        while (order := self._wire.hear()) is not None:
            if "lose_before" in order:
                self._steps, self._last, self._off = 0, order["lose_before"], False
            elif "restore" in order:
                self._root.forget(names_kept=order["names_kept"])
                self._open.clear()
                self._off, self._last = False, None
            self._wire.say(steps=self._steps, off=self._off)

    # The requests of the kernel, in the main thread.

    def init(self, _path: str) -> None:
        """Report that it is mounted."""
        self._wire.say(mounted=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Return what stat(2) says."""
        node = self._at(path, fh)
        return {
            "st_mode": node.mode,
            "st_nlink": 1,
            "st_size": len(node.data),
            "st_uid": node.owner,
            "st_gid": node.group,
        }

    def readdir(self, path: str, _fh: int) -> list[str]:
        """Return the names in a directory."""
        return [".", "..", *self._at(path).names]

    def open(self, path: str, _flags: int) -> int:
        """Open a file."""
        return self._handle(self._at(path))

    def create(self, path: str, mode: int) -> int:
        """Make a file; its name is kept when the directory is synced."""
        self._step()
        parent, name = self._parent(path)
        parent.names[name] = node = Node(stat.S_IFREG | mode)
        return self._handle(node)

    def mkdir(self, path: str, mode: int) -> int:
        """Make a directory."""
        self._step()
        parent, name = self._parent(path)
        parent.names[name] = Node(stat.S_IFDIR | mode)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read."""
        return bytes(self._at(path, fh).data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write; it is kept when the file is synced."""
        self._step()
        node = self._at(path, fh)
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Cut or extend."""
        self._step()
        node = self._at(path, fh)
        node.data[length:] = bytes(max(0, length - len(node.data)))
        return 0

    def rename(self, old: str, new: str) -> int:
        """Rename; it is kept when the directories are synced."""
        self._step()
        (source, name), (target, new_name) = self._parent(old), self._parent(new)
        target.names[new_name] = source.names.pop(name)
        return 0

    def unlink(self, path: str) -> int:
        """Remove a name."""
        self._step()
        parent, name = self._parent(path)
        del parent.names[name]
        return 0

    rmdir = unlink

    def chmod(self, path: str, mode: int) -> int:
        """Set the mode, which is kept at once."""
        node = self._at(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, owner: int, group: int) -> int:
        """Set the owner, which is kept at once."""
        node = self._at(path)
        node.owner, node.group = owner, group
        return 0

    def fsync(self, path: str, _datasync: int, fh: int) -> int:
        """Keep the content of a file."""
        self._step()
        node = self._at(path, fh)
        node.kept_data = bytes(node.data)
        return 0

    def fsyncdir(self, path: str, _datasync: int, _fh: int) -> int:
        """Keep the names in a directory."""
        self._step()
        node = self._at(path)
        node.kept_names = dict(node.names)
        return 0

    def release(self, _path: str, fh: int) -> int:
        """Close a file."""
        self._open.pop(fh, None)
        return 0

    def _step(self) -> None:
        self._steps += 1
        self._off = self._off or self._steps == self._last

    def _at(self, path: str, fh: int | None = None) -> Node:
        if self._off:
            raise OSError(errno.EIO, "the power is off")
        if fh is not None and fh in self._open:
            return self._open[fh]
        node = self._root
        for name in filter(None, path.split("/")):
            if name not in node.names:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            node = node.names[name]
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        directory, name = os.path.split(path)
        return self._at(directory), name

    def _handle(self, node: Node) -> int:
        handle = next(self._handles)
        self._open[handle] = node
        return handle


def main() -> None:
    """Serve until it is unmounted, or the supervisor is gone."""
    mountpoint, descriptor = sys.argv[1], int(sys.argv[2])
    wire = Wire(socket.socket(fileno=descriptor))
    fuse: Any = importlib.import_module("mfusepy")
    operations = type("Operations", (Lossy, fuse.Operations), {})(wire)

    def obey() -> None:
        operations.obey()
        subprocess.run(["umount", "--lazy", mountpoint], check=False, stderr=subprocess.DEVNULL)
        os._exit(0)

    threading.Thread(target=obey, daemon=True).start()
    options: dict[str, Any] = dict.fromkeys(("entry_timeout", "attr_timeout", "negative_timeout"), 0)
    options["hard_remove"] = True  # else a file that is replaced while it is open stays, under another name
    if fuse.fuse_version_major == 2:  # noqa: PLR2004 (its later versions do so by themselves)
        options["big_writes"] = True  # else each write is cut into pages
    fuse.FUSE(operations, mountpoint, foreground=True, nothreads=True, fsname="lossy", **options)


if __name__ == "__main__":
    main()
