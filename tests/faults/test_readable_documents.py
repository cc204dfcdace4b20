"""Documents that are not corrupt: valid but not readable here, or accepted with a warning."""

from __future__ import annotations

import glob
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from documents import OPERATIONS
from persistent_context import TooManyDigitsError
from stories import done, either_face, transaction

face = either_face


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def large(line: bytes, where: str) -> bytes:
    """Return a document of 2,000 keys in the library's layout, with `line` at the start, the middle or the end."""
    lines = [b'"key %04d": "%s"' % (number, b"x" * 60) for number in range(2_000)]
    lines.insert({"first": 0, "middle": 1_000, "last": 2_000}[where], line)
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


LONG_INTEGERS: dict[str, bytes] = {
    "4,301 digits": b"9" * 4301,
    "-4,301 digits": b"-" + b"9" * 4301,
    "5,000 digits nested": b'{"b": [-' + b"9" * 5000 + b"]}",
    "100,000 digits": b"1" * 100_000,
}


READ_WITH_A_LIMIT = """
import sys
from persistent_context import SyncPersistentContext, TooManyDigitsError

sys.set_int_max_str_digits(int(sys.argv[2]))
try:
    print(len(SyncPersistentContext.create(sys.argv[1])), SyncPersistentContext(sys.argv[1]).incr("n"))
except TooManyDigitsError as error:
    print(error.digits, error.limit)
"""


DUPLICATES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "side by side": (b'{"a": 1, "a": 2, "b": 3}', {"a": 2, "b": 3}),
    "in our layout": (b'{\n"a": 1,\n"b": 3,\n"a": 2\n}\n', {"a": 2, "b": 3}),
    "spelt in two ways": (b'{"a": 1, "\\u0061": 2, "b": 3}', {"a": 2, "b": 3}),
    "with the same value": (b'{"a": 2, "b": 3, "a": 2}', {"a": 2, "b": 3}),
    "far apart": (
        large(b'"b": 3', "middle").replace(b"{\n", b'{\n"a": 1,\n', 1).replace(b"\n}\n", b',\n"a": 2\n}\n'),
        {"a": 2, "b": 3, **{f"key {number:04}": "x" * 60 for number in range(2_000)}},
    ),
}


@pytest.mark.parametrize("name", LONG_INTEGERS)
@pytest.mark.parametrize(
    "make",
    [
        lambda value: b'{"a": 1, "big": ' + value + b"}",
        lambda value: b'{\n"a": 1,\n"big": ' + value + b"\n}\n",
        lambda value: large(b'"big": ' + value, "middle"),
        lambda value: large(b'"big":' + value, "last"),
    ],
    ids=["one line", "small", "large", "large in another layout"],
)
class TestAnIntegerThatIsTooLong:
    """Whether it can be read depends on the process: such a file is valid, and other processes may read it."""

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_every_call_says_so_and_leaves_the_file_alone(
        self, face: Any, path: Path, name: str, make: Callable[[bytes], bytes], operation: str
    ) -> None:
        """No call moves the file aside, or writes it without the integer; the error names the file and the limit."""
        document = make(LONG_INTEGERS[name])
        path.write_bytes(document)

        async def story() -> list[str]:
            told = []
            for call in (OPERATIONS[operation], lambda ctx: done(ctx.load())):
                with pytest.raises(TooManyDigitsError, match="digits") as caught:
                    await call(face.context(path))
                told.append(str(caught.value))
            return told

        told = face.run(story())

        assert [] == [message for message in told if str(path) not in message or "4,300" not in message]
        assert document == path.read_bytes()
        assert [] == asides(path)
        assert [] == leftovers(path)

    def test_it_is_found_where_the_rest_is_known(
        self, face: Any, path: Path, name: str, make: Callable[[bytes], bytes]
    ) -> None:
        """A context that loaded the file before the integer was put in keeps what it has, and works again later."""
        before = make(b"1")
        path.write_bytes(before)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            path.write_bytes(make(LONG_INTEGERS[name]))
            ctx.set("fresh", 0)
            with pytest.raises(TooManyDigitsError):
                await done(ctx.save())
            assert {"fresh"} == ctx.unsaved_keys()
            path.write_bytes(before)
            await done(ctx.save())

        face.run(story())

        assert {**json.loads(before), "fresh": 0} == json.loads(path.read_bytes())
        assert [] == asides(path)


