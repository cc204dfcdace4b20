"""The paged document, compared with a plain dictionary."""

import itertools
import json
import threading
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from persistent_context import TooManyDigitsError
from persistent_context._model.values import MISSING, decode, encode
from persistent_context._stores.jsonfile import document as _document
from persistent_context._stores.jsonfile import page as _page
from persistent_context._stores.jsonfile import parse as _parse
from persistent_context._stores.jsonfile.document import EMPTY, Document
from persistent_context._stores.jsonfile.page import Page
from persistent_context._stores.jsonfile.parse import parse
from persistent_context._stores.protocol import CorruptStateError

keys = st.text(max_size=5) | st.sampled_from([f"key-{n}" for n in range(40)])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=3), leaves, max_size=3)
objects = st.dictionaries(keys, values, max_size=60)


@pytest.fixture(autouse=True, params=[(64, 0), (64, 20), (_page.PAGE_BYTES, 20)])
def pages(request, monkeypatch):
    """Make even small documents span many pages, or one, and be changed by splicing and by rewriting."""
    page_bytes, spliced_share = request.param
    for module in (_document, _page, _parse):
        monkeypatch.setattr(module, "PAGE_BYTES", page_bytes)
    monkeypatch.setattr(_page, "_SPLICED_SHARE", spliced_share)
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
    return {key: decode(text) for entries in document.parts() for key, text in entries.items()}


def read(text, known=EMPTY):
    return parse(lambda offset, length: text[offset : offset + length], len(text), known)


def exactly(data):
    return json.dumps(data)


def expected_of(text):
    """Return what Python's json reads, or None if it could not be written back."""
    try:
        data = json.loads(text.decode("utf-8-sig"))
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return None
    return exactly(data) if isinstance(data, dict) else None


def found_in(text, known=EMPTY):
    """Return what the library reads, or None."""
    try:
        return exactly(data_of(read(text, known)))
    except CorruptStateError:
        return None


