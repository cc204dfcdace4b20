"""The standard streams of the command line: printing, and reporting failures."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import Any, Final, NoReturn

import typer

from .._printable import printable, printable_json

FAILED: Final = 1
TIMED_OUT: Final = 3
INTERRUPTED: Final = 130
_STANDARD_ERROR: Final = 2
_CREDENTIALS: Final = re.compile(r"(etcd[\w+.-]*://)(?!\[user:password@\])[^/]*@")
"""Of a URL, but not of the form that messages show."""


def prepare_streams() -> None:
    """Make all output printable: escape what the encoding cannot represent, and discard output if closed.

    The null device takes the descriptor numbers of closed streams; otherwise a file opened later would take them, and
    output would go there.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(null)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    assert isinstance(sys.stdout, io.TextIOWrapper), "the process is the command line's own"
    sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Print a line in one piece, so that a reader of a pipe sees all of it or nothing."""
    print(f"{line}\n", end="", flush=True)  # noqa: T201 - typer would choose an encoding of its own


def note(message: str) -> None:
    """Print a message to standard error."""
    typer.echo(printable(without_credentials(message)), err=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the program with an error."""
    note(f"error: {message}")
    sys.exit(code)


def refuse(message: str) -> NoReturn:
    """End the program because of wrong usage."""
    raise typer.BadParameter(printable(message)) from None


def without_credentials(message: str) -> str:
    """Return a message without the users and passwords of URLs in it, such as one that was given in a wrong place."""
    return _CREDENTIALS.sub(r"\1", message)


def say_exactly(text: str) -> None:
    """Print a text unchanged, or fail if the output encoding cannot represent it."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError as error:
        fail(
            f"the output encoding, {sys.stdout.encoding}, cannot represent {error.object[error.start]!a}: "
            "print the value as JSON (--json), or set PYTHONUTF8=1"
        )
    say(text)


def standard_input() -> str:
    """Return all of standard input."""
    if sys.stdin is None:
        refuse("VALUE is - but standard input is closed")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        refuse(f"standard input is not valid {error.encoding} text: {error.reason} at byte {error.start}")


def as_json(value: Any) -> str:
    """Return JSON without terminal control characters, and representable in the output encoding."""
    return printable_json(json.dumps(value, ensure_ascii=False), sys.stdout.encoding)
