"""POSIX access lists, as Linux stores them in an extended attribute."""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Collection
from typing import Final, TypeAlias

_VERSION_BYTES: Final = 4
_ENTRY: Final = struct.Struct("<HHI")
_UNNAMED: Final = 0xFFFFFFFF
_OWNER: Final = (0x01, _UNNAMED)
_GROUP: Final = (0x04, _UNNAMED)
_MASK: Final = (0x10, _UNNAMED)
_OTHERS: Final = (0x20, _UNNAMED)
_NAMED_USER: Final = 0x02
_NAMED_GROUP: Final = 0x08
_WRITE: Final = 0o2

Owners: TypeAlias = tuple[int, int]
"""The user and the group that own a file."""


def given_away(acl: bytes, before: Owners, after: Owners) -> bytes:
    """Return the list with which a file of other owners admits the same users as before, and no others.

    The former owners become named entries, which they could have added themselves. A new owner whom the list named
    keeps the access that it gave; another group gets no more than anybody else.
    """
    entries = _parsed(acl)
    owner, group = entries[_OWNER], entries[_GROUP]
    mask = entries.setdefault(_MASK, group)
    if after[0] != before[0]:
        named = entries.get((_NAMED_USER, after[0]))
        entries[_OWNER] = owner if named is None else named & mask
        entries[_NAMED_USER, before[0]] = owner
    if after[1] != before[1]:
        groups = [bits for (tag, _), bits in entries.items() if tag == _NAMED_GROUP]
        entries[_GROUP] = functools.reduce(operator.and_, groups, group & entries[_OTHERS])
        entries[_NAMED_GROUP, before[1]] = entries.get((_NAMED_GROUP, before[1]), 0) | group  # its members had both
    return acl[:_VERSION_BYTES] + b"".join(_ENTRY.pack(tag, entries[tag, name], name) for tag, name in sorted(entries))


def lets_write(acl: bytes, user: int, groups: Collection[int], owning_group: int) -> bool:
    """Whether a list lets a user who does not own the file write it.

    Args:
        acl: the list.
        user: the user.
        groups: those of the user's groups that are known.
        owning_group: the group that owns the file.
    """
    entries = _parsed(acl)
    bits = entries.get((_NAMED_USER, user))
    if bits is None:  # otherwise the user's own entry counts, and none of the groups
        of_groups = [entries.get((_NAMED_GROUP, group), 0) for group in groups]
        bits = functools.reduce(operator.or_, of_groups, entries[_GROUP] if owning_group in groups else 0)
    return bool(bits & entries.get(_MASK, bits) & _WRITE)


def mode_of(acl: bytes) -> int:
    """Return the permission bits of a file with a list; those of the group are the mask of the list."""
    entries = _parsed(acl)
    return entries[_OWNER] << 6 | entries.get(_MASK, entries[_GROUP]) << 3 | entries[_OTHERS]


def _parsed(acl: bytes) -> dict[tuple[int, int], int]:
    """Return the permission bits of each entry."""
    return {(tag, name): bits for tag, bits, name in _ENTRY.iter_unpack(acl[_VERSION_BYTES:])}
