"""The content of the lock file: the holder of the lock, as recorded by the holder itself.

The content is untrusted: a bounded part of it is read, checked and shown, but never relied on for locking.
"""

from __future__ import annotations

import functools
import json
import os
import time
from typing import Final

from ...types import Holder
from ..process import describe_this_process, holder_from

STAMP_BYTES: Final = 512
_MAGIC: Final = b'{"persistent_context":'


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
    try:
        content = json.loads(stamp)["persistent_context"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Holder()
    return holder_from(content) or Holder()


def this_process() -> Holder:
    """Return this process as a holder, for a lock that it has taken without writing a stamp."""
    pid = os.getpid()
    return Holder(pid, describe_this_process(pid)["host"], verified=True)


@functools.lru_cache(maxsize=1)
def _me(pid: int) -> bytes:
    """Return the constant start of this process's stamp, an unclosed object; cached, as every cycle needs it."""
    return json.dumps(describe_this_process(pid)).encode()[:-1]