class TestDocuments:
    @given(objects)
    def test_a_document_is_written_and_read_back_as_it_was(self, data):
        """Writing and reading preserves all values and their order."""
        text = text_of(of(data))

        assert exactly(data) == exactly(json.loads(text)) == exactly(data_of(read(text)))

    @given(objects)
    def test_every_entry_is_on_one_line(self, data):
        """The file has one line for each key, and one for each brace."""
        lines = text_of(of(data)).decode().split("\n")

        assert len(lines) == (len(data) + 3 if data else 2)

    @given(objects, st.dictionaries(keys, values | st.just(MISSING), max_size=30))
    def test_changing_is_changing_a_dictionary(self, data, changes):
        """Values are replaced in place, new keys are appended, and MISSING removes a key."""
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
        """A few keys are searched for and many are found by splitting, with the same result."""
        found = of(data).get(wanted)

        assert {key: exactly(data[key]) for key in wanted if key in data} == {
            key: exactly(decode(text)) for key, text in found.items()
        }

    @given(objects, objects)
    def test_the_differences_turn_one_document_into_the_other(self, one, other):
        """The differences, applied to the older document, give the content of the newer one."""
        older, newer = of(one), of(other)

        assert other == data_of(older.changed(newer.changes_since(older)))

    @given(objects, st.dictionaries(keys, values | st.just(MISSING), max_size=4))
    def test_an_unchanged_part_is_shared_with_the_known_document(self, data, changes):
        """Reading against a known document gives the same as reading from nothing, and shares its pages."""
        known = read(text_of(of(data)))
        text = text_of(known.changed({k: v if v is MISSING else encode(v, k) for k, v in changes.items()}))
        again = read(text, known)

        assert text == text_of(again)
        assert exactly(json.loads(text)) == exactly(data_of(again))
        assert known is read(text_of(known), known)

    @given(objects, st.integers(0, 2000), st.binary(max_size=6))
    @settings(max_examples=300)
    def test_damage_is_never_taken_for_content(self, data, at, noise):
        """However a file is overwritten, reading it against the known one agrees with Python's json or refuses."""
        text = text_of(of(data))
        at %= len(text) + 1
        damaged = text[:at] + noise + text[at + len(noise) :]

        assert expected_of(damaged) == found_in(damaged, read(text))

    @given(objects, st.sampled_from(LAYOUTS), st.booleans())
    def test_any_layout_is_read_as_json_reads_it(self, data, layout, escaped):
        """Whatever the white space and the escapes, the content is read, and is on one line per key from then on."""
        found = read(json.dumps(data, ensure_ascii=escaped, **layout).encode())

        assert exactly(data) == exactly(data_of(found))
        assert not found.repeats
        assert text_of(found) == text_of(of(data))

    @given(objects, st.sampled_from(LAYOUTS), st.data())
    def test_a_repeated_key_is_noticed_in_any_layout(self, data, layout, choose):
        """The last value of a repeated key is taken, as in Python's json, and the repetition is noted."""
        text = json.dumps(data | {"again": 1, "behind": 2}, **layout)
        place = choose.draw(st.sampled_from(["again", "behind"]))
        text = text.replace(json.dumps(place), '"again": [0, {"again": ","}],' + json.dumps(place), 1)
        found = read(text.encode())

        assert found.repeats
        assert exactly(json.loads(text)) == exactly(data_of(found))

    def test_a_comma_that_is_escaped_does_not_hide_a_repeated_key(self):
        """Commas, which are counted to notice repeated keys, may be written as escapes."""
        found = read(b'{"a": 1, "a": 2, "b\\u002c": "' + b"x" * 100 + b'"}')

        assert found.repeats

    @given(objects, st.sampled_from(LAYOUTS), st.integers(0, 2000), st.binary(max_size=4))
    @settings(max_examples=300)
    def test_damage_in_any_layout_is_never_taken_for_content(self, data, layout, at, noise):
        """However a file of any layout is overwritten, it is read as by Python's json, or refused."""
        text = json.dumps(data, ensure_ascii=False, **layout).encode()
        at %= len(text) + 1
        damaged = text[:at] + noise + text[at + len(noise) :]

        assert expected_of(damaged) == found_in(damaged)

    def test_lines_inside_of_a_value_are_not_taken_for_entries(self):
        """A value on several lines is read correctly, even if its lines look like entries of the library's layout."""
        data = {"a": 1, "b": {"x": 2, "b": 3, "c": ["d", 4]}} | {f"key-{n}": {"n": n, "m": [n]} for n in range(50)}
        for layout in (
            json.dumps(data, indent=0),
            "{\n" + json.dumps(data, indent=0)[2:-2] + "\n}\n",
            json.dumps(data, indent=0).replace("{\n", "{") + "\n",
        ):
            assert exactly(data) == exactly(data_of(read(layout.encode())))

    def test_a_key_that_repeats_in_another_page_is_noticed(self):
        """A repeated key is found wherever it is, even if the rest of the file is known."""
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
        assert {"key-250": b"7"} == after.changes_since(before)

    @given(objects, st.dictionaries(keys, values | st.just(MISSING), max_size=30), st.sets(keys, max_size=10))
    def test_moved_keys_stand_at_the_end_in_the_order_of_the_changes(self, data, changes, moved):
        """A key that was deleted and set again comes after all keys that stayed."""
        expected = {key: value for key, value in data.items() if key not in moved & changes.keys()}
        expected.update({key: value for key, value in changes.items() if value is not MISSING})
        texts = {key: value if value is MISSING else encode(value, key) for key, value in changes.items()}
        expected = {key: value for key, value in expected.items() if texts.get(key) is not MISSING}

        assert exactly(expected) == exactly(data_of(of(data).changed(texts, moved)))

    def test_a_missing_file_is_an_empty_document_that_is_not_present(self):
        """A document that was not read from a file is not present."""
        assert (False, True, b"{}\n") == (EMPTY.exists, Document().exists, text_of(EMPTY))


def lines_of(pairs, separator=",\n", colon=": "):
    return separator.join(json.dumps(key, ensure_ascii=False) + colon + value for key, value in pairs)


def depth_of(value):
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return depth


def judged(text):
    """Return what Python's json reads in a text, or None if a file may not hold all of that; an empty one is new."""
    if not text:
        return exactly({})
    objects_in_it = []

    def note(pairs):
        objects_in_it.append(pairs)
        return dict(pairs)

    def refuse(constant):
        raise ValueError

    try:
        data = json.loads(text.decode("utf-8-sig"), object_pairs_hook=note, parse_constant=refuse)
        if not isinstance(data, dict):
            return None
        for pair in objects_in_it[-1]:
            json.dumps(pair, ensure_ascii=False, allow_nan=False).encode()
            if depth_of(pair[1]) > 500:
                return None
    except ValueError:
        return None
    return exactly(data)


