"""What stands in the file may be anything: a bad document is moved aside whole, and never half believed."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
import stat
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from persistent_context import (
    MISSING,
    LockTimeoutError,
    SyncPersistentContext,
)
from stories import SyncFace, done, either_face, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

face = either_face

NOBODY = 65534


# ---------------------------------------- the documents

DEEP = 100_000

DOCUMENTS: dict[str, bytes] = {
    # cut off, or never written
    "empty": b"",
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
    # numbers that are none
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
    # strings that are none
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
    # roots that are no object
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
"""More that JSON forbids, which only loading tries: whoever loads and whoever writes reads a file alike."""

SOME_DOCUMENTS = [
    "empty",
    "cut before the last brace",
    "NUL-filled",
    "bad UTF-8 deep in a value",
    "100,000 deep and cut",
    "NaN nested",
    "root list",
    "trailing garbage",
]


def asides(path: Path) -> list[Path]:
    """Return what was moved aside for `path`."""
    return sorted(path.parent.glob(glob.escape(path.name) + ".corrupt-*"))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that the library logged as warnings or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.split(".")[0] == "persistent_context" and record.levelno >= logging.WARNING
    ]


def leftovers(path: Path) -> list[str]:
    """Return the names beside `path` that are neither it, nor its lock, nor moved aside."""
    known = {path.name, path.name + ".lock", *(aside.name for aside in asides(path))}
    return sorted(name for name in os.listdir(path.parent) if name not in known)


async def _save(ctx: Any) -> None:
    ctx.set("fresh", 1)
    await done(ctx.save())


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
    "save": _save,
    "incr": _incr,
    "add": _add,
    "compare_and_set": _compare_and_set,
    "mutate": _mutate,
    "transaction": _transaction,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


# ---------------------------------------- loading


class TestLoadingABadDocument:
    @pytest.mark.parametrize("name", [*DOCUMENTS, *SPELLINGS])
    def test_it_is_moved_aside_byte_for_byte(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A bad document is moved aside with every byte it had, memory is empty, and a warning says so."""
        document = {**DOCUMENTS, **SPELLINGS}[name]
        path.write_bytes(document)

        async def story() -> dict[str, Any]:
            ctx = await done(face.context.create(path))
            assert set() == ctx.unsaved_keys()
            return ctx.get_all_data()

        loaded = face.run(story())

        assert {} == loaded
        assert [document] == [aside.read_bytes() for aside in asides(path)]
        assert not path.exists()
        assert [] == leftovers(path)
        assert any(path.name in message for message in warned(caplog))

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_the_next_save_works_and_what_was_moved_aside_stays(self, face: Any, path: Path, name: str) -> None:
        """After a bad document the context saves as ever, and the bad document is still kept."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> None:
            ctx = await done(face.context.create(path))
            await _save(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert [] == leftovers(path)


class TestTheNameOfWhatIsMovedAside:
    def test_it_tells_when(self, face: Any, path: Path) -> None:
        """The name is the file's, then `.corrupt-`, a time in UTC and something random."""
        path.write_bytes(b"{")

        async def story() -> None:
            await done(face.context(path).load())

        face.run(story())
        [aside] = asides(path)

        assert re.fullmatch(r"state\.json\.corrupt-[0-9TZ:.\-]*\d[0-9TZ:.\-]*-\w+", aside.name), aside.name

    def test_the_second_does_not_overwrite_the_first(self, face: Any, path: Path) -> None:
        """Two bad documents in a row are both kept."""

        async def story() -> None:
            for document in (b"{ first", b"{ second", b"{ first"):
                path.write_bytes(document)
                await done(face.context(path).load())

        face.run(story())

        assert [b"{ first", b"{ first", b"{ second"] == sorted(aside.read_bytes() for aside in asides(path))

    @pytest.mark.parametrize("bits", [0o600, 0o640])
    def test_nobody_else_can_read_it(self, face: Any, path: Path, bits: int) -> None:
        """What was private stays private when it is moved aside."""
        path.write_bytes(b'{"token": ')
        path.chmod(bits)

        async def story() -> None:
            await done(face.context(path).load())

        face.run(story())
        [aside] = asides(path)

        assert bits == stat.S_IMODE(aside.stat().st_mode)

    def test_a_symlink_stays_and_its_target_is_moved_aside(self, face: Any, path: Path, tmp_path: Path) -> None:
        """A link to a bad document stays a link; every byte of the document is kept."""
        real = tmp_path / "real" / "data.json"
        real.parent.mkdir()
        real.write_bytes(b"{ broken")
        path.symlink_to(real)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {} == ctx.get_all_data()
            await _save(ctx)

        face.run(story())
        kept = [found.read_bytes() for found in tmp_path.rglob("*.corrupt-*")]

        assert path.is_symlink()
        assert [b"{ broken"] == kept
        assert {"fresh": 1} == json.loads(real.read_bytes())


