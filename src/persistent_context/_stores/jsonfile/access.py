"""File permissions: a file that this package creates beside the JSON file never admits more users than that file."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import sys
from typing import Final

from ..._model.values import Frozen
from .accesslist import given_away, mode_of

_ACL: Final = "system.posix_acl_access"


class Access(Frozen, frozen=True):
    """The owners, mode and access list of a file."""

    status: os.stat_result
    acl: bytes | None

    @classmethod
    def of(cls, path: str) -> Access | None:
        """Return the access of the file at a path, or None if there is none."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        return cls(status, _acl(path))

    @classmethod
    def of_open(cls, fd: int) -> Access:
        """Return the access of an open file."""
        return cls(os.fstat(fd), _acl(fd))

    def give_to(self, fd: int, status: os.stat_result, mask: int = 0o7777) -> None:
        """Apply it to an open file of ours: never more, and less where the system does not permit it.

        Args:
            fd: the file.
            status: its status.
            mask: the permissions that it may have at most.
        """
        if sys.platform == "win32" or not stat.S_ISREG(self.status.st_mode):
            return
        model = self.status
        mode = stat.S_IMODE(model.st_mode) & mask
        owners = (model.st_uid, model.st_gid)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, *owners) and self.acl is None:
            return
        if status.st_uid not in (os.geteuid(), model.st_uid) and os.geteuid() != 0:
            return  # a lock file that is not ours
        acl, given = self.acl, (status.st_uid, status.st_gid)
        if given != owners:
            try:
                os.fchown(fd, *owners)
            except PermissionError:
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, -1, model.st_gid)
            now = os.fstat(fd)
            given = (now.st_uid, now.st_gid)
        if acl is not None and given != owners:
            acl = given_away(acl, owners, given)
            mode = (stat.S_IMODE(model.st_mode) & ~0o777 | mode_of(acl)) & mask
        elif given[1] != model.st_gid:
            mode &= ~0o070 | (mode & 0o007) << 3  # a different group gets no more than others
        with contextlib.suppress(PermissionError):  # no longer ours after fchown, if not root
            _give_acl(fd, acl)
            os.fchmod(fd, mode)


def check_writable(path: str) -> None:
    """Raise PermissionError for a file that this process may not write, even if its directory permits replacing it."""
    may_write = functools.partial(os.access, path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    if not may_write() and os.path.isfile(path) and not may_write():  # again: it may have been created in between
        raise PermissionError(errno.EACCES, "the file is not writable by this user, so it is not replaced", path)


def _give_acl(fd: int, acl: bytes | None) -> None:
    # With an access list, the group bits of the mode are its mask: without the list they would grant more.
    if sys.platform != "linux":
        return
    if acl is not None:
        os.setxattr(fd, _ACL, acl)
    else:  # inherited from the directory's default
        with contextlib.suppress(OSError):
            os.removexattr(fd, _ACL)


def _acl(file: str | int) -> bytes | None:
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(file, _ACL) or None
    except OSError:  # ENODATA, or a file system without access lists
        return None