few_keys = st.sampled_from([f"key-{n}" for n in range(12)] + ["", "\u00e9", "a,", '"', "\n"])
raw_values = (
    values.map(json.dumps)
    | values.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",\n", ":\n")))
    | st.integers(200, 320).map(lambda digits: "9" * digits + "e99")
    | st.integers(200, 310).map(lambda digits: "9" * digits + "E-1")
    | st.sampled_from(["-0", "1E-400", "1e308", "2e308", "0.5e+309", '{"a": 1, "a": 2}', '{"a": 1e999, "a": 2}', "NaN"])
    | st.sampled_from(['"\\ud800"', '"\\ud83d\\ude00"', '"\\u002c"', '[{"\\ud800": 1}]', "01", "[1,]", "{", "]"])
    | st.integers(499, 502).map(lambda levels: "[" * levels + "]" * levels)
    | st.integers(499, 502).map(lambda levels: '{"a":\n' * levels + "1" + "\n}" * levels)
)
pairs = st.lists(st.tuples(few_keys, raw_values), max_size=10)
edits = st.sampled_from(
    [b",", b",\n", b"\n", b"{", b"}", b'"', b": ", b"[", b"\xef\xbb\xbf", b"\xff", b'"k": 1', b'"k": 1,\n']
)


@st.composite
def damaged(draw, text):
    """Draw the text, unchanged or with some bytes inserted or removed."""
    for _ in range(draw(st.integers(0, 2))):
        at, gone = draw(st.integers(0, len(text))), draw(st.integers(0, 2))
        text = text[:at] + draw(edits | st.just(b"")) + text[at + gone :]
    return text


@st.composite
def texts_beside_known_ones(draw):
    """Draw a text, and a known one in the library's layout that has some of the same lines."""
    some = draw(st.lists(st.tuples(few_keys, values.map(json.dumps)), max_size=25, unique_by=lambda pair: pair[0]))
    odd = draw(pairs)
    at, until = sorted((draw(st.integers(0, len(some))), draw(st.integers(0, len(some)))))
    separator, colon = draw(
        st.sampled_from([(",\n", ": ")] * 5 + [(",", ":"), (" ,\n", " :\n"), (",\r\n", ": "), (",\n\n", ": ")])
    )
    before, behind = draw(st.sampled_from([("{\n", "\n}\n")] * 5 + [("{", "}"), ("{\n", "\n}"), ("\n{\n", "\n}\n\n")]))
    text = before + lines_of(some[:at] + odd + some[until:], separator, colon) + behind
    return draw(damaged(text.encode())), b"{\n" + lines_of(some).encode() + b"\n}\n"


OURS = {f"key-{n}": n for n in range(60)}