# ---------------------------------------- writing


class TestWritingOverABadDocument:
    @pytest.mark.parametrize(
        ("operation", "name"),
        [
            (operation, name)
            for operation in OPERATIONS
            for name in (DOCUMENTS if operation in {"save", "incr", "transaction"} else SOME_DOCUMENTS)
        ],
    )
    def test_it_is_moved_aside_and_the_operation_starts_from_nothing(
        self, face: Any, path: Path, name: str, operation: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever writes first on a bad document moves it aside whole, warns, and starts from nothing."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> None:
            await OPERATIONS[operation](face.context(path, durable=False))

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert [] == leftovers(path)
        assert any(path.name in message for message in warned(caplog))

    @pytest.mark.parametrize("name", SOME_DOCUMENTS)
    def test_an_operation_that_is_refused_loses_nothing(self, face: Any, path: Path, name: str) -> None:
        """A refused or failed operation on a bad document leaves every byte of it, in its place or aside."""
        path.write_bytes(DOCUMENTS[name])

        def fail(_: object) -> object:
            msg = "no"
            raise LookupError(msg)

        async def story() -> None:
            ctx = face.context(path)
            assert await done(ctx.compare_and_set("a", 1, 2)) is False
            with pytest.raises(TypeError):
                await done(ctx.incr("a", default="none"))
            with pytest.raises(LookupError):
                await done(ctx.mutate("a", fail))
            with pytest.raises(KeyError):
                async with transaction(ctx) as tx:
                    tx["b"] = 1
                    tx["a"] += 1

        face.run(story())
        kept = [found.read_bytes() for found in (path, *asides(path)) if found.exists()]

        assert 1 == kept.count(DOCUMENTS[name])
        assert [] == leftovers(path)


@pytest.mark.parametrize("name", SOME_DOCUMENTS)
class TestADocumentThatWentBadUnderUs:
    def test_save_writes_all_of_memory(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file that went bad since the load says nothing about what others want: all of memory is written."""
        path.write_bytes(b'{\n"a": 1,\n"b": [2]\n}\n')

        async def story() -> None:
            ctx = await done(face.context.create(path, on_conflict="raise"))
            path.write_bytes(DOCUMENTS[name])
            ctx.set("a", 3)
            await _save(ctx)
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert {"a": 3, "b": [2], "fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert warned(caplog)

    def test_save_without_a_change_writes_all_of_memory(self, face: Any, path: Path, name: str) -> None:
        """Even a save that has nothing of its own to add brings a whole file back."""
        path.write_bytes(b'{\n"a": 1,\n"b": [2]\n}\n')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            path.write_bytes(DOCUMENTS[name])
            await done(ctx.save())
            assert {"a": 1, "b": [2]} == ctx.get_all_data()

        face.run(story())

        assert {"a": 1, "b": [2]} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]

    def test_load_drops_memory_and_keeps_the_document(self, face: Any, path: Path, name: str) -> None:
        """Loading again does as it says, memory is what the file holds (nothing), and no byte is lost."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            ctx.set("b", 2)
            path.write_bytes(DOCUMENTS[name])
            await done(ctx.load())
            assert {} == ctx.get_all_data()
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]


# ---------------------------------------- large files

BAD_LINES: dict[str, bytes] = {
    "bad UTF-8": b'"bad": "\xff"',
    "bad UTF-8 in the key": b'"b\xffd": 1',
    "bad UTF-8 deep": b'"bad": {"a": [1, {"b": ["\xc3\x28"]}]}',
    "a surrogate in UTF-8": b'"bad": ["\xed\xa0\x80"]',
    "250 digits and an exponent": b'"bad": ' + b"9" * 250 + b"e99",
    "250 digits and an exponent nested": b'"bad": {"a": [-' + b"9" * 250 + b".0E+99]}",
    "NaN": b'"bad": NaN',
    "Infinity nested": b'"bad": {"a": [Infinity]}',
    "1e400": b'"bad": 1e400',
    "1e400 nested": b'"bad": [[{"a": -1e400}]]',
    "a lone surrogate": b'"bad": "\\ud800"',
    "a lone surrogate nested": b'"bad": {"a": ["\\udc00"]}',
    "a lone surrogate in the key": b'"\\ud800": 1',
    "a lone surrogate in a nested key": b'"bad": {"\\ud800": 1}',
    "501 lists deep": b'"bad": ' + b"[" * 501 + b"]" * 501,
    "501 objects deep": b'"bad": ' + b'{"a": ' * 501 + b"1" + b"}" * 501,
    "990 deep": b'"bad": ' + b'[{"a": ' * 495 + b"1" + b"}]" * 495,
    "5,000 deep": b'"bad": ' + b"[" * 5_000 + b"]" * 5_000,
    "a raw newline in a string": b'"bad": "x\ny"',
    "half a pair on a line": b'"bad": "x",\n"y"',
    "a cut string": b'"bad": "x',
    "an open bracket": b'"bad": [1',
    "a closing bracket": b'"bad": 1]',
    "a closing brace": b'"bad": 1}',
    "an end and a new start": b'"bad": 1}\n{"worse": 2',
    "a comma alone": b"",
    "a missing value": b'"bad":',
    "a missing colon": b'"bad" 1',
    "a missing comma": b'"bad": 1 "worse": 2',
    "a key alone": b'"bad"',
    "a bare word": b'"bad": undefined',
    "a leading zero": b'"bad": 007',
    "NULs": b"\0" * 4096,
    "brackets that cross": b'"bad": [{"a": 1]}',
    "brackets that cross lines": b'"bad": [1,\n"worse": 2]',
}

GOOD_LINES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "two keys on a line": (b'"one": 1, "two": 2', {"one": 1, "two": 2}),
    "a value over lines": (b'"one": [1,\n2,\n{"two":\n3}]', {"one": [1, 2, {"two": 3}]}),
    "our own line end in a nested object": (b'"one": {\n"a": 1,\n"b": 2\n}', {"one": {"a": 1, "b": 2}}),
    "our own line end in a string": (b'"one": "\\",\\n\\"two\\": 2"', {"one": '",\n"two": 2'}),
    "a comma on the next line": (b'"one": 1\n', {"one": 1}),
    "blank lines": (b'\n\n\r\n"one":\n\n1', {"one": 1}),
    "carriage returns": (b'"one": 1,\r\n"two": [2]\r', {"one": 1, "two": [2]}),
    "raw separators": ('"one\u2028": "\u2029\u0085"'.encode(), {"one\u2028": "\u2029\u0085"}),
    "an escaped key": (b'"\\u006fne": 1', {"one": 1}),
}


