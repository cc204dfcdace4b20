"""The commands that show a journal, and fold it."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, TypeVar

from .._api.blocking import SyncPersistentContext
from .._printable import printable, printable_json
from .._stores.journal.file import JournalFile, open_journal
from .._stores.journal.history import History, Line
from .._stores.journal.record import Author, Fingerprint, Header, Record
from .streams import as_json, fail, say

_LOOK_SECONDS: Final = 0.1
_SHOWN_CHARACTERS: Final = 60
_SHOWN_KEYS: Final = 10
_PID_WIDTH: Final = 7
_T = TypeVar("_T")


def fold(file: str, path: str, timeout: float) -> None:
    """Fold the journal of a file, and print a line about it.

    Args:
        file: the file as the user named it.
        path: its real path.
        timeout: how long to wait for the lock, in seconds.
    """
    try:
        size = os.lstat(f"{path}.journal").st_size
    except FileNotFoundError:
        if not os.path.lexists(path):
            fail(f"{file} does not exist")
        say(printable(f"{file} has no journal: nothing to fold"))
        return
    context = SyncPersistentContext(path, lock_timeout=timeout)
    context.checkpoint()
    if context.statistics().checkpoints:
        say(printable(f"folded a journal of {size} bytes into {file}, which now has {os.path.getsize(path)} bytes"))
    else:
        say(printable(f"{file} already has everything in its journal: nothing to fold"))


def show(file: str, path: str, *, follow: bool, json: bool) -> None:
    """Print the journal of a file, line by line.

    Args:
        file: the file as the user named it.
        path: its real path.
        follow: whether to continue forever, with lines that are appended and with the journals that replace it.
        json: whether to print objects for scripts.
    """
    journal = _opened(path)
    if journal is None:
        fail(f"{file} has no journal")
    line = _object if json else _row
    if follow:
        for part in _followed(path, journal):
            say(line(part))
        return
    history = History(journal)
    for part in history.lines():
        say(line(part))
    if (size := journal.size()) > history.end:
        say(_unfinished(history.end, size - history.end, json=json))


def _opened(path: str) -> JournalFile | None:
    return open_journal(f"{path}.journal", path)


def _followed(path: str, first: JournalFile) -> Iterator[Line]:
    journal: JournalFile | None = first
    while True:
        if journal is not None:
            history = History(journal)
            while journal.is_at_path():
                yield from history.lines()
                time.sleep(_LOOK_SECONDS)
            yield from history.lines()  # the last lines before it was replaced
        else:
            time.sleep(_LOOK_SECONDS)
        journal = _opened(path)


def _row(line: Line) -> str:
    content = line.content
    if content is None:
        size = line.end - line.start
        return f"damaged: {size} bytes at byte {line.start} are ignored" if size else "damaged: lines are missing here"
    if isinstance(content, Header):
        what = f"the journal begins, on {_described(content.follows)}"
    elif isinstance(content, Record):
        what = _changes(content)
    else:
        what = f"checkpoint: the file becomes {_described(content.becomes)}"
        what += ", without a journal" if content.ends else ""
    return f"{_moment(content.author) or 'at an unknown time':26}  {content.author.pid:>{_PID_WIDTH}}  {what}"


def _changes(record: Record) -> str:
    parts = [*(f"{_key(key)} = {_value(bytes(text))}" for key, text in _first(record.set.items()))]
    deleted = [key for key in record.deleted if key not in record.set]
    parts += [f"{_key(key)} deleted" for key in _first(deleted, _SHOWN_KEYS - len(parts))]
    more = len(record.set) + len(deleted) - len(parts)
    return "; ".join([*parts, f"{more} more"] if more else parts)


def _first(items: Iterable[_T], count: int = _SHOWN_KEYS) -> Iterator[_T]:
    return itertools.islice(items, count)


def _key(key: str) -> str:
    return _shortened(printable(key[: _SHOWN_CHARACTERS + 1]))


def _value(text: bytes) -> str:
    start = text[: 4 * (_SHOWN_CHARACTERS + 1)].decode(errors="ignore")
    return _shortened(printable_json(start[: _SHOWN_CHARACTERS + 1], sys.stdout.encoding))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _described(fingerprint: Fingerprint) -> str:
    return f"{fingerprint.size} bytes" if fingerprint.size else "no file"


def _object(line: Line) -> str:
    """Return a line as an object; values are printed exactly as they were written."""
    content = line.content
    if content is None:
        return as_json({"event": "damaged", "offset": line.start, "bytes": line.end - line.start})
    fields = {"time": _moment(content.author, "T"), "pid": content.author.pid}
    if isinstance(content, Header):
        follows = content.follows._asdict()
        return as_json({"event": "begin", **fields, "generation": content.generation, "follows": follows})
    if isinstance(content, Record):
        start = as_json({"event": "commit", **fields, "number": content.number})
        texts = ", ".join(f"{as_json(key)}: {_text(bytes(text))}" for key, text in content.set.items())
        return f'{start[:-1]}, "set": {{{texts}}}, "deleted": {as_json(list(content.deleted))}}}'
    event = "end" if content.ends else "checkpoint"
    return as_json({"event": event, **fields, "number": content.number, "becomes": content.becomes._asdict()})


def _text(text: bytes) -> str:
    return printable_json(text.decode(), sys.stdout.encoding)


def _unfinished(start: int, size: int, *, json: bool) -> str:
    if json:
        return as_json({"event": "unfinished", "offset": start, "bytes": size})
    return f"unfinished: {size} bytes at the end, which were not acknowledged; the next write replaces them"


def _moment(author: Author, between: str = " ") -> str | None:
    """Return when a line was written, in UTC; None if it is out of range."""
    try:
        return f"{datetime.fromtimestamp(author.time, UTC):%Y-%m-%d{between}%H:%M:%S.%f}Z"
    except (OverflowError, ValueError, OSError):
        return None