class TestStrictness:
    """Only the text decides what is accepted: two processes never disagree on whether a file is corrupt."""

    @given(texts_beside_known_ones())
    @example((b"", b"{\n\n}\n"))
    @settings(max_examples=200)
    def test_every_path_accepts_exactly_what_json_accepts(self, case):
        """Whatever its layout, and whatever is known already, a text is read as json reads it, or refused."""
        text, other = case
        expected = judged(text)

        assert [expected] * 2 == [found_in(text), found_in(text, read(other))]

    @given(pairs)
    def test_what_is_accepted_can_be_written_and_read_again(self, some):
        """A document that one process has read and written back is not corrupt for another."""
        text = b"{" + lines_of(some, ",", ":").encode() + b"}"
        data = found_in(text)

        assert data is None or data == found_in(text_of(read(text))) == judged(text_of(read(text)))

    def test_a_comma_too_many_is_found_beside_known_pages(self):
        """More than one comma and one line end before, after or between known pages is noticed."""
        text = text_of(of(OURS))
        known = read(text)
        joints = [2, *(text.index(bytes(page.body)) + len(page.body) for page in known.pages)]
        for at, extra in itertools.product(joints, [b",\n", b",", b"\n", b" ", b"\n,", b",\n,\n"]):
            odd = text[:at] + extra + text[at:]

            assert judged(odd) == found_in(odd, known) == found_in(odd)

    @given(st.sets(st.integers(0, 30)), st.integers(0, 30), st.sampled_from([b",\n", b",\n,\n", b""]))
    def test_pages_that_are_gone_leave_nothing_behind(self, gone, joint, glue):
        """A comma too many or too few where pages were cut out of a file is noticed."""
        document = of(OURS)
        bodies = [bytes(page.body) for number, page in enumerate(document.pages) if number not in gone]
        parts = [b",\n".join(bodies[:joint]), b",\n".join(bodies[joint:])]
        text = b"{\n" + glue.join(parts) + b"\n}\n"

        assert judged(text) == found_in(text, document)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("levels", [499, 500, 501, 502, 600, 950, 100_000])
    def test_nesting_is_limited_in_every_layout(self, layout, levels):
        """Values too deep for one layout are too deep for all, however short the lines are."""
        text = "[" * levels + "]" * levels
        if layout.get("indent") is not None:
            text = "[\n" * levels + "\n]" * levels
        whole = "{\n" + lines_of([*((k, "1") for k in OURS), ("deep", text)]) + "\n}\n"

        assert (levels <= 500) == (found_in(whole.encode()) is not None)

    @pytest.mark.parametrize("digits", [4300, 4301, 20_000])
    @pytest.mark.parametrize("value", ["{}", "-{}", "[{{}}]".replace("{{}}", "{}"), '{{"a": [-{}]}}'])
    @pytest.mark.parametrize("layout", [(",\n", ": "), (",", ":")])
    @pytest.mark.parametrize("behind", [False, True])
    def test_an_integer_that_is_too_long_is_not_corruption(self, digits, value, layout, behind):
        """A long integer is valid JSON: a process that cannot read it raises, and the file is not called corrupt."""
        line = "big", value.format("9" * digits)
        some = [(key, "1") for key in OURS]
        before, after = ("{\n", "\n}\n") if layout == (",\n", ": ") else ("{", "}")
        text = (before + lines_of([*some, line] if behind else [line, *some], *layout) + after).encode()
        for known in (EMPTY, of(OURS)):
            if digits <= 4300:
                assert judged(text) == found_in(text, known)
            else:
                with pytest.raises(TooManyDigitsError, match=f"{digits:,} digits"):
                    read(text, known)

    def test_a_file_that_was_repaired_repeats_no_keys_any_more(self):
        """Known repeated keys are not attributed to a file that has since been repaired."""
        text = text_of(of(OURS))
        repeating = read(text.replace(b"\n}\n", b',\n"key-3": 3\n}\n'))
        repaired = read(text_of(repeating), repeating)

        assert (True, False) == (repeating.repeats, repaired.repeats)
        assert text_of(repeating) == text_of(repaired)

    def test_a_key_that_repeats_inside_a_value_is_lost_only_with_a_warning(self):
        """In the library's layout the value keeps its bytes; another layout is rewritten, with a warning."""
        inner = '{"a": 1, "a": 2}'
        ours = ("{\n" + lines_of([*((k, "1") for k in OURS), ("twice", inner)]) + "\n}\n").encode()
        other = ours.replace(b"\n}\n", b"}")

        assert (False, True) == (read(ours).repeats, read(other).repeats)
        assert f'"twice": {inner}'.encode() in text_of(read(ours).changed({"key-1": b"2", "new": b"3"}))