def large(line: bytes, where: str) -> bytes:
    """Return a document of 2,000 keys in our own layout, with `line` put in at the start, the middle or the end."""
    lines = [b'"key %04d": "%s"' % (number, b"x" * 60) for number in range(2_000)]
    lines.insert({"first": 0, "middle": 1_000, "last": 2_000}[where], line)
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def in_turn(names: Iterable[str], ways: Sequence[Any]) -> list[tuple[str, Any]]:
    """Give each name two of the ways, each way to as many names: no line depends on the way in which it is read."""
    return [(name, ways[(number + turn) % len(ways)]) for number, name in enumerate(names) for turn in (0, 1)]


class TestOneBadLineInALargeFile:
    @pytest.mark.parametrize(("name", "where"), in_turn(BAD_LINES, ["first", "middle", "last"]))
    def test_load_moves_the_whole_file_aside(
        self, face: Any, path: Path, name: str, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One bad line among 2,000 is found at loading, wherever it stands, and no byte is lost."""
        document = large(BAD_LINES[name], where)
        assert len(document) > 130_000
        path.write_bytes(document)

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = face.run(story())

        assert {} == loaded
        assert [document] == [aside.read_bytes() for aside in asides(path)]
        assert warned(caplog)

    @pytest.mark.parametrize(
        ("name", "how"),
        in_turn(BAD_LINES, [("first", "save"), ("middle", "transaction"), ("last", "incr"), ("last", "save")]),
    )
    def test_writing_moves_the_whole_file_aside(self, face: Any, path: Path, name: str, how: tuple[str, str]) -> None:
        """One bad line among 2,000 is never copied into the next version of the file by a writer of another key."""
        where, operation = how
        document = large(BAD_LINES[name], where)
        path.write_bytes(document)

        async def story() -> None:
            await OPERATIONS[operation](face.context(path, durable=False))

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [document] == [aside.read_bytes() for aside in asides(path)]

    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    @pytest.mark.parametrize("operation", [None, "save", "incr", "transaction"])
    @pytest.mark.parametrize("name", GOOD_LINES)
    def test_a_valid_line_of_another_layout_is_kept(
        self, face: Any, path: Path, name: str, where: str, operation: str | None
    ) -> None:
        """A valid line that is not laid out as ours is read, and kept by writers of other keys."""
        line, expected = GOOD_LINES[name]
        document = large(line, where)
        path.write_bytes(document)

        async def change(ctx: Any) -> None:
            if operation == "transaction":
                async with transaction(ctx) as tx:
                    tx["fresh"] = 1
            elif operation is not None:
                await OPERATIONS[operation](ctx)

        async def story() -> dict[str, Any]:
            ctx = await done(face.context.create(path, durable=False))
            await change(ctx)
            return ctx.get_all_data()

        memory = face.run(story())
        whole = json.loads(document) | ({} if operation is None else {"fresh": 1})

        assert json.dumps(whole) == json.dumps(json.loads(path.read_bytes()))
        assert whole == memory
        assert expected == {key: memory[key] for key in expected}
        assert [] == asides(path)


# ---------------------------------------- where it cannot be moved

READER = """
import asyncio, json, os, sys, tempfile
from persistent_context import PersistentContext, SyncPersistentContext

face, path, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])

