"""The lines of a journal: what is written can be read back, and anything else is damage, never an exception."""

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journals import MISSING, fold_line, header_line, record_line
from persistent_context import TooManyDigitsError
from persistent_context._stores.journal.record import (
    VERSION,
    Author,
    Fingerprint,
    Fold,
    Header,
    author_now,
    generation_of,
    parse_header,
    parse_line,
)

GENERATION = "0123456789abcdef"
AUTHOR = Author(1.5, 7)
HEADER = {"persistent_context_journal": VERSION, "number": 0, "time": 1.5, "pid": 7, "follows": [3, 4]}
RECORD = {"number": 1, "time": 1.5, "pid": 7, "set": {"a": 1}, "delete": ["b"]}
FOLD = {"number": 1, "time": 1.5, "pid": 7, "fold": [3, 4]}
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000


def framed(payload, generation=GENERATION, length=None):
    """Return a line with a valid checksum, whatever its content."""
    payload = payload.encode()
    body = b"%d %s %s" % (len(payload) if length is None else length, generation.encode(), payload)
    return b"%08x %s" % (zlib.crc32(body), body)


def changed(fields, **others):
    """Return the text of fields, some replaced by other text; those that are None are left out."""
    texts = {name: json.dumps(value) for name, value in fields.items()} | others
    return "{" + ", ".join(f'"{name}": {text}' for name, text in texts.items() if text is not None) + "}"


BAD_FIELDS = {
    "no number": {"number": None},
    "a negative number": {"number": "-1"},
    "a truth value for a number": {"number": "true"},
    "a fraction for a number": {"number": "1.5"},
    "a number too large for a file": {"number": "9" * 20},
    "no time": {"time": None},
    "a time that is none": {"time": '"now"'},
    "a time that is a list": {"time": "[]"},
    "a time without end": {"time": "1e999"},
    "a time too large for a float": {"time": "9" * 400},
    "a process that is none": {"pid": '"x"'},
    "nothing to set": {"set": None},
    "a list to set": {"set": "[]"},
    "deletes a number": {"delete": "[1]"},
    "deletes no list": {"delete": '"b"'},
    "deletes something deep": {"delete": DEEP},
}

BAD_FOLDS = {
    "no fold": {"fold": None},
    "a fold of nothing": {"fold": "null"},
    "a fold of one number": {"fold": "[1]"},
    "a fold of texts": {"fold": '["a", "b"]'},
    "a fold without end": {"fold": "[1e999, 1]"},
    "a deep fold": {"fold": DEEP},
    "no number": {"number": None},
}


class TestWhatIsWritten:
    def test_a_header_is_read_again(self):
        """A header has its generation, what it follows, and its author."""
        line = header_line(GENERATION, Fingerprint(3, 4), AUTHOR)

        assert Header(VERSION, GENERATION, Fingerprint(3, 4), AUTHOR) == parse_header(line[:-1])
        assert (b"\n", GENERATION) == (line[-1:], generation_of(line[:-1]))

    @given(
        st.dictionaries(
            st.text(), st.one_of(st.just(MISSING), st.text().map(lambda value: json.dumps(value).encode()))
        ),
        st.integers(min_value=1),
    )
    def test_a_record_is_read_again_in_its_order(self, texts, number):
        """The texts and the deleted keys come back in order, on one line each, whatever they contain."""
        line = record_line(GENERATION, number % 2**60, AUTHOR, texts)
        record = parse_line(line[:-1], GENERATION)

        assert 1 == line.count(b"\n")
        assert [(key, text) for key, text in texts.items() if text is not MISSING] == [
            (key, bytes(text)) for key, text in record.set.items()
        ]
        assert ([key for key, text in texts.items() if text is MISSING], number % 2**60, AUTHOR) == (
            list(record.deleted),
            record.number,
            record.author,
        )

    def test_a_moved_key_is_both_deleted_and_set(self):
        """A moved key is deleted and set, so it comes last for readers."""
        record = parse_line(record_line(GENERATION, 1, AUTHOR, {"a": b"1", "b": b"2"}, ["a"])[:-1], GENERATION)

        assert (["a"], ["a", "b"]) == (record.deleted, list(record.set))

    @pytest.mark.parametrize("ends", [False, True])
    def test_a_fold_is_read_again(self, ends):
        """A fold has the fingerprint that the JSON file will get, and whether the journal ends."""
        line = fold_line(GENERATION, 9, AUTHOR, Fingerprint(3, 4), ends=ends)

        assert Fold(9, AUTHOR, Fingerprint(3, 4), ends) == parse_line(line[:-1], GENERATION)

    def test_it_can_be_read_without_this_package(self):
        """A line is plain text: three words, and a JSON object."""
        line = record_line(GENERATION, 1, AUTHOR, {"a": b"[1]", "b": MISSING})
        checksum, length, generation, payload = line.decode().rstrip("\n").split(" ", 3)

        assert {"number": 1, "time": 1.5, "pid": 7, "set": {"a": [1]}, "delete": ["b"]} == json.loads(payload)
        assert (zlib.crc32(line[9:-1]), len(payload), GENERATION) == (int(checksum, 16), int(length), generation)

    def test_the_author_is_of_now(self):
        """The author has the current time, and the given process id."""
        assert (7, True) == (author_now(7).pid, author_now(7).time > 1_500_000_000)


