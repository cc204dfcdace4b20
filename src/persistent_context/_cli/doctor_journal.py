"""The doctor's checks of the journal beside a file."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from shlex import quote
from typing import Final

from .._stores.journal.file import JournalFile, open_journal
from .._stores.journal.journal import Journal
from .._stores.journal.state import Fault, State
from .._stores.jsonfile.names import moved_aside
from .._stores.jsonfile.store import JsonFileStore
from .._stores.protocol import CorruptStateError
from ..errors import JournalVersionError, TooManyDigitsError
from .findings import Finding, Level

_ON_WINDOWS: Final = os.name == "nt"
_LONG_SECONDS: Final = 60
_FOLDS: Final = "persistent-context checkpoint"


def journal(path: str) -> Iterator[Finding]:
    """Examine the journal of a file, if there is one, and the copies that were kept because of it."""
    yield from _journal(f"{path}.journal", path)
    for copy in moved_aside(path, "replaced"):
        yield Finding(
            Level.WARNING,
            "replaced",
            f"{copy}, {os.path.getsize(copy)} bytes: put in place of the file by another program",
            "compare it with the file, where the changes in the journal won, then delete it: "
            f"diff {quote(copy)} {quote(path)}",
        )
    for copy in moved_aside(f"{path}.journal"):
        yield Finding(
            Level.WARNING,
            "damaged journal",
            f"{copy}, {os.path.getsize(copy)} bytes: its readable part is in the file",
            "look for lost changes in it, one per line; then delete it",
        )


def _journal(name: str, path: str) -> Iterator[Finding]:
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return
    if _ON_WINDOWS:
        yield Finding(
            Level.PROBLEM,
            "journal",
            f"{name} exists, but journals do not work on Windows",
            f"before copying the file, fold the journal into it where it was written: {_FOLDS} {quote(path)}",
        )
        return
    if not stat.S_ISREG(status.st_mode):
        text = f"{name} is not a regular file, and is never followed or used"
        yield Finding(Level.PROBLEM, "journal", text, _removal(name))
        return
    try:
        file = open_journal(name, path)
    except OSError as error:
        yield _closed(name, path, error)
    else:
        if file is not None:  # pragma: no branch - it may have ended in between
            yield from _permissions(name, path, file)
            yield _content(name, path)


def _closed(name: str, path: str, error: OSError) -> Finding:
    if error.errno == errno.EPERM:
        owner = os.lstat(name).st_uid
        text = f"{name} is not used, because it belongs to user {owner}, "
        if not os.path.lexists(path):
            text += "and the file, which would show whether that user may write it, is missing"
            advice = (
                f"it may hold the only copy of the data; if it can be trusted, create {quote(path)} again, as {{}} "
            )
            return Finding(Level.PROBLEM, "journal", text, f"{advice}with its former owner and permissions")
        text += "who may not write the file"
        return Finding(Level.PROBLEM, "journal", text, f"find out who created it, then {_removal(name)}")
    text = f"this user cannot open {name}, and so cannot read or save"
    return Finding(Level.PROBLEM, "journal", text, f"chmod or chown {quote(name)}")


def _removal(name: str) -> str:
    return f"remove it: rm {quote(name)}"


def _permissions(name: str, path: str, file: JournalFile) -> Iterator[Finding]:
    if not file.writable:
        yield Finding(
            Level.PROBLEM,
            "journal permissions",
            f"this user cannot write to {name}, and so cannot save",
            f"chmod or chown {quote(name)}",
        )
    try:
        most = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(os.fstat(file.fd).st_mode)
    if mode & ~most & 0o666:
        yield Finding(
            Level.WARNING,
            "journal permissions",
            f"{name} has the mode {mode:o}, the file {most:o}: more users may use the journal than the file",
            f"chmod {mode & most:o} {quote(name)}",
        )


def _content(name: str, path: str) -> Finding:
    try:
        state = Journal(path, lambda _: None).read(JsonFileStore(path).snapshot)
    except JournalVersionError as error:
        text = f"a newer version of this package wrote it, in format {error.found}; this one knows up to {error.known}"
        return Finding(
            Level.PROBLEM, "journal", text, "upgrade this installation, which can neither read nor save until then"
        )
    except (CorruptStateError, TooManyDigitsError):
        text = "it cannot be applied, because the file cannot be read"
        return Finding(Level.PROBLEM, "journal", text, "see the findings about the file")
    except OSError as error:
        return Finding(Level.PROBLEM, "journal", f"cannot be read: {error.strerror}")
    if state is None:
        return Finding(Level.OK, "journal", "has just ended")
    return _faulty(name, path, state) or _sound(path, state)


def _faulty(name: str, path: str, state: State) -> Finding | None:
    show = f"persistent-context journal {quote(path)}"
    if state.fault is Fault.DAMAGED:
        return Finding(
            Level.PROBLEM,
            "journal",
            f"part of {name} is damaged and is skipped; the rest is applied",
            f"{show} shows where; the next writer keeps a copy, and writes the intact part into the file",
        )
    if not state.base.document.exists:
        return Finding(
            Level.PROBLEM,
            "journal",
            f"{name} exists, but the file does not: only the changes since the last checkpoint are left",
            f"put the file back before any program saves; {show} shows what is left",
        )
    if state.fault is Fault.FOREIGN:
        return Finding(
            Level.WARNING,
            "journal",
            f"{state.fault.value}; for keys in the journal its values count, the other keys are taken from the file",
            f"the next writer keeps a copy of the replacement under another name; {show} shows the keys in the journal",
        )
    if state.fault is Fault.FOLDED:
        return Finding(Level.WARNING, "journal", state.fault.value, "nothing is lost; the next writer begins a new one")
    return None


def _sound(path: str, state: State) -> Finding:
    changed = len(state.snapshot.overlay.entries())
    text = f"{state.end} bytes; keys changed since the last checkpoint: {changed}"
    advice = f"the next writer folds it, and so does: {_FOLDS} {quote(path)}"
    if state.end > 2 * state.most_bytes:
        return Finding(Level.WARNING, "journal", f"{text}; it should have been folded into the file by now", advice)
    if changed and state.file.is_idle_since(time.time() - _LONG_SECONDS):
        text += "; its writers ended without folding it into the file"
        return Finding(Level.WARNING, "journal", text, advice)
    return Finding(Level.OK, "journal", text)