@pytest.mark.parametrize(
    ("digits", "limit", "told"),
    [
        (640, 640, "2 1"),
        (641, 640, "641 640"),
        (4300, 0, "2 1"),
        (4301, 0, "4301 4300"),
        (4301, 10_000, "4301 4300"),
    ],
)
def test_no_limit_of_a_process_makes_a_file_corrupt(path: Path, spawn: Any, digits: int, limit: int, told: str) -> None:
    """A process that reads fewer digits than others gets an error; with one that reads more, all others still agree."""
    document = b'{"a": {"x": -' + b"9" * digits + b'}, "b": 1}'
    path.write_bytes(document)

    assert [told] == spawn(READ_WITH_A_LIMIT, path, limit).finish()
    assert b"9" * digits in path.read_bytes()
    assert [] == asides(path)


@pytest.mark.parametrize("name", DUPLICATES)
class TestDuplicateKeys:
    def test_the_last_one_wins_with_a_warning(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of a key that occurs twice the last value is taken, a warning is logged, and reading changes nothing."""
        document, expected = DUPLICATES[name]
        path.write_bytes(document)

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = face.run(story())

        assert expected == loaded
        assert document == path.read_bytes()
        assert [] == asides(path)
        assert any(path.name in message for message in warned(caplog))

    @pytest.mark.parametrize("operation", ["save", "incr", "transaction"])
    def test_the_original_is_kept_aside_when_it_is_overwritten(
        self, face: Any, path: Path, name: str, operation: str
    ) -> None:
        """Before a document with a repeated key is overwritten, all its bytes are kept aside, with the same mode."""
        document, expected = DUPLICATES[name]
        path.write_bytes(document)
        path.chmod(0o600)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            if operation == "transaction":
                async with transaction(ctx) as tx:
                    tx["fresh"] = 1
            else:
                await OPERATIONS[operation](ctx)

        face.run(story())
        pairs = json.loads(path.read_bytes(), object_pairs_hook=list)

        assert expected | {"fresh": 1} == dict(pairs)
        assert len(expected) + 1 == len(pairs)
        assert [document] == [aside.read_bytes() for aside in asides(path)]
        assert [0o600] == [stat.S_IMODE(aside.stat().st_mode) for aside in asides(path)]
        assert [] == leftovers(path)


class TestAByteOrderMark:
    MARK = b"\xef\xbb\xbf"

    @pytest.mark.parametrize("document", [b'{"a": 1}', b'{\n"a": 1\n}\n', b' {"a": 1}'])
    def test_it_is_accepted(self, face: Any, path: Path, document: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """A byte order mark before a good document is accepted, and reading changes nothing."""
        path.write_bytes(self.MARK + document)

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = face.run(story())

        assert {"a": 1} == loaded
        assert self.MARK + document == path.read_bytes()
        assert [] == asides(path)
        assert [] == warned(caplog)

    @pytest.mark.parametrize("operation", ["save", "incr", "transaction"])
    def test_it_is_gone_after_the_next_write(self, face: Any, path: Path, operation: str) -> None:
        """The next write is plain UTF-8 that `jq` and `json.load` accept, with every key kept."""
        path.write_bytes(self.MARK + b'{\n"a": 1\n}\n')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            if operation == "transaction":
                async with transaction(ctx) as tx:
                    tx["fresh"] = 1
            else:
                await OPERATIONS[operation](ctx)

        face.run(story())

        assert {"a": 1, "fresh": 1} == json.loads(path.read_bytes().decode("utf-8"))
        assert [] == asides(path)

    def test_a_bad_document_behind_it_is_moved_aside(self, face: Any, path: Path) -> None:
        """A bad document after a byte order mark is still bad."""
        path.write_bytes(self.MARK + b'{"a": ')

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path))).get_all_data()

        loaded = face.run(story())

        assert {} == loaded
        assert [self.MARK + b'{"a": '] == [aside.read_bytes() for aside in asides(path)]
