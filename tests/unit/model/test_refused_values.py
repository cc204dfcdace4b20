"""Values that JSON cannot hold and give back equal are refused, by name, before anything is written."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import types
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistent_context import MISSING, PersistentContext, SyncPersistentContext, UnserializableValueError
from stories import done, either_face, transaction

face = either_face


@dataclasses.dataclass
class Point:
    x: int = 1


class Pair(NamedTuple):
    x: int = 1
    y: int = 2


class Colour(enum.Enum):
    RED = "red"


class Record(msgspec.Struct):
    x: int = 1


class Foreign:
    """An object with all the methods that other encoders look for."""

    def __json__(self) -> str:
        return "1"

    def to_dict(self) -> dict[str, int]:
        return {"x": 1}

    def __repr__(self) -> str:
        return "1"


def looped_list() -> list[Any]:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    return loop


def looped_dict() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


def deep_list(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def deep_dict(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"d": value}
    return value


WRONG_TYPES: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (1, 2),
    "empty tuple": lambda: (),
    "namedtuple": Pair,
    "set": lambda: {1},
    "frozenset": lambda: frozenset({1}),
    "bytes": lambda: b"x",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "array": lambda: array.array("i", [1]),
    "datetime": lambda: dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "date": lambda: dt.date(2024, 1, 1),
    "time": lambda: dt.time(1, 2),
    "timedelta": lambda: dt.timedelta(1),
    "Decimal": lambda: decimal.Decimal("1.5"),
    "Fraction": lambda: fractions.Fraction(1, 2),
    "complex": lambda: 1j,
    "UUID": lambda: uuid.UUID(int=1),
    "Path": lambda: pathlib.PurePosixPath("x"),
    "dataclass": Point,
    "dataclass type": lambda: Point,
    "enum": lambda: Colour.RED,
    "struct": Record,
    "raw JSON": lambda: msgspec.Raw(b"1, 2"),
    "UNSET": lambda: msgspec.UNSET,
    "MISSING": lambda: MISSING,
    "object": object,
    "object with an encoder's methods": Foreign,
    "range": lambda: range(3),
    "generator": lambda: (number for number in range(3)),
    "deque": lambda: collections.deque([1]),
    "read-only mapping": lambda: types.MappingProxyType({"x": 1}),
    "UserDict": lambda: collections.UserDict(x=1),
    "dict keys": lambda: {"x": 1}.keys(),
    "function": lambda: len,
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "exception": lambda: ValueError("x"),
}


WRONG_KEYS: dict[str, Callable[[], Any]] = {
    "int key": lambda: {1: "x"},
    "int key beside its text": lambda: {"1": "x", 1: "y"},
    "bool key": lambda: {True: "x"},
    "None key": lambda: {None: "x"},
    "float key": lambda: {1.5: "x"},
    "tuple key": lambda: {(1, 2): "x"},
    "bytes key": lambda: {b"k": "x"},
    "enum key": lambda: {Colour.RED: "x"},
    "UUID key": lambda: {uuid.UUID(int=1): "x"},
}


WRONG_VALUES: dict[str, Callable[[], Any]] = {
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "-infinity": lambda: -math.inf,
    "high surrogate": lambda: "\ud800",
    "low surrogate": lambda: "a\udc00b",
    "surrogates the wrong way round": lambda: "\ude00\ud83d",
    "surrogates that could be a pair": lambda: "\ud83d\ude00",
    "an undecodable file name": lambda: os.fsdecode(b"\xff"),
    "surrogate in a key": lambda: {"\udfff": 1},
    "4,301 digits": lambda: 10**4300,
    "-4,301 digits": lambda: -(10**4300),
    "5,000 digits": lambda: 10**4999,
    "100,000 digits": lambda: 1 << 332_192,
    "a list in itself": looped_list,
    "a dict in itself": looped_dict,
    "501 lists deep": lambda: deep_list(501),
    "501 dicts deep": lambda: deep_dict(501),
    "100,000 lists deep": lambda: deep_list(100_000),
    "100,000 dicts deep": lambda: deep_dict(100_000),
}


BAD: dict[str, Callable[[], Any]] = {**WRONG_TYPES, **WRONG_KEYS, **WRONG_VALUES}


SOME_BAD = ["tuple", "datetime", "raw JSON", "int key", "NaN", "high surrogate", "5,000 digits", "a list in itself"]


ORIGINAL = b'{\n"jobs": [0],\n"n": 1,\n"t": "text"\n}\n'


def natural_base(name: str) -> type[Exception]:
    """Return the matching builtin error: TypeError for wrong types, ValueError for right types with wrong values."""
    return ValueError if name in WRONG_VALUES else TypeError


def full_name(kind: type) -> str:
    """Return the name of a type, with its module unless that is in Python's standard library."""
    is_pythons = kind.__module__.split(".")[0] in sys.stdlib_module_names
    return kind.__qualname__ if is_pythons else f"{kind.__module__}.{kind.__qualname__}"


