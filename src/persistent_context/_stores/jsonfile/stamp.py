"""The content of the lock file: the holder of the lock, as recorded by the holder itself.

The content is untrusted: a bounded part of it is read, checked and shown, but never relied on for locking.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from typing import Any, Final

from ...types import Holder

STAMP_BYTES: Final = 512
_MAGIC: Final = b'{"persistent_context":'
_LONGEST_NAME: Final = 64
_STOPPED: Final = "T"  # not "t", stopped by a tracer: under strace that is temporary, and SIGCONT does not end it
_DEAD: Final = ("Z", "X")  # a zombie holds no locks


def _padded(content: bytes) -> bytes:
    return (_MAGIC + b" " + content + b"}").ljust(STAMP_BYTES - 1) + b"\n"


VOLATILE_STAMP: Final = _padded(b'"volatile"')
"""The lock is not held, and no call has promised yet that anything in the file survives a power loss."""
UNSYNCED_STAMP: Final = _padded(b'"unsynced"')
"""The lock is not held; a call has promised this, but it is not recorded that the directory survives a power loss."""
EMPTY_STAMP: Final = _padded(b"null")
"""The lock is not held; a call has promised this, and the directory survives a power loss."""
_WITHOUT_HOLDER: Final = frozenset({b"", VOLATILE_STAMP, UNSYNCED_STAMP, EMPTY_STAMP})
_PROMISED: Final = b'"promised": true'


def is_stamp(content: bytes) -> bool:
    """Whether the start of a lock file is a stamp or empty: anything else is foreign, and is not overwritten."""
    return not content or content.startswith(_MAGIC)


def is_of_holder(stamp: bytes) -> bool:
    """Whether a stamp is that of a holder that has not erased it."""
    return stamp not in _WITHOUT_HOLDER


def tells_of_promises(stamp: bytes) -> bool:
    """Whether a stamp records that a call has promised that the content of the file survives a power loss."""
    return stamp in {UNSYNCED_STAMP, EMPTY_STAMP} or _PROMISED in stamp


def stamp_for(purpose: str, *, promised: bool) -> bytes:
    """Return the stamp of this process, which has just taken the lock.

    Args:
        purpose: the purpose of the hold.
        promised: what :func:`tells_of_promises` returned for the previous stamp.
    """
    promises = b"true" if promised else b"false"
    return _padded(
        b'%s, "since": %.6f, "for": "%s", "promised": %s}' % (_me(os.getpid()), time.time(), purpose.encode(), promises)
    )


def holder_of(stamp: bytes) -> Holder:
    """Parse a stamp; that of a dead or former holder, or one in a foreign format, gives an empty holder."""
    nobody = Holder()
    try:
        content = json.loads(stamp)["persistent_context"]
        pid, host, since, purpose = content["pid"], content["host"], content["since"], content["for"]
        start, space = content["start"], content["space"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return nobody
    if not (
        type(pid) is int
        and 0 < pid < 2**31
        and isinstance(host, str)
        and isinstance(since, int | float)
        and isinstance(purpose, str)
    ):
        return nobody
    if not 0 <= since < 2**33:
        return nobody
    here = _myself(os.getpid())
    verified = (host, space) == (here["host"], here["space"])
    if verified and not _is_alive(pid, start):
        return nobody
    stopped = verified and _is_stopped(pid)
    return Holder(pid, host[:_LONGEST_NAME], float(since), purpose[:_LONGEST_NAME], verified, stopped)


def this_process() -> Holder:
    """Return this process as a holder, for a lock that it has taken without writing a stamp."""
    pid = os.getpid()
    return Holder(pid, _myself(pid)["host"], verified=True)


@functools.lru_cache(maxsize=1)
def _myself(pid: int) -> dict[str, Any]:
    """Return the description of a process in a stamp: a pid alone is ambiguous across containers and reboots."""
    process = _process(pid)
    return {
        "pid": pid,
        "start": process and process[1],
        "host": socket.gethostname()[:_LONGEST_NAME],
        "space": _pid_space(),
    }


@functools.lru_cache(maxsize=1)
def _me(pid: int) -> bytes:
    """Return the constant start of this process's stamp, an unclosed object; cached, as every cycle needs it."""
    return json.dumps(_myself(pid)).encode()[:-1]


def _pid_space() -> str | None:
    """Return the identity of the process ID space: the boot, and the namespace within it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and its start time in ticks since boot, or None if unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int, start: object) -> bool:
    if process := _process(pid):
        return process[0] not in _DEAD and process[1] == start
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not os.path.exists("/proc/self/stat")


def _is_stopped(pid: int) -> bool:
    process = _process(pid)
    return process is not None and process[0] == _STOPPED
