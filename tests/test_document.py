"""The document of pages, against a plain dictionary."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistent_context import _document, _parse
from persistent_context._document import EMPTY, Document
from persistent_context._parse import CorruptDocumentError, parse
from persistent_context._values import MISSING, decode, encode

keys = st.text(max_size=5) | st.sampled_from([f"key-{n}" for n in range(40)])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=3), leaves, max_size=3)
objects = st.dictionaries(keys, values, max_size=60)


@pytest.fixture(autouse=True, params=[(64, 0), (64, 20), (_document.PAGE_BYTES, 20)])
def pages(request, monkeypatch):
    """Have even small documents span many pages, or one, and be changed by splicing and by writing down anew."""
    page_bytes, spliced_share = request.param
    monkeypatch.setattr(_document, "PAGE_BYTES", page_bytes)
    monkeypatch.setattr(_parse, "PAGE_BYTES", page_bytes)
    monkeypatch.setattr(_document, "_SPLICED_SHARE", spliced_share)
    return page_bytes


LAYOUTS = (
    {},
    {"separators": (",", ":")},
    {"separators": (" , ", " : ")},
    {"indent": 0},
    {"indent": 2},
    {"indent": "\t", "separators": (",", ": ")},
)


def of(data):
    return EMPTY.changed({key: encode(value, key) for key, value in data.items()})


def text_of(document):
    return b"".join(document.pieces())


def data_of(document):
    return {key: decode(text) for entries in document.entries() for key, text in entries.items()}


def read(text, known=EMPTY):
    return parse(lambda offset, length: text[offset : offset + length], len(text), known)


def exactly(data):
    return json.dumps(data)


def expected_of(text):
    """Return what Python's json reads, if that can be written back, or None."""
    try:
        data = json.loads(text.decode("utf-8-sig"))
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return None
    return exactly(data) if isinstance(data, dict) else None


def found_in(text, known=EMPTY):
    """Return what we read, or None."""
    try:
        return exactly(data_of(read(text, known)))
    except CorruptDocumentError:
        return None


