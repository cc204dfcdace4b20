"""Text from other programs is printed without control characters that a terminal would obey."""

import json

import pytest

from persistent_context._printable import printable, printable_json

STEERING = [
    pytest.param("\x1b[2J", "\\x1b[2J", id="escape sequence"),
    pytest.param("\x9b2J", "\\x9b2J", id="escape sequence of C1"),
    pytest.param("\x7f", "\\x7f", id="delete"),
    pytest.param("\u202eabc\u2066", "\\u202eabc\\u2066", id="other direction"),
    pytest.param("a\u2028b\u2029", "a\\u2028b\\u2029", id="separators of lines"),
    pytest.param("\ufeff\U000e0041", "\\ufeff\\U000e0041", id="invisible"),
    pytest.param("\ud800", "\\ud800", id="lone surrogate"),
]


class TestPrintable:
    @pytest.mark.parametrize(("text", "shown"), STEERING)
    def test_what_a_terminal_could_obey_is_escaped(self, text, shown):
        """Control characters become Python's own escapes, and nothing else changes."""
        assert f"älice 東京 😀 {shown}" == printable(f"älice 東京 😀 {text}")


class TestPrintableJson:
    @pytest.mark.parametrize("text", [case.values[0] for case in STEERING], ids=[case.id for case in STEERING])
    def test_it_stays_json_with_the_same_meaning(self, text):
        """The escapes are those of JSON, so parsing gives the same value."""
        value = {f"key {text}": [f"älice 東京 😀 {text}"]}
        shown = printable_json(json.dumps(value, ensure_ascii=False))

        assert (value, True, True) == (json.loads(shown), shown.isprintable(), "älice 東京 😀" in shown)

    def test_what_the_encoding_of_the_output_lacks_is_escaped_as_well(self):
        """Characters that the output encoding lacks are written as JSON escapes, too."""
        assert '"\\u00e4 \\ud83d\\ude00"' == printable_json('"ä 😀"', "ascii")
        assert '"ä \\ud83d\\ude00"' == printable_json('"ä 😀"', "latin-1")
