"""Leases: files beside the JSON file, each locked by the kernel and holding a number that only grows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
from typing import Final

from ..._model.snapshot import Changes
from ...errors import NotARegularFileError
from ...types import Holder
from ..protocol import NUMBER, Traffic
from .document import EMPTY, Document
from .flock import fork_gate, try_lock
from .lock import FileLock, HeldLock
from .names import beside, shortened
from .opening import NO_FOLLOW, NO_WAIT, open_fd, read_at, write_at
from .stamp import STAMP_BYTES
from .syncing import sync_data, sync_directory

_READABLE_CHARACTERS: Final = 24
_NUMBER: Final = re.compile(rb"([1-9][0-9]{0,15})\n")
_NUMBER_BYTES: Final = 17
_UNUSED_SECONDS: Final = 24 * 60 * 60
"""How long an unused lease file is kept: much longer than the system ever sets its clock back."""
_TRIES: Final = 5
"""How often to try a lease without a holder: a program that looks for the holder may hold it for an instant."""


class Leases:
    """The leases beside a file.

    Args:
        data_path: the real path of the file.
    """

    def __init__(self, data_path: str) -> None:
        self._data_path: Final = data_path
        self._has_swept = False

    def lease(self, name: str, *, lasting: bool) -> FileLease:
        """Return the lease of a name; see :meth:`Store.lease`."""
        return FileLease(self, lease_path(self._data_path, name, lasting=lasting), self._data_path, lasting=lasting)

    def sweep(self) -> None:
        """Remove the lease files that have not been used for a day; done once per process."""
        if self._has_swept:
            return
        self._has_swept = True
        start = re.escape(shortened(os.path.basename(self._data_path)))
        pattern = re.compile(rf"{start}\.(lease|once)-[\w.-]{{0,{_READABLE_CHARACTERS}}}-[0-9a-f]{{16}}", re.ASCII)
        for path in beside(self._data_path, pattern):
            with contextlib.suppress(OSError):  # gone, a link, or another user's
                _remove_if_unused(path)


class FileLease:
    """Exclusive access to a name; see :class:`Sessions`.

    The lease's file is locked in the same way as the lock file. It stays when the lease is released, as the number in
    it has to grow. The file of a lease that is not ``lasting`` is removed under its lock; waiting calls notice this,
    and lock the next one.

    Args:
        leases: the leases beside the same file.
        path: the lease's own file.
        data_path: the file whose permissions it has.
        lasting: see :meth:`Store.lease`.
    """

    def __init__(self, leases: Leases, path: str, data_path: str, *, lasting: bool) -> None:
        self.path: Final = path
        self._leases: Final = leases
        self._lasting: Final = lasting
        self._lock: Final = FileLock(path, data_path)

    def begin(self, purpose: str, *, wait: bool, exclusive: bool = True) -> LeaseSession | None:  # noqa: ARG002 - always
        """Lock the file, and increase its number; see :meth:`Sessions.begin`."""
        began = time.monotonic()
        held = self._lock.acquire(purpose, wait=wait)
        for _ in range(_TRIES):
            if held is not None or wait or self._lock.holder(probe=True) is not None:
                break
            held = self._lock.acquire(purpose, wait=False)
        if held is None:
            return None
        waited = time.monotonic() - began if held.waited else 0.0
        try:
            self._leases.sweep()
            return LeaseSession(held, next_token(held) if self._lasting else None, waited)
        except BaseException:
            held.release()
            raise

    def is_waiting(self) -> bool:
        """Whether a thread waits for the lease; see :meth:`Sessions.is_waiting`."""
        return self._lock.is_waiting()

    def abandon_vain_wait(self) -> bool:
        """End a wait for a file that was deleted; see :meth:`Sessions.abandon_vain_wait`."""
        return self._lock.abandon_vain_wait()

    def holder(self, *, probe: bool = True) -> Holder | None:
        """Return the holder of the lease; see :meth:`Sessions.holder`."""
        return self._lock.holder(probe=probe)

    def traffic(self) -> Traffic:
        """Return zeros: the traffic of leases is not counted."""
        return Traffic()

    def close(self) -> None:
        """Close the file, unless it is locked."""
        self._lock.close()

    def after_fork_in_child(self) -> None:
        """Close the file in a forked child; the lease stays with the parent."""
        self._lock.after_fork_in_child()


class LeaseSession:
    """A held lease; its state is its token. See :class:`Session`.

    Args:
        held: the lock of its file.
        token: the token; None if the lease is not lasting.
        waited: how long acquiring it had to wait, in seconds.
    """

    is_exclusive = True

    def __init__(self, held: HeldLock, token: int | None, waited: float) -> None:
        self.waited = waited
        self.held = 0.0
        self.bytes_written = 0
        self.snapshot: Final = EMPTY if token is None else EMPTY.changed({NUMBER: b"%d" % token})
        self._is_lasting: Final = token is not None
        self._lock: Final = held
        self._since: Final = time.monotonic()
        self._is_open = True

    def set_aside(self) -> None:
        """Do nothing: a token cannot be corrupt. See :meth:`Session.set_aside`."""

    def commit(self, changes: Changes, *, durable: bool) -> Document:  # noqa: ARG002 - a lease has nothing to write
        """Check that no other process can have held the lease since it was acquired; see :meth:`Session.commit`."""
        if self._is_lasting:
            self._lock.check()
        return self.snapshot

    def close(self) -> None:
        """Release the lease."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            if not self._is_lasting and self._lock.file.status_at_path():
                with contextlib.suppress(OSError):  # Windows does not remove an open file
                    os.unlink(self._lock.file.path)
        finally:
            self._lock.release()
            self.held = time.monotonic() - self._since


