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

from . import _demo, _doctor
from ._errors import LockTimeoutError, PersistentContextError
from ._live import LiveDict
from ._parse import CorruptDocumentError
from ._printable import printable
from ._store import JsonFileStore
from ._sync import SyncPersistentContext
from ._types import Change
from ._values import MISSING

_FAILED: Final = 1
_TIMED_OUT: Final = 3
_INTERRUPTED: Final = 130
_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}

app = typer.Typer(
    help="Look into and change a JSON file that programs share by PersistentContext, as safely as they do.",
    epilog="Exit codes: 0 done, 1 failed or no such key, 2 wrong usage, 3 the lock was not had in time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

File = Annotated[str, typer.Argument(help="The JSON file.", show_default=False)]
Key = Annotated[str, typer.Argument(help="One of its keys.", show_default=False)]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait for the lock; inf waits for ever.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for scripts.")]


def run() -> None:
    """Run the command line; errors are one line on standard error, and an exit code."""
    try:
        app()
    except LockTimeoutError as error:
        _fail(str(error), _TIMED_OUT)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except PersistentContextError as error:
        _fail(str(error))


def _fail(message: str, code: int = _FAILED) -> NoReturn:
    typer.echo(f"error: {printable(message)}", err=True)
    sys.exit(code)


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"persistent-context {version('persistent-context')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens, on standard error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("persistent_context").setLevel(logging.DEBUG if verbose else logging.WARNING)


@app.command()
def show(file: File, json_: AsJson = False) -> None:
    """Show all keys and their values, a table on a terminal, else a line each: key, tab, JSON."""
    data = _read(file)
    if json_:
        typer.echo(_json(dict(data)))
    elif sys.stdout.isatty():
        table = Table("key", "value", title=printable(file), title_justify="left")
        for key, value in data.items():
            table.add_row(Text(printable(key)), Text(_json(value), no_wrap=True, overflow="ellipsis"))
        Console().print(table)
    else:
        for key, value in data.items():
            typer.echo(f"{printable(key)}\t{_json(value)}")


@app.command()
def get(file: File, key: Key, json_: AsJson = False) -> None:
    """Print the value of a key: a string as it is, all else as JSON."""
    data = _read(file)
    if key not in data:
        _fail(f"{file} has no key {key!r}")
    value = data[key]
    typer.echo(value if isinstance(value, str) and not json_ else _json(value))


@app.command("set")
def set_(
    file: File,
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, or else a plain string; - reads it from standard input.")],
    json_: Annotated[bool, typer.Option("--json", help="VALUE must be JSON.")] = False,
    string: Annotated[
        bool, typer.Option("--string", help="VALUE is a plain string, also if it looks like JSON.")
    ] = False,
    timeout: Timeout = 30.0,
) -> None:
    """Set the value of a key."""
    if json_ and string:
        _refuse("--json and --string exclude each other")
    text = sys.stdin.read() if value == "-" else value
    new = text
    if not string:
        try:
            new = json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            if json_:
                _refuse(f"VALUE is no JSON: {error}")
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
                _fail(f"{file} has no key {key!r}")
            del tx[key]


@app.command(context_settings={"ignore_unknown_options": True})
def incr(
    file: File,
    key: Key,
    delta: Annotated[str, typer.Argument(help="The number to add; it may be negative.")] = "1",
    timeout: Timeout = 30.0,
) -> None:
    """Add to a number, 0 if it is missing, and print the new one."""
    try:
        number = json.loads(delta, parse_constant=_no_constant)
    except ValueError:
        _refuse(f"DELTA is no number: {delta}")
    try:
        typer.echo(_json(_context(file, timeout).incr(key, number)))
    except PersistentContextError:
        raise
    except TypeError as error:
        _fail(f"{file}: {error}")


@app.command()
def watch(
    file: File,
    keys: Annotated[list[str] | None, typer.Argument(help="Only these keys.", show_default=False)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many changes.", show_default=False)] = None,
    json_: AsJson = False,
) -> None:
    """Print what programs change, as they do, until it is interrupted."""
    _read(file, must_exist=False)  # what is corrupt is left where it is
    context = SyncPersistentContext.create(file)
    with context.watch(*keys or ()) as news:
        changes = (item for changes in news for item in changes.items())
        try:
            for key, change in itertools.islice(changes, count):
                typer.echo(_json(_fields(key, change)) if json_ else _line(key, change))
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


@app.command()
def who(file: File, json_: AsJson = False) -> None:
    """Tell who holds the lock of the file now."""
    holder = JsonFileStore(os.path.realpath(file)).holder()
    if json_:
        typer.echo(_json(holder and holder._asdict()))
    else:
        typer.echo(f"held by {holder}" if holder else "nobody holds the lock")


@app.command()
def doctor(file: File, json_: AsJson = False) -> None:
    """Examine the file, its place and its lock; exits with 1 if there is a problem. Nothing is changed."""
    findings = list(_doctor.examine(file))
    if json_:
        typer.echo(_json([finding._asdict() for finding in findings]))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for finding in findings:
            console.print(
                Text(f"{finding.level:8}", style=_COLOURS[finding.level]),
                f"{finding.subject}: {printable(finding.text)}",
                markup=False,
            )
            if finding.advice:
                console.print(f"         {printable(finding.advice)}", markup=False)
    if any(finding.level is _doctor.Level.PROBLEM for finding in findings):
        raise typer.Exit(_FAILED)


@app.command()
def demo(
    processes: Annotated[int, typer.Option(min=1, help="Processes that count.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 5.0,
) -> None:
    """Have processes hammer one file while some are killed by SIGKILL, and check that no count was lost."""
    if not _demo.run(processes, seconds, Console()):
        raise typer.Exit(_FAILED)


def _context(file: str, timeout: float) -> SyncPersistentContext:
    return SyncPersistentContext(file, lock_timeout=timeout)


def _read(file: str, *, must_exist: bool = True) -> LiveDict:
    """Read the file without its lock; one that is no JSON object is left where it is."""
    path = os.path.realpath(file)
    if must_exist and not os.path.lexists(path):
        _fail(f"{file} does not exist")
    try:
        return LiveDict.of(JsonFileStore(path).read())
    except CorruptDocumentError as error:
        _fail(f"{file} is no JSON object: {error}; persistent-context doctor says more")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _fields(key: str, change: Change) -> dict[str, Any]:
    """Return a change for scripts; what is absent has no field."""
    return {"key": key} | {name: value for name, value in change._asdict().items() if value is not MISSING}


def _line(key: str, change: Change) -> str:
    old, new = ("absent" if value is MISSING else _json(value) for value in change)
    return f"{time.strftime('%H:%M:%S')}  {printable(key)}: {old} -> {new}"
