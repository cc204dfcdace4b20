"""One bad line in a large file makes all of it bad, wherever it is; a valid one of another layout does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from documents import OPERATIONS, asides, warned
from stories import AsyncFace, SyncFace, done, either_face, transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.usefixtures("nobody_repairs_it")

face = either_face

FACES = [AsyncFace, SyncFace]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


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
    """Return a document of 2,000 keys in the library's layout, with `line` at the start, the middle or the end."""
    lines = [b'"key %04d": "%s"' % (number, b"x" * 60) for number in range(2_000)]
    lines.insert({"first": 0, "middle": 1_000, "last": 2_000}[where], line)
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def in_turn(names: Iterable[str], ways: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Give each name two of the ways, and each way the same number of names: no line depends on how it is read."""
    every = [*ways]
    return [(name, *every[(number + turn) % len(every)]) for number, name in enumerate(names) for turn in (0, 1)]


class TestOneBadLineInALargeFile:
    @pytest.mark.parametrize(
        ("name", "where", "face"),
        in_turn(BAD_LINES, zip(["first", "middle", "last"] * 2, FACES * 3, strict=True)),
        indirect=["face"],
    )
    def test_load_moves_the_whole_file_aside(
        self, face: Any, path: Path, name: str, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Loading finds one bad line among 2,000, wherever it is, and no byte is lost."""
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
        ("name", "where", "operation", "face"),
        in_turn(
            BAD_LINES,
            zip(
                ["first", "middle", "last", "last", "middle", "first", "last", "last"],
                ["save", "transaction", "incr", "save", "transaction", "save", "save", "incr"],
                FACES * 4,
                strict=True,
            ),
        ),
        indirect=["face"],
    )
    def test_writing_moves_the_whole_file_aside(
        self, face: Any, path: Path, name: str, where: str, operation: str
    ) -> None:
        """A writer of another key never copies one bad line among 2,000 into the next version of the file."""
        document = large(BAD_LINES[name], where)
        path.write_bytes(document)

        async def story() -> None:
            await OPERATIONS[operation](face.context(path, durable=False))

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [document] == [aside.read_bytes() for aside in asides(path)]

    @pytest.mark.parametrize(
        ("name", "operation", "where", "face"),
        [
            (name, operation, *way)
            for operation in (None, "save", "incr", "transaction")
            for name, *way in in_turn(GOOD_LINES, zip(["first", "middle", "last"] * 2, FACES * 3, strict=True))
        ],
        indirect=["face"],
    )
    def test_a_valid_line_of_another_layout_is_kept(
        self, face: Any, path: Path, name: str, where: str, operation: str | None
    ) -> None:
        """A valid line in another layout is read, and kept by writers of other keys."""
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