def lease_path(data_path: str, name: str, *, lasting: bool) -> str:
    """Return the path of a lease's file: the readable part of the name, and a digest, as any string may be a name."""
    directory, data_name = os.path.split(data_path)
    readable = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:_READABLE_CHARACTERS]
    digest = hashlib.sha256(f"{data_name}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    kind = "lease" if lasting else "once"
    return os.path.join(directory, f"{shortened(data_name)}.{kind}-{readable}-{digest}")


def next_token(held: HeldLock) -> int:
    """Return a number greater than all earlier ones, and store it in the locked file; it survives a power loss.

    The number is the time in microseconds, or one more than the last number if that is greater. So it grows even if
    the clock is set back, as long as the file exists; and even if the file is deleted or restored from a backup, as
    long as the clock is right.

    Raises:
        NotARegularFileError: the file does not belong to this package, and is not written to.
        OSError: it cannot be written.
    """
    file = held.file
    if not held.is_stamped:
        message = "the lease file is a hard link, or another program's file; remove it"
        raise NotARegularFileError(errno.EINVAL, message, file.path)
    found = _NUMBER.fullmatch(read_at(file.fd, STAMP_BYTES, _NUMBER_BYTES))
    last = int(found[1]) if found else 0
    token = max(last + 1, time.time_ns() // 1000)
    write_at(file.fd, STAMP_BYTES, b"%d\n" % token)
    sync_data(file.fd)
    if not found:
        sync_directory(os.path.dirname(file.path))
    return token


def _remove_if_unused(path: str) -> None:
    with fork_gate:  # a child that inherited the lock would keep it
        fd = open_fd(path, os.O_RDWR | NO_FOLLOW | NO_WAIT)
        try:
            status = os.fstat(fd)
            is_unused = stat.S_ISREG(status.st_mode) and status.st_mtime < time.time() - _UNUSED_SECONDS
            if is_unused and try_lock(fd) and os.path.samestat(status, os.lstat(path)):
                os.unlink(path)
        finally:
            os.close(fd)
