"""A tail that was never acknowledged is ignored and cut off; a bad line before good ones is reported as damage."""

import errno
import os
import resource

import pytest

from journals import commit, entries, fold_line, journal_of, kept, lines_of, open_store, record_line, seen, stored
from persistent_context._stores.journal import file as _file
from persistent_context._stores.journal.record import Author, Fingerprint
from persistent_context._stores.jsonfile import opening

AUTHOR = Author(1.5, 7)

STOP_AT_THE_LIMIT = """
import resource, signal, sys
from journals import commit, journal_of, open_store
from pathlib import Path

path = Path(sys.argv[1])
store = open_store(path)
commit(store, {"a": b"2"})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (journal_of(path).stat().st_size + 20, limit[1]))
try:
    commit(store, {"lost": b'"' + b"x" * 100 + b'"'})
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
print(journal_of(path).read_bytes().endswith(b"\\n"))
commit(store, {"b": b"3"})
"""

TORN = {
    "one byte": lambda line: line[:1],
    "half a line": lambda line: line[: len(line) // 2],
    "all but its end": lambda line: line[:-1],
    "a wrong checksum": lambda line: b"00000000" + line[8:],
    "zero blocks": lambda line: b"\0" * 8192,
    "half a line, then zero blocks": lambda line: line[:20] + b"\0" * 4096,
    "zero blocks, and a line's end": lambda line: b"\0" * 4096 + b"\n",
    "a line of another generation": lambda line: record_line("f" * 16, 2, AUTHOR, {"torn": b"1"}),
    "a repeated number": lambda line: record_line(lines_of.generation, 1, AUTHOR, {"torn": b"1"}),
    "the header's number": lambda line: record_line(lines_of.generation, 0, AUTHOR, {"torn": b"1"}),
}


@pytest.fixture
def tear(path, store):
    """Append what a crash, a power loss or a full disk may leave after the last record; return the complete line."""

    def tearing(how):
        header, records = lines_of(path)
        lines_of.generation = header.generation
        line = record_line(header.generation, len(records) + 1, AUTHOR, {"torn": b"1"})
        with journal_of(path).open("ab") as file:
            file.write(TORN[how](line))
        return line

    return tearing


class TestTheTail:
    @pytest.mark.parametrize("how", TORN)
    def test_a_torn_write_of_the_last_record_is_ignored(self, path, store, tear, how):
        """A torn tail was never acknowledged, so it is ignored, whether the journal is open already or not."""
        before = journal_of(path).stat().st_size
        tear(how)

        assert ({"json": 1, "a": 1}, [("json", b"1"), ("a", b"1")]) == (seen(path), entries(store))
        assert before < journal_of(path).stat().st_size, "a reader has repaired the journal"

    @pytest.mark.parametrize("who", ["the same", "another"])
    @pytest.mark.parametrize("how", TORN)
    def test_an_append_behind_a_torn_tail_is_not_lost(self, path, store, tear, warnings, how, who):
        """The next writer cuts the torn tail off: what it acknowledges is readable, and nothing is damaged."""
        tear(how)
        writer = store if who == "the same" else open_store(path)
        commit(writer, {"b": b"2"})
        commit(writer, {"c": b"3"})

        assert ({"json": 1, "a": 1, "b": 2, "c": 3}, [1, 2, 3]) == (
            seen(path),
            [one and one.number for one in lines_of(path)[1]],
        )
        assert ([], []) == (warnings(), kept(path))

    def test_a_tail_that_ends_exactly_at_a_records_end_is_one(self, path, store, tear):
        """A complete record counts, whether or not its writer acknowledged it."""
        whole = tear("one byte")
        with journal_of(path).open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.write(whole)
        commit(store, {"b": b"2"})

        assert {"json": 1, "a": 1, "torn": 1, "b": 2} == seen(path)

    def test_a_short_read_is_not_taken_for_the_end(self, path, store, monkeypatch):
        """The system may return less than requested: here, one byte at a time."""
        for number in range(5):
            commit(store, {f"k{number}": b"%d" % number})
        real = os.pread
        monkeypatch.setattr(opening.os, "pread", lambda fd, length, offset: real(fd, min(length, 1), offset))
        found = seen(path)
        commit(open_store(path), {"last": b"1"})

        assert ({"json": 1, "a": 1} | {f"k{n}": n for n in range(5)}, 1) == (found, seen(path)["last"])

    def test_a_line_is_longer_than_a_chunk(self, path, store):
        """Records of any length are read; earlier versions of this package appended them."""
        line = record_line(lines_of(path)[0].generation, 2, AUTHOR, {"long": b'"' + b"x" * 700_000 + b'"'})
        with journal_of(path).open("ab") as file:
            file.write(line)
        commit(store, {"b": b"2"})

        assert (700_000, 2) == (len(seen(path)["long"]), seen(path)["b"])


class TestAFailedAppend:
    def test_a_full_disk_leaves_nothing(self, path, store, monkeypatch):
        """When the disk is full after half a record, that half is cut off; the call fails, and the next one works."""
        before, real = journal_of(path).read_bytes(), os.pwrite
        full = []

        def half(fd, data, offset):
            if not os.readlink(f"/proc/self/fd/{fd}").endswith(".journal"):
                return real(fd, data, offset)
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            full.append(fd)
            return real(fd, data[: len(data) // 2], offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", half)
            with pytest.raises(OSError, match="No space left") as caught:
                commit(store, {"lost": b"1"})
        found = (journal_of(path).read_bytes(), seen(path), entries(store))
        commit(store, {"b": b"2"})

        assert (before, {"json": 1, "a": 1}, [("json", b"1"), ("a", b"1")]) == found
        assert (errno.ENOSPC, {"json": 1, "a": 1, "b": 2}) == (caught.value.errno, seen(path))

    def test_a_short_write_is_continued(self, path, store, monkeypatch):
        """The system may write less than requested."""
        real = os.pwrite
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
            commit(store, {"b": b"2"})

        assert {"json": 1, "a": 1, "b": 2} == seen(path)

    def test_a_failed_append_is_followed_by_that_of_another(self, path, store, monkeypatch):
        """If cutting the tail off fails as well, the next writer, in another process, does it."""
        real, other = os.pwrite, open_store(path)
        entries(other)

        def half(fd, data, offset):
            real(fd, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def fail(fd, length):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", half)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError):
                commit(store, {"lost": b"1"})
        commit(other, {"b": b"2"})
        commit(store, {"c": b"3"})

        assert {"json": 1, "a": 1, "b": 2, "c": 3} == seen(path)

    @pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
    def test_a_limit_of_the_size_leaves_nothing(self, path, store, run):
        """A process that reaches its file size limit fails in one call, and loses no change of others."""
        assert [str(errno.EFBIG), "True"] == run(STOP_AT_THE_LIMIT, path)
        assert {"json": 1, "a": 2, "b": 3} == seen(path)

    def test_a_writer_without_permission_gets_an_error(self, path, store, monkeypatch):
        """A journal that can only be opened for reading is not written to until that changes."""
        real, other = _file.open_fd, open_store(path)

        def refuse(name, flags, *mode):
            if flags & os.O_RDWR and name.endswith(".journal"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return real(name, flags, *mode)

        with monkeypatch.context() as patch:
            patch.setattr(_file, "open_fd", refuse)
            for _ in range(2):
                entries(other)
                with pytest.raises(PermissionError):
                    commit(other, {"b": b"2"})
        found = seen(path)
        commit(other, {"c": b"3"})

        assert ({"json": 1, "a": 1}, {"json": 1, "a": 1, "c": 3}) == (found, seen(path))


class TestWhatLooksDamaged:
    def test_a_reader_in_the_midst_of_appends_is_not_misled(self, path, store, monkeypatch):
        """If a torn tail is replaced by two lines during a reading, the reader looks again."""
        reader, real = open_store(path), _file.read_at
        entries(reader)
        with journal_of(path).open("ab") as file:
            file.write(b"0" * 50)
        calls = []

        def read(fd, offset, length):
            calls.append(offset)
            if len(calls) > 1:
                return real(fd, offset, length)
            torn = os.pread(fd, 50, offset)
            commit(store, {"b": b"2"})
            commit(store, {"c": b"3"})
            return torn + real(fd, offset + len(torn), length)

        with monkeypatch.context() as patch:
            patch.setattr(_file, "read_at", read)
            found = entries(reader)
        commit(reader, {"d": b"4"})

        assert {"json": b"1", "a": b"1", "b": b"2", "c": b"3"} == dict(found)
        assert ({"json": 1, "a": 1, "b": 2, "c": 3, "d": 4}, []) == (seen(path), kept(path))


class TestDamage:
    """A bad line before a good one is not the result of a crash."""

    def damage(self, path, number):
        """Flip a bit of a line; 0 is the header."""
        lines = journal_of(path).read_bytes().splitlines(keepends=True)
        lines[number] = lines[number][:-3] + bytes([lines[number][-3] ^ 1]) + lines[number][-2:]
        journal_of(path).write_bytes(b"".join(lines))
        return b"".join(lines)

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_it_is_kept_aside_and_all_that_is_valid_applied(self, path, store, warnings, number):
        """Only the change in the bad line is lost, and a warning says where the damaged file is kept."""
        for key in "bcd":
            commit(store, {key: b"1"})
        damaged = self.damage(path, number)
        expected = {"json": 1, "a": 1, "b": 1, "c": 1, "d": 1}
        for lost in {1: "a", 2: "b"}.get(number, ""):
            del expected[lost]
        found = seen(path)
        commit(open_store(path), {"e": b"1"})
        (aside,) = [one for one in path.parent.iterdir() if ".corrupt-" in one.name]
        (warning,) = warnings()

        assert (expected, expected | {"e": 1}, expected | {"e": 1}) == (found, seen(path), stored(path))
        assert (damaged, True) == (aside.read_bytes(), aside.name in warning)
        assert (0, []) == (len(lines_of(path)[1]), kept(path)[1:])

    def test_a_bad_line_at_the_end_is_kept_as_well(self, path, store):
        """The next append cuts it off in the journal, but not in what is kept."""
        commit(store, {"b": b"1"})
        commit(store, {"c": b"1"})
        self.damage(path, 1)
        damaged = self.damage(path, 3)
        commit(open_store(path), {"d": b"1"})
        (aside,) = [one for one in path.parent.iterdir() if ".corrupt-" in one.name]

        assert ({"json": 1, "b": 1, "d": 1}, damaged) == (seen(path), aside.read_bytes())

    def test_a_json_file_that_was_replaced_as_well_is_kept_too(self, path, store, warnings):
        """Keys in the intact lines win, so the values in the replaced file would be lost."""
        commit(store, {"b": b"1"})
        self.damage(path, 1)
        path.write_text('{"b": "theirs"}', encoding="utf-8")
        commit(open_store(path), {"c": b"1"})
        (replaced,) = [one for one in path.parent.iterdir() if ".replaced-" in one.name]

        assert ({"b": 1, "c": 1}, '{"b": "theirs"}', 2) == (seen(path), replaced.read_text(), len(warnings()))
        assert ["state.json.journal.corrupt", "state.json.replaced"] == kept(path)

    def test_a_missing_line_is_damage(self, path, store, warnings):
        """Lines are numbered without gaps, so a missing line is noticed."""
        for key in "bcd":
            commit(store, {key: b"1"})
        lines = journal_of(path).read_bytes().splitlines(keepends=True)
        del lines[2]
        journal_of(path).write_bytes(b"".join(lines))
        commit(open_store(path), {"e": b"1"})

        assert ({"json": 1, "a": 1, "c": 1, "d": 1, "e": 1}, 1) == (seen(path), len(warnings()))

    @pytest.mark.parametrize("stale", ["another generation", "a repeated number", "an older header"])
    def test_stale_lines_are_not_applied(self, path, store, stale):
        """Lines of a folded journal, which a file system may leave behind, are already in the JSON file."""
        commit(store, {"a": b"2"})
        header, *lines = journal_of(path).read_bytes().splitlines(keepends=True)
        generation = lines_of(path)[0].generation
        bad = {
            "another generation": record_line("f" * 16, 2, AUTHOR, {"stale": b"0"}),
            "a repeated number": record_line(generation, 1, AUTHOR, {"stale": b"0"}),
            "an older header": header,
        }[stale]
        journal_of(path).write_bytes(b"".join([header, lines[0], bad, lines[1]]))
        found = seen(path)
        commit(open_store(path), {"b": b"1"})

        assert ({"json": 1, "a": 2}, {"json": 1, "a": 2, "b": 1}) == (found, seen(path))

    def test_an_empty_journal_is_damage(self, path, store):
        """Without a header nothing can be relied on; the JSON file keeps its content."""
        journal_of(path).write_bytes(b"")
        found = seen(path)
        commit(open_store(path), {"b": b"1"})

        assert ({"json": 1}, {"json": 1, "b": 1}) == (found, seen(path))

    def test_one_that_is_emptied_while_it_is_in_use_loses_nothing(self, path, store):
        """A process that knows the content of a truncated journal writes it to the JSON file."""
        os.truncate(journal_of(path), 0)
        commit(store, {"b": b"2"})

        assert {"json": 1, "a": 1, "b": 2} == seen(path)

    def test_an_acknowledged_fold_of_a_damaged_journal_is_not_lost(self, path, store, monkeypatch):
        """Even if no new journal can be made, the old records do not undo the content of the JSON file."""
        for key in "bcd":
            commit(store, {key: b"1"})
        self.damage(path, 2)
        real = os.replace

        def fail(source, target):
            if target.endswith(".journal"):
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            commit(open_store(path), {"a": b"2"})

        assert 2 == seen(path)["a"]

    def test_a_fold_that_is_only_announced_has_no_effect(self, path, store):
        """After a crash between the announcement and the rename, the records count, and writing goes on."""
        generation = lines_of(path)[0].generation
        with journal_of(path).open("ab") as file:
            file.write(fold_line(generation, 2, AUTHOR, Fingerprint(5, 6), ends=True))
        commit(open_store(path), {"b": b"2"})

        assert ({"json": 1, "a": 1, "b": 2}, {"json": 1}) == (seen(path), stored(path))
