"""Copies that are kept beside a file: their content, their permissions, and how many there are."""

import errno
import os
import stat

import pytest

from persistent_context import NotARegularFileError, SyncPersistentContext
from persistent_context._stores.jsonfile import copies as _copies
from persistent_context._stores.jsonfile.copies import keep_copy


@pytest.fixture
def source(path):
    """A file to copy, larger than one chunk."""
    path.write_bytes(b"x" * 1_100_000)
    return path


def copies(path):
    """Return the copies of a file."""
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


class TestACopy:
    def test_it_does_not_change_with_the_file(self, source):
        """It has the content and the permissions of the moment, even if the file is then changed in place."""
        source.chmod(0o640)
        aside = keep_copy(str(source), durable=False)
        with source.open("r+b") as file:
            file.write(b"y")
            file.truncate(5)
        (copy,) = copies(source)

        assert (aside, b"x" * 1_100_000) == (str(copy), copy.read_bytes())
        assert 0o640 == stat.S_IMODE(copy.stat().st_mode)

    @pytest.mark.parametrize("durable", [False, True])
    def test_it_is_synced_if_it_is_to_survive(self, source, synced, durable):
        """The content is synced before it has its name, and the directory after that."""
        keep_copy(str(source), durable=durable)

        assert [".tmp", str(source.parent)] * durable == [name[-4:] if ".tmp" in name else name for name in synced]

    def test_the_same_content_is_kept_once(self, source):
        """A write that fails each time it is tried leaves one copy; a different content gets its own."""
        first = {keep_copy(str(source), durable=True) for _ in range(3)}
        source.write_bytes(b"y" * 1_100_000)
        second = keep_copy(str(source), durable=True)

        assert (1, 2) == (len(first), len({*first, second}))

    @pytest.mark.parametrize("found", ["a link", "a file"])
    def test_it_is_of_one_file_whatever_takes_its_name(self, source, tmp_path, monkeypatch, found):
        """Another user who may write in the directory gets neither another file's content nor more rights."""
        secret, lock = tmp_path / "secret", _copies.try_lock
        secret.write_bytes(b"secret")
        source.chmod(0o600)

        def exchange(fd):
            source.unlink()
            if found == "a link":
                source.symlink_to(secret)
            else:
                source.write_bytes(b"public")
                source.chmod(0o644)
            return lock(fd)

        monkeypatch.setattr(_copies, "try_lock", exchange)
        keep_copy(str(source), durable=False)
        (copy,) = copies(source)

        assert (b"x" * 1_100_000, 0o600) == (copy.read_bytes(), stat.S_IMODE(copy.stat().st_mode))

    def test_a_link_is_not_copied(self, source, tmp_path):
        """Somebody has planted it: the content of the file that it leads to may be a secret."""
        (tmp_path / "secret").write_bytes(b"secret")
        source.unlink()
        source.symlink_to(tmp_path / "secret")
        with pytest.raises(NotARegularFileError, match="found a symbolic link"):
            keep_copy(str(source), durable=False)

        assert [source.name] == os.listdir(source.parent)

    @pytest.mark.parametrize("planted", ["a link", "a directory"])
    def test_something_planted_under_such_a_name_is_no_copy(self, source, planted):
        """Only a regular file counts, since anything else may change afterwards."""
        name = source.with_name(f"{source.name}.corrupt-20260101T000000Z-00000000")
        if planted == "a link":
            name.symlink_to(source)
        else:
            name.mkdir()

        assert str(name) != keep_copy(str(source), durable=False)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away: run as root")
    def test_nor_is_a_file_of_a_stranger(self, source):
        """Its owner may change it afterwards."""
        planted = source.with_name(f"{source.name}.corrupt-20260101T000000Z-00000000")
        planted.write_bytes(source.read_bytes())
        os.chown(planted, 12345, 12345)

        assert str(planted) != keep_copy(str(source), durable=False)

    def test_a_failure_leaves_nothing(self, source, monkeypatch):
        """Neither half a copy nor a temporary file stays behind."""

        def fail(fd, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="No space left"):
            keep_copy(str(source), durable=True)

        assert [source.name] == os.listdir(source.parent)


class TestRepeatedKeys:
    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
    def test_no_link_is_needed(self, path, monkeypatch, code):
        """Some file systems have no second links, or no more of them: the original is kept all the same."""

        def fail(source, target):
            raise OSError(code, os.strerror(code), source, None, target)

        path.write_text('{"a": 1, "a": 2}', encoding="utf-8")
        monkeypatch.setattr(os, "link", fail)
        SyncPersistentContext(path).incr("a")
        (copy,) = copies(path)

        assert ('{"a": 1, "a": 2}', '{\n"a": 3\n}\n') == (copy.read_text(), path.read_text())
