"""The format of the file: one key per line, in the order in which the keys were added, exactly as documented."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistent_context import SyncPersistentContext


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


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
    """``value`` as JSON, with blanks and line ends wherever they are allowed."""
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


class TestFormat:
    def test_one_key_a_line(self, face, path):
        """The format matches the documentation, byte for byte."""
        ctx = face.open(path)
        ctx.update(a=1, b=[2, 3])
        face.do(ctx.save)

        assert b'{\n"a": 1,\n"b": [2, 3]\n}\n' == path.read_bytes()

    def test_empty(self, face, path):
        """A cleared file has an empty object and a line end."""
        path.write_text('{"a": 1}', encoding="utf-8")
        ctx = face.open(path)
        ctx.clear()
        face.do(ctx.save)

        assert b"{}\n" == path.read_bytes()

    def test_nested_values_stay_on_their_line(self, face, path):
        """However deep a value is, its key is on one line."""
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
        """A value with line ends and quotes is on one line all the same."""
        ctx = face.open(path)
        ctx.set('k"\n', 'v"\\\n\r\t\x00')
        face.do(ctx.save)

        assert (3, {'k"\n': 'v"\\\n\r\t\x00'}) == (path.read_bytes().count(b"\n"), stored(path))

    def test_order_of_insertion(self, face, path):
        """Keys are written in the order in which they were added."""
        ctx = face.open(path)
        for key in ("z", "a", "m"):
            ctx.set(key, 0)
        face.do(ctx.save)

        assert ["z", "a", "m"] == list(stored(path))

    def test_order_of_nested_keys(self, face, path):
        """Keys inside a value are written in the order in which they were added."""
        ctx = face.open(path)
        ctx.set("o", {"z": 0, "a": 0})
        face.do(ctx.save)

        assert ["z", "a"] == list(stored(path)["o"])

    def test_order_of_the_file_is_kept(self, face, path):
        """Changing a value does not move its key; new keys are appended."""
        path.write_text('{"z": 1, "a": 2, "m": 3}', encoding="utf-8")
        ctx = face.open(path)
        ctx.update(m=4, b=5, z=6)
        face.do(ctx.save)

        assert ["z", "a", "m", "b"] == list(stored(path))

    def test_order_of_others_keys_is_kept(self, face, path):
        """Keys that others added come before those that this context adds later."""
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
        """Changing one key is enough to restore one line per key."""
        path.write_text(layout, encoding="utf-8", newline="")
        ctx = face.open(path)
        ctx.set("a", 2)
        face.do(ctx.save)

        assert b'{\n"a": 2,\n"b": [2, 3],\n"c": {"d": null}\n}\n' == path.read_bytes()


class TestEveryDocument:
    @unhurried
    @given(json_objects, st.randoms(use_true_random=False))
    def test_any_layout_of_any_object_is_read(self, data, random):
        """Wherever the white space is, a document is read as json reads it."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            text = scattered(data, lambda: "".join(random.choices(" \n\r\t", k=random.randrange(3))), random)
            path.write_text(text, encoding="utf-8", newline="")
            ctx = SyncPersistentContext.create(path)

            assert json.dumps(data) == json.dumps(ctx.get_all_data())

    @unhurried
    @given(json_objects, json_objects)
    def test_any_object_comes_back_as_it_was(self, first, second):
        """A saved object is read back equal, by the library and by json, even after another save over it."""
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
        """When two contexts save one after the other, the second one's changes win."""
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


class TestOrder:
    @pytest.mark.parametrize("how", ["saved", "carried", "transacted", "gone"])
    def test_a_key_that_is_deleted_and_set_again_goes_to_the_end(self, path, how):
        """The file has the keys in the same order as memory."""
        path.write_text('{"a": 1, "b": 2, "c": 3}', encoding="utf-8")
        ctx = SyncPersistentContext.create(path)
        if how == "transacted":
            with ctx.transaction() as tx:
                del tx["a"]
                tx["a"] = 10
        else:
            del ctx["a"]
            ctx["a"] = 10
        if how == "carried":
            ctx.incr("a", 0)
        elif how != "transacted":
            if how == "gone":
                path.unlink()
            ctx.save()

        assert [("b", 2), ("c", 3), ("a", 10)] == list(stored(path).items())

    def test_new_keys_keep_their_order_when_the_file_is_gone(self, path):
        """Keys created by atomic calls and keys that were set have the same order as in memory."""
        ctx = SyncPersistentContext.create(path)
        ctx["first"] = 1
        ctx.incr("second")
        ctx["third"] = 3
        path.unlink()
        ctx.save()

        assert ["first", "second", "third"] == list(ctx) == list(stored(path))
