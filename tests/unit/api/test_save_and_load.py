"""What saving and loading do to the file: its format, its place, its mode, and the merge with what others wrote."""

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import json
import logging
import math
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistent_context import (
    ContextUsageError,
    LockTimeoutError,
    NotARegularFileError,
    PersistentContext,
    SyncPersistentContext,
    UnserializableValueError,
)

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def mode(path):
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def identity(path):
    """What tells one writing of a file from another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


def corrupt_copies(path):
    """The files that were moved aside."""
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


def warnings_of_the_library(caplog):
    """The warnings that a logger of the library gave."""
    return [
        record
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.split(".")[0] == "persistent_context"
    ]


async def turns(count=50):
    """Let every other task run until it waits for something outside."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.contextmanager
def umask(value):
    """A umask for the length of a block."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


class TestCreating:
    def test_a_missing_file_loads_as_nothing(self, face, path):
        """There need be no file to begin with."""

        assert {} == dict(face.open(path))

    def test_loading_a_missing_file_makes_nothing(self, face, path):
        """Reading leaves no trace."""
        face.open(path)

        assert [] == os.listdir(path.parent)

    def test_constructing_touches_nothing(self, face, path):
        """The constructor does no I/O, and needs neither a loop nor the directory."""
        ctx = face.cls(path.parent / "absent" / "state.json")

        assert ({}, []) == (dict(ctx), os.listdir(path.parent))

    def test_saving_makes_the_file(self, face, path):
        """The first save creates the file."""
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(path)

    def test_saving_nothing_makes_the_file(self, face, path):
        """A save with nothing to write still creates a missing file."""
        ctx = face.open(path)
        face.do(ctx.save)

        assert b"{}\n" == path.read_bytes()

    def test_saving_makes_missing_parents(self, face, path):
        """Missing directories are made."""
        deep = path.parent / "x" / "y" / "state.json"
        ctx = face.open(deep)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(deep)

    def test_an_atomic_operation_makes_missing_parents(self, face, path):
        """Missing directories are made by whatever writes first."""
        deep = path.parent / "x" / "y" / "state.json"
        face.do(face.open(deep).incr, "n")

        assert {"n": 1} == stored(deep)

    def test_a_save_without_a_load(self, face, path):
        """A context that never loaded merges what it has into the file."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        ctx = face.cls(path)
        ctx.set("b", 3)
        face.do(ctx.save)

        assert ({"a": 1, "b": 3}, {"a": 1, "b": 3}) == (stored(path), dict(ctx))

    def test_only_the_file_and_its_lock_are_left(self, face, path):
        """No temporary stays behind."""
        ctx = face.open(path)
        for number in range(5):
            ctx.set("a", number)
            face.do(ctx.save)

        assert ["state.json", "state.json.lock"] == sorted(os.listdir(path.parent))

    def test_a_path_may_be_a_string(self, face, path):
        """A path is a str or a Path."""
        ctx = face.open(str(path))
        ctx.set("a", 1)
        face.do(ctx.save)

        assert ({"a": 1}, str(path)) == (stored(path), os.fspath(ctx.filepath))

    def test_a_relative_path_is_taken_from_the_directory_of_the_time(self, face, path, monkeypatch):
        """A relative path works, and a directory that has no name before it."""
        monkeypatch.chdir(path.parent)
        ctx = face.open("state.json")
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(path)

    def test_the_longest_name_whose_lock_has_a_name(self, face, path):
        """A name of 250 characters works: no suffix but the lock's is put behind it."""
        long = path.with_name("x" * 245 + ".json")
        ctx = face.open(long)
        ctx.set("a", 1)
        face.do(ctx.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2} == stored(long)

    def test_a_name_of_many_bytes(self, face, path):
        """A name is limited in bytes, and few characters may be many bytes."""
        long = path.with_name("☃" * 80 + ".json")
        ctx = face.open(long)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(long)

    def test_not_durable_writes_the_same(self, face, path):
        """durable=False spares the sync, not the writing."""
        ctx = face.open(path, durable=False)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert b'{\n"a": 1\n}\n' == path.read_bytes()


class TestFormat:
    def test_one_key_a_line(self, face, path):
        """The format is the documented one, byte for byte."""
        ctx = face.open(path)
        ctx.update(a=1, b=[2, 3])
        face.do(ctx.save)

        assert b'{\n"a": 1,\n"b": [2, 3]\n}\n' == path.read_bytes()

    def test_empty(self, face, path):
        """An emptied file is an empty object and a line end."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.clear()
        face.do(ctx.save)

        assert b"{}\n" == path.read_bytes()

    def test_nested_values_stay_on_their_line(self, face, path):
        """However deep a value is, its key has one line."""
        ctx = face.open(path)
        ctx.set("deep", {"x": [1, {"y": None}], "z": {}})
        ctx.set("flags", [True, False])
        face.do(ctx.save)

        assert b'{\n"deep": {"x": [1, {"y": null}], "z": {}},\n"flags": [true, false]\n}\n' == path.read_bytes()

    def test_text_is_not_escaped_without_need(self, face, path):
        """Letters of any script are readable in the file."""
        ctx = face.open(path)
        ctx.set("größe", "東京 😀 é")
        face.do(ctx.save)

        assert '{\n"größe": "東京 😀 é"\n}\n'.encode() == path.read_bytes()

    def test_text_is_escaped_where_json_demands_it(self, face, path):
        """A value with line ends and quotes has one line all the same."""
        ctx = face.open(path)
        ctx.set('k"\n', 'v"\\\n\r\t\x00')
        face.do(ctx.save)

        assert (3, {'k"\n': 'v"\\\n\r\t\x00'}) == (path.read_bytes().count(b"\n"), stored(path))

    def test_order_of_insertion(self, face, path):
        """Keys are written in the order in which they came."""
        ctx = face.open(path)
        for key in ("z", "a", "m"):
            ctx.set(key, 0)
        face.do(ctx.save)

        assert ["z", "a", "m"] == list(stored(path))

    def test_order_of_nested_keys(self, face, path):
        """Keys inside a value are written in the order in which they came."""
        ctx = face.open(path)
        ctx.set("o", {"z": 0, "a": 0})
        face.do(ctx.save)

        assert ["z", "a"] == list(stored(path)["o"])

    def test_order_of_the_file_is_kept(self, face, path):
        """Changing a value does not move its key; new keys go to the end."""
        path.write_text('{"z": 1, "a": 2, "m": 3}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(m=4, b=5, z=6)
        face.do(ctx.save)

        assert ["z", "a", "m", "b"] == list(stored(path))

    def test_order_of_others_keys_is_kept(self, face, path):
        """What others added stands before what this context adds after them."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("theirs", 1)
        face.do(other.save)
        ctx.set("mine", 1)
        face.do(ctx.save)

        assert ["a", "theirs", "mine"] == list(stored(path))

    @pytest.mark.parametrize("layout", [
        '{"a":1,"b":[2,3],"c":{"d":null}}',
        json.dumps({"a": 1, "b": [2, 3], "c": {"d": None}}, indent=4),
        json.dumps({"a": 1, "b": [2, 3], "c": {"d": None}}, indent="\t"),
        ' \n\n {\n\n"a"\n:\n1\n,\n"b"\n:[2\n,3],\n\n"c":{"d"\n:null}\n}\n\n ',
        '{\r\n"a": 1,\r\n"b": [2, 3],\r\n"c": {"d": null}\r\n}\r\n',
        '{\n"a": 1,\n"b": [2,\n3],\n"c": {\n"d": null\n}\n}\n',
        '{\n"a":1,\n"b":[2,3],\n"c":{"d":null}}',
        '{\n"\\u0061": 1,\n"\\u0062": [2, 3],\n"c": {"d": null}\n}\n',
        '\ufeff{\n"a": 1,\n"b": [2, 3],\n"c": {"d": null}\n}\n',
    ], ids=[
        "minified", "indented", "tabs", "scattered", "crlf", "inner-lines", "no-last-line", "escaped", "bom",
    ])  # fmt: skip
    def test_saving_brings_any_layout_into_the_format(self, face, path, layout):
        """One changed key is enough to have one key a line again."""
        path.write_text(layout, encoding="utf-8", newline="")
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert b'{\n"a": 2,\n"b": [2, 3],\n"c": {"d": null}\n}\n' == path.read_bytes()