class TestDocuments:
    @given(objects)
    def test_a_document_is_written_and_read_back_as_it_was(self, data):
        """Writing and reading keeps all values and their order."""
        text = text_of(of(data))

        assert exactly(data) == exactly(json.loads(text)) == exactly(data_of(read(text)))

    @given(objects)
    def test_every_entry_stands_on_one_line(self, data):
        """The file has one line for each key, and one for each brace."""
        lines = text_of(of(data)).decode().split("\n")

        assert len(lines) == (len(data) + 3 if data else 2)

    @given(objects, st.dictionaries(keys, values | st.just(MISSING), max_size=30))
    def test_changing_is_changing_a_dictionary(self, data, changes):
        """Texts are replaced in place, new ones appended, and MISSING removes."""
        expected = dict(data)
        for key, value in changes.items():
            if value is MISSING:
                expected.pop(key, None)
            else:
                expected[key] = value
        changed = of(data).changed({k: v if v is MISSING else encode(v, k) for k, v in changes.items()})

        assert exactly(expected) == exactly(data_of(changed))

    @given(objects, st.lists(keys, max_size=30))
    def test_what_is_there_is_found(self, data, wanted):
        """Few keys are searched for and many split for, with the same result."""
        found = of(data).find(wanted)

        assert {key: exactly(data[key]) for key in wanted if key in data} == {
            key: exactly(decode(text)) for key, text in found.items()
        }

    @given(objects, objects)
    def test_the_differences_make_one_document_of_the_other(self, one, other):
        """The differences, applied to the older document, give the newer one's content."""
        older, newer = of(one), of(other)

        assert other == data_of(older.changed(newer.differences(older)))

    @given(objects, st.dictionaries(keys, values | st.just(MISSING), max_size=4))
    def test_an_unchanged_part_is_shared_with_the_known_document(self, data, changes):
        """Reading against a known document gives what reading from nothing gives, and shares its pages."""
        known = read(text_of(of(data)))
        text = text_of(known.changed({k: v if v is MISSING else encode(v, k) for k, v in changes.items()}))
        again = read(text, known)

        assert text == text_of(again)
        assert exactly(json.loads(text)) == exactly(data_of(again))
        assert known is read(text_of(known), known)

    @given(objects, st.integers(0, 2000), st.binary(max_size=6))
    @settings(max_examples=300)
    def test_damage_is_never_taken_for_content(self, data, at, noise):
        """Whatever is overwritten in a file, reading it against the known one agrees with Python's json or refuses."""
        text = text_of(of(data))
        at %= len(text) + 1
        damaged = text[:at] + noise + text[at + len(noise) :]

        assert expected_of(damaged) == found_in(damaged, read(text))

    @given(objects, st.sampled_from(LAYOUTS), st.booleans())
    def test_any_layout_is_read_as_json_reads_it(self, data, layout, escaped):
        """Whatever the white space and the escapes, the content is found, and is one line a key from then on."""
        found = read(json.dumps(data, ensure_ascii=escaped, **layout).encode())

        assert exactly(data) == exactly(data_of(found))
        assert not found.repeats
        assert text_of(found) == text_of(of(data))

    @given(objects, st.sampled_from(LAYOUTS), st.data())
    def test_a_repeated_key_is_noticed_in_any_layout(self, data, layout, choose):
        """The last value of a repeated key is taken, as by Python's json, and that one was lost is known."""
        text = json.dumps(data | {"again": 1, "behind": 2}, **layout)
        place = choose.draw(st.sampled_from(["again", "behind"]))
        text = text.replace(json.dumps(place), '"again": [0, {"again": ","}],' + json.dumps(place), 1)
        found = read(text.encode())

        assert found.repeats
        assert exactly(json.loads(text)) == exactly(data_of(found))

    def test_a_comma_that_is_escaped_does_not_hide_a_repeated_key(self):
        """Commas are counted to notice a key that is there twice, and may be written as an escape."""
        found = read(b'{"a": 1, "a": 2, "b\\u002c": "' + b"x" * 100 + b'"}')

        assert found.repeats

    @given(objects, st.sampled_from(LAYOUTS), st.integers(0, 2000), st.binary(max_size=4))
    @settings(max_examples=300)
    def test_damage_in_any_layout_is_never_taken_for_content(self, data, layout, at, noise):
        """Whatever is overwritten, a file in any layout is read as Python's json reads it, or refused."""
        text = json.dumps(data, ensure_ascii=False, **layout).encode()
        at %= len(text) + 1
        damaged = text[:at] + noise + text[at + len(noise) :]

        assert expected_of(damaged) == found_in(damaged)

    def test_lines_inside_of_a_value_are_not_taken_for_entries(self):
        """A value on several lines, whose lines look like entries of our own, is read as what it is."""
        data = {"a": 1, "b": {"x": 2, "b": 3, "c": ["d", 4]}} | {f"key-{n}": {"n": n, "m": [n]} for n in range(50)}
        for layout in (
            json.dumps(data, indent=0),
            "{\n" + json.dumps(data, indent=0)[2:-2] + "\n}\n",
            json.dumps(data, indent=0).replace("{\n", "{") + "\n",
        ):
            assert exactly(data) == exactly(data_of(read(layout.encode())))

    def test_a_key_that_repeats_in_another_page_is_noticed(self):
        """A repeated key is found wherever it stands, also when the rest of the file is known."""
        data = {f"key-{n}": n for n in range(50)}
        text = text_of(of(data))
        twice = text.replace(b'"key-3": 3', b'"key-33": 3')

        assert (True, {**{k: v for k, v in data.items() if k != "key-3"}, "key-33": 33}) == (
            read(twice, read(text)).repeats,
            data_of(read(twice, read(text))),
        )
        assert read(twice).repeats

    def test_a_changed_key_changes_one_page(self):
        """A change costs one page, whatever the size of the file."""
        before = of({f"key-{n}": n for n in range(500)})
        after = before.changed({"key-250": b"7"})

        assert 1 == len({*after.pages} - {*before.pages})
        assert {"key-250": b"7"} == after.differences(before)

    def test_a_missing_file_is_an_empty_document_that_is_not_present(self):
        """What was not read from a file says so."""
        assert (False, True, b"{}\n") == (EMPTY.present, Document().present, text_of(EMPTY))