def call(context, path, name, *args):
    if context is SyncPersistentContext:
        return getattr(context(path, lock_timeout=5), name)(*args)
    async def main():
        return await getattr(context(path, lock_timeout=5), name)(*args)
    return asyncio.run(main())

context = SyncPersistentContext if face == "sync" else PersistentContext
with tempfile.TemporaryDirectory() as warm:  # whatever is imported late is imported before the rights are gone
    for content in ('{"warm": 1}', '{"warm": '):
        with open(os.path.join(warm, "warm.json"), "w") as file:
            file.write(content)
        call(context, os.path.join(warm, "warm.json"), "incr", "warm")
if uid:
    os.setgroups([]), os.setgid(uid), os.setuid(uid)
for name, *args in (["load"], ["save"], ["incr", "n"]):
    try:
        call(context, path, name, *args)
        print(json.dumps([name, "no error", None]))
    except OSError as error:
        print(json.dumps([name, "OSError", error.errno]))
"""


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Make a directory that another user can reach, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    with suppress(FileNotFoundError):
        directory.chmod(0o700)
        for found in directory.iterdir():
            found.unlink()
        directory.rmdir()


class TestABadDocumentThatCannotBeMoved:
    def test_in_a_directory_of_somebody_else(self, face: Any, public_directory: Path, spawn: Any) -> None:
        """Where a bad document cannot be moved aside every call says so with an OSError, and not a byte changes."""
        path = public_directory / "state.json"
        path.write_bytes(b'{"a": ')
        path.chmod(0o644)
        public_directory.chmod(0o555)
        uid = NOBODY if os.geteuid() == 0 else 0
        child = spawn(READER, "sync" if face is SyncFace else "async", path, uid)
        results = [json.loads(line)[:2] for line in child.finish()]

        assert [["load", "OSError"], ["save", "OSError"], ["incr", "OSError"]] == results
        assert b'{"a": ' == path.read_bytes()
        assert ["state.json"] == os.listdir(public_directory)

    def test_on_a_read_only_mount(self, face: Any, tmp_path: Path) -> None:
        """On a file system that is mounted read-only, a bad document is an OSError and stays as it is."""
        if os.geteuid() != 0:
            pytest.skip("needs root for a read-only bind mount: run the tests as root, in a container")
        directory = tmp_path / "mounted"
        directory.mkdir()
        path = directory / "state.json"
        path.write_bytes(b'{"a": ')
        if subprocess.run(["mount", "--bind", directory, directory], check=False).returncode:
            pytest.skip("needs the right to mount (CAP_SYS_ADMIN): run the container with --privileged")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)

            async def story() -> None:
                ctx = face.context(path)
                with pytest.raises(OSError, match="."):
                    await done(ctx.load())
                with pytest.raises(OSError, match="."):
                    await done(ctx.incr("n"))

            face.run(story())

            assert b'{"a": ' == path.read_bytes()
            assert ["state.json"] == os.listdir(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


class TestAForeignWriterInTheMiddleOfItsWriting:
    """Somebody who writes in place, under the lock: what a reader sees meanwhile is bad, but not for long."""

    @staticmethod
    def descriptors(lock: str) -> int:
        """Return how many descriptors of this process stand on the lock file."""
        count = 0
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                count += os.path.realpath(lock) == os.readlink(f"/proc/self/fd/{descriptor}")
        return count

    def run_behind_the_lock(
        self, face: Any, path: Path, story: Coroutine[Any, Any, Any], repair: Callable[[], object]
    ) -> Any:
        """Start `story` while the lock is held, repair the file once it waits for the lock, and let it go on."""
        if not Path("/proc/self/fd").is_dir():
            pytest.skip("needs /proc/self/fd to see that somebody waits for the lock: run on Linux")
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(face.run(story))
            except BaseException as error:  # noqa: BLE001  # handed over to the test's own thread
                results.append(error)

        thread = threading.Thread(target=work)
        tick = threading.Event()
        with FileLock(f"{path}.lock"):
            thread.start()
            while thread.is_alive() and self.descriptors(f"{path}.lock") < 2:
                tick.wait(0.001)
            assert [] == results
            repair()
        thread.join()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    @pytest.mark.parametrize("name", SOME_DOCUMENTS)
    def test_a_file_repaired_in_time_is_loaded(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A load that met a bad document looks again under the lock, and takes what was repaired meanwhile."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = self.run_behind_the_lock(face, path, story(), lambda: path.write_bytes(b'{"repaired": true}'))

        assert {"repaired": True} == loaded
        assert b'{"repaired": true}' == path.read_bytes()
        assert [] == asides(path)
        assert [] == warned(caplog)

    @pytest.mark.parametrize("operation", ["save", "incr", "transaction"])
    def test_a_writer_waits_and_keeps_what_was_repaired(self, face: Any, path: Path, operation: str) -> None:
        """A writer that waits while somebody repairs the file adds to the repaired one."""
        path.write_bytes(b'{"a": ')

        async def story() -> None:
            ctx = face.context(path)
            if operation == "transaction":
                async with transaction(ctx) as tx:
                    tx["fresh"] = 1
            else:
                await OPERATIONS[operation](ctx)

        self.run_behind_the_lock(face, path, story(), lambda: path.write_bytes(b'{"repaired": true}'))

        assert {"repaired": True, "fresh": 1} == json.loads(path.read_bytes())
        assert [] == asides(path)

    def test_a_file_that_is_gone_in_time_is_a_missing_one(self, face: Any, path: Path) -> None:
        """A bad document that somebody removed while we waited for the lock is a missing file, not a failure."""
        path.write_bytes(b'{"a": ')

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = self.run_behind_the_lock(face, path, story(), path.unlink)

        assert {} == loaded
        assert [] == asides(path)

    def test_a_file_that_stays_bad_while_locked_is_left_alone(self, face: Any, path: Path, hold: Any) -> None:
        """Whoever cannot get the lock in time moves nothing aside: the load ends in the lock's timeout."""
        path.write_bytes(b'{"a": ')

        async def story() -> None:
            with pytest.raises(LockTimeoutError):
                await done(face.context(path, lock_timeout=0).load())

        with hold(path):
            face.run(story())

        assert b'{"a": ' == path.read_bytes()
        assert [] == asides(path)

    def test_many_readers_move_it_aside_once(self, path: Path) -> None:
        """Many that meet the same bad document at once keep one copy of it, and none of them fails."""
        path.write_bytes(b"{ broken")
        start = threading.Barrier(8)
        loaded: list[object] = []

        def read() -> None:
            start.wait()
            try:
                loaded.append(SyncPersistentContext.create(path).get_all_data())
            except BaseException as error:  # noqa: BLE001  # shown by the test
                loaded.append(error)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [{}] * 8 == loaded
        assert [b"{ broken"] == [aside.read_bytes() for aside in asides(path)]