class TestSharing:
    """A document is used by the cycle's thread, by watches and by readers at the same time."""

    @given(st.lists(keys, max_size=20), st.integers(0, 30))
    @settings(max_examples=30)
    def test_it_is_true_whenever_others_run(self, wanted, passes):
        """A query by another thread during any operation on the same document gets the right answer."""
        expected = {key: str(n).encode() for key, n in OURS.items()}
        document = of(OURS)
        inside = False

        def ask():
            nonlocal inside
            if not inside:
                inside = True
                assert {"key-59": b"59"} == document.get(["key-59", "none"])
                assert exactly(OURS | {"key-59": 0}) == exactly(data_of(document.changed({"key-59": b"0"})))
                inside = False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_document, "let_others_run", ask)
            for _ in range(passes):
                document.get(["key-1"])
            for some in (wanted, ["key-0", "key-59"], list(OURS)):
                assert {k: expected[k] for k in some if k in expected} == document.get(some)
            changed = document.changed({"key-0": b"1", "key-58": MISSING, "new": b"2"})
        assert "key-59" in changed.get(["key-59"])

    def test_threads_find_what_is_there_while_it_is_changed(self):
        """Readers of each version of a document, old and new, find all keys of that version."""
        versions = [(of(OURS), dict(OURS))]
        failures = []
        done = threading.Event()

        def look(offset):
            number = offset
            while not done.is_set():
                document, data = versions[number % len(versions)]
                key = f"key-{number * 7 % 70}"
                number += 1
                if {key: str(data[key]).encode()} != document.get([key]) if key in data else document.get([key]):
                    failures.append((key, data.get(key)))
                if number % 50 == 0 and data != data_of(document):
                    failures.append(data)

        threads = [threading.Thread(target=look, args=(offset,)) for offset in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            document, data = versions[-1]
            key, other = f"key-{number % 65}", f"key-{number * 11 % 65}"
            changes = {key: str(number).encode(), other: MISSING if number % 3 == 0 else b"1"}
            data = {k: v for k, v in {**data, key: number, other: 1}.items() if changes.get(k) is not MISSING}
            versions.append((document.changed(changes), data))
        done.set()
        for thread in threads:
            thread.join()

        assert [] == failures

    @given(objects, st.lists(st.dictionaries(keys, values | st.just(MISSING), max_size=3), max_size=15), st.data())
    @settings(max_examples=60)
    def test_a_long_history_is_that_of_a_dictionary(self, data, history, choose):
        """After any sequence of edits, every key is found, however it is looked up."""
        document, expected = of(data), dict(data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_document, "_PASSES_BEFORE_INDEX", choose.draw(st.sampled_from([0, 2, 1000])))
            for changes in history:
                moved = [key for key in changes if len(key) % 2]
                texts = {key: v if v is MISSING else encode(v, key) for key, v in changes.items()}
                document = document.changed(texts, moved)
                expected = {key: v for key, v in expected.items() if key not in moved}
                expected.update(changes)
                expected = {key: v for key, v in expected.items() if v is not MISSING}
                for key in [*changes, *list(expected)[:3], "absent"]:
                    found = {key: encode(expected[key], key)} if key in expected else {}
                    assert found == document.get([key])
                if choose.draw(st.booleans()):
                    document = read(text_of(document), document)

        assert exactly(expected) == exactly(data_of(document))


class TestWork:
    """The work is proportional to the queries, whatever was done before."""

    @pytest.fixture
    def looks(self, monkeypatch):
        """Count how often pages are searched."""
        counts = Counter()
        for name in ("find", "entries"):

            def counted(page, *args, name=name, method=getattr(Page, name)):
                counts[name] += 1
                return method(page, *args)

            monkeypatch.setattr(Page, name, counted)
        return counts

    def test_asking_for_key_after_key_is_linear(self, looks):
        """Querying all keys one by one, as a transaction does, costs a few passes and one page each."""
        data = {f"key-{n}": n for n in range(1000)}
        document = of(data)
        looks.clear()
        found = {key: decode(document.get([key])[key]) for key in data}

        assert data == found
        assert sum(looks.values()) <= len(data) + 20 * len(document.pages)

    def test_asking_for_absent_keys_is_linear_and_remembers_none_of_them(self, looks):
        """Absent keys are neither searched for nor stored once the places of all others are known."""
        document = of({f"key-{n}": n for n in range(1000)})
        looks.clear()
        for number in range(1000):
            assert {} == document.get([f"absent-{number}"])

        assert sum(looks.values()) <= 1000 + 20 * len(document.pages)
        assert document._index is None or 1000 == len(document._index)

    def test_a_changed_document_need_not_search_again(self, looks):
        """The places of keys are determined once, and passed on with the pages."""
        document = of({f"key-{n}": n for n in range(1000)})
        for _ in range(20):
            document.get(["key-7"])
        for number in range(100):
            document = document.changed({"key-7": str(number % 10).encode()})
            looks.clear()

            assert {"key-7": str(number % 10).encode()} == document.get(["key-7"])
            assert 1 >= looks["entries"]
            assert 1 == looks["find"]

    def test_a_key_added_to_a_searched_document_is_found(self):
        """Known places of keys do not rule out keys that were added later."""
        document = of(OURS)
        for _ in range(20):
            document.get(["new"])
        changed = document.changed({"new": b"1"})

        assert ({}, {"new": b"1"}) == (document.get(["new"]), changed.get(["new"]))

    def test_pages_that_grow_are_split(self, pages):
        """Values that grow one by one make more pages, not longer ones: a page is the longest step of work."""
        document = of({f"key-{n}": "" for n in range(100)})
        for number in range(100):
            document = document.changed({f"key-{number}": b'"%s"' % (b"x" * (pages // 4))})

        assert max(len(page.text) for page in document.pages) <= 2 * pages

    def test_pages_that_shrink_are_joined(self, pages):
        """A file that has shrunk has only a few pages, and so has one to which others have appended line by line."""
        data = {f"key-{n}": n for n in range(1000)}
        document = of(data)
        for number in range(900):
            document = document.changed({f"key-{number}": MISSING})
        grown = of({})
        for number in range(300):
            grown = read(text_of(grown.changed({f"key-{number}": b"1"})), grown)

        for one in (document, grown):
            assert len(one.pages) <= 1 + 2 * sum(len(page.text) for page in one.pages) / pages

    @pytest.mark.parametrize("odd", ["\ud800", "a\udfff", 5, None, ("a",)])
    def test_what_cannot_be_a_key_is_not_there(self, odd):
        """Asking for something that cannot be a JSON key is not an error, whether there is one page or many."""
        document = of(OURS)
        found = [document.get([odd, "key-3"]) for _ in range(20)]

        assert [{"key-3": b"3"}] * 20 == found
