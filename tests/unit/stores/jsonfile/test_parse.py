"""Reading: any valid JSON object, in any layout, is read as json reads it, and nothing else is accepted."""

import json
import logging

import pytest

from persistent_context._stores.jsonfile import parse as _parse
from persistent_context._stores.jsonfile.parse import parse
from persistent_context._stores.protocol import CorruptStateError


def stored(path):
    """Return what any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def corrupt_copies(path):
    """Return the files that were moved aside."""
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


def warnings_of_the_library(caplog):
    """Return the warnings logged by the library."""
    return [
        record
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.split(".")[0] == "persistent_context"
    ]


LAYOUTS = [
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
    '{"a": ' + "[" * 400 + "]" * 400 + "}",
    '{"a": ' + '{"a":' * 100 + "0" + "}" * 100 + "}",
    '{"a": "' + "1" * 5000 + '", "' + "2" * 5000 + '": 1}',
    '{"a": "' + "[" * 100_000 + '"}',
    ' \r\n\t{ "a" : 1 }\t\n\n',
    json.dumps({"a": 1, "b": [2, {"c": 3}]}, indent=4),
    '{\n\n"a": 1\n,\n\n"b": 2\n}\n\n',
    '{\n"a": [1,\n2],\n"b": {\n"c": 3\n}\n}\n',
    '{\n"a": "\\",\\n\\"b\\": 2,\\n",\n"c": {"d": 3,\n"e": 4\n},\n"f": 5\n}\n',
    '{"\\u0061\\/": "\\b\\f\\n\\r\\t\\"\\\\\\u00e9\\u0000"}',
    '{"\\ud83d\\ude00": "\\ud83d\\ude00"}',
    '{"a\u2028": "\u2029\x7f\u0085\ufeff"}',
    '{"": {"": [""]}}',
]  # fmt: skip


def short(text):
    """Return the test id of a text."""
    return f"{ascii(text)[:40]}-{len(text)}"


def _parsed(text):
    return parse(lambda offset, length: text.encode()[offset : offset + length], len(text))


class TestLayouts:
    @pytest.mark.parametrize("text", LAYOUTS, ids=short)
    def test_every_valid_layout_is_read(self, face, path, text, caplog):
        """Any valid JSON object is read as json reads it, without a warning, and reading does not change it."""
        path.write_text(text, encoding="utf-8", newline="")
        ctx = face.open(path)

        assert json.dumps(json.loads(text)) == json.dumps(ctx.get_all_data())
        assert (text.encode(), []) == (path.read_bytes(), corrupt_copies(path))
        assert [] == warnings_of_the_library(caplog)

    @pytest.mark.parametrize("text", LAYOUTS, ids=short)
    def test_every_valid_layout_survives_a_change(self, face, path, text):
        """A change to a document in any layout keeps every other key and value, and their order."""
        path.write_text(text, encoding="utf-8", newline="")
        ctx = face.open(path)
        ctx.set("fresh", 1)
        face.do(ctx.save)

        assert json.dumps({**json.loads(text), "fresh": 1}) == json.dumps(stored(path))
        assert [] == corrupt_copies(path)

    @pytest.mark.parametrize("number", [
        "0", "-0", "-1", "1.0", "-0.0", "1.50", "1e5", "1E5", "1E+5", "1e-7", "1e-400", "1e308",
        "1.7976931348623157e308", "-" + "9" * 4300,
        "123456789012345678901234567890", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
        "-9223372036854775809", "100000000000000000000.0", "0.1", "0.30000000000000004", "2.2250738585072014e-308",
        "5e-324", "9007199254740993", "1e22", "1" * 400, "1" * 4300, "1E+2",
    ], ids=lambda text: f"{text[:24]}-{len(text)}")  # fmt: skip
    def test_every_number_is_read_as_json_reads_it(self, face, path, number):
        """A number keeps its type and its value."""
        path.write_text(f'{{"a": {number}, "b": [{number}]}}', encoding="utf-8")
        ctx = face.open(path)

        assert [repr(json.loads(number))] * 2 == [repr(ctx.get("a")), repr(ctx.get("b")[0])]

    def test_an_escaped_key_is_the_key_it_means(self, face, path):
        """A key that the file spells with escapes is not written a second time."""
        path.write_text('{\n"\\u0061": 1,\n"b": 2\n}\n', encoding="utf-8")
        ctx = face.open(path)
        ctx.set("a", 3)
        face.do(ctx.save)

        assert [("a", 3), ("b", 2)] == json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)

    def test_an_escaped_key_can_be_deleted(self, face, path):
        """A deletion finds the key, however it is spelled."""
        path.write_text('{\n"\\u0061": 1,\n"b": 2\n}\n', encoding="utf-8")
        ctx = face.open(path)
        del ctx["a"]
        face.do(ctx.save)

        assert {"b": 2} == stored(path)

    def test_the_same_value_spelled_differently_is_not_a_change(self, face, path):
        """Reformatting by another program does not count as a change."""
        path.write_text('{"a": {"x": [1, 2]}, "b": "é"}', encoding="utf-8")
        ctx = face.open(path, on_conflict="raise")
        ctx.get("a")["x"].append(3)
        path.write_text(
            '{\n  "a": {\n    "x": [\n      1,\n      2\n    ]\n  },\n  "b": "\\u00e9"\n}', encoding="utf-8"
        )
        face.do(ctx.save)

        assert {"a": {"x": [1, 2, 3]}, "b": "é"} == stored(path)


class TestBigFiles:
    def test_a_lone_surrogate_is_refused_in_a_big_file_of_any_layout(self):
        """A text that could not be written back is refused, wherever the pages are cut."""
        with pytest.raises(CorruptStateError, match="surrogate"):
            _parsed('{"a": "\\ud800", "b": "' + "x" * 100_000 + '"}')

    def test_braces_on_their_own_lines_are_not_enough_for_our_layout(self):
        """A big file with several entries on a line is read, even if its first and last lines look like ours."""
        data = {f"key-{number}": number for number in range(20_000)}
        document = _parsed("{\n" + json.dumps(data)[1:-1] + "\n}\n")

        assert json.dumps(data) == json.dumps(json.loads(b"".join(document.pieces())))

    def test_a_file_is_not_called_corrupt_for_lack_of_stack(self, monkeypatch):
        """Too little stack is the caller's problem, and no reason to move a file aside."""
        monkeypatch.setattr(_parse, "deeper_than", lambda limit, text: False)
        with pytest.raises(RecursionError):
            _parsed('{"a": ' + "[" * 200_000)
