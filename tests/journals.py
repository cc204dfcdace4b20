"""Helpers of the journal's tests: stores, commits, what other programs see, and the lines of a journal."""

import json
import os
import re

from persistent_context._model.snapshot import Changes
from persistent_context._model.values import MISSING
from persistent_context._stores.journal.record import fold_line, header_line, parse_header, parse_line, record_line
from persistent_context._stores.journal.store import JournalStore
from persistent_context._stores.protocol import CorruptStateError

__all__ = ["MISSING", "fold_line", "header_line", "record_line"]


def open_store(path, *, journal=True):
    """Return a new store on a file, as another process would have it."""
    store = JournalStore(str(path))
    store.want(journal=journal)
    return store


def commit(store, texts=(), *, moved=(), durable=True, folds=False):
    """Commit texts by key in a new session, which sets aside a corrupt state."""
    session = store.begin("test", wait=True)
    try:
        try:
            session.snapshot
        except CorruptStateError:
            session.set_aside()
        session.commit(Changes(dict(texts), moved, folds=folds), durable=durable)
    finally:
        session.close()


def entries(store):
    """Return the entries that a store reads, in order."""
    return [(key, bytes(text)) for part in store.snapshot().parts() for key, text in part.items()]


def seen(path):
    """Return what a new process reads, by key."""
    return {key: json.loads(text) for key, text in entries(open_store(path, journal=None))}


def stored(path):
    """Return what any other program reads in the JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def journal_of(path):
    """Return the path of a file's journal."""
    return path.with_name(f"{path.name}.journal")


def lines_of(path):
    """Return the header of a file's journal, and the content of its other lines."""
    first, *others = journal_of(path).read_bytes().splitlines()
    header = parse_header(first)
    return header, [parse_line(line, header.generation if header else "") for line in others]


def kept(path):
    """Return the names of the files kept aside, without the times."""
    found = (re.fullmatch(r"(.*)-\d{8}T\d{6}Z-[0-9a-f]{8}", name) for name in os.listdir(path.parent))
    return sorted(name[1] for name in found if name)