class TestLayouts:
    @pytest.mark.parametrize("text", [
        "{}",
        "{}\n",
        " { } ",
        "{\n}\n",
        "\n\n{\n\n}\n\n",
        '{"a":1}',
        '{"a":1,"b":2}',
        '{"a" : 1 , "b" : 2}',
        '{\n"a": 1,\n"b": 2}',
        '{"a": 1,\n"b": 2\n}',
        '{\r\n"a": 1,\r\n"b": 2\r\n}\r\n',
        '{\r"a": 1,\r"b": 2\r}\r',
        '{\n"a": 1\n,"b": 2\n,"c": 3\n}\n',
        '{\n"a":\n1,\n"b":\n2\n}\n',
        '{\n\n"a": 1,\n\n\n"b": 2\n\n}\n',
        '{\n\t"a": 1,\n\t"b": 2\n}\n',
        '{\n"a": {\n"b": 1,\n"c": 2\n},\n"d": 3\n}\n',
        '{\n"a": {\n"b": 1,\n"a": 2\n},\n"b": 3\n}\n',
        '{\n"a": [\n{\n"b": 1\n},\n{\n"b": 2\n}\n],\n"b": 3\n}\n',
        '{\n"a": [\n"b",\n"c"\n],\n"d": 3\n}\n',
        '{\n"a": [1,\n"b"\n,\n2],\n"c": 3\n}\n',
        '{\n"a": {"b": {\n"c": 1,\n"d": {\n"e": 2\n}\n}\n},\n"f": 3\n}\n',
        '{\n"a": {\n},\n"b": [\n]\n}\n',
        '{\n"a": 1, "b": 2,\n"c": 3, "d": 4\n}\n',
        '{\n"a": 1, "b": {\n"c": 3}, "d": 4\n}\n',
        '{\n"a": "},\\n\\"b\\": 2,",\n"c": "{"\n}\n',
        '{\n"a": "x,",\n"b": "]}",\n"c": "\\\\",\n"d": "\\"",\n"e": "\\\\\\""\n}\n',
        '{\n"a": "\u2028\u2029\x85\x0b",\n"b": 1\n}\n'.replace("\x0b", "\\u000b"),
        '{\n"\u2028": 1,\n"\x85": 2\n}\n',
        '{\n"\\u0061": 1,\n"\\n": 2,\n"\\"": 3,\n"\\\\": 4,\n"\\/": 5,\n"\\ud83d\\ude00": 6\n}\n',
        '{"": 1, " ": 2, ",": 3, ":": 4, "{": 5, "}": 6}',
        '{\n"": 1,\n" ": 2,\n",": 3,\n": 4": 4,\n"{": 5,\n"}": 6\n}\n',
        '{"NaN": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "1e400"}',
        '{"a": "\\\\ud800", "b": "\\ud83d\\ude00", "c": "\\\\\\\\udc00"}',
        '{"a": "\\u0000\\u001f\\b\\f\\n\\r\\t\\/"}',
        '{"a": "\x7f\x80\xff\ufffe\uffff\U0010ffff"}',
        '{"a": null, "b": true, "c": false}',
        '{"a": ' + "[" * 100 + "]" * 100 + "}",
        '{"a": ' + '{"a":' * 100 + "0" + "}" * 100 + "}",
        '{"a": "' + "1" * 5000 + '", "' + "2" * 5000 + '": 1}',
        '{"a": "' + "[" * 100_000 + '"}',
    ], ids=lambda text: f"{ascii(text)[:40]}-{len(text)}")  # fmt: skip
    def test_every_valid_layout_is_read(self, face, path, text):
        """Any valid JSON object is accepted, wherever its lines end, and read as json reads it."""
        path.write_text(text, encoding="utf-8", newline="")
        ctx = face.open(path)

        assert (json.dumps(json.loads(text)), []) == (json.dumps(ctx.get_all_data()), corrupt_copies(path))

    @pytest.mark.parametrize("number", [
        "0", "-0", "-1", "1.0", "-0.0", "1.50", "1e5", "1E5", "1E+5", "1e-7", "1e-400", "1e308",
        "123456789012345678901234567890", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
        "-9223372036854775809", "100000000000000000000.0", "0.1", "0.30000000000000004", "2.2250738585072014e-308",
        "5e-324", "9007199254740993", "1e22", "1" * 400, "1" * 4300,
    ], ids=lambda text: f"{text[:24]}-{len(text)}")  # fmt: skip
    def test_every_number_is_read_as_json_reads_it(self, face, path, number):
        """A number keeps its type and its value."""
        path.write_text(f'{{"a": {number}, "b": [{number}]}}', encoding="utf-8")
        ctx = face.open(path)

        assert [repr(json.loads(number))] * 2 == [repr(ctx.get("a")), repr(ctx.get("b")[0])]

    def test_a_byte_order_mark_is_accepted(self, face, path):
        """An editor's BOM is no corruption."""
        path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
        ctx = face.open(path)

        assert ({"a": 1}, []) == (dict(ctx), corrupt_copies(path))

    def test_an_escaped_key_is_the_key_it_means(self, face, path):
        """A key that the file spells with escapes is not written a second time beside itself."""
        path.write_text('{\n"\\u0061": 1,\n"b": 2\n}\n', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 3)
        face.do(ctx.save)

        assert [("a", 3), ("b", 2)] == json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)

    def test_an_escaped_key_can_be_deleted(self, face, path):
        """A deletion finds the key however it is spelt."""
        path.write_text('{\n"\\u0061": 1,\n"b": 2\n}\n', encoding="utf-8")
        ctx = face.open(path)
        del ctx["a"]
        face.do(ctx.save)

        assert {"b": 2} == stored(path)

    def test_the_same_value_spelt_otherwise_is_no_change(self, face, path):
        """What another program reformatted, it did not change."""
        path.write_text('{"a": {"x": [1, 2]}, "b": "é"}', encoding="utf-8")
        ctx = face.open(path, on_conflict="raise")
        ctx.get("a")["x"].append(3)
        path.write_text(
            '{\n  "a": {\n    "x": [\n      1,\n      2\n    ]\n  },\n  "b": "\\u00e9"\n}', encoding="utf-8"
        )
        face.do(ctx.save)

        assert {"a": {"x": [1, 2, 3]}, "b": "é"} == stored(path)

    def test_duplicate_keys_last_wins(self, face, path):
        """Of a key that stands twice the last is taken."""
        path.write_text('{\n"a": 1,\n"b": 2,\n"a": 3\n}\n', encoding="utf-8")
        ctx = face.open(path)

        assert ({"a": 3, "b": 2}, set()) == (dict(ctx), ctx.unsaved_keys())

    @pytest.mark.parametrize("text", ['{"a": 1, "a": 3}', '{\n"a": 1,\n"\\u0061": 3\n}\n'], ids=["plain", "escaped"])
    def test_duplicate_keys_are_kept_aside_when_overwritten(self, face, path, text, caplog):
        """What a save drops of a strange file is kept beside it, with a warning by then at the latest."""
        path.write_text(text, encoding="utf-8")
        ctx = face.open(path)
        ctx.set("b", 1)
        face.do(ctx.save)
        kept = [one.read_text(encoding="utf-8") for one in path.parent.iterdir() if one != path]

        assert ([("a", 3), ("b", 1)], True, True) == (
            json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list),
            text in kept,
            bool(warnings_of_the_library(caplog)),
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=6)
unhurried = settings(
    deadline=None,
    max_examples=60,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def scattered(value, space, random):
    """``value`` as JSON with blanks and line ends at every place that allows them."""
    around = lambda text: f"{space()}{text}{space()}"  # noqa: E731
    if isinstance(value, dict):
        pairs = (
            around(json.dumps(key, ensure_ascii=random.random() < 0.5)) + ":" + scattered(inner, space, random)
            for key, inner in value.items()
        )
        return around("{" + (",".join(pairs) or space()) + "}")
    if isinstance(value, list):
        return around("[" + (",".join(scattered(inner, space, random) for inner in value) or space()) + "]")
    return around(json.dumps(value, ensure_ascii=random.random() < 0.5))


class TestEveryDocument:
    @unhurried
    @given(json_objects, st.randoms(use_true_random=False))
    def test_any_layout_of_any_object_is_read(self, data, random):
        """Wherever the blanks stand, what is read is what json reads."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            text = scattered(data, lambda: "".join(random.choices(" \n\r\t", k=random.randrange(3))), random)
            path.write_text(text, encoding="utf-8", newline="")
            ctx = SyncPersistentContext.create(path)

            assert json.dumps(data) == json.dumps(ctx.get_all_data())

    @unhurried
    @given(json_objects, json_objects)
    def test_any_object_comes_back_as_it_was(self, first, second):
        """What was saved is read again, by us and by json, after a second save over it too."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            ctx = SyncPersistentContext.create(path, durable=False)
            ctx.update(first)
            ctx.save()
            ctx.update(second)
            ctx.save()
            expected = first | second
            read = [stored(path), dict(SyncPersistentContext.create(path))]

            assert [(list(expected), json.dumps(expected, sort_keys=True))] * 2 == [
                (list(data), json.dumps(data, sort_keys=True)) for data in read
            ]

    @unhurried
    @given(json_objects, json_objects, json_objects)
    def test_two_contexts_merge_by_key(self, before, mine, theirs):
        """Of two contexts that saved one after the other, the second one's changes stand over the first one's."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            path.write_text(json.dumps(before), encoding="utf-8")
            ctx, other = (
                SyncPersistentContext.create(path, durable=False),
                SyncPersistentContext.create(path, durable=False),
            )
            other.clear()
            other.update(theirs)
            other.save()
            ctx.update(mine)
            changed = ctx.unsaved_keys()
            ctx.save()
            expected = theirs | {key: mine[key] for key in changed}

            assert json.dumps(expected, sort_keys=True) == json.dumps(stored(path), sort_keys=True)


class TestMerging:
    def test_both_contexts_keys_are_kept(self, face, path):
        """Two contexts that set different keys lose neither."""
        ctx, other = face.open(path), face.open(path)
        ctx.set("a", 1)
        other.set("b", 2)
        face.do(other.save)
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, {"a": 1, "b": 2}) == (stored(path), dict(ctx))

    def test_a_key_that_others_changed_is_kept(self, face, path):
        """Saving writes only what this context changed."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("b", 2)
        face.do(other.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2, "b": 2} == stored(path)

    def test_memory_takes_over_what_others_changed(self, face, path):
        """After a save the memory is the merged state, and saved."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("b", 2)
        other.set("c", 3)
        face.do(other.save)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert ({"a": 2, "b": 2, "c": 3}, set()) == (dict(ctx), ctx.unsaved_keys())

    def test_my_deletion_is_merged(self, face, path):
        """A key that this context deleted goes, and nothing else."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("c", 3)
        face.do(other.save)
        del ctx["a"]
        face.do(ctx.save)

        assert ({"b": 1, "c": 3}, {"b": 1, "c": 3}) == (stored(path), dict(ctx))

    def test_others_deletion_is_merged(self, face, path):
        """A key that another context deleted does not come back."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        del other["a"]
        face.do(other.save)
        ctx.set("c", 3)
        face.do(ctx.save)

        assert ({"b": 1, "c": 3}, {"b": 1, "c": 3}) == (stored(path), dict(ctx))

    @pytest.mark.parametrize("value", [2, [1, {"x": 1}], None], ids=repr)
    def test_the_same_change_on_both_sides_is_no_conflict(self, face, path, value):
        """Who wants what the other wanted has no quarrel with it."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for one in (other, ctx):
            one.set("a", value)
            face.do(one.save)

        assert ({"a": value}, set()) == (stored(path), ctx.unsaved_keys())

    def test_the_same_deletion_on_both_sides_is_no_conflict(self, face, path):
        """Two who delete the same key agree."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx, other = face.open(path, on_conflict="raise"), face.open(path)
        for one in (other, ctx):
            del one["a"]
            face.do(one.save)

        assert ({"b": 1}, set()) == (stored(path), ctx.unsaved_keys())

    def test_changes_that_met_in_turn_all_stay(self, face, path):
        """A long exchange between three contexts loses nothing."""
        contexts = [face.open(path) for _ in range(3)]
        for turn in range(4):
            for number, ctx in enumerate(contexts):
                ctx.set(f"{number}-{turn}", turn)
                face.do(ctx.save)

        assert {f"{number}-{turn}" for number in range(3) for turn in range(4)} == set(stored(path))

    def test_the_two_faces_share_a_file(self, path):
        """What one face saved the other merges with."""
        worker = SyncPersistentContext.create(path)
        worker.set("sync", 1)

        async def save_between():
            ctx = await PersistentContext.create(path)
            worker.save()
            ctx.set("async", 2)
            await ctx.save()
            return dict(ctx)

        assert {"sync": 1, "async": 2} == asyncio.run(save_between())

    def test_a_program_that_knows_nothing_of_us_is_merged_with(self, face, path):
        """What an editor wrote between load and save is kept."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 2)
        path.write_text('{"a": 1, "edited": true}', encoding="utf-8")
        face.do(ctx.save)

        assert {"a": 2, "edited": True} == stored(path)

    def test_a_rewrite_that_keeps_inode_size_and_time_is_seen(self, face, path):
        """An unchanged inode, size and mtime are no proof of an unchanged file."""
        path.write_text('{"a": 1, "b": 1}', encoding="utf-8")
        ctx = face.open(path)
        status = path.stat()
        with path.open("r+", encoding="utf-8") as file:
            file.write('{"a": 1, "b": 2}')
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        ctx.set("a", 5)
        face.do(ctx.save)

        assert {"a": 5, "b": 2} == stored(path)


class TestNothingToWrite:
    def test_a_save_without_changes_writes_nothing(self, face, path):
        """The file is the same file afterwards."""
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_a_value_set_to_what_it_was_writes_nothing(self, face, path):
        """No difference, no writing."""
        ctx = face.open(path)
        ctx.set("a", [1])
        face.do(ctx.save)
        before = identity(path)
        ctx.set("a", [1])
        face.do(ctx.save)

        assert before == identity(path)

    def test_another_layout_is_left_alone(self, face, path):
        """A save without changes does not reformat what a human wrote."""
        path.write_text('{\n    "a":   1\n}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        face.do(ctx.save)

        assert before == identity(path)

    def test_others_changes_are_taken_over_all_the_same(self, face, path):
        """A save with nothing to write still shows what others wrote."""
        path.write_text('{"a": 1, "b": 1, "c": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("a", 2)
        del other["b"]
        face.do(other.save)
        before = identity(path)
        face.do(ctx.save)

        assert (before, {"a": 2, "c": 1}, set()) == (identity(path), dict(ctx), ctx.unsaved_keys())

    def test_a_change_that_others_made_too_writes_nothing(self, face, path):
        """Where the file has my change already, there is nothing to write."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx, other = face.open(path), face.open(path)
        other.set("a", 2)
        face.do(other.save)
        before = identity(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert before == identity(path)


class TestAFileThatIsGone:
    def test_all_memory_is_written(self, face, path):
        """A file that somebody deleted says nothing about what to delete."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 3)
        face.do(ctx.save)

        assert {"a": 3, "b": 2} == stored(path)

    def test_all_memory_is_written_even_without_changes(self, face, path):
        """A save brings a deleted file back."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, {"a": 1, "b": 2}, set()) == (stored(path), dict(ctx), ctx.unsaved_keys())

    def test_a_deleted_key_does_not_come_back(self, face, path):
        """All of memory is what memory holds, not what it held."""
        ctx = face.open(path)
        ctx.update(a=1, b=2)
        face.do(ctx.save)
        path.unlink()
        del ctx["a"]
        face.do(ctx.save)

        assert {"b": 2} == stored(path)

    @pytest.mark.parametrize("bad", [None, b"{"], ids=["gone", "corrupt"])
    def test_the_order_of_memory_is_kept(self, face, path, bad):
        """All of memory is written in memory's order, changed keys in their places."""
        path.write_text('{"a": 1, "b": 2, "c": 3}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(b=5, new=1)
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        face.do(ctx.save)

        assert b'{\n"a": 1,\n"b": 5,\n"c": 3,\n"new": 1\n}\n' == path.read_bytes()

    def test_it_is_no_conflict(self, face, path):
        """A missing file conflicts with nobody."""
        ctx = face.open(path, on_conflict="raise")
        ctx.update(a=1)
        face.do(ctx.save)
        path.unlink()
        ctx.set("a", 2)
        face.do(ctx.save)

        assert {"a": 2} == stored(path)

    def test_a_directory_that_is_gone_is_made_again(self, face, path):
        """The whole directory may be gone."""
        deep = path.parent / "x" / "state.json"
        ctx = face.open(deep)
        ctx.set("a", 1)
        face.do(ctx.save)
        for one in deep.parent.iterdir():
            one.unlink()
        deep.parent.rmdir()
        face.do(ctx.save)

        assert {"a": 1} == stored(deep)


BAD_DOCUMENTS = {
    "empty": b"",
    "blank": b" \n",
    "truncated": b'{"a": 1, "b"',
    "truncated-after-a-line": b'{\n"a": 1,\n"b": 2,\n',
    "truncated-before-the-end": b'{\n"a": 1,\n"b": 2\n',
    "nuls": b"\0" * 64,
    "nuls-before": b"\0\0\0\0{}",
    "nuls-behind": b'{"a": 1}\n\0\0\0\0',
    "bad-utf-8": b'{"a": "\xff\xfe"}',
    "bad-utf-8-key": b'{"\xff": 1}',
    "overlong-utf-8": b'{"a": "\xc0\xaf"}',
    "utf-8-surrogate": b'{"a": "\xed\xa0\x80"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "deep-list": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep-object": b'{"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep-and-open": b'{"a": ' + b"[" * 100_000,
    "overflow-of-many-digits": b'{"a": ' + b"1" * 250 + b"e99}",
    "nan": b'{"a": NaN}',
    "nan-inside": b'{"a": {"b": [1, NaN]}}',
    "infinity": b'{"a": Infinity}',
    "minus-infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e400}',
    "overflow-inside": b'{"a": [[-1e999]]}',
    "overflow-without-exponent": b'{"a": ' + b"9" * 400 + b".0}",
    "lone-surrogate": b'{"a": "\\ud800"}',
    "lone-low-surrogate": b'{"a": ["x\\udc00y"]}',
    "swapped-surrogates": b'{"a": "\\ude00\\ud83d"}',
    "lone-surrogate-key": b'{"\\ud800": 1}',
    "lone-surrogate-inner-key": b'{"a": {"\\ud800": 1}}',
    "list": b"[1, 2]",
    "number": b"1",
    "string": b'"{}"',
    "null": b"null",
    "trailing-comma": b'{"a": 1,}',
    "trailing-comma-on-a-line": b'{\n"a": 1,\n}\n',
    "trailing-comma-inside": b'{"a": [1,]}',
    "missing-comma": b'{\n"a": 1\n"b": 2\n}\n',
    "missing-comma-inside": b'{"a": [1 2]}',
    "missing-colon": b'{"a" 1}',
    "missing-value": b'{"a": , "b": 1}',
    "key-without-quotes": b"{a: 1}",
    "single-quotes": b"{'a': 1}",
    "number-as-key": b"{1: 1}",
    "comment": b'{"a": 1} // one',
    "comment-inside": b'{"a": [1 /* one */]}',
    "two-documents": b'{"a": 1}{"b": 2}',
    "two-lines-of-documents": b'{"a": 1}\n{"b": 2}\n',
    "text-behind": b'{"a": 1} x',
    "text-before": b'x {"a": 1}',
    "leading-zero": b'{"a": 01}',
    "plus": b'{"a": +1}',
    "no-digit-before": b'{"a": .5}',
    "no-digit-behind": b'{"a": 1.}',
    "no-exponent": b'{"a": [1e]}',
    "hexadecimal": b'{"a": 0x10}',
    "python-literal": b'{"a": True}',
    "line-end-in-a-string": b'{\n"a": "x\n"b": 1,\n"c": 2\n}\n',
    "tab-in-a-string": b'{"a": "\t"}',
    "nul-in-a-string": b'{"a": "\0"}',
    "bad-escape": b'{"a": "\\x41"}',
    "short-escape": b'{"a": "\\u12"}',
    "bad-escape-in-a-key": b'{"\\q": 1}',
    "open-string": b'{"a": "x}',
    "wrong-bracket": b'{"a": [1}}',
    "closed-too-early": b'{\n"a": 1},\n"b": 2\n}\n',
    "non-breaking-space": b'{\xc2\xa0"a": 1}',
    "form-feed": b'{\x0c"a": 1}',
    "bom-twice": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "bom-only": b"\xef\xbb\xbf",
    "bom-inside": b'{"a": 1,\xef\xbb\xbf"b": 2}',
}


class TestCorruptFiles:
    @pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
    def test_a_bad_document_is_moved_aside(self, face, path, document, caplog):
        """What is no JSON object is kept aside whole, and loads as nothing, with a warning."""
        path.write_bytes(document)
        ctx = face.open(path)

        assert ({}, set(), False, [document], True) == (
            dict(ctx),
            ctx.unsaved_keys(),
            path.exists(),
            [one.read_bytes() for one in corrupt_copies(path)],
            bool(warnings_of_the_library(caplog)),
        )

    def test_a_good_document_gives_no_warning(self, face, path, caplog):
        """Nobody is warned of nothing."""
        path.write_text('{"a": 1}', encoding="utf-8")
        face.open(path)

        assert [] == warnings_of_the_library(caplog)

    def test_the_warning_names_the_file(self, face, path, caplog):
        """Who reads the log knows which file it was."""
        path.write_bytes(b"{")
        face.open(path)

        assert True is any("state.json" in record.getMessage() for record in warnings_of_the_library(caplog))

    def test_a_second_corruption_keeps_the_first(self, face, path):
        """Each corrupt file has a name of its own."""
        for document in (b"first", b"second", b"third"):
            path.write_bytes(document)
            face.open(path)

        assert {b"first", b"second", b"third"} == {one.read_bytes() for one in corrupt_copies(path)}

    def test_saving_after_a_corrupt_load(self, face, path):
        """After the move life goes on."""
        path.write_bytes(b"{")
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert ({"a": 1}, [b"{"]) == (stored(path), [one.read_bytes() for one in corrupt_copies(path)])

    def test_a_file_corrupt_by_the_time_of_a_save(self, face, path, caplog):
        """A corrupt file is moved aside, not overwritten, and all of memory is written."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        ctx = face.open(path, on_conflict="raise")
        path.write_bytes(b'{"a": 1')
        ctx.set("b", 3)
        face.do(ctx.save)

        assert ({"a": 1, "b": 3}, {"a": 1, "b": 3}, set(), [b'{"a": 1'], True) == (
            stored(path),
            dict(ctx),
            ctx.unsaved_keys(),
            [one.read_bytes() for one in corrupt_copies(path)],
            bool(warnings_of_the_library(caplog)),
        )

    def test_a_file_corrupt_by_the_time_of_a_save_without_changes(self, face, path):
        """Memory that has nothing unsaved still heals a corrupt file."""
        path.write_text('{"a": 1, "b": 2}', encoding="utf-8")
        ctx = face.open(path)
        path.write_bytes(b"")
        face.do(ctx.save)

        assert ({"a": 1, "b": 2}, [b""]) == (stored(path), [one.read_bytes() for one in corrupt_copies(path)])

    @pytest.mark.parametrize("bits", [0o600, 0o640])
    def test_what_is_moved_aside_keeps_its_mode(self, face, path, bits):
        """Nobody may read the copy who might not read the file."""
        path.write_bytes(b"{")
        path.chmod(bits)
        face.open(path)

        assert [bits] == [mode(one) for one in corrupt_copies(path)]


class TestWhatIsNoFile:
    def test_a_directory(self, face, path):
        """A directory in the place of the file is an error, and stays."""
        path.mkdir()
        with pytest.raises(NotARegularFileError):
            face.open(path)

        assert True is path.is_dir()

    def test_a_directory_is_not_saved_over(self, face, path):
        """Saving does not replace a directory."""
        path.mkdir()
        ctx = face.cls(path)
        ctx.set("a", 1)
        with pytest.raises(NotARegularFileError):
            face.do(ctx.save)

        assert (True, {"a"}) == (path.is_dir(), ctx.unsaved_keys())

    def test_a_fifo_does_not_hang(self, face, path):
        """Reading a FIFO would wait for ever; it is refused."""
        os.mkfifo(path)
        with pytest.raises(NotARegularFileError):
            face.open(path)

        assert True is path.is_fifo()

    def test_a_fifo_is_not_saved_over(self, face, path):
        """Saving does not replace a FIFO."""
        os.mkfifo(path)
        ctx = face.cls(path)
        ctx.set("a", 1)
        with pytest.raises(NotARegularFileError):
            face.do(ctx.save)

        assert True is path.is_fifo()

    def test_a_link_to_a_device(self, face, path):
        """A device is refused, through a link too."""
        path.symlink_to("/dev/null")
        with pytest.raises(NotARegularFileError):
            face.open(path)

        assert True is path.is_char_device()

    def test_it_is_an_os_error(self, face, path):
        """Who expects an OSError where no file is gets one."""
        path.mkdir()
        with pytest.raises(OSError, match="state.json"):
            face.open(path)

    def test_a_link_that_leads_to_itself_is_an_os_error(self, face, path):
        """A loop of links is an error of the file system, and is raised."""
        path.symlink_to(path)
        with pytest.raises(OSError, match="state.json"):
            face.open(path)

    def test_a_parent_that_is_a_file_is_an_os_error(self, face, path):
        """A path through a file leads nowhere."""
        path.write_text("{}", encoding="utf-8")
        ctx = face.cls(path / "state.json")
        ctx.set("a", 1)
        with pytest.raises(OSError, match="state.json"):
            face.do(ctx.save)


class TestSymlinks:
    def test_the_link_stays_and_its_target_is_written(self, face, path):
        """A symlink is followed, never replaced."""
        target = path.parent / "elsewhere" / "real.json"
        target.parent.mkdir()
        target.write_text('{"a": 1}', encoding="utf-8")
        path.symlink_to(target)
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert (True, {"a": 2}) == (path.is_symlink(), stored(target))

    def test_a_relative_link(self, face, path):
        """A relative link is taken from where it stands."""
        target = path.parent / "elsewhere" / "real.json"
        target.parent.mkdir()
        target.write_text('{"a": 1}', encoding="utf-8")
        path.symlink_to("elsewhere/real.json")
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert ("elsewhere/real.json", {"a": 2}) == (os.readlink(path), stored(target))

    def test_a_link_whose_target_is_missing(self, face, path):
        """The target of a dangling link is made."""
        target = path.parent / "real.json"
        path.symlink_to(target)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert (True, {"a": 1}) == (path.is_symlink(), stored(target))

    def test_the_lock_stands_beside_the_target(self, face, path):
        """All who reach a file by whatever name share one lock."""
        target = path.parent / "elsewhere" / "real.json"
        target.parent.mkdir()
        path.symlink_to(target)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert (["real.json", "real.json.lock"], ["elsewhere", "state.json"]) == (
            sorted(os.listdir(target.parent)),
            sorted(os.listdir(path.parent)),
        )

    def test_a_link_in_a_parent(self, face, path):
        """A directory may be a link as well."""
        real = path.parent / "real"
        real.mkdir()
        link = path.parent / "link"
        link.symlink_to(real, target_is_directory=True)
        first, second = face.open(link / "state.json"), face.open(real / "state.json")
        first.set("a", 1)
        second.set("b", 2)
        face.do(first.save)
        face.do(second.save)

        assert {"a": 1, "b": 2} == stored(real / "state.json")

    def test_a_link_that_was_turned_is_followed_anew(self, face, path):
        """A save goes to where the link leads now."""
        old, new = path.parent / "old.json", path.parent / "new.json"
        old.write_text('{"a": 1}', encoding="utf-8")
        new.write_text('{"b": 1}', encoding="utf-8")
        path.symlink_to(old)
        ctx = face.open(path)
        path.unlink()
        path.symlink_to(new)
        ctx.set("c", 1)
        face.do(ctx.save)

        assert ({"a": 1}, 1) == (stored(old), stored(new)["c"])


class TestModes:
    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o660, 0o664, 0o644, 0o666])
    def test_the_mode_of_a_file_is_kept(self, face, path, bits):
        """Replacing a file does not change who may read it."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert bits == mode(path)

    @pytest.mark.parametrize(
        ("mask", "bits"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664), (0, 0o666)]
    )
    def test_a_new_file_honours_the_umask(self, face, path, mask, bits):
        """A new file has the mode that any program would give it."""
        ctx = face.open(path)
        ctx.set("a", 1)
        with umask(mask):
            face.do(ctx.save)

        assert bits == mode(path)

    @pytest.mark.parametrize("bits", [0o600, 0o660, 0o664, 0o666])
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0])
    def test_the_lock_follows_the_file(self, face, path, bits, mask):
        """Who may write the file may lock it, and nobody else, whatever the umask."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        ctx = face.open(path)
        ctx.set("a", 1)
        with umask(mask):
            face.do(ctx.save)

        assert bits == mode(path.with_name("state.json.lock"))

    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o664])
    def test_the_lock_is_no_wider_than_the_file(self, face, path, bits):
        """The lock file admits nobody whom the file does not admit."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~bits

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_the_lock_of_a_new_file_is_no_wider_than_it(self, face, path, mask):
        """A new file and its lock agree."""
        with umask(mask):
            face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~mode(path)

    @pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
    def test_the_owner_is_kept(self, face, path):
        """A save by root leaves a user's file the user's."""
        path.write_text("{}", encoding="utf-8")
        os.chown(path, 12345, 23456)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert (12345, 23456) == (path.stat().st_uid, path.stat().st_gid)

    def test_a_read_only_directory_can_be_read(self, face):
        """Reading needs neither a lock nor a place to put one."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            path.write_text('{"a": 1}', encoding="utf-8")
            path.chmod(0o444)
            Path(directory).chmod(0o555)
            if AS_ROOT:
                os.seteuid(65534)
            try:
                ctx = face.open(path)
            finally:
                if AS_ROOT:
                    os.seteuid(0)
                Path(directory).chmod(0o755)

            assert ({"a": 1}, ["state.json"]) == (dict(ctx), os.listdir(directory))


class TestTheContextManager:
    def test_it_loads(self, face, path):
        """Entering loads."""
        path.write_text('{"a": 1}', encoding="utf-8")

        assert 1 == face.inside(lambda: face.cls(path), lambda ctx: ctx["a"])

    def test_it_gives_the_context_itself(self, face, path):
        """What `as` names is the context."""
        ctx = face.cls(path)

        assert ctx is face.inside(lambda: ctx, lambda entered: entered)

    def test_it_saves_on_a_clean_exit(self, face, path):
        """Leaving saves."""
        face.inside(lambda: face.cls(path), lambda ctx: ctx.set("a", 1))

        assert {"a": 1} == stored(path)

    def test_it_saves_changes_in_place(self, face, path):
        """Leaving saves what was changed in place."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        face.inside(lambda: face.cls(path), lambda ctx: ctx["jobs"].append(2))

        assert {"jobs": [1, 2]} == stored(path)

    def test_it_does_not_save_after_an_exception(self, face, path):
        """A body that failed has saved nothing, and its exception goes on."""
        path.write_text('{"a": 1}', encoding="utf-8")
        before = identity(path)

        def body(ctx):
            ctx["a"] = 2
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            face.inside(lambda: face.cls(path), body)

        assert before == identity(path)

    def test_it_raises_when_it_cannot_save(self, face, path):
        """A clean exit that could not save is no clean exit."""
        with pytest.raises(UnserializableValueError):
            face.inside(lambda: face.cls(path), lambda ctx: ctx.set("a", object()))

        assert False is path.exists()

    async def test_a_cancelled_body_is_not_saved(self, path):
        """Being cancelled is an exception."""
        entered = asyncio.Event()

        async def body():
            async with PersistentContext(path) as ctx:
                ctx["a"] = 1
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert False is path.exists()


class TestTheSnapshot:
    async def test_a_change_during_the_save_stays_unsaved(self, path):
        """A save writes what memory held at the call, and forgets nothing that came later."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        saving = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx.set("a", 2)
        await saving

        assert ({"a": 1}, 2, {"a"}) == (stored(path), ctx.get("a"), ctx.unsaved_keys())

    async def test_a_change_while_another_program_holds_the_lock(self, path, hold):
        """The snapshot is the call's, however long the save waits."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1, "kept": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 2)
            ctx["jobs"].append(2)
            del ctx["gone"]
            ctx.set("new", 1)
        await saving

        assert ({"a": 1, "jobs": [1], "gone": 1, "kept": 1}, {"a", "jobs", "gone", "new"}) == (
            stored(path),
            ctx.unsaved_keys(),
        )

    async def test_memory_keeps_the_changes_made_during_the_save(self, path, hold):
        """What was changed while it wrote is still there, and so is what others wrote."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        jobs = ctx["jobs"]
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            jobs.append(2)
            del ctx["gone"]
            path.write_text('{"a": 0, "jobs": [1], "gone": 1, "theirs": 1}', encoding="utf-8")
        await saving

        assert ({"a": 1, "jobs": [1, 2], "theirs": 1}, True) == (dict(ctx), jobs is ctx["jobs"])

    async def test_the_changes_made_during_the_save_are_saved_by_the_next(self, path, hold):
        """The next save writes what this one did not."""
        path.write_text('{"a": 0, "jobs": [1], "gone": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx["jobs"].append(2)
            del ctx["gone"]
        await saving
        await ctx.save()

        assert ({"a": 1, "jobs": [1, 2]}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_a_change_undone_during_the_save_is_unsaved(self, path, hold):
        """Going back to the old value is a change against what was written."""
        path.write_text('{"a": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 0)
        await saving

        assert ({"a": 1}, 0, {"a"}) == (stored(path), ctx.get("a"), ctx.unsaved_keys())

    async def test_a_change_during_the_save_of_a_key_that_others_changed(self, path, hold):
        """What was changed while it wrote wins over what others wrote to that key."""
        path.write_text('{"a": 0, "b": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("b", "mine")
            path.write_text('{"a": 0, "b": "theirs"}', encoding="utf-8")
        await saving

        assert ({"a": 1, "b": "theirs"}, "mine", {"b"}) == (stored(path), ctx.get("b"), ctx.unsaved_keys())

    async def test_a_key_added_before_and_deleted_during_the_save_is_unsaved(self, path, hold):
        """A key that the save writes and that is deleted meanwhile stays deleted in memory, unsaved."""
        path.write_text('{"a": 0}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("b", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            del ctx["b"]
        await saving

        assert ({"a": 0, "b": 1}, False, {"b"}) == (stored(path), "b" in ctx, ctx.unsaved_keys())

    async def test_a_change_in_place_undone_during_the_save_is_unsaved(self, path, hold):
        """Going back in place is a change against what was written."""
        path.write_text('{"jobs": [1]}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        jobs = ctx["jobs"]
        jobs.append(2)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            jobs.pop()
        await saving

        assert ({"jobs": [1, 2]}, [1], {"jobs"}, True) == (stored(path), jobs, ctx.unsaved_keys(), jobs is ctx["jobs"])

    async def test_two_saves_at_once_write_both_snapshots(self, path):
        """A second save that overtakes nothing leaves nothing unsaved."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        first = asyncio.create_task(ctx.save())
        await asyncio.sleep(0)
        ctx.set("b", 2)
        second = asyncio.create_task(ctx.save())
        await asyncio.gather(first, second)

        assert ({"a": 1, "b": 2}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_many_saves_at_once_end_with_the_last_value(self, path):
        """However many saves run at once, the file ends at the newest value."""
        ctx = await PersistentContext.create(path)
        savings = []
        for number in range(20):
            ctx.set("a", number)
            savings.append(asyncio.create_task(ctx.save()))
            await asyncio.sleep(0)
        await asyncio.gather(*savings)

        assert ({"a": 19}, set()) == (stored(path), ctx.unsaved_keys())

    async def test_many_contexts_at_once_lose_nothing(self, path):
        """Saves of many contexts at once are merged."""
        contexts = [await PersistentContext.create(path) for _ in range(20)]
        for number, ctx in enumerate(contexts):
            ctx.set(f"key-{number}", number)
        await asyncio.gather(*(ctx.save() for ctx in contexts))

        assert {f"key-{number}": number for number in range(20)} == stored(path)


UNSERIALIZABLE = {
    "tuple": ((1, 2), '["x"]: tuple', TypeError),
    "set": ({1}, '["x"]: set', TypeError),
    "bytes": (b"x", '["x"]: bytes', TypeError),
    "datetime": (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), '["x"]: datetime', TypeError),
    "object": (object(), '["x"]: object', TypeError),
    "complex": (1j, '["x"]: complex', TypeError),
    "path": (Path("x"), '["x"]: ', TypeError),
    "function": (len, '["x"]: ', TypeError),
    "inside": ([0, 1, 2, {"when": dt.date(2026, 1, 1)}], '["x"][3]["when"]: date', TypeError),
    "tuple-inside": ([[(1,)]], '["x"][0][0]: tuple', TypeError),
    "int-key": ({"a": {1: 2}}, '["x"]["a"]', TypeError),
    "none-key": ([{None: 2}], '["x"][0]', TypeError),
    "nan": (math.nan, '["x"]', ValueError),
    "infinity": (math.inf, '["x"]', ValueError),
    "minus-infinity": ([1.0, -math.inf], '["x"][1]', ValueError),
    "surrogate": ("\ud800", '["x"]', ValueError),
    "surrogate-inside": ({"a": ["b\udfff"]}, '["x"]["a"][0]', ValueError),
    "surrogate-key": ({"a": {"\ud800": 1}}, '["x"]["a"]', ValueError),
    "too-large": (10**4300, '["x"]', ValueError),
    "too-large-inside": ([-(10**5000)], '["x"][0]', ValueError),
}


def cycle_of_lists():
    """A list that contains itself."""
    value = []
    value.append(value)
    return value


def cycle_of_dicts():
    """A dict that contains itself, two steps down."""
    value = {}
    value["a"] = {"b": [value]}
    return value


def too_deep():
    """A list far deeper than any parser goes."""
    value = []
    for _ in range(100_000):
        value = [value]
    return value


class TestValues:
    @pytest.mark.parametrize(("value", "place", "builtin"), UNSERIALIZABLE.values(), ids=UNSERIALIZABLE)
    def test_what_json_cannot_hold_is_refused(self, face, path, value, place, builtin):
        """A value that would not come back equal is refused, and the message names its place."""
        ctx = face.open(path)
        ctx.set("x", value)
        with pytest.raises(UnserializableValueError) as caught:
            face.do(ctx.save)

        assert (True, True) == (place in str(caught.value), isinstance(caught.value, builtin))

    def test_the_place_in_the_contracts_words(self, face, path):
        """The message names the place as a program would reach it."""
        ctx = face.open(path)
        ctx.set("jobs", [0, 1, 2, {"when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}])
        with pytest.raises(UnserializableValueError) as caught:
            face.do(ctx.save)

        assert '["jobs"][3]["when"]: datetime' in str(caught.value)

    @pytest.mark.parametrize("make", [cycle_of_lists, cycle_of_dicts, too_deep])
    def test_what_has_no_end_is_refused(self, face, path, make):
        """A cycle, or a nesting that no reader survives, is a ValueError and no crash."""
        ctx = face.open(path)
        ctx.set("x", make())
        with pytest.raises(UnserializableValueError) as caught:
            face.do(ctx.save)

        assert (True, True) == (isinstance(caught.value, ValueError), '["x"]' in str(caught.value))

    def test_a_value_that_appears_twice_is_no_cycle(self, face, path):
        """One object in two places is written twice."""
        ctx = face.open(path)
        shared = [1]
        ctx.set("x", [shared, shared, {"a": shared}])
        face.do(ctx.save)

        assert {"x": [[1], [1], {"a": [1]}]} == stored(path)

    def test_the_file_is_left_alone(self, face, path):
        """Nothing is written when anything cannot be."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        before = identity(path)
        ctx.set("a", 2)
        ctx.set("x", [{1, 2}])
        with pytest.raises(UnserializableValueError):
            face.do(ctx.save)

        assert (before, ["state.json"]) == (
            identity(path),
            [name for name in os.listdir(path.parent) if name != "state.json.lock"],
        )

    def test_all_changes_stay_unsaved(self, face, path):
        """A refused save keeps every change for the next."""
        ctx = face.open(path)
        ctx.set("a", 2)
        ctx.set("x", {1, 2})
        with pytest.raises(UnserializableValueError):
            face.do(ctx.save)

        assert ({"a", "x"}, 2, {1, 2}) == (ctx.unsaved_keys(), ctx["a"], ctx["x"])

    def test_saving_works_once_the_value_is_mended(self, face, path):
        """A refused save can be repeated."""
        ctx = face.open(path)
        ctx.set("a", 2)
        ctx.set("x", {1, 2})
        with pytest.raises(UnserializableValueError):
            face.do(ctx.save)
        ctx.set("x", [1, 2])
        face.do(ctx.save)

        assert ({"a": 2, "x": [1, 2]}, set()) == (stored(path), ctx.unsaved_keys())

    def test_a_bad_value_does_not_hinder_atomic_operations(self, face, path):
        """Only what is written must be writable."""
        ctx = face.open(path)
        ctx.set("x", {1, 2})
        face.do(ctx.incr, "n")

        assert ({"n": 1}, {"x"}) == (stored(path), ctx.unsaved_keys())

    @pytest.mark.parametrize("key", ["\ud800", "a\udfffb"], ids=ascii)
    def test_a_key_that_utf_8_cannot_hold(self, face, path, key):
        """A lone surrogate in a key is refused before anything is written."""
        ctx = face.open(path)

        def set_and_save():
            ctx.set(key, 1)
            face.do(ctx.save)

        with pytest.raises(UnserializableValueError) as caught:
            set_and_save()

        assert (True, False) == (isinstance(caught.value, ValueError), path.exists())


class TestOptions:
    @pytest.mark.parametrize("lock_timeout", [-1, -0.001, math.nan, -math.inf])
    def test_a_senseless_lock_timeout(self, face, path, lock_timeout):
        """A negative number of seconds, or none at all, is a ValueError."""
        with pytest.raises(ValueError, match="lock_timeout"):
            face.cls(path, lock_timeout=lock_timeout)

    @pytest.mark.parametrize("lock_timeout", ["1", None, True, False, [1], 1j])
    def test_a_lock_timeout_that_is_no_number(self, face, path, lock_timeout):
        """A lock_timeout that is no number is a TypeError."""
        with pytest.raises(TypeError, match="lock_timeout"):
            face.cls(path, lock_timeout=lock_timeout)

    @pytest.mark.parametrize("lock_timeout", [0, 0.0, 1, 0.5, math.inf, 1e300])
    def test_a_good_lock_timeout(self, face, path, lock_timeout):
        """Zero, seconds and for ever are all fine when nobody is in the way."""
        ctx = face.open(path, lock_timeout=lock_timeout)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert {"a": 1} == stored(path)

    @pytest.mark.parametrize("on_conflict", ["ours", "", "MINE", None, 1, b"mine"])
    def test_an_unknown_on_conflict(self, face, path, on_conflict):
        """What is neither a known word nor callable is a ValueError."""
        with pytest.raises(ValueError, match="on_conflict"):
            face.cls(path, on_conflict=on_conflict)

    @pytest.mark.parametrize("on_conflict", ["mine", "theirs", "raise", lambda key, base, mine, theirs: mine])
    def test_a_known_on_conflict(self, face, path, on_conflict):
        """The three words and a callable are taken."""

        assert {} == dict(face.cls(path, on_conflict=on_conflict))

    def test_options_are_keywords(self, face, path):
        """Nothing but the path is positional."""
        with pytest.raises(TypeError):
            face.cls(path, True)

    def test_create_hands_options_on(self, face, path):
        """create takes what the constructor takes."""
        with pytest.raises(ValueError, match="on_conflict"):
            face.open(path, on_conflict="ours")


class TestWaiting:
    def test_zero_only_tries(self, face, path, hold):
        """A lock_timeout of zero gives up at once, with nothing written and nothing lost."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path, lock_timeout=0)
        before = identity(path)
        ctx.set("a", 2)
        with hold(path), pytest.raises(LockTimeoutError):
            face.do(ctx.save)

        assert (before, {"a"}, 2) == (identity(path), ctx.unsaved_keys(), ctx["a"])

    @pytest.mark.parametrize("lock_timeout", [0, 1e-9, 1e-6])
    def test_a_free_lock_is_had_in_no_time(self, face, path, lock_timeout):
        """However short the time to wait, who needs not wait does not time out."""
        ctx = face.open(path, lock_timeout=lock_timeout, durable=False)

        assert list(range(1, 101)) == [face.do(ctx.incr, "n") for _ in range(100)]

    def test_a_save_that_gave_up_can_be_repeated(self, face, path, hold):
        """After a timeout the next save writes."""
        ctx = face.open(path, lock_timeout=1)
        ctx.set("a", 2)
        with hold(path), pytest.raises(LockTimeoutError):
            face.do(ctx.save)
        face.do(ctx.save)

        assert ({"a": 2}, set()) == (stored(path), ctx.unsaved_keys())

    def test_reading_waits_for_nobody(self, face, path, hold):
        """Loading needs no lock."""
        path.write_text('{"a": 1}', encoding="utf-8")
        with hold(path):
            ctx = face.open(path, lock_timeout=0)

        assert {"a": 1} == dict(ctx)

    async def test_a_save_waits_until_the_lock_is_free(self, path, hold):
        """A wait without end ends when the lock is released."""
        ctx = await PersistentContext.create(path, lock_timeout=math.inf)
        ctx.set("a", 1)
        with hold(path):
            saving = asyncio.create_task(ctx.save())
            await turns()
            written = path.exists()
        await saving

        assert (False, {"a": 1}) == (written, stored(path))

    async def test_who_waits_holds_no_thread_of_the_executor(self, path, hold):
        """While a save waits for the lock, the loop's executor of one thread still serves others."""
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        with hold(path):
            calls = [asyncio.create_task(ctx.save()), asyncio.create_task(ctx.incr("n"))]
            await turns()
            served = [await asyncio.to_thread(lambda: "served") for _ in range(5)]
        await asyncio.gather(*calls)

        assert (["served"] * 5, {"a": 1, "n": 1}) == (served, stored(path))


class TestCancelling:
    @pytest.mark.parametrize("call", [
        lambda ctx: ctx.save(),
        lambda ctx: ctx.incr("n"),
        lambda ctx: ctx.add("n", 1),
        lambda ctx: ctx.mutate("n", lambda value: 1),
        lambda ctx: ctx.compare_and_set("a", 1, 3),
    ], ids=["save", "incr", "add", "mutate", "compare_and_set"])  # fmt: skip
    async def test_a_call_cancelled_while_it_waits_has_no_effect(self, path, hold, call):
        """A call that is cancelled behind another program is withdrawn at once."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = await PersistentContext.create(path)
        ctx.set("b", 2)
        with hold(path):
            task = asyncio.create_task(call(ctx))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        free = await (await PersistentContext.create(path)).add("probe", 1)

        assert (True, {"a": 1, "probe": 1}, {"b"}) == (free, stored(path), ctx.unsaved_keys())

    async def test_a_cancelled_call_does_not_withdraw_the_others(self, path, hold):
        """Of many that wait together, only the cancelled one is withdrawn."""
        ctx = await PersistentContext.create(path)
        with hold(path):
            calls = [asyncio.create_task(ctx.incr("n")) for _ in range(10)]
            await turns()
            for call in calls[::2]:
                call.cancel()
            await turns()
        results = await asyncio.gather(*calls, return_exceptions=True)
        numbers = [result for result in results if isinstance(result, int)]

        assert ([1, 2, 3, 4, 5], {"n": 5}) == (sorted(numbers), stored(path))

    async def test_a_timeout_around_a_call(self, path, hold):
        """asyncio.timeout withdraws a call like any cancelling."""
        ctx = await PersistentContext.create(path)
        with hold(path), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ctx.incr("n")

        assert 1 == await ctx.incr("n")

    async def test_a_call_cancelled_at_any_turn_has_its_whole_effect_or_none(self, path):
        """However far a call has come when it is cancelled, it is done or it is not, and no lock outlives it."""
        ctx = await PersistentContext.create(path)
        unknown = 0
        for count in range(60):
            task = asyncio.create_task(ctx.incr("n"))
            await turns(count)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                unknown += 1
        done = 60 - unknown
        last = await ctx.incr("n", 0)

        assert (True, last) == (done <= last <= 60, stored(path).get("n", 0))

    async def test_a_save_cancelled_at_any_turn_leaves_memory_and_file_in_step(self, path):
        """What a cancelled save wrote is saved, and what it did not is unsaved."""
        ctx = await PersistentContext.create(path)
        for count in range(60):
            ctx.set("a", count)
            task = asyncio.create_task(ctx.save())
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
            written = path.exists() and stored(path).get("a") == count

            assert written is ("a" not in ctx.unsaved_keys())


class TestTheOriginalSpecification:
    async def test_the_lock_is_an_asyncio_lock(self, path):
        """`_lock` is what the original specification said."""
        ctx = await PersistentContext.create(path)

        assert isinstance(ctx._lock, asyncio.Lock)

    @pytest.mark.parametrize("name", ["load", "save"])
    async def test_load_and_save_wait_for_the_lock(self, path, name):
        """Who holds `_lock` holds up load and save."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        async with ctx._lock:
            task = asyncio.create_task(getattr(ctx, name)())
            await turns()
            waited = not task.done()
        await task
        async with ctx._lock:
            free = True

        assert (True, True) == (waited, free)

    @pytest.mark.parametrize("name", ["load", "save"])
    async def test_load_and_save_run_in_the_default_executor(self, path, name):
        """The file is read and written in a thread of the loop's default executor, off the loop."""
        asyncio.get_running_loop().set_default_executor(
            concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="the-default-executor"),
        )
        threads = []

        class Watched(PersistentContext):
            def _sync_load_internal(self, *args, **kwargs):
                threads.append(threading.current_thread().name)
                return super()._sync_load_internal(*args, **kwargs)

            def _sync_save_internal(self, *args, **kwargs):
                threads.append(threading.current_thread().name)
                return super()._sync_save_internal(*args, **kwargs)

        ctx = Watched(path)
        ctx.set("a", 1)
        await getattr(ctx, name)()

        assert {True} == {thread.startswith("the-default-executor") for thread in threads}

    async def test_the_snapshot_of_a_save_is_the_calls(self, path):
        """A save that waits for `_lock` writes what memory held when it was called."""
        ctx = await PersistentContext.create(path)
        ctx.set("a", 1)
        async with ctx._lock:
            saving = asyncio.create_task(ctx.save())
            await turns()
            ctx.set("a", 2)
        await saving

        assert ({"a": 1}, {"a"}) == (stored(path), ctx.unsaved_keys())


class TestEventLoops:
    def test_a_context_needs_no_loop_to_be_made(self, path):
        """A context may be made before any loop runs."""
        ctx = PersistentContext(path)
        ctx.set("a", 1)
        asyncio.run(ctx.save())

        assert {"a": 1} == stored(path)

    def test_a_later_loop_may_use_it(self, path):
        """After a loop was closed, the next may go on with the context."""
        ctx = PersistentContext(path)

        numbers = [asyncio.run(ctx.incr("n")) for _ in range(3)]

        assert ([1, 2, 3], {"n": 3}) == (numbers, stored(path))

    @pytest.mark.parametrize("call", ["load", "save"])
    def test_a_second_loop_beside_the_first_is_refused(self, path, call):
        """Two open loops do not share one context."""
        ctx = PersistentContext(path)
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(ctx.save())

            async def use():
                await getattr(ctx, call)()

            with pytest.raises(ContextUsageError):
                second.run(use())

            assert 1 == first.run(ctx.incr("n"))

    def test_two_loops_in_two_threads_share_the_file(self, path):
        """Each thread's loop has a context of its own, and they lose nothing to each other."""

        async def count():
            ctx = await PersistentContext.create(path)
            return await asyncio.gather(*(ctx.incr("n") for _ in range(25)))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            numbers = [number for part in pool.map(lambda _: asyncio.run(count()), range(2)) for number in part]

        assert list(range(1, 51)) == sorted(numbers)


class TestTheInterpreter:
    def test_it_ends_while_a_sync_call_waits_in_a_thread(self, path, spawn, hold):
        """A hung holder does not keep a program from exiting."""
        code = (
            "import sys, threading\n"
            "from persistent_context import SyncPersistentContext\n"
            "ctx = SyncPersistentContext.create(sys.argv[1])\n"
            "threading.Thread(target=ctx.incr, args=('n',), daemon=True).start()\n"
            "print('ending', flush=True)\n"
        )
        with hold(path):
            said = spawn(code, path).finish()

        assert (["ending"], False) == (said, path.exists())

    def test_it_ends_while_a_loop_is_waiting(self, path, spawn, hold):
        """A program whose loop is stopped while it waits for the lock exits at once."""
        code = (
            "import asyncio, sys\n"
            "from persistent_context import PersistentContext\n"
            "async def main():\n"
            "    ctx = await PersistentContext.create(sys.argv[1])\n"
            "    tasks = [asyncio.create_task(ctx.incr('n')) for _ in range(3)]\n"
            "    await asyncio.wait(tasks, timeout=0.05)\n"
            "asyncio.run(main())\n"
            "print('ending', flush=True)\n"
        )
        with hold(path):
            said = spawn(code, path).finish()

        assert (["ending"], False) == (said, path.exists())
