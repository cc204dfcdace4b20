"""Files: whole at every moment, and never open to more users than before."""

import contextlib
import errno
import json
import os
import stat
import struct
import tempfile
from pathlib import Path

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._stores.jsonfile.access import Access

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def mode(path):
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def umask(value):
    """A umask for the length of a block."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


STOP_BEFORE_THE_FIRST_SYNC = """
import os, sys
from persistent_context import SyncPersistentContext

sync = os.fsync

def wait_first(fd):
    os.fsync = sync
    print("written", flush=True)
    sys.stdin.readline()
    sync(fd)

ctx = SyncPersistentContext.create(sys.argv[1])
os.fsync = wait_first
print(ctx.incr("n"), flush=True)
"""


def stored(path):
    """What any other program reads in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def temporaries(path):
    """The names of all files beside the file and its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


@pytest.fixture
def half_way(path, spawn):
    """Another process that has written its temporary, and has not replaced the file yet."""
    path.write_text('{"n": 1}', encoding="utf-8")
    child = spawn(STOP_BEFORE_THE_FIRST_SYNC, path)
    assert child.hear() == "written"
    return child


@pytest.fixture
def created(monkeypatch):
    """The mode with which each file is made, by the end of its name, in a process that lets in everybody it may."""
    modes = {}
    real = os.open

    def recording(path, flags, mode=0o777, **options):
        fd = real(path, flags, mode, **options)
        if flags & os.O_CREAT:
            modes[os.path.splitext(path)[1]] = stat.S_IMODE(os.fstat(fd).st_mode)
        return fd

    monkeypatch.setattr(os, "open", recording)
    mask = os.umask(0)
    yield modes
    os.umask(mask)


class TestModes:
    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o660, 0o664, 0o644, 0o666])
    def test_the_mode_of_a_file_is_kept(self, face, path, bits):
        """Replacing a file does not change who may read it."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert bits == mode(path)

    @pytest.mark.parametrize(
        ("mask", "bits"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664), (0, 0o666)]
    )
    def test_a_new_file_honours_the_umask(self, face, path, mask, bits):
        """A new file has the mode that any program would give it."""
        ctx = face.open(path)
        ctx.set("a", 1)
        with umask(mask):
            face.do(ctx.save)

        assert bits == mode(path)

    @pytest.mark.parametrize("bits", [0o600, 0o660, 0o664, 0o666])
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0])
    def test_the_lock_follows_the_file(self, face, path, bits, mask):
        """Who may write the file may lock it, and nobody else, whatever the umask."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        ctx = face.open(path)
        ctx.set("a", 1)
        with umask(mask):
            face.do(ctx.save)

        assert bits == mode(path.with_name("state.json.lock"))

    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o664])
    def test_the_lock_is_no_wider_than_the_file(self, face, path, bits):
        """The lock file admits nobody whom the file does not admit."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~bits

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_the_lock_of_a_new_file_is_no_wider_than_it(self, face, path, mask):
        """A new file and its lock agree."""
        with umask(mask):
            face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~mode(path)

    @pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
    def test_the_owner_is_kept(self, face, path):
        """A save by root leaves a user's file the user's."""
        path.write_text("{}", encoding="utf-8")
        os.chown(path, 12345, 23456)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert (12345, 23456) == (path.stat().st_uid, path.stat().st_gid)

    def test_a_read_only_directory_can_be_read(self, face):
        """Reading needs neither a lock nor a place to put one."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "state.json")
            path.write_text('{"a": 1}', encoding="utf-8")
            path.chmod(0o444)
            Path(directory).chmod(0o555)
            if AS_ROOT:
                os.seteuid(65534)
            try:
                ctx = face.open(path)
            finally:
                if AS_ROOT:
                    os.seteuid(0)
                Path(directory).chmod(0o755)

            assert ({"a": 1}, ["state.json"]) == (dict(ctx), os.listdir(directory))


class TestAccess:
    """Another user's file, as the kernel refuses what only root may do."""

    @pytest.fixture
    def model(self, tmp_path):
        """A file of mode 0664."""
        path = tmp_path / "model"
        path.write_bytes(b"")
        path.chmod(0o664)
        return path

    @pytest.fixture
    def mine(self, tmp_path):
        """A new file, open."""
        fd = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT, 0o600)
        yield fd
        os.close(fd)

    def as_seen(self, monkeypatch, path, **fields):
        """Have the file at a path seem to belong to somebody else."""
        stat = os.lstat

        def seen(wanted, **options):
            status = stat(wanted, **options)
            if str(wanted) != str(path):
                return status
            values = list(status)
            for name, value in fields.items():
                values[("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid").index(name)] = value
            return os.stat_result(values)

        monkeypatch.setattr(os, "lstat", seen)

    def test_where_the_group_cannot_be_given_it_gets_no_more_than_everybody(self, tmp_path, model, mine, monkeypatch):
        """Write access for the file's group is no write access for the writer's own group."""
        self.as_seen(monkeypatch, model, st_gid=os.getgid() + 1)

        def refuse(fd, uid, gid):
            raise PermissionError

        monkeypatch.setattr(os, "fchown", refuse)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o644 == os.fstat(mine).st_mode & 0o777

    def test_a_lock_file_of_somebody_else_is_left_as_it_is(self, model, mine, monkeypatch):
        """Only its owner gives a lock file other access rights."""
        self.as_seen(monkeypatch, model, st_uid=os.getuid() + 1)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 2)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o600 == os.fstat(mine).st_mode & 0o777

    def test_one_that_fails_is_told(self, path, monkeypatch):
        """What access rights the file has is not guessed when the disk does not say."""
        stat = os.lstat

        def fail(name, **options):
            if name == str(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return stat(name, **options)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "stat", fail)
            Access.of(str(path))

        assert not path.exists()


