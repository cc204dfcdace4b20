"""The lock file: opening it, creating it if it is missing, and checking that it is still the one at its path."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from ...errors import NotARegularFileError
from .flock import fork_gate
from .opening import NO_FOLLOW, NO_WAIT, check_regular, is_descriptor_of, loop_of_links, not_a_regular_file, open_fd
from .syncing import make_directories

_ATTEMPTS: Final = 100


class LockFile:
    """An open lock file. While it is open, its inode number cannot be reused."""

    __slots__ = ("directory_is_durable", "fd", "is_new", "path", "status")

    def __init__(self, path: str, fd: int) -> None:
        self.path: Final = path
        self.fd = fd
        """The descriptor; -1 once it is closed."""
        self.status: os.stat_result
        self.is_new = True
        """Whether it has not been locked yet."""
        self.directory_is_durable = False
        """Whether this process has made its directory survive a power loss."""

    def status_at_path(self) -> os.stat_result | None:
        """Return its current status, or None if it is closed or the path no longer names it."""
        try:
            status = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if self.fd >= 0 and os.path.samestat(status, self.status) else None

    def has_its_descriptor(self) -> bool:
        """Whether its descriptor is still that of this file: the program may have closed it by mistake."""
        return is_descriptor_of(self.fd, self.status)

    def close(self) -> None:
        """Close it; this also unlocks it, unless a forked child inherited it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # the descriptor is gone whatever close(2) returns
                os.close(fd)


class LockFiles:
    """Opens lock files, and keeps track of the open ones, since a forked child has to close them.

    Args:
        path: the path of the lock file.
        data_path: the file that it protects.
    """

    def __init__(self, path: str, data_path: str) -> None:
        self._path: Final = path
        self._data_path: Final = data_path
        self._open: set[LockFile] = set()

    def open(self) -> LockFile:
        """Open the lock file; create it and its directory if they are missing.

        Raises:
            NotARegularFileError: it is not a regular file but, for example, a link.
            OSError: raised by the system.
        """
        with self.explaining():
            file = self._open_or_make()
        try:
            file.status = os.fstat(file.fd)
            check_regular(self._path, file.status)
        except BaseException:
            self.close(file)
            raise
        return file

    def close(self, file: LockFile) -> None:
        """Close one of them."""
        with fork_gate:
            self._open.discard(file)
            file.close()

    def forget(self, file: LockFile) -> None:
        """Give up a descriptor that was closed elsewhere, and whose number may have been reused."""
        self._open.discard(file)
        file.fd = -1

    def descriptors(self) -> list[int]:
        """Return the descriptors of the open lock files."""
        return [file.fd for file in list(self._open)]

    def close_all(self) -> None:
        """Close all open lock files."""
        while self._open:
            self._open.pop().close()

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Explain an error in opening the lock file if it is not a regular file."""
        try:
            yield
        except OSError as error:
            if explained := self._explained(error):
                raise explained from error
            raise

    def _open_or_make(self) -> LockFile:
        flags = os.O_RDWR | NO_FOLLOW | NO_WAIT
        for _ in range(_ATTEMPTS):  # others may create it concurrently, or remove the directory
            with contextlib.suppress(FileNotFoundError):
                return self._open_fd(flags)
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                make_directories(os.path.dirname(self._path))
                mode = 0o600 if os.path.exists(self._data_path) else 0o666  # widened when it is locked
                return self._open_fd(flags | os.O_CREAT | os.O_EXCL, mode)
        return self._open_fd(flags)

    def _open_fd(self, flags: int, mode: int = 0o666) -> LockFile:
        with fork_gate:  # a child must know of every descriptor that it inherits
            file = LockFile(self._path, open_fd(self._path, flags, mode))
            self._open.add(file)
        return file

    def _explained(self, error: OSError) -> NotARegularFileError | None:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            if not os.path.islink(self._path):
                return loop_of_links(self._path)
            message = "the lock file is a symbolic link, which is never followed; remove it"
            return NotARegularFileError(error.errno, message, self._path)
        if error.errno in (errno.EISDIR, errno.ENXIO):
            return not_a_regular_file(self._path, os.lstat(self._path).st_mode)
        return None
