"""Access rights: no file beside the data file is ever accessible to more users than the data file."""

import contextlib
import errno
import os
import stat
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from persistent_context import SyncPersistentContext
from persistent_context._model.snapshot import Changes
from persistent_context._stores.jsonfile.access import Access, check_writable
from persistent_context._stores.jsonfile.accesslist import given_away, lets_write
from persistent_context._stores.jsonfile.store import JsonFileStore

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def mode(path):
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def umask(value):
    """Set the umask within a block."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


class TestModes:
    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o660, 0o664, 0o644, 0o666])
    def test_the_mode_of_a_file_is_kept(self, face, path, bits):
        """Replacing a file does not change its mode."""
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
        """Whoever may write the file may lock it, and no one else, whatever the umask."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        ctx = face.open(path)
        ctx.set("a", 1)
        with umask(mask):
            face.do(ctx.save)

        assert bits == mode(path.with_name("state.json.lock"))

    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o664])
    def test_the_lock_is_no_wider_than_the_file(self, face, path, bits):
        """The lock file is not accessible to users who may not access the file."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(bits)
        face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~bits

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_the_lock_of_a_new_file_is_no_wider_than_it(self, face, path, mask):
        """A new file and its lock file have the same mode."""
        with umask(mask):
            face.do(face.open(path).incr, "a")

        assert 0 == mode(path.with_name("state.json.lock")) & ~mode(path)

    @pytest.mark.parametrize("first", ["save", "load"])
    def test_those_of_a_corrupt_file_are_kept(self, face, path, first):
        """The file that takes the place of one that was moved aside is no more public than that one was."""
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o600)
        ctx = face.open(path)
        path.write_text('{"broken', encoding="utf-8")
        with umask(0o022):
            face.do(getattr(ctx, first))
            ctx["a"] = 1
            face.do(ctx.save)

        assert (0o600, '{\n"a": 1\n}\n') == (mode(path), path.read_text(encoding="utf-8"))

    @pytest.mark.skipif(not AS_ROOT, reason="changes the owner of a file: run as root")
    def test_the_owner_of_a_corrupt_file_is_kept(self, face, path):
        """After root has moved a user's file aside, the new one still belongs to the user."""
        path.write_text("corrupt", encoding="utf-8")
        os.chown(path, 12345, 23456)
        face.do(face.cls(path).incr, "n")

        assert (12345, 23456) == (path.stat().st_uid, path.stat().st_gid)

    @pytest.mark.skipif(not AS_ROOT, reason="changes the owner of a file: run as root")
    def test_the_owner_is_kept(self, face, path):
        """After a save by root, a user's file still belongs to the user."""
        path.write_text("{}", encoding="utf-8")
        os.chown(path, 12345, 23456)
        ctx = face.open(path)
        ctx.set("a", 1)
        face.do(ctx.save)

        assert (12345, 23456) == (path.stat().st_uid, path.stat().st_gid)

    def test_a_read_only_directory_can_be_read(self, face):
        """Reading needs neither a lock nor write access to the directory."""
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
    """Files of other users: what the kernel allows only to root is simulated."""

    @pytest.fixture
    def model(self, tmp_path):
        """A file of mode 0664."""
        path = tmp_path / "model"
        path.write_bytes(b"")
        path.chmod(0o664)
        return path

    @pytest.fixture
    def mine(self, tmp_path):
        """A descriptor of a new file."""
        fd = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT, 0o600)
        yield fd
        os.close(fd)

    def as_seen(self, monkeypatch, path, **fields):
        """Make the file at a path appear to belong to another user."""
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

    @pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL])
    def test_where_the_group_cannot_be_given_it_gets_no_more_than_everybody(self, model, mine, monkeypatch, code):
        """Write access for the file's group does not become write access for the writer's own group.

        EINVAL: it has no number in the user namespace of the process.
        """
        self.as_seen(monkeypatch, model, st_gid=os.getgid() + 1)

        def refuse(fd, uid, gid):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fchown", refuse)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o644 == os.fstat(mine).st_mode & 0o777

    def test_a_lock_file_of_another_user_is_left_as_it_is(self, model, mine, monkeypatch):
        """Only its owner changes the access rights of a lock file."""
        self.as_seen(monkeypatch, model, st_uid=os.getuid() + 1)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 2)
        Access.of(str(model)).give_to(mine, os.fstat(mine))

        assert 0o600 == os.fstat(mine).st_mode & 0o777

    def test_an_error_is_raised(self, path, monkeypatch):
        """An error while reading the file's access rights is raised."""
        stat = os.lstat

        def fail(name, **options):
            if name == str(path):
                raise OSError(errno.EIO, os.strerror(errno.EIO), name)
            return stat(name, **options)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(os, "lstat", fail)
            Access.of(str(path))

        assert not path.exists()


OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS = 1, 2, 4, 8, 16, 32
ALICE, BOB, CAROL, DAVE, ERIN = 12001, 12002, 12003, 12004, 12005
"""The owner of a file, a user whom its access list names, and others."""


def access_list(*entries):
    """Return an access list with some entries of tag, permissions and, for named ones, number."""
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHi", *entry, *[-1][len(entry) - 2 :]) for entry in sorted(entries)
    )


@contextlib.contextmanager
def user(uid, *groups):
    """Be another user, whose group has the same number, within a block."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.mark.skipif(not AS_ROOT, reason="becomes other users: run as root")
class TestASharedFile:
    """A file that its owner shares with other users by an access list, in a directory where they may all write."""

    @pytest.fixture
    def shared(self):
        """Make such a file, with more entries in its list."""
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o777)
            path = Path(directory, "state.json")

            def share(*entries, owner=6, group=0, others=0):
                path.write_text("{}", encoding="utf-8")
                os.chown(path, ALICE, ALICE)
                acl = access_list((OWNER, owner), *entries, (GROUP, group), (MASK, 6), (OTHERS, others))
                try:
                    os.setxattr(path, "system.posix_acl_access", acl)
                except OSError as error:
                    pytest.skip(f"this file system has no access lists ({error}): run on ext4 or XFS")
                return path

            yield share

    def add_one(self, path, uid, *groups):
        """Add one as a user, like a process of that user."""
        with user(uid, *groups):
            return SyncPersistentContext(path).incr("n")

    def admitted(self, path):
        """Return which users may read a file and write it, and which groups may read it."""
        found = {}
        for uid, *groups in ((ALICE,), (BOB,), (CAROL,), (ERIN, ALICE), (ERIN, BOB)):
            with user(uid, *groups):
                found[uid, *groups] = [os.access(path, right, effective_ids=True) for right in (os.R_OK, os.W_OK)]
        return found

    @pytest.mark.parametrize("rights", [{}, {"group": 4}, {"group": 4, "others": 4}, {"group": 6, "others": 4}])
    def test_whoever_writes_it_admits_the_same_users(self, shared, rights):
        """A user whom the list names replaces the file, and owns it then: nobody is locked out, and nobody let in."""
        path = shared((USER, 6, BOB), **rights)
        before = self.admitted(path)
        numbers = [self.add_one(path, uid) for uid in (ALICE, BOB, ALICE, BOB, BOB)]

        assert ([1, 2, 3, 4, 5], BOB, before) == (numbers, path.stat().st_uid, self.admitted(path))
        assert before == self.admitted(path.with_name("state.json.lock"))

    def test_a_member_of_a_group_in_the_list_does_as_well(self, shared):
        """The group is in the list by name, and stays there."""
        path = shared((USER, 4, BOB), (NAMED_GROUP, 6, CAROL), group=4)
        before = self.admitted(path)
        numbers = [self.add_one(path, DAVE, CAROL), self.add_one(path, ALICE)]

        assert ([1, 2], before) == (numbers, self.admitted(path))

    def test_the_new_owner_gets_no_more_than_the_list_gave(self, shared):
        """The former owner may execute the file; the new one may not."""
        path = shared((USER, 6, BOB), owner=7)
        self.add_one(path, BOB)

        assert (BOB, 0o660) == (path.stat().st_uid, mode(path))


IN_A_USER_NAMESPACE = """
import ctypes, os, sys
from persistent_context import SyncPersistentContext

uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER
    print("refused", flush=True)
    sys.exit()
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
print(os.stat(sys.argv[1]).st_uid, SyncPersistentContext(sys.argv[1]).incr("n"), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux" or not AS_ROOT, reason="makes user namespaces: run as root on Linux")
class TestAUserNamespace:
    """As in a rootless container: a user who is not in it has no number there."""

    def test_a_file_of_a_user_outside_can_be_replaced(self, path, spawn):
        """It is given to nobody, as it cannot be given to its owner, and admits the same users."""
        path.write_text("{}", encoding="utf-8")
        os.chown(path, ALICE, ALICE)
        path.chmod(0o666)
        child = spawn(IN_A_USER_NAMESPACE, path)
        heard = child.hear()
        child.finish()
        if heard == "refused":
            pytest.skip("user namespaces are disabled here")

        assert (["65534", "1"], 0o666) == (heard.split(), mode(path))


class TestAccessLists:
    def test_a_list_without_a_mask_gets_that_of_its_group(self):
        """The group's permissions were those of all but the owner and the others."""
        acl = given_away(access_list((OWNER, 6), (GROUP, 4), (OTHERS, 0)), (1, 2), (3, 2))

        assert access_list((OWNER, 6), (USER, 6, 1), (GROUP, 4), (MASK, 4), (OTHERS, 0)) == acl

    @pytest.mark.parametrize(
        ("entries", "groups", "expected"),
        [
            ([(USER, 6, BOB)], (), True),
            ([(USER, 4, BOB), (NAMED_GROUP, 6, CAROL)], (CAROL,), False),
            ([(USER, 6, BOB), (MASK, 4)], (), False),
            ([(USER, 6, ALICE)], (), False),
            ([(NAMED_GROUP, 6, CAROL)], (CAROL,), True),
            ([(NAMED_GROUP, 6, CAROL)], (DAVE,), False),
            ([(NAMED_GROUP, 6, CAROL), (MASK, 4)], (CAROL,), False),
            ([(NAMED_GROUP, 4, CAROL)], (CAROL, DAVE), False),
            ([(GROUP, 6)], (DAVE,), True),
            ([(GROUP, 4), (MASK, 6)], (DAVE,), False),
            ([(GROUP, 6)], (CAROL,), False),
        ],
    )
    def test_whom_a_list_lets_write(self, entries, groups, expected):
        """A user's own entry decides, and otherwise any of the groups; the mask limits both."""
        tags = {tag for tag, *_ in entries}
        others = [(tag, bits) for tag, bits in ((OWNER, 6), (GROUP, 0), (MASK, 7), (OTHERS, 0)) if tag not in tags]

        assert expected == lets_write(access_list(*entries, *others), BOB, groups, DAVE)

    def test_an_access_list_is_kept(self, tmp_path):
        """Whoever could read the file by its access list can read it after a save, and no one else."""
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
            pytest.skip(f"this file system has no access lists ({error}): run on ext4 or XFS")
        ctx = SyncPersistentContext.create(path)
        ctx.incr("n")

        assert wanted == os.getxattr(path, "system.posix_acl_access")


class TestAFileThatIsReplacedWhenItHasBeenRead:
    """Another program takes no lock: it replaces or removes the file that a session has read."""

    @pytest.fixture
    def session(self, path):
        """A session that has read a private file."""
        path.write_text('{"secret": 1}', encoding="utf-8")
        path.chmod(0o600)
        one = JsonFileStore(str(path)).begin("test", wait=False)
        assert {"secret": b"1"} == one.snapshot.get(["secret"])
        yield one
        one.close()

    def test_what_was_read_is_not_opened_to_the_users_of_the_new_one(self, path, session):
        """The content that is written back has the rights of the file that it was read from."""
        path.rename(path.with_name("old"))
        path.write_text("{}", encoding="utf-8")
        path.chmod(0o666)
        session.commit(Changes({"n": b"1"}), durable=False)

        assert ('{\n"secret": 1,\n"n": 1\n}\n', 0o600) == (path.read_text(encoding="utf-8"), mode(path))

    def test_nor_to_everybody_if_it_is_gone(self, path, session):
        """The file is written again with the rights that it had."""
        path.unlink()
        with umask(0o022):
            session.commit(Changes({"n": b"1"}), durable=False)

        assert 0o600 == mode(path)

    def test_the_rights_of_the_same_file_are_those_of_the_moment(self, path, session):
        """A file that is opened to more users in between stays so."""
        path.chmod(0o640)
        session.commit(Changes({"n": b"1"}), durable=False)

        assert 0o640 == mode(path)


class TestAFileThatAppears:
    def test_it_is_not_taken_for_one_that_may_not_be_written(self, path, monkeypatch):
        """Another process may create the file between two looks at it."""
        isfile = os.path.isfile

        def created_before(found):
            path.write_text("{}", encoding="utf-8")
            return isfile(found)

        monkeypatch.setattr(os.path, "isfile", created_before)
        check_writable(str(path))

        assert path.exists()
