"""The commands of the command line."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import time
from importlib.metadata import version
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._api.blocking import SyncPersistentContext
from .._model.live import LiveDict
from .._model.values import MISSING
from .._printable import printable
from .._stores.factory import identify, open_store
from .._stores.protocol import CorruptStateError
from ..errors import LockTimeoutError, PersistentContextError
from ..types import Change
from .demo import run as run_demo
from .doctor import examine
from .findings import Level
from .journal import fold as fold_journal
from .journal import show as show_journal
from .streams import FAILED, as_json, fail, prepare_streams, refuse, say, say_exactly, standard_input

_TIMED_OUT: Final = 3
_INTERRUPTED: Final = 130
_SHOWN: Final = 60
"""How many characters of an invalid argument are shown."""
_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}

app = typer.Typer(
    help="Inspect and change a JSON file shared through PersistentContext, as safely as the programs that share it.",
    epilog="Exit codes: 0 done, 1 failed or no such key, 2 wrong usage, 3 the lock could not be acquired in time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

File = Annotated[str, typer.Argument(help="The JSON file.", show_default=False)]
Key = Annotated[str, typer.Argument(help="One of its keys.", show_default=False)]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait for the lock; inf waits forever.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def run() -> None:
    """Run the command line; errors are one line on standard error, and an exit code."""
    prepare_streams()
    try:
        app()
    except LockTimeoutError as error:
        fail(str(error), _TIMED_OUT)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except PersistentContextError as error:
        fail(str(error))


def _version(wanted: bool) -> None:
    if wanted:
        say(f"persistent-context {version('persistent-context')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to standard error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("persistent_context").setLevel(logging.DEBUG if verbose else logging.WARNING)


@app.command()
def show(file: File, json_: AsJson = False) -> None:
    """Show all keys and values: a table on a terminal, otherwise one line each of key, tab and JSON."""
    data = _read(file)
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


@app.command()
def get(file: File, key: Key, json_: AsJson = False) -> None:
    """Print the value of a key: a string as is (escaped on a terminal), anything else as JSON."""
    data = _read(file)
    if key not in data:
        fail(f"{file} has no key {key!r}")
    value = data[key]
    if json_ or not isinstance(value, str):
        say(as_json(value))
    elif sys.stdout.isatty():
        say(printable(value, keep="\n\t"))
    else:
        say_exactly(value)


@app.command("set")
def set_(
    file: File,
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, or a plain string otherwise; - reads it from standard input.")],
    json_: Annotated[bool, typer.Option("--json", help="VALUE must be JSON.")] = False,
    string: Annotated[
        bool, typer.Option("--string", help="VALUE is a plain string, even if it looks like JSON.")
    ] = False,
    timeout: Timeout = 30.0,
) -> None:
    """Set the value of a key."""
    if json_ and string:
        refuse("--json and --string cannot be combined")
    text = standard_input() if value == "-" else value
    new = text
    if not string:
        try:
            new = _parsed(text)
        except json.JSONDecodeError as error:
            if json_:
                refuse(f"VALUE is not valid JSON: {error}")
        except ValueError as error:
            refuse(f"VALUE cannot be stored: {error}; --string stores it as a string")
    _context(file, timeout).mutate(key, lambda _: new)


@app.command()
def delete(
    file: File,
    keys: Annotated[list[str], typer.Argument(help="The keys.", show_default=False)],
    timeout: Timeout = 30.0,
) -> None:
    """Delete keys: all of them, or none if one is missing."""
    with _context(file, timeout).transaction() as tx:
        for key in keys:
            if key not in tx:
                fail(f"{file} has no key {key!r}")
            del tx[key]


@app.command(context_settings={"ignore_unknown_options": True})
def incr(
    file: File,
    key: Key,
    delta: Annotated[str, typer.Argument(help="The number to add; it may be negative.")] = "1",
    timeout: Timeout = 30.0,
) -> None:
    """Add to a number (0 if the key is missing) and print the result."""
    try:
        number = _parsed(delta)
    except ValueError:
        refuse(f"DELTA must be a number, not {delta[:_SHOWN]}")
    try:
        say(as_json(_context(file, timeout).incr(key, number)))
    except PersistentContextError:
        raise
    except TypeError as error:
        fail(f"{file}: {error}")


@app.command()
def watch(
    file: File,
    keys: Annotated[list[str] | None, typer.Argument(help="Only these keys.", show_default=False)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many changes.", show_default=False)] = None,
    json_: AsJson = False,
) -> None:
    """Print changes as other programs make them, until interrupted."""
    _read(file, must_exist=False)  # a corrupt file is left in place
    context = SyncPersistentContext.create(file)
    with context.watch(*keys or ()) as news:
        changes = (item for changes in news for item in changes.items())
        try:
            for key, change in itertools.islice(changes, count):
                say(as_json(_fields(key, change)) if json_ else _line(key, change))
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


@app.command()
def journal(
    file: File,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended later.")] = False,
    json_: AsJson = False,
) -> None:
    """Show who changed what, and when, since the last checkpoint."""
    try:
        show_journal(file, identify(file), follow=follow, json=json_)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


@app.command()
def checkpoint(file: File, timeout: Timeout = 30.0) -> None:
    """Fold the journal into the JSON file, for programs that read only that."""
    fold_journal(file, identify(file), timeout)


@app.command()
def who(file: File, json_: AsJson = False) -> None:
    """Show who holds the lock of the file."""
    holder = open_store(identify(file)).holder()
    if json_:
        say(as_json(holder and holder._asdict()))
    else:
        say(f"held by {holder}" if holder else "nobody holds the lock")


@app.command()
def doctor(file: File, json_: AsJson = False) -> None:
    """Examine the file, its directory, lock and journal; exit with 1 if there is a problem. Nothing is changed."""
    findings = list(examine(file))
    if json_:
        say(as_json([finding._asdict() for finding in findings]))
    else:
        console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        for finding in findings:
            console.print(
                Text(f"{finding.level:8}", style=_COLOURS[finding.level]),
                f"{finding.subject}: {printable(finding.text)}",
            )
            if finding.advice:
                console.print(f"         {printable(finding.advice)}")
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def demo(
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that count.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Duration in seconds.")] = 5.0,
) -> None:
    """Hammer one file from several processes, kill some with SIGKILL, and check that no count was lost."""
    if not run_demo(processes, seconds, Console()):
        raise typer.Exit(FAILED)


def _context(file: str, timeout: float) -> SyncPersistentContext:
    return SyncPersistentContext(file, lock_timeout=timeout)


def _read(file: str, *, must_exist: bool = True) -> LiveDict:
    """Read the file without the lock; a file that is not a JSON object is left in place."""
    path = identify(file)
    if must_exist and not (os.path.lexists(path) or os.path.lexists(f"{path}.journal")):
        fail(f"{file} does not exist")
    try:
        return LiveDict.of(open_store(path).snapshot())
    except CorruptStateError as error:
        fail(f"{file} is not a JSON object: {error}; run persistent-context doctor for details")


def _parsed(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        JSONDecodeError: it is not valid JSON.
        ValueError: it is JSON that Python cannot read.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not valid JSON"
    raise json.JSONDecodeError(msg, name, 0)


def _fields(key: str, change: Change) -> dict[str, Any]:
    """Return a change for scripts; an absent value has no field."""
    return {"key": key} | {name: value for name, value in change._asdict().items() if value is not MISSING}


def _line(key: str, change: Change) -> str:
    old, new = ("absent" if value is MISSING else as_json(value) for value in change)
    return f"{time.strftime('%H:%M:%S')}  {printable(key)}: {old} -> {new}"
