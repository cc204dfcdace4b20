"""The arguments that several commands share, and how they are interpreted."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from .._api.blocking import SyncPersistentContext
from .._model.live import LiveDict
from .._stores.factory import identify, open_store
from .._stores.protocol import CorruptStateError
from .completion import complete_key
from .jsontext import parse
from .streams import fail, refuse, standard_input


def _not_empty(path: str) -> str:
    if not path:
        msg = "FILE must not be empty"
        raise typer.BadParameter(msg)
    return path


File = Annotated[str, typer.Argument(help="The JSON file.", metavar="FILE", show_default=False, callback=_not_empty)]
Key = Annotated[
    str, typer.Argument(help="One of its keys.", metavar="KEY", show_default=False, autocompletion=complete_key)
]
Keys = Annotated[
    list[str],
    typer.Argument(help="Some of its keys.", metavar="KEY", show_default=False, autocompletion=complete_key),
]
Value = Annotated[
    str,
    typer.Argument(
        help="JSON, or a plain string otherwise; - reads it from standard input.", metavar="VALUE", show_default=False
    ),
]
MustBeJson = Annotated[bool, typer.Option("--json", help="VALUE must be JSON.")]
IsString = Annotated[bool, typer.Option("--string", help="VALUE is a plain string, even if it looks like JSON.")]
Timeout = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the lock; inf waits forever.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

TAKES_VALUES = {"ignore_unknown_options": True}
"""The settings of a command with a VALUE: an argument that begins with ``-`` and is not an option is a value."""


def read(file: str, *, must_exist: bool = True) -> LiveDict:
    """Read the file without the lock; a file that is not a JSON object is left in place."""
    if must_exist:
        require(file)
    try:
        return LiveDict.of(open_store(identify(file)).snapshot())
    except CorruptStateError as error:
        fail(f"{file} is not a JSON object: {error}; run persistent-context doctor for details")


def require(file: str) -> None:
    """Fail if the file does not exist: the name may be mistyped, and should not create a file."""
    if not exists(file):
        fail(f"{file} does not exist")


def exists(file: str) -> bool:
    """Return whether the file or its journal exists."""
    path = identify(file)
    return os.path.lexists(path) or os.path.lexists(f"{path}.journal")


def open_context(file: str, timeout: float) -> SyncPersistentContext:
    """Return a context that waits so many seconds for the lock."""
    return SyncPersistentContext(file, lock_timeout=timeout)


def value_of(text: str, *, must_be_json: bool, is_string: bool) -> Any:
    """Return the value of a VALUE argument."""
    if must_be_json and is_string:
        refuse("--json and --string cannot be combined")
    text = standard_input() if text == "-" else text
    if is_string:
        return text
    try:
        return parse(text)
    except json.JSONDecodeError as error:
        if must_be_json:
            refuse(f"VALUE is not valid JSON: {error}")
        return text
    except ValueError as error:
        refuse(f"VALUE cannot be stored: {error}; --string stores it as a string")


def no_such_key(file: str, key: str) -> str:
    """Return the error message for a missing key."""
    return f"{file} has no key {key!r}"
