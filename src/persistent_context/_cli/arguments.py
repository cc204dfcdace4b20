"""The arguments that several commands share, and how they are interpreted."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Annotated, Any, Final, Literal

import typer

from .._api.blocking import SyncPersistentContext
from .._model.live import LiveDict
from .._model.snapshot import Snapshot
from .._stores.factory import identify, is_url, locate, open_store
from .._stores.protocol import CorruptStateError, SessionLostError
from .completion import complete_key
from .jsontext import parse
from .streams import TIMED_OUT, fail, refuse, standard_input

_PATIENCE_SECONDS: Final = 5.0
"""How long a command that only reads waits for a store: longer than a cluster takes to elect a leader."""
_RETRY_SECONDS: Final = 0.2
_LOOKS_LIKE_A_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_as_given: Final[dict[str, str]] = {}
"""The URLs that the user gave, by their places. Only places are passed on, since they may be shown."""


def place_of(text: str) -> str:
    """Return the path of a FILE argument as it is, and the place of a URL, which has no user and password."""
    if not text:
        refuse("FILE must not be empty")
    if not is_url(text):
        if _LOOKS_LIKE_A_URL.match(text):
            refuse("a URL must begin with etcd:// or etcd+tls://; for a file of such a name, put ./ before it")
        return text
    try:
        place = locate(text)
    except ValueError as error:
        refuse(str(error))
    _as_given[place] = text
    return place


def _path_of(text: str) -> str:
    if is_url(text):
        refuse("only a file can have a journal; this command does not take a URL")
    return place_of(text)


File = Annotated[
    str,
    typer.Argument(
        help="The JSON file, or the URL of a state in etcd.", metavar="FILE", show_default=False, callback=place_of
    ),
]
OnlyFile = Annotated[str, typer.Argument(help="The JSON file.", metavar="FILE", show_default=False, callback=_path_of)]
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
    """Return the values of :func:`snapshot_of`."""
    return LiveDict.of(snapshot_of(file, must_exist=must_exist))


def snapshot_of(file: str, *, must_exist: bool = True) -> Snapshot:
    """Read the state without the lock; one that is not valid is left in place."""
    try:
        snapshot = _latest(file)
    except CorruptStateError as error:
        what = "is not a valid state" if is_url(file) else "is not a JSON object"
        fail(f"{file} {what}: {error}; {error.remedy or 'run persistent-context doctor for details'}")
    if must_exist and not snapshot.exists:
        require(file)
    return snapshot


def require(file: str) -> None:
    """Fail if the file or state does not exist: a mistyped name should not create one."""
    if not exists(file):
        fail(f"{file} does not exist")


def exists(file: str) -> bool:
    """Return whether the file or its journal exists, or anything was ever stored at the URL."""
    if is_url(file):
        try:
            return _latest(file).exists
        except CorruptStateError:
            return True
    path = identify(file)
    return os.path.lexists(path) or os.path.lexists(f"{path}.journal")


def _latest(file: str) -> Snapshot:
    """Return the state; wait for a while if the store cannot be reached."""
    store = open_store(identify(file))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return store.snapshot()
        except SessionLostError as error:
            if time.monotonic() > deadline:
                fail(f"{file}: {error}", TIMED_OUT)
            time.sleep(_RETRY_SECONDS)


def open_context(
    file: str, timeout: float, on_conflict: Literal["mine", "theirs", "raise"] = "mine"
) -> SyncPersistentContext:
    """Return a context that waits so many seconds for the lock."""
    return SyncPersistentContext(_as_given.get(file, file), lock_timeout=timeout, on_conflict=on_conflict)


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