class TestAccessLists:
    def test_an_access_list_is_kept(self, tmp_path):
        """Whoever could read the file by its access list can read it after a save, and nobody else."""
        path = tmp_path / "state.json"
        path.write_text("{}", encoding="utf-8")
        entries = [
            (1, 6, -1),
            (2, 4, 12345),
            (4, 0, -1),
            (16, 4, -1),
            (32, 0, -1),
        ]  # user, a named user, group, mask, other
        wanted = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        try:
            os.setxattr(path, "system.posix_acl_access", wanted)
        except OSError as error:
            pytest.skip(f"this file system keeps no access lists ({error}): run on ext4 or XFS")
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")

        assert wanted == os.getxattr(path, "system.posix_acl_access")


class TestTemporaries:
    def test_one_that_a_killed_writer_left_is_removed(self, path, half_way):
        """The next writer removes what one that was killed in mid-write left behind."""
        half_way.kill()
        left = temporaries(path)
        SyncPersistentContext(path).incr("n")

        assert (1, [], {"n": 2}) == (len(left), temporaries(path), stored(path))

    def test_one_whose_writer_lives_stays(self, path, half_way):
        """A writer that is slow keeps its temporary, even if its lock file was deleted, and loses no change."""
        mine = temporaries(path)
        path.with_name("state.json.lock").unlink()
        number = SyncPersistentContext(path).incr("n")
        still_mine = temporaries(path)
        half_way.say()

        assert (1, mine, 2) == (len(mine), still_mine, number)
        assert (["3"], {"n": 3}, []) == (half_way.finish(), stored(path), temporaries(path))

    def test_one_that_somebody_planted_is_not_used(self, path, monkeypatch):
        """Even who guesses the name of the next temporary cannot have the document written to a file of theirs."""
        ctx = SyncPersistentContext.create(path)
        ctx.save()
        monkeypatch.setattr(os, "urandom", bytes)
        planted = path.with_name(f".state.json.{bytes(8).hex()}.tmp")
        planted.write_bytes(b"theirs")
        ctx.set("secret", 1)
        with pytest.raises(FileExistsError):
            ctx.save()

        assert (b"theirs", {}, {"secret"}) == (planted.read_bytes(), stored(path), ctx.unsaved_keys())

    def test_one_is_never_open_to_more_users_than_the_file(self, path, created):
        """From its first moment on, nobody can read the temporary who could not read the file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        SyncPersistentContext(path).incr("n")

        assert 0o600 == created[".tmp"]


class TestReading:
    def test_a_file_that_is_read_in_short_pieces_is_read_whole(self, tmp_path, monkeypatch):
        """A read may return less than was asked for."""
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"a": "b" * 100}), encoding="utf-8")
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))

        assert {"a": "b" * 100} == SyncPersistentContext.create(path).get_all_data()
