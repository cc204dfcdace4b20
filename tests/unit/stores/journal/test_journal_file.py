"""The file of a journal: only a real journal is opened, and its permissions are those of the JSON file."""

import errno
import itertools
import os
import stat
import struct
import sys
import time

import pytest

from journals import commit, journal_of, open_store, seen, stored
from persistent_context import NotARegularFileError, PersistentContext, SyncPersistentContext
from persistent_context._stores.journal import file as _file
from persistent_context._stores.journal.file import journal_exists, open_journal

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files to other users: run as root"
)
STRANGER = 12_345
ANY = 0xFFFFFFFF


def opened(path):
    """Open the journal of a file."""
    return open_journal(str(journal_of(path)), str(path))


def can_be_read(path):
    """Whether the state is read, and the journal not refused."""
    try:
        return {"json": 1, "a": 1} == seen(path)
    except PermissionError:
        return False


@pytest.fixture
def modes(monkeypatch):
    """The modes of all journals, and of files that become one, from their creation on."""
    found, real = [], os.open

    def opening(name, flags, mode=0o777, **options):
        fd = real(name, flags, mode, **options)
        if flags & os.O_CREAT and ".journal" in os.fspath(name):
            found.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    monkeypatch.setattr(os, "open", opening)
    return found


class TestOpening:
    def test_there_is_none(self, path):
        """A missing journal is not an error."""
        assert opened(path) is None

    def test_a_name_that_is_too_long_is_none(self, path):
        """A file whose own name is almost too long works without a journal."""
        long = path.with_name("x" * 250)
        store = open_store(long)
        for number in range(3):
            commit(store, {"a": b"%d" % number})

        assert (None, {"a": 2}) == (open_journal(f"{long}.journal", str(long)), seen(long))

    @pytest.mark.parametrize("what", ["a symbolic link", "a FIFO", "a directory", "a dangling link"])
    def test_something_else_in_its_place_is_refused(self, path, what):
        """Something else at the path is not followed, waited for or written to; the JSON file is unchanged."""
        path.write_text('{"a": 1}', encoding="utf-8")
        other = path.with_name("other")
        other.write_text("precious", encoding="utf-8")
        if what == "a FIFO":
            os.mkfifo(journal_of(path))
        elif what == "a directory":
            journal_of(path).mkdir()
        else:
            journal_of(path).symlink_to(other if what == "a symbolic link" else path.with_name("nowhere"))
        for journal in (True, None, False):
            store = open_store(path, journal=journal)
            with pytest.raises(OSError) as reading:
                store.snapshot()
            with pytest.raises(OSError) as writing:
                commit(store, {"a": b"2"})

            assert (str(journal_of(path)),) * 2 == (reading.value.filename, writing.value.filename)
            if what != "a directory":
                assert (NotARegularFileError, NotARegularFileError) == (reading.type, writing.type)
        assert ("precious", '{"a": 1}') == (other.read_text(encoding="utf-8"), path.read_text(encoding="utf-8"))
        assert not path.with_name("nowhere").exists()

    def test_a_loop_of_links_in_the_path_is_reported(self, path):
        """A loop of links in the path is reported as such, not as a journal that is a link."""
        loop = path.with_name("loop")
        loop.symlink_to(loop)
        with pytest.raises(NotARegularFileError, match="loop"):
            open_journal(str(loop / "state.json.journal"), str(loop / "state.json"))

    def test_other_errors_are_raised(self, path, store, monkeypatch):
        """A disk error does not count as a missing journal."""

        def fail(*_arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(_file, "open_fd", fail)
        with pytest.raises(OSError, match="Input/output error"):
            opened(path)

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
    def test_one_that_may_only_be_read_is_read(self, path, store, monkeypatch, code):
        """A user who may read the JSON file, but not write it, sees what is in the journal."""
        real = _file.open_fd

        def refuse(name, flags, *mode):
            if flags & os.O_RDWR:
                raise OSError(code, os.strerror(code), name)
            return real(name, flags, *mode)

        monkeypatch.setattr(_file, "open_fd", refuse)

        assert (False, {"json": 1, "a": 1}) == (opened(path).writable, seen(path))

    @as_root
    @pytest.mark.parametrize("exists", [True, False])
    def test_one_that_another_user_has_planted_is_refused(self, path, store, exists):
        """A user who may write to the directory, but not to the JSON file, cannot add data by planting a journal."""
        os.chown(path, 0, 0)
        os.chown(journal_of(path), STRANGER, STRANGER)
        path.chmod(0o644)
        if not exists:
            path.unlink()
        with pytest.raises(PermissionError, match=f"belongs to user {STRANGER}"):
            seen(path)
        with pytest.raises(PermissionError, match="remove it" if exists else "only copy of the data"):
            commit(open_store(path), {"b": b"1"})

    @as_root
    def test_what_is_advised_without_the_json_file_works(self, path, store):
        """The journal may hold the only copy, so it is not to be removed; a JSON file shows who may write it."""
        path.unlink()
        os.chown(journal_of(path), STRANGER, STRANGER)
        with pytest.raises(PermissionError, match="create the JSON file again, as {}"):
            seen(path)
        path.write_text("{}", encoding="utf-8")
        os.chown(path, STRANGER, STRANGER)

        assert {"a": 1} == seen(path)

    @as_root
    def test_nor_does_one_of_another_group_than_that_which_may_write_it(self, path, store):
        """Write access for the file's own group does not help users of other groups."""
        os.chown(path, 0, 0)
        os.chown(journal_of(path), STRANGER, STRANGER)
        path.chmod(0o664)
        with pytest.raises(PermissionError, match=f"belongs to user {STRANGER} of group {STRANGER}"):
            seen(path)

    @as_root
    @pytest.mark.parametrize(("owner", "group", "mode"), [(STRANGER, 0, 0o644), (0, STRANGER, 0o664), (0, 0, 0o646)])
    def test_one_of_a_user_who_may_write_the_json_file_is_trusted(self, path, store, owner, group, mode):
        """A journal of the JSON file's owner or group is trusted, or of any user if all may write the file."""
        os.chown(path, owner, group)
        os.chown(journal_of(path), STRANGER, STRANGER)
        path.chmod(mode)

        assert {"json": 1, "a": 1} == seen(path)

    @as_root
    @pytest.mark.parametrize(("named", "group", "is_trusted"), [(6, 0, True), (4, STRANGER, False)])
    def test_one_of_a_user_whom_an_access_list_lets_write_is_trusted(self, path, store, named, group, is_trusted):
        """The group bits of the mode, which are the mask of the list, say nothing about the owning group."""
        entries = [(0x01, 6, ANY), (0x02, named, STRANGER), (0x04, 4, ANY), (0x10, 6, ANY), (0x20, 0, ANY)]
        try:
            os.setxattr(path, "system.posix_acl_access", struct.pack("<I" + "HHI" * 5, 2, *itertools.chain(*entries)))
        except (OSError, AttributeError) as error:
            pytest.skip(f"this file system has no access lists ({error}): run on ext4 or XFS")
        os.chown(path, 0, group)
        os.chown(journal_of(path), STRANGER, STRANGER)

        assert is_trusted == can_be_read(path)

    @as_root
    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, all directories pass their group on")
    @pytest.mark.parametrize(
        ("mode", "owner", "is_trusted"),
        [(0o3777, STRANGER, False), (0o2777, STRANGER, False), (0o1777, STRANGER, True), (0o2775, STRANGER, True),
         (0o3777, "nobody", True)],
    )  # fmt: skip
    def test_a_group_that_the_directory_gives_to_all_files_shows_nothing(self, path, store, mode, owner, is_trusted):
        """Where anybody may create files of that group, the system's list of users has to name the owner a member."""
        account = pytest.importorskip("pwd").getpwnam(owner) if owner == "nobody" else (0, 0, owner, owner)
        user, group = account[2:4]
        os.chown(path, 0, group)
        path.chmod(0o664)
        os.chown(journal_of(path), user, group)
        os.chown(path.parent, 0, group)
        path.parent.chmod(mode)

        assert is_trusted == can_be_read(path)

    def test_on_systems_without_users_all_are_trusted(self, path, store, monkeypatch):
        """On a system without user ids, every journal is trusted."""
        monkeypatch.delattr(os, "geteuid")

        assert opened(path) is not None


class TestWhetherItExists:
    def test_names_without_a_file(self, path):
        """A missing file, a name that is too long, and a path below a file have no journal."""
        path.write_bytes(b"{}")

        assert [False] * 3 == [
            journal_exists(str(one)) for one in (journal_of(path), path.with_name("n" * 300), path / "below.journal")
        ]

    def test_other_errors_are_raised(self, path, store, monkeypatch):
        """A disk error does not count as a missing journal: a commit that took it for one would be overwritten."""
        real = os.lstat

        def fail(name):
            if str(name).endswith(".journal"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(name)

        other = open_store(path, journal=None)
        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", fail)
            with pytest.raises(OSError, match="Input/output error"):
                commit(other, {"b": b"2"})

        assert ({"json": 1, "a": 1}, {"json": 1}) == (seen(path), stored(path))


class TestPermissions:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o666])
    def test_they_are_those_of_the_json_file(self, path, modes, mode):
        """From its creation on, the journal is accessible to no more users than the JSON file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(mode)
        store = open_store(path)
        for number in range(3):
            commit(store, {"a": b"%d" % number})
        commit(store, folds=True)

        assert mode == stat.S_IMODE(journal_of(path).stat().st_mode)
        assert (True, set()) == (bool(modes), {one for one in modes if one & ~mode})

    def test_they_follow(self, path, store):
        """When the JSON file's mode is restricted, so is the journal's, from the next commit on."""
        path.chmod(0o600)
        commit(store, {"a": b"2"})

        assert 0o600 == stat.S_IMODE(journal_of(path).stat().st_mode)

    def test_those_of_a_new_file_are_the_usual(self, path, modes):
        """A new journal has the mode that the process's umask gives."""
        mask = os.umask(0o027)
        try:
            commit(open_store(path), {"a": b"1"})
        finally:
            os.umask(mask)

        assert (0o640, 0o640) == (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(journal_of(path).stat().st_mode))
        assert set() == {one for one in modes if one & ~0o640}

    @pytest.mark.parametrize("why", ["deleted", "corrupt"])
    def test_a_json_file_that_is_gone_leaves_them_to_the_next(self, path, store, modes, why, nobody_repairs_it):
        """A secret does not become public by deleting the JSON file, or by moving it aside."""
        path.chmod(0o600)
        commit(store, {"a": b"2"})
        modes.clear()
        if why == "deleted":
            path.unlink()
        else:
            path.write_text("corrupt", encoding="utf-8")
        commit(store, {"b": b"2"})
        found = stat.S_IMODE(journal_of(path).stat().st_mode)
        commit(store, folds=True)
        after = [stat.S_IMODE(one.stat().st_mode) for one in (path, journal_of(path))]

        assert ({"a": 2, "b": 2}, 0o600, [0o600, 0o600], {0o600}) == (stored(path), found, after, set(modes))

    @as_root
    def test_a_deleted_json_file_leaves_its_owner_to_the_next(self, path, store):
        """Whoever could read the state by the group of its files can still do so."""
        os.chown(path, STRANGER, STRANGER)
        commit(store, {"a": b"2"})
        path.unlink()
        os.chown(journal_of(path), 0, STRANGER)
        journal_of(path).chmod(0o640)
        commit(store, folds=True)
        status = path.stat()

        assert (0o640, 0, STRANGER) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


