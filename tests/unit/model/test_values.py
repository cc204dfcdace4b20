"""JSON values come back equal, and are told apart from values that JSON cannot hold, whatever their class claims."""

from __future__ import annotations

import asyncio
import collections
import enum
import itertools
import json
import math
import os
import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistent_context import (
    MISSING,
    PersistentContext,
    SyncPersistentContext,
    TooManyDigitsError,
    UnserializableValueError,
)
from stories import done, either_face, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

face = either_face

# ---------------------------------------- the values


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


ORIGINAL = b'{\n"jobs": [0],\n"n": 1,\n"t": "text"\n}\n'


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "state.json"
    path.write_bytes(ORIGINAL)
    return path


# ---------------------------------------- keys


class Word(str):
    """A string whose str() differs from its text, as with many enumerations."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def __repr__(self) -> str:
        return "Word()"


class Mixed(str, enum.Enum):  # noqa: UP042 - not a StrEnum
    KEY = "n"


class Strict(enum.StrEnum):
    KEY = "n"


class Unhashed(str):
    """A string that a dictionary does not find by its text."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return self is other


KEYS_OF_OTHER_CLASSES = {
    "Word": Word("n"),
    "Mixed": Mixed.KEY,
    "Strict": Strict.KEY,
    "Unhashed": Unhashed("n"),
}


