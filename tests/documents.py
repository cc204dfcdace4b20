"""Bad documents, how they are treated, and the calls that meet them."""

from __future__ import annotations

import glob
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from persistent_context import MISSING
from stories import done, save, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# ---------------------------------------- the documents

DEEP = 100_000

DOCUMENTS: dict[str, bytes] = {
    # cut off, or never written; one of no bytes is a new file, see test_empty_files.py
    "only blanks": b" \r\n\t\n",
    "cut in a value": b'{"a": 1, "b": [1, 2',
    "cut in a string": b'{\n"a": 1,\n"b": "two',
    "cut in a key": b'{\n"a": 1,\n"b',
    "cut in an escape": b'{\n"a": "\\u00',
    "cut in a character": '{\n"a": "é'.encode()[:-1],
    "cut after a comma": b'{\n"a": 1,\n',
    "cut after a colon": b'{\n"a":',
    "cut before the last brace": b'{\n"a": 1\n',
    "cut in a literal": b'{\n"a": tru',
    "one brace": b"{",
    "NUL-filled": b"\0" * 512,
    "NULs of UTF-32": bytes.fromhex("00 00 00 00 7b 7d"),
    "NULs before the document": b"\0" * 16 + b'{"a": 1}',
    "NULs after the document": b'{\n"a": 1\n}\n' + b"\0" * 4000,
    "NULs in the middle": b'{\n"a": 1,\n' + b"\0" * 64 + b'"b": 2\n}\n',
    # not UTF-8
    "bad UTF-8 in a value": b'{"a": "\xff\xfe"}',
    "bad UTF-8 in a key": b'{"\xff": 1}',
    "bad UTF-8 in a nested key": b'{"a": {"\xc3\x28": 1}}',
    "bad UTF-8 deep in a value": b'{"a": {"b": [1, {"c": ["x", [["\xc3\x28"]]]}]}}',
    "bad UTF-8 between values": b'{"a": 1\xa0}',
    "overlong UTF-8": b'{"a": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "beyond Unicode": b'{"a": "\xf4\x90\x80\x80"}',
    "Latin-1": '{"straße": "grün"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a": 1}'.encode("utf-16-le"),
    "UTF-16 of an empty object": "{}".encode("utf-16-be"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "only a byte order mark": b"\xef\xbb\xbf",
    # too deep, too long
    "100,000 lists deep": b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "100,000 objects deep": b'{"a": ' * DEEP + b"1" + b"}" * DEEP,
    "100,000 deep and cut": b'{"a": ' + b"[" * DEEP,
    "501 lists deep": b'{"a": ' + b"[" * 501 + b"]" * 501 + b"}",
    "501 objects deep": b'{"a": ' * 502 + b"1" + b"}" * 502,
    "a root 100,000 deep": b"[" * DEEP + b"]" * DEEP,
    # invalid numbers
    "NaN": b'{"a": NaN}',
    "NaN nested": b'{"a": {"b": [1, NaN]}}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": [-Infinity]}',
    "1e400": b'{"a": 1e400}',
    "250 digits and an exponent": b'{"a": [' + b"9" * 250 + b"e99]}",
    "-1e400 nested": b'{"a": {"b": [-1e400]}}',
    "5,000 digits of a float": b'{"a": ' + b"9" * 5000 + b".5}",
    "a leading zero": b'{"a": 01}',
    "a leading plus": b'{"a": +1}',
    "a bare point": b'{"a": .5}',
    "a trailing point": b'{"a": 1.}',
    "hexadecimal": b'{"a": 0x10}',
    # invalid strings
    "a lone high surrogate": b'{"a": "\\ud800"}',
    "a lone low surrogate": b'{"a": "\\udc00"}',
    "surrogates the wrong way round": b'{"a": "\\udc00\\ud800"}',
    "a lone surrogate nested": b'{"a": {"b": ["x", {"c": "\\ud83d!"}]}}',
    "a lone surrogate in a key": b'{"\\ud800": 1}',
    "a lone surrogate in a nested key": b'{"a": [{"\\udfff": 1}]}',
    "a raw newline in a string": b'{"a": "x\ny"}',
    "a raw tab in a string": b'{"a": "x\ty"}',
    "a raw NUL in a string": b'{"a": "x\0y"}',
    "an unknown escape": b'{"a": "\\x41"}',
    "single quotes": b"{'a': 1}",
    # roots that are not objects
    "root list": b'[{"a": 1}]',
    "root number": b"42",
    "root string": b'"{}"',
    "root null": b"null",
    "root true": b"true",
    # more, or less, than one document
    "trailing garbage": b'{"a": 1} x',
    "two documents": b'{"a": 1}\n{"b": 2}\n',
    "one brace too many": b'{"a": 1}}',
    "a trailing comma": b'{"a": 1,}',
    "a leading comma": b'{,"a": 1}',
    "a missing comma": b'{"a": 1 "b": 2}',
    "a missing value": b'{"a": , "b": 2}',
    "a missing colon": b'{"a" 1}',
    "a bare key": b"{a: 1}",
    "a number as key": b"{1: 2}",
    "a comment": b'{"a": 1} // one',
    "brackets that cross": b'{"a": [1}]',
    "prose": b"<<<<<<< HEAD\n" + b'{"a": 1}\n=======\n' + b'{"a": 2}\n>>>>>>> other\n',
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
}

SPELLINGS: dict[str, bytes] = {
    "only a comma": b"{,}",
    "a comma before the last line": b'{\n"a": 1,\n}\n',
    "a trailing comma in a list": b'{"a": [1,]}',
    "a missing comma between lines": b'{\n"a": 1\n"b": 2\n}\n',
    "a missing comma in a list": b'{"a": [1 2]}',
    "a comment in a list": b'{"a": [1 /* one */]}',
    "two documents side by side": b'{"a": 1}{"b": 2}',
    "leading garbage": b'x {"a": 1}',
    "no exponent": b'{"a": [1e]}',
    "a literal of Python": b'{"a": True}',
    "a line end in a string": b'{\n"a": "x\n"b": 1,\n"c": 2\n}\n',
    "a short escape": b'{"a": "\\u12"}',
    "an unknown escape in a key": b'{"\\q": 1}',
    "an open string": b'{"a": "x}',
    "closed in the middle": b'{\n"a": 1},\n"b": 2\n}\n',
    "a space that JSON does not know": b'{\xc2\xa0"a": 1}',
    "a form feed": b'{\x0c"a": 1}',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "a byte order mark in the middle": b'{"a": 1,\xef\xbb\xbf"b": 2}',
}
"""More that JSON forbids, tried only with loading, since loading and writing read a file in the same way."""

SOME_DOCUMENTS = [
    "only blanks",
    "cut before the last brace",
    "NUL-filled",
    "bad UTF-8 deep in a value",
    "100,000 deep and cut",
    "NaN nested",
    "root list",
    "trailing garbage",
]


def asides(path: Path) -> list[Path]:
    """Return the files that were moved aside for `path`."""
    return sorted(path.parent.glob(glob.escape(path.name) + ".corrupt-*"))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that the library logged as warnings or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.split(".")[0] == "persistent_context" and record.levelno >= logging.WARNING
    ]


def leftovers(path: Path) -> list[str]:
    """Return the names beside `path` other than its own, its lock's, and those of files moved aside."""
    known = {path.name, path.name + ".lock", *(aside.name for aside in asides(path))}
    return sorted(name for name in os.listdir(path.parent) if name not in known)


async def _incr(ctx: Any) -> None:
    assert 1 == await done(ctx.incr("fresh"))


async def _add(ctx: Any) -> None:
    assert await done(ctx.add("fresh", 1)) is True


async def _compare_and_set(ctx: Any) -> None:
    assert await done(ctx.compare_and_set("fresh", MISSING, 1)) is True


async def _mutate(ctx: Any) -> None:
    assert 1 == await done(ctx.mutate("fresh", lambda value: value + 1, default=0))


async def _transaction(ctx: Any) -> None:
    async with transaction(ctx) as tx:
        assert {} == dict(tx)
        tx["fresh"] = 1


OPERATIONS: dict[str, Callable[[Any], Coroutine[Any, Any, None]]] = {
    "save": save,
    "incr": _incr,
    "add": _add,
    "compare_and_set": _compare_and_set,
    "mutate": _mutate,
    "transaction": _transaction,
}
