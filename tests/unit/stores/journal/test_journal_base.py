"""Any change to the JSON file is noticed, if possible without reading the file."""

import itertools
import os
import time

import pytest

from persistent_context._stores.journal import base as _base
from persistent_context._stores.journal.base import Base, identity_of, look, written
from persistent_context._stores.journal.record import NO_FILE, Fingerprint
from persistent_context._stores.jsonfile.document import EMPTY
from persistent_context._stores.jsonfile.store import JsonFileStore

OLD = 1_600_000_000_123_456_789


class Reading:
    """Reads the JSON file, and counts the readings."""

    def __init__(self, path):
        """Start without readings."""
        self.count = 0
        self._store = JsonFileStore(str(path))

    def __call__(self):
        """Read the file."""
        self.count += 1
        return self._store.snapshot()


@pytest.fixture
def plain(path):
    """The function that reads the JSON file."""
    return Reading(path)


@pytest.fixture
def settled(monkeypatch):
    """Make every file count as old, with a clock that is far ahead."""
    monkeypatch.setattr(_base.time, "time_ns", lambda: 2**62)


class TestLooking:
    def test_an_old_file_is_read_once(self, path, plain, settled):
        """A file whose status has not changed is not read again."""
        path.write_text('{"a": 1}', encoding="utf-8")
        first = look(str(path), None, plain)
        again = [look(str(path), first, plain) for _ in range(3)]

        assert (1, [first] * 3, True) == (plain.count, again, all(one is first for one in again))
        assert (Fingerprint.of([b'{"a": 1}']), True) == (first.fingerprint, first.is_settled)

    @pytest.mark.parametrize("seconds", [0, 1])
    def test_a_write_in_place_within_a_clock_tick_is_noticed(self, path, plain, seconds):
        """A file that was just written is read again, even if its size and modification time are the same."""
        path.write_text('{"a": 1}', encoding="utf-8")
        times = path.stat().st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(times, times))
        first = look(str(path), None, plain)
        with path.open("r+", encoding="utf-8") as file:
            file.write('{"a": 2}')
        os.utime(path, ns=(times, times))
        second = look(str(path), first, plain)

        assert ({"a": b"1"}, {"a": b"2"}) == (first.document.get("a"), second.document.get("a"))
        assert first.fingerprint != second.fingerprint

    def test_a_write_that_the_clock_cannot_tell_is_noticed(self, path, plain, monkeypatch):
        """Within one tick of the file system's clock, none of the file's times change."""
        real, tick = _base.identity_of, time.time_ns() // 10**9 * 10**9
        monkeypatch.setattr(_base, "identity_of", lambda name: (*real(name)[:-2], tick, tick))
        path.write_text('{"a": 1}', encoding="utf-8")
        first = look(str(path), None, plain)
        with path.open("r+", encoding="utf-8") as file:
            file.write('{"a": 2}')
        second = look(str(path), first, plain)

        assert first.identity == second.identity
        assert ({"a": b"1"}, {"a": b"2"}) == (first.document.get("a"), second.document.get("a"))

    def test_a_settled_one_that_is_written_in_place_is_noticed(self, path, plain):
        """The system records when a file was changed, whatever times a program sets."""
        path.write_text('{"a": 1}', encoding="utf-8")
        time.sleep(0.05)
        os.utime(path, ns=(OLD, OLD))
        time.sleep(0.05)
        first = look(str(path), None, plain)
        path.write_text('{"a": 2}', encoding="utf-8")
        os.utime(path, ns=(OLD, OLD))

        assert ({"a": b"1"}, {"a": b"2"}) == (first.document.get("a"), look(str(path), first, plain).document.get("a"))

    @pytest.mark.parametrize(
        ("time_of_file", "began", "is_settled"),
        [
            (OLD, OLD + 19_000_000, False),
            (OLD, OLD + 21_000_000, True),
            (OLD // 10**9 * 10**9, OLD + 10**9, False),
            (OLD // 10**9 * 10**9, OLD + 3 * 10**9, True),
            (OLD + 10**9, OLD, False),
        ],
    )
    def test_a_file_settles_after_a_tick_of_its_clock(self, time_of_file, began, is_settled):
        """A file settles after 20 ms, or 2 s if its times look coarse; a time in the future never settles."""
        assert is_settled == _base._is_settled((1, 2, 3, time_of_file, OLD - 10**10), began)

    def test_an_unsettled_file_that_is_the_same_is_not_parsed_again(self, path, plain):
        """The file is compared instead, and its fingerprint is known."""
        path.write_text('{\n"a": 1\n}\n', encoding="utf-8")
        first = look(str(path), None, plain)
        second = look(str(path), first._replace(is_settled=False), plain)

        assert (first.document, first.fingerprint) == (second.document, second.fingerprint)

    def test_a_file_is_touched_without_a_change(self, path, plain):
        """A touched file has another identity and the same fingerprint."""
        path.write_text('{"a": 1}', encoding="utf-8")
        first = look(str(path), None, plain)
        os.utime(path, ns=(OLD, OLD))
        second = look(str(path), first, plain)

        assert (first.fingerprint, False) == (second.fingerprint, first.identity == second.identity)

    def test_a_file_stays_the_same_while_its_content_and_its_inode_do(self, path, plain):
        """Links, permissions and times do not make another file of it; its modification time may be asked for."""
        path.write_text('{"a": 1}', encoding="utf-8")
        first, found = look(str(path), None, plain), []
        os.link(path, path.with_name("backup"))
        path.chmod(0o600)
        found.append(look(str(path), None, plain))
        os.utime(path, ns=(OLD, OLD))
        found.append(look(str(path), None, plain))
        path.write_text('{"a": 2}', encoding="utf-8")
        found.append(look(str(path), None, plain))
        path.unlink()
        found.append(look(str(path), None, plain))

        assert [True, True, False, False] == [first.is_still(later) for later in found]
        assert [True, False, False, False] == [first.is_still(later, unmodified=True) for later in found]
        assert found[-1].is_still(found[-1])

    def test_there_is_none(self, path, plain):
        """A missing file counts as settled, and the next look notices a new one."""
        none = look(str(path), None, plain)
        path.write_text("{}", encoding="utf-8")

        assert Base(EMPTY, NO_FILE, None, is_settled=True) == none
        assert NO_FILE != look(str(path), none, plain).fingerprint

    def test_one_that_goes_while_it_is_looked_at(self, path, plain, monkeypatch):
        """The look is repeated until the file is still the one that was read."""
        path.write_text("{}", encoding="utf-8")

        def read():
            document = plain()
            path.unlink(missing_ok=True)
            return document

        assert (EMPTY, NO_FILE, None) == look(str(path), None, read)[:3]

    def test_one_that_changes_all_the_time_is_an_error(self, path, plain):
        """A file that changes all the time raises an error instead of an endless wait."""
        numbers = itertools.count()

        def read():
            path.write_text(f'{{"a": {next(numbers)}{" " * next(numbers)}}}', encoding="utf-8")
            return plain()

        with pytest.raises(OSError, match="changed each time it was read") as caught:
            look(str(path), None, read)

        assert str(path) == caught.value.filename

    def test_a_large_file_has_the_fingerprint_of_all_of_it(self, path, plain):
        """The fingerprint covers all of a large file, not only its first part."""
        content = b'{"a": "' + b"x" * 3_000_000 + b'"}'
        path.write_bytes(content)

        assert Fingerprint.of([content]) == look(str(path), None, plain).fingerprint

    def test_what_was_just_written_is_not_settled(self, path):
        """A file that was just written may be written again within the same tick."""
        path.write_text("{}", encoding="utf-8")
        one = written(str(path), EMPTY, NO_FILE)

        assert (identity_of(str(path)), False) == (one.identity, one.is_settled)
