"""Files: whole at every moment, and never open to more users than before."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import pytest

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
