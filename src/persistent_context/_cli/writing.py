"""The commands that change keys: set, append, take, incr, delete, restore and copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from .._model.values import MISSING
from ..errors import PersistentContextError
from .arguments import (
    File,
    IsString,
    Key,
    Keys,
    MustBeJson,
    Timeout,
    Value,
    no_such_key,
    open_context,
    place_of,
    read,
    require,
    value_of,
)
from .copying import copy_state
from .jsontext import parse
from .streams import as_json, fail, refuse, say

_SHOWN: Final = 60
"""How many characters of an invalid argument are shown."""


def set_(
    file: File,
    key: Key,
    value: Value,
    json_: MustBeJson = False,
    string: IsString = False,
    timeout: Timeout = 30.0,
) -> None:
    """Set the value of a key; the key and the state may be new.

    A VALUE may begin with a -, as in: set FILE KEY -5
    """
    new = value_of(value, must_be_json=json_, is_string=string)
    open_context(file, timeout).mutate(key, lambda _: new)


def append(
    file: File,
    key: Key,
    value: Value,
    json_: MustBeJson = False,
    string: IsString = False,
    timeout: Timeout = 30.0,
) -> None:
    """Append to a list (an empty one if the key is missing) and print how many items it has then."""
    item = value_of(value, must_be_json=json_, is_string=string)
    with _type_errors(file):
        say(as_json(open_context(file, timeout).append(key, item)))


def take(file: File, key: Key, timeout: Timeout = 30.0) -> None:
    """Delete a key and print its value as JSON; if several programs take it at once, exactly one gets it."""
    require(file)
    value = open_context(file, timeout).take(key, MISSING)
    if value is MISSING:
        fail(no_such_key(file, key))
    say(as_json(value))


def incr(
    file: File,
    key: Key,
    delta: Annotated[str, typer.Argument(help="The number to add; it may be negative.", metavar="DELTA")] = "1",
    timeout: Timeout = 30.0,
) -> None:
    """Add to a number (0 if the key is missing) and print the result."""
    try:
        number = parse(delta)
    except ValueError:
        refuse(f"DELTA must be a number, not {delta[:_SHOWN]}")
    with _type_errors(file):
        say(as_json(open_context(file, timeout).incr(key, number)))


def delete(file: File, keys: Keys, timeout: Timeout = 30.0) -> None:
    """Delete keys: all of them, or none if one is missing."""
    require(file)
    with open_context(file, timeout).transaction() as tx:
        for key in keys:
            if key not in tx:
                fail(no_such_key(file, key))
            del tx[key]


def restore(
    file: File,
    copy: Annotated[
        str, typer.Argument(help="Another JSON file or state.", metavar="COPY", show_default=False, callback=place_of)
    ],
    timeout: Timeout = 30.0,
) -> None:
    """Add the keys that FILE lacks from COPY, such as a repaired file that was moved aside.

    Keys that FILE has keep their values, which are newer. COPY is left as it is.
    """
    data = read(copy)
    with open_context(file, timeout).transaction() as tx:
        missing = [key for key in data if key not in tx]
        for key in missing:
            tx[key] = data[key]
    say(f"keys added: {len(missing)}; keys already present: {len(data) - len(missing)}")


def copy(
    source: Annotated[
        str,
        typer.Argument(
            help="The file or URL to copy; it is left as it is.", metavar="FROM", show_default=False, callback=place_of
        ),
    ],
    target: Annotated[
        str, typer.Argument(help="The file or URL to copy it to.", metavar="TO", show_default=False, callback=place_of)
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace all keys of TO, if it has any.")] = False,
    timeout: Timeout = 30.0,
) -> None:
    """Copy all keys from one file or state in etcd to another, in the same order.

    FROM is read at one moment, and TO changes in one commit: other programs see all keys or none.

    If TO is in etcd, has no keys, and cannot take all of them at once (1.5 MB), they are copied in several commits:
    until the last one, other programs see a part. If this fails halfway, a message says so.
    """
    keys, commits = copy_state(source, target, force=force, timeout=timeout)
    say(f"keys copied: {keys}" if commits == 1 else f"keys copied: {keys}, in {commits} commits")


@contextlib.contextmanager
def _type_errors(file: str) -> Iterator[None]:
    """Report a value of the wrong type; the library's own errors are self-explanatory."""
    try:
        yield
    except PersistentContextError:
        raise
    except TypeError as error:
        fail(f"{file}: {error}")