@pytest.fixture(params=["small", "large"])
def either(request: pytest.FixtureRequest, path: pathlib.Path) -> pathlib.Path:
    """A file of one page, or of many pages."""
    if request.param == "large":
        filler = {f"key-{number}": "x" * 100 for number in range(3_000)}
        path.write_text(json.dumps(json.loads(ORIGINAL) | filler), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", KEYS_OF_OTHER_CLASSES)
class TestKeysOfSubclassesOfStr:
    def test_every_call_takes_them_for_the_strings_that_they_are(
        self, face: Any, either: pathlib.Path, name: str
    ) -> None:
        """A key of a subclass of str is its text, whatever its methods return, and is stored as a plain string."""
        key = KEYS_OF_OTHER_CLASSES[name]

        async def story() -> list[Any]:
            ctx = await done(face.context.create(either))
            ctx.set(key, 5)
            await done(ctx.save())
            results = [json.loads(either.read_bytes())["n"], await done(ctx.incr(key)), await done(ctx.add(key, 0))]
            results += [await done(ctx.compare_and_set(key, 6, 7)), await done(ctx.mutate(key, lambda n: n + 1))]
            async with transaction(ctx) as tx:
                results += [tx[key], key in tx, tx.get(key)]
                tx[key] = 9
                results += [tx["n"]]
            async with transaction(ctx) as tx:
                del tx[key]
                results += [key in tx, "n" in tx]
            assert {str} == {type(one) for one in ctx}
            return results

        results = face.run(story())

        assert [5, 6, False, True, 8, 8, True, 8, 9, False, False] == results
        assert "n" not in json.loads(either.read_bytes())

    def test_they_fail_no_other_call(self, either: pathlib.Path, name: str) -> None:
        """Such a key does not fail the other calls that share its write."""
        key = KEYS_OF_OTHER_CLASSES[name]

        async def story() -> list[Any]:
            ctx = await PersistentContext.create(either)
            ctx.set(key, 10)
            return await asyncio.gather(ctx.incr("other"), ctx.save(), ctx.incr(key), ctx.add("new", 1))

        assert [1, None, 11, True] == asyncio.run(story())
        assert {"n": 11, "other": 1, "new": 1}.items() <= json.loads(either.read_bytes()).items()

    def test_as_values_they_are_strings_or_refused(self, face: Any, either: pathlib.Path, name: str) -> None:
        """As a value, or as a key inside one, it is written as its text, or refused with the right kind of error."""
        value = KEYS_OF_OTHER_CLASSES[name]

        async def story() -> None:
            ctx = await done(face.context.create(either))
            ctx.set("v", [value, {value: value}])
            try:
                await done(ctx.save())
            except UnserializableValueError:
                return
            assert ["n", {"n": "n"}] == json.loads(either.read_bytes())["v"]

        face.run(story())


def ascii_type(key: object) -> str:
    """Return an id that is the same in every process."""
    return type(key).__name__


def test_values_of_subclasses_are_written_as_their_plain_values(path: pathlib.Path) -> None:
    """A subclass of a scalar is written as its value, whatever its str() is."""

    def other(_: object) -> str:
        return "7"

    held = [type("Own", (type(one),), {"__str__": other, "__repr__": other})(one) for one in ("x", 5, 1.5)]
    ctx = SyncPersistentContext(path)
    ctx.add("held", held)
    ctx.add("plain", held[2])

    assert (["x", 5, 1.5], 1.5) == (json.loads(path.read_bytes())["held"], json.loads(path.read_bytes())["plain"])


class TestWhatCannotBeAKey:
    @pytest.mark.parametrize("key", [5, None, ("a",), 1.5, b"n", "\ud800", object()], ids=ascii_type)
    def test_it_is_not_there_in_a_transaction(self, face: Any, either: pathlib.Path, key: Any) -> None:
        """Looking up something that cannot be a key finds nothing, as in a dictionary, and does no harm later."""

        async def story() -> None:
            ctx = await done(face.context.create(either))
            async with transaction(ctx) as tx:
                assert key not in tx
                assert tx.get(key) is None
                assert tx.pop(key, "none") == "none"
                with pytest.raises(KeyError):
                    tx[key]
                with pytest.raises(KeyError):
                    del tx[key]
                tx["n"] += 1
            assert key not in ctx
            assert 3 == await done(ctx.incr("n"))

        face.run(story())

        assert 3 == json.loads(either.read_bytes())["n"]


def raising(kind: type, *methods: str) -> type:
    """Return a subclass of a JSON type, with methods that raise."""

    def fail(*_: object) -> Any:
        raise LookupError("this class is broken")

    return type("Broken", (kind,), {**dict.fromkeys(methods, fail), "__hash__": kind.__hash__})


BROKEN: dict[str, Callable[[], Any]] = {
    "str that is equal to nothing": lambda: raising(str, "__eq__", "__repr__", "__str__")("x"),
    "int": lambda: raising(int, "__eq__", "__repr__", "__str__", "__int__", "__abs__", "__index__")(10**5000),
    "float": lambda: raising(float, "__eq__", "__repr__", "__float__")(math.nan),
    "list": lambda: raising(list, "__eq__", "__iter__", "__len__")([{1}]),
    "dict": lambda: raising(dict, "__eq__", "items", "__iter__")({"a": {1}}),
    "a key without a repr": lambda: {raising(tuple, "__repr__")(): 1},
    "a key of too many digits": lambda: {10**5000: 1},
}


class TestClassesThatRaise:
    @pytest.mark.parametrize("name", BROKEN)
    def test_a_broken_value_is_refused_and_fails_its_own_call_only(self, path: pathlib.Path, name: str) -> None:
        """Whatever the methods of a value raise, only its own call fails, with the error for values."""
        value = BROKEN[name]()

        async def story() -> list[Any]:
            ctx, other = await PersistentContext.create(path), await PersistentContext.create(path)
            ctx.set("v", [value])
            calls = [ctx.save(), ctx.add("w", value), ctx.mutate("n", lambda _: [value]), other.incr("n")]
            return await asyncio.gather(*calls, return_exceptions=True)

        *failed, result = asyncio.run(story())

        assert [True] * 3 == [isinstance(one, UnserializableValueError) for one in failed]
        assert 2 == result
        assert {"jobs": [0], "n": 2, "t": "text"} == json.loads(path.read_bytes())

    def test_a_memory_error_is_not_an_error_of_the_value(self, path: pathlib.Path) -> None:
        """MemoryError is passed on unchanged: the same value may be written a moment later."""

        def fail(*_: object) -> Any:
            raise MemoryError

        compared = type("Scarce", (str,), {"__eq__": fail, "__hash__": str.__hash__})
        looked_into = type("Scarce", (dict,), {"__iter__": fail})
        for value in (compared("x"), looked_into(a={1})):
            with pytest.raises(MemoryError):
                SyncPersistentContext(path).add("v", [value])

        assert ORIGINAL == path.read_bytes()

    @pytest.mark.parametrize("key", [10**5000, -(10**5000), raising(tuple, "__repr__")()], ids=["+", "-", "repr"])
    def test_a_key_that_cannot_be_shown_is_refused_all_the_same(self, path: pathlib.Path, key: Any) -> None:
        """The error for a wrong key is raised even if the key cannot be converted to text."""
        with pytest.raises(UnserializableValueError, match="must be a str"):
            SyncPersistentContext(path).set(key, 1)

    def test_a_type_is_named_with_its_module(self, path: pathlib.Path) -> None:
        """There is more than one bool, so the name of a refused type includes its module."""
        foreign = type("bool", (), {"__module__": "numpy", "__bool__": lambda _: True})
        ctx = SyncPersistentContext(path)
        with pytest.raises(UnserializableValueError, match=r'\["flag"\] is a numpy\.bool,'):
            ctx.add("flag", foreign())
        with pytest.raises(UnserializableValueError, match=r"must be a str, not numpy\.bool;"):
            ctx.set(foreign(), 1)

    def test_a_value_that_does_not_equal_what_comes_back_is_refused(self, tmp_path):
        """A value is refused if what JSON gives back does not equal it."""

        class Odd(dict):
            __hash__ = None

            def __eq__(self, other):
                return False

        ctx = SyncPersistentContext(tmp_path / "state.json")
        ctx["a"] = Odd()
        with pytest.raises(UnserializableValueError, match="does not compare equal"):
            ctx.save()


class TestTheLimitOfDigits:
    @pytest.fixture
    def limit(self) -> Iterator[Callable[[int], None]]:
        """Set how many digits this process converts, for one test."""
        before = sys.get_int_max_str_digits()
        yield sys.set_int_max_str_digits
        sys.set_int_max_str_digits(before)

    @pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [{"n": n}]], ids=["top", "nested"])
    def test_what_a_default_python_cannot_read_is_not_written(
        self, face: Any, path: pathlib.Path, limit: Any, wrap: Any
    ) -> None:
        """A process that converts more digits than others does not write a file that they would take as corrupt."""
        too_big, biggest = 10**4300, 10**4300 - 1

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for most, bad in itertools.product((0, 4300, 100_000), (too_big, -too_big)):
                limit(most)
                ctx.set("jobs", wrap(bad))
                for call in (ctx.save, lambda bad=bad: ctx.add("new", wrap(bad)), lambda: ctx.incr("n", too_big)):
                    with pytest.raises(UnserializableValueError, match="4,300 digits"):
                        await done(call())
            ctx.set("jobs", wrap(-biggest))
            ctx.set("text", ["9" * 10_000])
            await done(ctx.save())

        face.run(story())
        limit(4300)

        assert {"jobs": wrap(-biggest), "n": 1, "t": "text", "text": ["9" * 10_000]} == json.loads(path.read_bytes())

    def test_what_is_not_written_is_not_read_either(self, path: pathlib.Path, limit: Any) -> None:
        """A process that converts more digits than others does not read a file that it could not write back."""
        document = b'{"text": "' + b"9" * 5000 + b'", "n": [' + b"9" * 5000 + b"]}"
        path.write_bytes(document)
        limit(0)
        with pytest.raises(TooManyDigitsError):
            SyncPersistentContext.create(path)

        assert document == path.read_bytes()

    def test_what_this_process_cannot_write_is_refused(self, path: pathlib.Path, limit: Any) -> None:
        """A process that converts fewer digits than others refuses the value and names its place."""
        limit(640)
        with pytest.raises(UnserializableValueError, match=r'\["v"\]\[0\] .*set_int_max_str_digits'):
            SyncPersistentContext(path).add("v", [10**640])


