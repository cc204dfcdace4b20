"""The command that opens the state in an editor; see :func:`edit`."""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from .._api.blocking import SyncPersistentContext
from ..errors import ConflictError
from .arguments import File, Timeout, no_such_key, open_context, read
from .completion import complete_key
from .jsontext import parse, pretty
from .streams import fail, note, say

_NO_EDITOR: Final = "no editor is set: put its command into VISUAL or EDITOR, for example: export EDITOR=nano"


class OnConflict(enum.StrEnum):
    """Whose change counts where both sides have changed the same value."""

    MINE = "mine"
    THEIRS = "theirs"
    RAISE = "raise"


def edit(
    file: File,
    key: Annotated[
        str | None,
        typer.Argument(help="Edit only this key.", metavar="KEY", show_default=False, autocompletion=complete_key),
    ] = None,
    on_conflict: Annotated[
        OnConflict,
        typer.Option(
            help="Whose change counts where another program has changed the same value; raise: nothing is saved."
        ),
    ] = OnConflict.RAISE,
    timeout: Timeout = 30.0,
) -> None:
    """Edit the state, or the value of one key, as JSON in $VISUAL or $EDITOR.

    The file is not locked while you edit: the changes that other programs make in the meantime are kept.

    If your text cannot be saved, a message names the file in which it is kept.
    """
    command = _editor()
    read(file)  # a corrupt file is left in place
    context = open_context(file, timeout, on_conflict.value)
    context.load()
    if key is not None and key not in context:
        fail(no_such_key(file, key))
    opened = context.get_all_data()
    name = os.path.basename(file) if key is None and file.endswith(".json") else "value.json"
    with _draft(name, pretty(opened if key is None else opened[key])) as draft:
        edited = _edited(command, draft, whole=key is None)
        if key is None:
            _change(context, edited)
        else:
            context[key] = edited
        if changed := len(context.unsaved_keys()):
            _save(context, file)
    say(f"keys changed: {changed}" if changed else "nothing was changed")
    if conflicts := context.statistics().conflicts:
        kept = "your" if on_conflict is OnConflict.MINE else "its"
        note(f"conflicts with another program, in which {kept} change was kept: {conflicts}")


@contextlib.contextmanager
def _draft(name: str, text: str) -> Iterator[str]:
    """Put a text into a file that only this user may read; remove it at the end, unless an edit was not saved."""
    directory = tempfile.mkdtemp(prefix="persistent-context-edit-")
    path = os.path.join(directory, name)
    kept = False
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        try:
            yield path
        except BaseException:
            if kept := _differs(path, text):
                note(f"the edited text is kept in {path}")
            raise
    finally:
        if not kept:
            shutil.rmtree(directory)


def _differs(path: str, text: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() != text.encode()
    except FileNotFoundError:
        return False


def _editor() -> list[str]:
    """Return the command of the user's editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(command)
    except ValueError as error:
        fail(f"the editor command cannot be parsed: {command}: {error}")
    return words or fail(_NO_EDITOR)


def _edited(command: list[str], draft: str, *, whole: bool) -> Any:
    """Let the user edit a draft until its text is valid, and return its value."""
    while True:
        _run_editor([*command, draft])
        try:
            value = _parsed(draft)
            if whole and not isinstance(value, dict):
                problem = f"the state must be a JSON object, not {type(value).__name__}"
            else:
                return value
        except UnicodeDecodeError as error:
            problem = f"the edited text is not UTF-8: {error.reason} at byte {error.start}"
        except ValueError as error:
            problem = f"the edited text is not valid JSON: {error}"
        if not _wants_to_edit_again(problem):
            fail(f"{problem}; nothing was saved")


def _parsed(path: str) -> Any:
    """Return the value of an edited text; some editors begin it with a byte order mark.

    Raises:
        ValueError: it is not UTF-8, or not valid JSON.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return parse(file.read())
    except FileNotFoundError:
        fail("the editor deleted the file that it was given; nothing was saved")


def _wants_to_edit_again(problem: str) -> bool:
    if not sys.stdin.isatty():
        return False
    note(problem)
    try:
        return typer.confirm("Edit again?", default=True, err=True)
    except typer.Abort:
        return False


def _run_editor(command: list[str]) -> None:
    try:
        with _left_to_the_editor(signal.SIGINT):
            status = subprocess.run(command, check=False).returncode  # noqa: S603 - the user's own
    except OSError as error:
        fail(f"the editor {command[0]} cannot be started: {error.strerror}")
    if status:
        how = f"was killed by signal {-status}" if status < 0 else f"exited with {status}"
        fail(f"the editor {command[0]} {how}; nothing was saved")


@contextlib.contextmanager
def _left_to_the_editor(number: int) -> Iterator[None]:
    """Leave a key such as Ctrl-C, which reaches both processes, to the editor."""
    before = signal.signal(number, lambda *_: None)  # unlike SIG_IGN, this is not inherited by the editor
    try:
        yield
    finally:
        signal.signal(number, before)


def _change(context: SyncPersistentContext, wanted: dict[str, Any]) -> None:
    """Make a context hold exactly these values; keys whose value is the same as before stay saved."""
    for key in context.keys() - wanted.keys():
        del context[key]
    context.update(wanted)


def _save(context: SyncPersistentContext, file: str) -> None:
    try:
        context.save()
    except ConflictError as error:
        names = ", ".join(map(repr, sorted(error.keys)))
        fail(
            f"{file}: changed in the editor and by another program meanwhile: {names}; nothing was saved. "
            "Edit again, or decide with --on-conflict mine or theirs"
        )
