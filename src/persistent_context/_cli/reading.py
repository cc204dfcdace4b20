"""The commands that only read a state: show, get, keys, watch and who."""

from __future__ import annotations

import itertools
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._model.values import MISSING
from .._printable import printable
from .._stores.factory import identify, open_store
from ..errors import StoreUnavailableError
from ..types import Change
from .arguments import AsJson, File, Key, exists, no_such_key, open_context, read
from .completion import complete_key
from .streams import INTERRUPTED, as_json, fail, note, say, say_exactly


def show(file: File, json_: AsJson = False) -> None:
    """Show all keys and values: a table on a terminal, otherwise one line each of key, tab and JSON."""
    data = read(file)
    if json_:
        say(as_json(dict(data)))
    elif sys.stdout.isatty():
        table = Table("key", "value", title=Text(printable(file)), title_justify="left")
        for key, value in data.items():
            table.add_row(Text(printable(key)), Text(as_json(value), no_wrap=True, overflow="ellipsis"))
        Console().print(table)
    else:
        for key, value in data.items():
            say(f"{printable(key)}\t{as_json(value)}")


def get(file: File, key: Key, json_: AsJson = False) -> None:
    """Print the value of a key: a string as is (escaped on a terminal), anything else as JSON."""
    data = read(file)
    if key not in data:
        fail(no_such_key(file, key))
    value = data[key]
    if json_ or not isinstance(value, str):
        say(as_json(value))
    elif sys.stdout.isatty():
        say(printable(value, keep="\n\t"))
    else:
        say_exactly(value)


def keys(file: File, json_: AsJson = False) -> None:
    """Print the keys, one per line."""
    names = list(read(file))
    if json_:
        say(as_json(names))
    else:
        for name in names:
            say(printable(name))


def watch(
    file: File,
    keys: Annotated[
        list[str] | None,
        typer.Argument(help="Only these keys.", metavar="KEY", show_default=False, autocompletion=complete_key),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after this many changes.", show_default=False)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Print the changes that other programs make, until interrupted."""
    read(file, must_exist=False)  # a corrupt file is left in place
    context = open_context(file, timeout=30.0)
    context.load()
    try:
        with context.watch(*keys or ()) as news:
            if not exists(file):
                note(f"{file} does not exist yet: waiting for it")
            changes = (item for changes in news for item in changes.items())
            for key, change in itertools.islice(changes, count):
                say(as_json(_fields(key, change)) if json_ else _line(key, change))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def who(file: File, json_: AsJson = False) -> None:
    """Show which process holds the lock."""
    try:
        holder = open_store(identify(file)).holder()
    except StoreUnavailableError as error:
        raise error.about(file) from None
    if json_:
        say(as_json(holder and holder._asdict()))
    elif holder:
        say(f"held by {holder}")
    else:
        free = "no process holds the lock"
        say(free if exists(file) else printable(f"{free}; {file} does not exist"))


def _fields(key: str, change: Change) -> dict[str, Any]:
    """Return a change for scripts; an absent value is left out."""
    return {"key": key} | {name: value for name, value in change._asdict().items() if value is not MISSING}


def _line(key: str, change: Change) -> str:
    old, new = ("absent" if value is MISSING else as_json(value) for value in change)
    return f"{time.strftime('%H:%M:%S')}  {printable(key)}: {old} -> {new}"