# ---------------------------------------- what is preserved

GOOD: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "zero": 0,
    "4,300 digits": 10**4300 - 1,
    "-4,300 digits": -(10**4300 - 1),
    "2**53 + 1": 2**53 + 1,
    "2**63": 2**63,
    "-2**63 - 1": -(2**63) - 1,
    "2**64 + 1": 2**64 + 1,
    "1e308": 1e308,
    "largest float": 1.7976931348623157e308,
    "smallest float": 5e-324,
    "-0.0": -0.0,
    "a whole float": 1.0,
    "a large whole float": 1e16,
    "a larger whole float": 1e22,
    "0.1 + 0.2": 0.1 + 0.2,
    "empty string": "",
    "astral characters": "😀 𝒳 \U0010ffff",
    "line separators": "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e",
    "a byte order mark": "\ufeff",
    "not characters": "\ufffe\uffff\ufdd0",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "a NUL": "\0",
    "combining and not normalised": "e\u0301 \u00e9 \u212b",
    "right to left": "\u202eabc\u202c",
    "quotes and backslashes": '"\\"\\\\',
    "our own line end": '",\n"b": 2,\n}\n',
    "escapes as text": "\\u0041\\n\\ud800",
    "empty list": [],
    "empty dict": {},
    "nested empties": [[], {}, [{}], {"": []}],
    "an empty key": {"": {"": ""}},
    "strange keys": {'"': 1, "\\": 2, "\n": 3, '": ': 4, '",\n"': 5, "\0": 6, "😀": 7, " ": 8, "\u2028": 9},
    "keys that look alike": {"1": 1, "1.0": 2, "true": 3, "null": 4, "é": 5, "e\u0301": 6},
    "499 lists deep": deep_list(499),
    "400 dicts deep": deep_dict(400),
    "a long string": "x" * 1_000_000,
    "a long list": [1, "2", None] * 10_000,
}

