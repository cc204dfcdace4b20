"""The doctor: checks of a file, its directory, its lock and its journal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from shlex import quote
from typing import Final

from .._api.blocking import SyncPersistentContext
from .._model.live import LiveDict
from .._stores.jsonfile.names import leftovers, moved_aside
from .._stores.jsonfile.store import JsonFileStore
from .._stores.protocol import CorruptStateError, SessionLostError
from ..errors import PersistentContextError, TooManyDigitsError
from .doctor_journal import journal
from .findings import Finding, Level
from .surroundings import access, attributes, file_system, may, mount_point, space

_LARGE_BYTES: Final = 16 * 1024 * 1024
_LONG_HOLD_SECONDS: Final = 60
_HOLD: Final = """
import sys
from persistent_context import SyncPersistentContext
with SyncPersistentContext(sys.argv[1]).transaction():
    print("held", flush=True)
    sys.stdin.read()
"""


def examine(filepath: str) -> Iterator[Finding]:
    """Examine a file, its directory, its lock and its journal, without changing them. Blocks for about a second.

    The lock and a durable write are tested on a separate file in the same directory, which is removed afterwards.
    """
    path = os.path.realpath(filepath)
    directory = os.path.dirname(path)
    if _leads_in_a_circle(filepath):
        yield Finding(
            Level.PROBLEM,
            "link",
            f"{path} leads into a loop of symbolic links",
            "namei -l shows it; remove one of them",
        )
        return
    if path != os.path.abspath(filepath):
        yield Finding(Level.OK, "link", f"points to {path}; the lock file is beside it")
    if not os.path.isdir(directory):
        yield _missing_directory(directory)
        return
    yield _file(path)
    yield from _permission(path)
    yield from _other_names(path)
    yield from mount_point(path)
    restrictions = [*attributes(path, directory)]
    yield from restrictions
    yield file_system(path)
    yield access(directory)
    yield space(path)
    yield from _leftovers(path)
    yield from journal(path)
    yield from _aside(path)
    yield from _lock_file(path)
    yield _holder(path)
    if not restrictions and may(directory, os.W_OK):  # the test file might not be removable
        yield _trial(directory)


def _file(path: str) -> Finding:
    has_journal = os.path.lexists(f"{path}.journal")
    if not os.path.lexists(path):
        if has_journal:
            return Finding(Level.PROBLEM, "file", "does not exist, though it has a journal", "see the journal")
        return Finding(Level.OK, "file", "does not exist; it reads as empty, and the first save creates it")
    try:
        document = JsonFileStore(path).snapshot()
    except CorruptStateError as error:
        return Finding(
            Level.PROBLEM,
            "file",
            f"is not a JSON object: {error}",
            "repair it, or the next program that loads or saves it moves it aside and starts empty; after that, "
            "persistent-context restore brings back the keys of a repaired copy",
        )
    except (TooManyDigitsError, SessionLostError, OSError) as error:
        return Finding(Level.PROBLEM, "file", f"cannot be read: {getattr(error, 'strerror', error)}")
    if not document.exists:
        return Finding(Level.OK, "file", "is empty; it reads as {}, and the first save fills it")
    size = os.path.getsize(path)
    text = f"a JSON object; keys: {len(LiveDict.of(document))}, bytes: {size}"
    level, advice = Level.OK, ""
    if document.repeats:
        text += "; it contains duplicate keys; the last value of each counts"
        level, advice = Level.WARNING, "the next writer keeps a copy of the original"
    elif size > _LARGE_BYTES and not has_journal:
        advice = "every change rewrites all of it; use journal=True, or a database such as SQLite"
        level = Level.WARNING
    return Finding(level, "file", text, advice)


def _permission(path: str) -> Iterator[Finding]:
    if os.path.isfile(path) and not may(path, os.W_OK):  # pragma: no cover - a child of the test is another user
        yield Finding(
            Level.PROBLEM,
            "permission",
            "this user may not write the file, so every change is refused with PermissionError",
            f"chmod or chown {quote(path)}; the lock file follows it",
        )


def _leads_in_a_circle(filepath: str) -> bool:
    try:
        os.path.realpath(filepath, strict=True)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _missing_directory(directory: str) -> Finding:
    above = directory
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        return Finding(Level.PROBLEM, "directory", f"{directory} cannot be created: {above} is not a directory")
    return Finding(Level.WARNING, "directory", f"{directory} does not exist; the first writer creates it")


def _other_names(path: str) -> Iterator[Finding]:
    """Report hard links: a save replaces the file under one name only."""
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            yield Finding(
                Level.WARNING,
                "hard links",
                f"the file has {status.st_nlink} names; a save replaces one and leaves the others unchanged",
                f"find -samefile {quote(path)} shows them; make all but one of them symbolic links",
            )


def _leftovers(path: str) -> Iterator[Finding]:
    for leftover in leftovers(path):
        text = f"{leftover}, left by a crashed writer"
        yield Finding(Level.WARNING, "leftover", text, "the next writer removes it; no action is needed")


def _aside(path: str) -> Iterator[Finding]:
    for copy in moved_aside(path):
        command = f"persistent-context restore {quote(path)} {quote(copy)}"
        yield Finding(
            Level.WARNING,
            "moved aside",
            f"{copy}, {os.path.getsize(copy)} bytes: an earlier file that was not a JSON object, or had duplicate keys",
            f"if you need it, repair it and add the keys that the file lacks: {command}; then delete it",
        )


def _lock_file(data_path: str) -> Iterator[Finding]:
    path = f"{data_path}.lock"
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        yield Finding(Level.OK, "lock file", "does not exist; the first writer creates it")
        return
    if not stat.S_ISREG(status.st_mode):
        yield Finding(
            Level.PROBLEM,
            "lock file",
            f"{path} is not a regular file, and is never followed or used",
            f"remove it: rm {quote(path)}",
        )
    elif not may(path, os.R_OK | os.W_OK):  # pragma: no cover - as above
        yield Finding(
            Level.PROBLEM,
            "lock file",
            f"this user cannot open {path}, and so cannot save",
            f"it has the permissions of the file: change those, or else chmod or chown {quote(path)}",
        )
    elif status.st_nlink > 1:
        yield Finding(
            Level.WARNING,
            "lock file",
            f"{path} has another hard link, so holders do not record who they are in it",
            "find -samefile shows the other link",
        )


def _holder(path: str) -> Finding:
    try:
        holder = JsonFileStore(path).holder()
    except OSError as error:
        return Finding(Level.PROBLEM, "lock", f"cannot be inspected: {error.strerror}")
    if holder is None:
        return Finding(Level.OK, "lock", "no process holds it")
    if holder.stopped:
        advice = f"all other writers wait until it is resumed or dies: kill -CONT {holder.pid}"
        return Finding(Level.PROBLEM, "lock", f"held by {holder}", advice)
    if holder.since is not None and time.time() - holder.since > _LONG_HOLD_SECONDS:
        return Finding(
            Level.WARNING,
            "lock",
            f"held for {time.time() - holder.since:.0f} s by {holder}",
            "released when the holder's transaction ends or the holder dies; deleting the lock file would not help",
        )
    return Finding(Level.OK, "lock", f"held by {holder}")


def _trial(directory: str) -> Finding:
    """Test the lock between two processes, one of which is killed, and a durable write."""
    try:
        with tempfile.TemporaryDirectory(prefix=".persistent-context-doctor-", dir=directory) as place:
            return _try_in(os.path.join(place, "trial.json"))
    except (OSError, PersistentContextError) as error:
        return Finding(Level.PROBLEM, "trial", f"testing a lock and a save in {directory} failed: {error}")


def _try_in(path: str) -> Finding:
    context = SyncPersistentContext(path, lock_timeout=0)
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as other:
        assert other.stdout is not None, "a pipe"
        held = other.stdout.readline() == b"held\n"
        try:
            context.incr("n")
            kept_out = False
        except TimeoutError:
            kept_out = True
        other.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    if not held:
        return Finding(Level.PROBLEM, "trial", "a second process could not take a lock in this directory")
    if not kept_out:
        return Finding(Level.PROBLEM, "trial", "two processes held the same lock at once: changes would be lost here")
    began = time.monotonic()
    context.incr("n")
    took = time.monotonic() - began
    return Finding(
        Level.OK,
        "trial",
        f"a second process was kept out until the first was killed; a save took {1000 * took:.1f} ms",
    )