def clean(path: pathlib.Path) -> bool:
    """Whether there is nothing beside the file but its lock file."""
    return set(os.listdir(path.parent)) <= {path.name, path.name + ".lock"}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "state.json"
    path.write_bytes(ORIGINAL)
    return path


def text(value: Any) -> str:
    """Return the JSON text, which distinguishes 1 from 1.0 and True, and one order of keys from another."""
    return json.dumps(value, allow_nan=False)


characters = st.characters(exclude_categories=["Cs"])


strings = st.text(characters, max_size=20) | st.sampled_from(['",\n"b": 2', "\u2028", "\0", '"', "\\", "}", "\ufeff"])


numbers = (
    st.integers()
    | st.sampled_from([10**4299, -(10**4299), 2**64, -(2**63) - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
)


scalars = st.none() | st.booleans() | numbers | strings


values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(strings, inner, max_size=5), max_leaves=20
)


documents = st.dictionaries(strings, values, max_size=8)


wrong_leaves = st.sampled_from(sorted(BAD)).map(lambda name: BAD[name]())


wrong_values = st.recursive(
    wrong_leaves,
    lambda inner: (
        st.builds(
            lambda before, bad, after: [*before, bad, *after],
            st.lists(scalars, max_size=3),
            inner,
            st.lists(scalars, max_size=3),
        )
        | st.builds(
            lambda before, key, bad: {**before, key: bad}, st.dictionaries(strings, scalars, max_size=3), strings, inner
        )
    ),
    max_leaves=1,
)


thorough = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class TestSaveRefuses:
    @pytest.mark.parametrize("name", BAD)
    def test_and_names_the_place(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A value that JSON cannot hold is refused with its path; nothing is written and memory loses nothing."""
        value = BAD[name]()
        jobs = [0, 1, 2, {"when": value}]

        async def story() -> UnserializableValueError:
            ctx = await done(face.context.create(path))
            ctx.set("good", "kept")
            ctx.set("jobs", jobs)
            with pytest.raises(UnserializableValueError) as caught:
                await done(ctx.save())
            assert jobs is ctx.get("jobs")
            assert value is ctx.get("jobs")[3]["when"]
            assert "kept" == ctx.get("good")
            assert {"good", "jobs"} == ctx.unsaved_keys()
            return caught.value

        error = face.run(story())

        assert isinstance(error, natural_base(name))
        assert '["jobs"]' in str(error)
        if "deep" not in name:
            assert '["jobs"][3]["when"]' in str(error)
        if name in WRONG_TYPES:
            assert re.search(rf" is an? {re.escape(full_name(type(value)))}, which JSON cannot hold; ", str(error))
        assert len(str(error)) < 10_000
        assert ORIGINAL == path.read_bytes()
        assert clean(path)

    @pytest.mark.parametrize("name", BAD)
    def test_at_the_top_too(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A bad value directly under its key is refused as well; `set` itself does not check it."""

        async def story() -> UnserializableValueError:
            ctx = face.context(path)
            ctx.set("bad one", BAD[name]())
            with pytest.raises(UnserializableValueError) as caught:
                await done(ctx.save())
            return caught.value

        error = face.run(story())

        assert isinstance(error, natural_base(name))
        assert '["bad one"]' in str(error)
        assert ORIGINAL == path.read_bytes()
        assert clean(path)

    @pytest.mark.parametrize("name", SOME_BAD)
    def test_and_saves_once_it_is_repaired(self, face: Any, path: pathlib.Path, name: str) -> None:
        """When the bad value is removed, the next save writes everything that was unsaved."""

        async def story() -> None:
            ctx = await done(face.context.create(path))
            ctx.set("good", "kept")
            ctx.get("jobs").append(BAD[name]())
            with pytest.raises(UnserializableValueError):
                await done(ctx.save())
            ctx.get("jobs")[-1] = 1
            await done(ctx.save())
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert {"jobs": [0, 1], "n": 1, "t": "text", "good": "kept"} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("name", SOME_BAD)
    def test_and_makes_no_missing_file(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A refused value does not create the file."""
        path.unlink()

        async def story() -> None:
            ctx = await done(face.context.create(path))
            ctx.set("bad", BAD[name]())
            with pytest.raises(UnserializableValueError):
                await done(ctx.save())

        face.run(story())

        assert not path.exists()
        assert clean(path)

    def test_on_leaving_the_context_manager(self, path: pathlib.Path) -> None:
        """The save at the end of `async with` refuses a bad value like any other save."""

        async def story() -> None:
            with pytest.raises(UnserializableValueError):
                async with PersistentContext(path) as ctx:
                    ctx["when"] = dt.date(2024, 1, 1)

        asyncio.run(story())

        assert ORIGINAL == path.read_bytes()

    def test_others_of_the_same_group_are_not_refused(self, path: pathlib.Path) -> None:
        """A bad value in one of the calls that share a write fails only that call."""

        async def story() -> list[Any]:
            bad, good = await PersistentContext.create(path), await PersistentContext.create(path)
            bad.set("bad", {1})
            good.set("good", 1)
            calls = bad.save(), good.save(), bad.incr("n"), bad.add("worse", b""), good.add("late", 2)
            return await asyncio.gather(*calls, return_exceptions=True)

        first, second, third, fourth, fifth = asyncio.run(story())

        assert isinstance(first, UnserializableValueError)
        assert second is None
        assert 2 == third
        assert isinstance(fourth, UnserializableValueError)
        assert fifth is True
        assert {"jobs": [0], "n": 2, "t": "text", "good": 1, "late": 2} == json.loads(path.read_bytes())


class Scalar:
    """A value as numpy has it, which can convert itself."""

    __module__ = "numpy"

    def tolist(self) -> int:
        return 1


REMEDIES: dict[str, tuple[Callable[[], Any], str]] = {
    "tuple": (lambda: (1, 2), "is a tuple, which JSON cannot hold; use a list"),
    "set": (lambda: {1}, "is a set, which JSON cannot hold; use a list"),
    "frozenset": (frozenset, "is a frozenset, which JSON cannot hold; use a list"),
    "datetime": (
        lambda: dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "is a datetime, which JSON cannot hold; convert it, for example with .isoformat()",
    ),
    "date": (
        lambda: dt.date(2024, 1, 1),
        "is a date, which JSON cannot hold; convert it, for example with .isoformat()",
    ),
    "Decimal": (
        lambda: decimal.Decimal("1.5"),
        "is a Decimal, which JSON cannot hold; convert it, for example with str() or float()",
    ),
    "bytes": (
        lambda: b"x",
        "is a bytes, which JSON cannot hold; convert it, for example with .decode() or .hex()",
    ),
    "Path": (
        lambda: pathlib.PurePosixPath("x"),
        "is a PurePosixPath, which JSON cannot hold; convert it, for example with str()",
    ),
    "dataclass": (
        Point,
        f"is a {Point.__module__}.Point, which JSON cannot hold; convert it, for example with dataclasses.asdict()",
    ),
    "numpy": (Scalar, "is a numpy.Scalar, which JSON cannot hold; convert it, for example with .tolist()"),
    "UUID": (
        lambda: uuid.UUID(int=1),
        "is a UUID, which JSON cannot hold; convert it to a dict, list, str, number, bool or None",
    ),
    "object": (
        object,
        "is an object, which JSON cannot hold; convert it to a dict, list, str, number, bool or None",
    ),
    "NaN": (lambda: math.nan, "is nan, which JSON cannot hold; use None"),
    "infinity": (lambda: -math.inf, "is -inf, which JSON cannot hold; use None"),
    "int key": (lambda: {1: 2}, "has the key 1: a key must be a str, not int; convert it, for example with str()"),
    "bytes key": (
        lambda: {b"k": 2},
        "has the key b'k': a key must be a str, not bytes; convert it, for example with .decode()",
    ),
    "digits": (
        lambda: 10**4300,
        "is an int with more than 4,300 digits, the most that Python reads by default; use a str",
    ),
    "surrogate": (lambda: "\ud800", "is a str with a lone surrogate, which UTF-8 cannot hold"),
    "cycle": (looped_list, '[1]["again"] contains itself'),
}


class TestRemedies:
    @pytest.mark.parametrize("name", REMEDIES)
    def test_the_message_says_what_to_do(self, face: Any, path: pathlib.Path, name: str) -> None:
        """The message names the file, the place, what is there, and what to use instead."""
        make, expected = REMEDIES[name]

        async def story() -> UnserializableValueError:
            ctx = face.context(path)
            ctx.set("v", make())
            with pytest.raises(UnserializableValueError) as caught:
                await done(ctx.save())
            return caught.value

        space = "" if name == "cycle" else " "

        assert f'{path}: ["v"]{space}{expected}' == str(face.run(story()))

    def test_a_key_of_the_context(self, path: pathlib.Path) -> None:
        """The message about a key shows the key, and says how to convert it."""
        with pytest.raises(UnserializableValueError) as caught:
            SyncPersistentContext(path).set(1, 2)

        expected = "1 cannot be a key: a key must be a str, not int; convert it, for example with str()"
        assert f"{path}: {expected}" == str(caught.value)

    @pytest.mark.parametrize(
        "change",
        [
            lambda tx: tx.update(v=(1,)),
            lambda tx: tx["jobs"].append((1,)),
            lambda tx: tx.update({1: 1}),
        ],
        ids=["set", "in place", "key"],
    )
    def test_in_a_transaction(self, face: Any, path: pathlib.Path, change: Callable[[Any], None]) -> None:
        """The message names the file inside a transaction as well."""

        async def story() -> UnserializableValueError:
            ctx = await done(face.context.create(path))
            with pytest.raises(UnserializableValueError) as caught:
                async with transaction(ctx) as tx:
                    change(tx)
            return caught.value

        error = face.run(story())

        assert str(path) == error.filepath
        assert str(error).startswith(f"{path}: ")


class TestAtomicOperationsRefuse:
    async def refused(self, ctx: Any, operation: Callable[[Any], Coroutine[Any, Any, Any]]) -> UnserializableValueError:
        """Run `operation`, which must be refused and leave memory unchanged."""
        ctx.set("mine", [1])
        before, unsaved = ctx.get_all_data(), ctx.unsaved_keys()
        with pytest.raises(UnserializableValueError) as caught:
            await operation(ctx)

        assert before == ctx.get_all_data()
        assert unsaved == ctx.unsaved_keys() == {"mine"}
        return caught.value

    def check(
        self, face: Any, path: pathlib.Path, name: str, operation: Callable[[Any], Coroutine[Any, Any, Any]]
    ) -> None:
        async def story() -> UnserializableValueError:
            ctx = await done(face.context.create(path))
            error = await self.refused(ctx, operation)
            assert 2 == await done(ctx.incr("n"))
            return error

        error = face.run(story())

        assert isinstance(error, natural_base(name))
        assert '["jobs"]' in str(error) or '["new"]' in str(error)
        assert {"jobs": [0], "n": 2, "t": "text"} == json.loads(path.read_bytes())
        assert clean(path)

    @pytest.mark.parametrize("name", BAD)
    def test_add(self, face: Any, path: pathlib.Path, name: str) -> None:
        """`add` refuses what JSON cannot hold; file and memory are unchanged, and the next call works."""

        async def operation(ctx: Any) -> None:
            await done(ctx.add("new", [0, {"deep": BAD[name]()}]))

        self.check(face, path, name, operation)

    @pytest.mark.parametrize(
        ("call", "arguments", "place"),
        [
            ("append", ({1},), "items[0]"),
            ("extend", ([4, {"deep": {1}}],), 'items[1]["deep"]'),
            ("compare_and_set", ({1}, 2), "expected"),
            ("compare_and_set", (0, {1}), '["jobs"]'),
            ("mutate", (len, {1}), "default"),
        ],
    )
    def test_the_place_is_that_in_the_argument(self, face, path, call, arguments, place):
        """What is not to be stored at that place of the context is named as the argument that it is."""

        async def story() -> UnserializableValueError:
            ctx = await done(face.context.create(path))
            with pytest.raises(UnserializableValueError, match="is a set, which JSON cannot hold") as caught:
                await done(getattr(ctx, call)("jobs", *arguments))
            return caught.value

        error = face.run(story())

        assert (place, str(path)) == (error.place, error.filepath)

    @pytest.mark.parametrize("name", BAD)
    def test_compare_and_set(self, face: Any, path: pathlib.Path, name: str) -> None:
        """`compare_and_set` refuses a new value that JSON cannot hold; file and memory are unchanged."""

        async def operation(ctx: Any) -> None:
            await done(ctx.compare_and_set("jobs", [0], [0, {"deep": BAD[name]()}]))

        self.check(face, path, name, operation)

    @pytest.mark.parametrize("name", BAD)
    def test_mutate(self, face: Any, path: pathlib.Path, name: str) -> None:
        """`mutate` refuses a result that JSON cannot hold; file and memory are unchanged."""

        async def operation(ctx: Any) -> None:
            await done(ctx.mutate("jobs", lambda jobs: [*jobs, {"deep": BAD[name]()}]))

        self.check(face, path, name, operation)

    @pytest.mark.parametrize("name", BAD)
    def test_mutate_in_place(self, face: Any, path: pathlib.Path, name: str) -> None:
        """`mutate` refuses a bad value that its function put into its argument, and memory does not get it either."""

        async def operation(ctx: Any) -> None:
            def change(jobs: list[Any]) -> list[Any]:
                jobs.append({"deep": BAD[name]()})
                return jobs

            await done(ctx.mutate("jobs", change))

        self.check(face, path, name, operation)

    @pytest.mark.parametrize("name", BAD)
    def test_transaction(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A transaction with a value that JSON cannot hold commits nothing at all."""

        async def operation(ctx: Any) -> None:
            async with transaction(ctx) as tx:
                tx["n"] = 100
                tx["jobs"] = [{"deep": BAD[name]()}]
                tx["other"] = 1

        self.check(face, path, name, operation)

    @pytest.mark.parametrize("name", BAD)
    def test_transaction_in_place(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A transaction whose values were changed in place to something that JSON cannot hold commits nothing."""

        async def operation(ctx: Any) -> None:
            async with transaction(ctx) as tx:
                tx["n"] = 100
                tx["jobs"].append({"deep": BAD[name]()})

        self.check(face, path, name, operation)

    @pytest.mark.parametrize("name", SOME_BAD)
    def test_the_result_of_a_conflict(self, face: Any, path: pathlib.Path, name: str) -> None:
        """The result of `on_conflict` is checked like any other value."""

        async def story() -> None:
            mine = face.context(path, on_conflict=lambda *_: [BAD[name]()])
            await done(mine.load())
            mine.set("n", 5)
            assert 2 == await done((await done(face.context.create(path))).incr("n"))
            with pytest.raises(UnserializableValueError):
                await done(mine.save())
            assert 5 == mine.get("n")
            assert {"n"} == mine.unsaved_keys()

        face.run(story())

        assert {"jobs": [0], "n": 2, "t": "text"} == json.loads(path.read_bytes())
        assert clean(path)


class TestAnythingElse:
    @thorough
    @given(before=documents, key=strings, bad=wrong_values)
    def test_anything_else_is_refused(self, before: dict[str, Any], key: str, bad: Any) -> None:
        """A value with anything that JSON cannot hold, at any depth, is refused, and the file stays the same."""
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "state.json")
            ctx = SyncPersistentContext(path, durable=False)
            ctx.update(before)
            ctx.save()
            written = path.read_bytes()
            ctx.set(key, bad)
            with pytest.raises(UnserializableValueError):
                ctx.save()
            with pytest.raises(UnserializableValueError):
                SyncPersistentContext(path, durable=False).mutate(key, lambda _: bad)

            assert written == path.read_bytes()
            assert key in ctx.unsaved_keys()