GOOD_KEYS = [
    *["", " ", "1", "null", "'", '"', "\\", "\n", "\r\n", '": ', '",\n"b": 2,\n"', "{", "}", "\0", "\x1f\x7f"],
    *["\u2028", "\ufeff", "\\u0041", "😀", "ключ", "__proto__", "constructor", "a" * 10_000],
]


def text(value: Any) -> str:
    """Return the JSON text, which distinguishes 1 from 1.0 and True, and one order of keys from another."""
    return json.dumps(value, allow_nan=False)


class TestWhatComesBackEqual:
    @pytest.mark.parametrize("operation", ["save", "add", "compare_and_set", "mutate", "transaction"])
    @pytest.mark.parametrize("name", GOOD)
    def test_values_at_the_limits(self, face: Any, path: pathlib.Path, name: str, operation: str) -> None:
        """A value that JSON can hold comes back equal to a new reader, and other tools can read it too."""
        value = GOOD[name]

        async def story() -> Any:
            ctx = await done(face.context.create(path, durable=False))
            if operation == "save":
                ctx.set("v", value)
                await done(ctx.save())
            elif operation == "add":
                assert await done(ctx.add("v", value)) is True
            elif operation == "compare_and_set":
                assert await done(ctx.compare_and_set("v", MISSING, value)) is True
                assert await done(ctx.compare_and_set("v", value, value)) is True
            elif operation == "mutate":
                assert text(value) == text(await done(ctx.mutate("v", lambda _: value)))
            else:
                async with transaction(ctx) as tx:
                    tx["v"] = value
            assert set() == ctx.unsaved_keys()
            assert text(value) == text(ctx.get("v"))
            return (await done(face.context.create(path))).get("v")

        fresh = face.run(story())

        assert text(value) == text(fresh)
        assert text(value) == text(json.loads(path.read_bytes())["v"])
        assert text(json.loads(ORIGINAL)["jobs"]) == text(json.loads(path.read_bytes())["jobs"])

    def test_keys_of_all_kinds(self, face: Any, path: pathlib.Path) -> None:
        """Any string without lone surrogates is a valid key, at any level, and the order of keys is kept."""
        expected = {key: {key: number} for number, key in enumerate(GOOD_KEYS)}
        path.unlink()

        async def story() -> dict[str, Any]:
            ctx = face.context(path)
            for key, value in expected.items():
                ctx.set(key, value)
            await done(ctx.save())
            for key in GOOD_KEYS:
                assert await done(ctx.compare_and_set(key, expected[key], expected[key])) is True
            return (await done(face.context.create(path))).get_all_data()

        fresh = face.run(story())

        assert text(expected) == text(fresh)
        assert text(expected) == text(json.loads(path.read_bytes()))
        assert len(GOOD_KEYS) + 2 == len(path.read_bytes().split(b"\n")) - 1

    def test_the_same_object_twice_is_not_a_cycle(self, face: Any, path: pathlib.Path) -> None:
        """A list in two places is written in both: only a value that contains itself is a cycle."""
        shared: list[Any] = [1]

        async def story() -> Any:
            ctx = face.context(path)
            ctx.set("v", {"a": shared, "b": shared, "c": [shared, shared]})
            await done(ctx.save())
            return (await done(face.context.create(path))).get("v")

        fresh = face.run(story())

        assert {"a": [1], "b": [1], "c": [[1], [1]]} == fresh

    @pytest.mark.parametrize(
        "value",
        [
            enum.IntEnum("Number", "ONE")(1),
            enum.StrEnum("Word", "ONE")("one"),
            collections.OrderedDict(b=1, a=2),
            collections.defaultdict(list, a=[1]),
            collections.Counter("aab"),
            type("Text", (str,), {})("text"),
            type("Float", (float,), {})(1.5),
            type("List", (list,), {})([1]),
        ],
        ids=["IntEnum", "StrEnum", "OrderedDict", "defaultdict", "Counter", "str", "float", "list"],
    )
    def test_children_of_the_types_of_json(self, face: Any, path: pathlib.Path, value: Any) -> None:
        """A subclass of a JSON type is either refused or comes back equal; it never becomes something else."""

        async def story() -> None:
            ctx = face.context(path)
            ctx.set("v", [value])
            try:
                await done(ctx.save())
            except UnserializableValueError as error:
                assert '["v"][0]' in str(error)
                return
            assert [value] == (await done(face.context.create(path))).get("v")

        face.run(story())

        assert json.loads(ORIGINAL)["n"] == json.loads(path.read_bytes())["n"]

    def test_sums_of_large_numbers(self, face: Any, path: pathlib.Path) -> None:
        """`incr` is exact beyond 64 bits, and adds floats like Python."""

        async def story() -> None:
            ctx = face.context(path)
            assert 2**64 + 1 == await done(ctx.incr("int", 1, default=2**64))
            assert 2**64 == await done(ctx.incr("int", -1))
            assert text(0.1 + 0.2) == text(await done(ctx.incr("float", 0.2, default=0.1)))
            assert text(1.0) == text(await done(ctx.incr("whole", 1, default=0.0)))

        face.run(story())
        written = json.loads(path.read_bytes())

        assert text([2**64, 0.1 + 0.2, 1.0]) == text([written["int"], written["float"], written["whole"]])

    def test_much_that_is_nested_little_is_accepted(self, tmp_path):
        """The limit is on how deep values are nested, not on how many there are."""
        value = []
        for _ in range(20):
            value = [value, [], {"a": value}] if len(json.dumps(value)) < 10_000 else [value, "[" * 1000]
        ctx = SyncPersistentContext(tmp_path / "state.json")
        ctx["a"] = value
        ctx.save()

        assert value == SyncPersistentContext.create(tmp_path / "state.json")["a"]