class TestWhatIsDamaged:
    @pytest.mark.parametrize("name", BAD_FIELDS)
    def test_fields_that_no_writer_has_written_are_damage(self, name):
        """Invalid fields are damage even if the checksum is valid, and make no reader fail."""
        assert parse_line(framed(changed(RECORD, **BAD_FIELDS[name])), GENERATION) is None

    @pytest.mark.parametrize("name", BAD_FOLDS)
    def test_so_are_those_of_a_fold(self, name):
        """Invalid fields of a fold are damage, too."""
        assert parse_line(framed(changed(FOLD)), GENERATION) is not None
        assert parse_line(framed(changed(FOLD, **BAD_FOLDS[name])), GENERATION) is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"persistent_context_journal": '"1"'},
            {"persistent_context_journal": None},
            {"follows": None},
            {"follows": "[1e999, 1]"},
            {"follows": "3"},
            {"time": "9" * 400},
            {"pid": "[]"},
        ],
    )
    def test_so_are_those_of_a_header(self, fields):
        """Invalid fields of a header are damage, too."""
        assert parse_header(framed(changed(HEADER, **fields))) is None

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"\0" * 4096,
            b"no line",
            b"a b c d",
            framed("{}", length=3),
            framed("{}", generation="short"),
            framed("{}", generation="0123456789abcde-"),
            framed("{}", generation="0123456789abcd\u00e9"),
            b"00000000" + framed("{}")[8:],
            framed("{}")[:-1],
            b"\xff" + framed("{}")[1:],
        ],
    )
    def test_anything_but_a_line_is_damage(self, line):
        """Checksum, length and generation all have to match."""
        assert (None, None, None) == (parse_header(line), parse_line(line, GENERATION), generation_of(line))

    @pytest.mark.parametrize("payload", ["[]", "not JSON", "{}", '{"a": \u00e9}'])
    def test_nor_is_one_without_an_object_of_fields(self, payload):
        """A line without an object of fields is damage, whatever its checksum."""
        assert (None, None) == (parse_header(framed(payload)), parse_line(framed(payload), GENERATION))

    def test_every_changed_byte_is_noticed(self):
        """A flipped bit anywhere in the line is noticed."""
        line = record_line(GENERATION, 1, AUTHOR, {"a": b"1"})[:-1]
        flipped = [line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :] for at in range(len(line))]

        assert {None} == {parse_line(one, GENERATION) for one in flipped}

    def test_more_digits_than_this_process_reads_are_an_error(self):
        """Such a record is not damage and must not be cut off: another process has acknowledged it."""
        line = framed(changed(RECORD, set=f'{{"a": {LONG}}}'))
        with pytest.raises(TooManyDigitsError):
            parse_line(line, GENERATION)

    def test_a_line_of_another_generation_is_none_of_this_one(self):
        """A line of another generation comes from a journal that was folded."""
        line = record_line("f" * 16, 1, AUTHOR, {"a": b"1"})[:-1]

        assert (None, "f" * 16) == (parse_line(line, GENERATION), generation_of(line))

    def test_a_newer_header_is_known_by_its_version_alone(self):
        """A newer header is recognized by its version, whatever else it contains."""
        header = parse_header(framed('{"persistent_context_journal": 2, "follows": "sha256"}'))

        assert (2, GENERATION) == (header.version, header.generation)