class TestTheOpenFile:
    def test_it_knows_whether_it_is_still_there(self, path, store):
        """The open journal notices when it is no longer at its path, or another file is."""
        file, found = opened(path), []
        found.append(file.is_at_path())
        journal_of(path).rename(path.with_name("kept"))
        found.append(file.is_at_path())
        journal_of(path).write_bytes(b"")
        found.append(file.is_at_path())

        assert [True, False, False] == found

    def test_it_knows_whether_it_has_been_written(self, path, store):
        """Whether the journal has been written since a given time is known from its modification time."""
        file = opened(path)

        assert (True, False) == (file.is_idle_since(time.time() + 60), file.is_idle_since(time.time() - 60))

    @pytest.mark.usefixtures("nobody_folds")
    def test_a_descriptor_that_was_closed_is_left_to_its_new_owner(self, path, store, tmp_path):
        """If the program closes the descriptor, a file that reuses its number is not written to."""
        descriptor = store._journal.known.file.fd
        os.close(descriptor)
        other = tmp_path / "other"
        other.write_bytes(b"of somebody else")
        again = os.open(other, os.O_RDWR)
        os.dup2(again, descriptor)
        commit(store, {"b": b"2"})

        assert (b"of somebody else", {"json": 1, "a": 1, "b": 2}) == (other.read_bytes(), seen(path))
        assert os.path.samestat(os.fstat(descriptor), other.stat())
        for one in {again, descriptor}:
            os.close(one)

    def test_a_descriptor_that_was_closed_is_not_its_own(self, path, store):
        """If the program closes the descriptor, the journal is opened again, and nothing is lost."""
        os.close(store._journal.known.file.fd)
        commit(store, {"b": b"2"})

        assert {"json": 1, "a": 1, "b": 2} == seen(path)

    def test_there_are_no_lines_after_the_last(self, path, store):
        """Reading on from the end yields nothing."""
        file = opened(path)

        assert [] == list(file.lines(file.size()))

    def test_it_is_closed_with_its_object(self, path, store):
        """The descriptor is closed with its object; one that was closed elsewhere is not an error."""
        one, other = opened(path), opened(path)
        fd = one.fd
        del one
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        os.close(other.fd)
        del other


@pytest.mark.parametrize("cls", [PersistentContext, SyncPersistentContext])
def test_both_classes_take_the_option(path, cls):
    """The option accepts True, False and None, and nothing else."""
    with pytest.raises(TypeError, match="journal must be True, False or None"):
        cls(path, journal="yes")