# ---------------------------------------- properties

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


thorough = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class TestProperties:
    @thorough
    @given(before=documents, after=documents)
    def test_any_document_round_trips(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Any JSON document round-trips equal, even if it was made from another by setting and deleting keys."""
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "state.json")
            ctx = SyncPersistentContext(path, durable=False)
            ctx.update(before)
            ctx.save()
            first = SyncPersistentContext.create(path).get_all_data()
            for key in set(before) - set(after):
                del ctx[key]
            ctx.update(after)
            ctx.save()
            second = SyncPersistentContext.create(path).get_all_data()
            strict = json.loads(path.read_bytes().decode(), parse_constant=pytest.fail)

        assert text(before) == text(first)
        assert text({**{key: None for key in before if key in after}, **after}) == text(second)
        assert text(second) == text(strict)

    @thorough
    @given(document=documents)
    def test_any_foreign_document_is_read_equal(self, document: dict[str, Any]) -> None:
        """Any document that Python's own `json` writes strictly, in any layout, is read as intended."""
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "state.json")
            read = []
            for layout in ({}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}):
                path.write_text(json.dumps(document, **layout), encoding="utf-8", newline="")
                read.append(SyncPersistentContext.create(path).get_all_data())
            left = os.listdir(directory)

        assert [text(document)] * 4 == [text(data) for data in read]
        assert set(left) <= {"state.json", "state.json.lock"}


class TestMissing:
    def test_it_says_what_it_is_and_is_false(self) -> None:
        """MISSING has a readable repr and is false; a null is a value, but MISSING is not."""
        assert ("MISSING", False, False) == (repr(MISSING), bool(MISSING), MISSING is None)
