"""The overlay: a stack of immutable layers that together act as one dictionary."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from journals import MISSING
from persistent_context._stores.journal.overlay import Changing, Overlay

TEXTS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2", MISSING]), min_size=1)


def applied(records, overlay=None, start=1):
    """Return the overlay after each record, starting with the empty one."""
    overlays = [overlay or Overlay()]
    for number, texts in enumerate(records, start):
        changing = Changing(overlays[-1])
        changing.apply(number, texts)
        overlays.append(changing.result())
    return overlays


def texts_of(overlay):
    """Return the texts by key."""
    return {key: entry.text for key, entry in overlay.entries().items()}


class TestLayers:
    @given(st.lists(TEXTS))
    def test_it_equals_the_dictionary_of_all_records(self, records):
        """However layers are joined, the overlay equals the dictionary, and older overlays are unchanged."""
        overlays, expected = applied(records), [{}]
        for texts in records:
            expected.append({**expected[-1], **texts})
        last = overlays[-1]

        assert expected == [texts_of(overlay) for overlay in overlays]
        assert [bool(one) for one in expected] == [bool(overlay) for overlay in overlays]
        assert {key: last.get(key).text for key in expected[-1]} == expected[-1]
        assert last.get("never") is None

    @given(st.lists(TEXTS), st.data())
    def test_what_is_newer_comes_with_its_number(self, records, data):
        """The changes since an older overlay are found, and belong to later records."""
        overlays = applied(records)
        at = data.draw(st.integers(0, len(records)))
        newer = dict(overlays[-1].newer_than(overlays[at], at))
        expected = dict(itertools.chain.from_iterable(texts.items() for texts in records[at:]))

        assert expected == {key: entry.text for key, entry in newer.items()}

    @given(st.lists(TEXTS), st.data())
    def test_the_records_after_one_remain(self, records, data):
        """Folded records are left out."""
        at = data.draw(st.integers(0, len(records)))
        after = applied(records)[-1].after(at)
        expected = dict(itertools.chain.from_iterable(texts.items() for texts in records[at:]))

        assert (expected, bool(expected)) == (texts_of(after), bool(after))

    def test_a_commit_costs_what_it_changes(self):
        """Many small records make a few layers, not one for each record."""
        overlay = applied([{str(number): b"1"} for number in range(1000)])[-1]

        assert (1000, True) == (len(overlay.entries()), len(overlay._layers) <= 10)


class TestChanging:
    def test_no_record_changes_nothing(self):
        """Without a record, the result is the same overlay object."""
        overlay = applied([{"a": b"1"}])[-1]

        assert overlay is Changing(overlay).result()

    def test_a_key_keeps_its_place_until_it_is_deleted(self):
        """A key that was deleted and set again comes last, like a new one."""
        places = [one.get("a").place for one in applied([{"a": b"1"}, {"a": b"2"}, {"a": MISSING}, {"a": b"3"}])[1:]]

        assert [(1, 0), (1, 0), (1, 0), (4, 0)] == places

    def test_thousands_of_deleted_keys_take_no_time(self):
        """A list of keys, as it is read from a line, is not searched for each key."""
        keys = [str(number) for number in range(20_000)]
        began = time.process_time()
        Changing(Overlay()).apply(1, dict.fromkeys(keys, MISSING), keys)

        assert 1 > time.process_time() - began
