"""The file may have any name: long, strange or a link, it identifies one file, and messages escape it."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from persistent_context import ConflictError, LockTimeoutError, NotARegularFileError, UnserializableValueError
from stories import CALLS, WRITES, done, either_face, incr, save

face = either_face


def is_safe_to_print(message: str) -> bool:
    return message.isprintable()


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


STRANGE_NAMES = {
    "a newline": "a\nb.json",
    "an escape sequence": "a\x1b[31mred\x1b]0;title\x07.json",
    "a carriage return": "a\rb.json",
    "a C1 control": "a\x9b31m.json",
    "a direction override": "a\u202enosj.json",
    "glob characters": "a[*]?{b}.json",
    "quotes": "a'\"`$(b)\\.json",
    "a leading dash": "-rf.json",
    "a leading dot": ".state.json",
    "spaces": "  a  .json ",
    "no suffix": "state",
    "our own suffix": "state.json.tmp",
    "our lock's suffix": "state.lock",
    "undecodable bytes": os.fsdecode(b"a\xff\xfe.json"),
    "format characters": "a%s{0}%(x)d{}.json",
}


class OwnPath:
    """An object of another class that names a path."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


class TestLongNames:
    @pytest.mark.parametrize("name", ["n" * 245 + ".json", "é" * 122 + ".json"], ids=["ASCII", "two bytes each"])
    def test_a_name_with_just_enough_room_for_the_lock(self, face: Any, path: Path, name: str) -> None:
        """A file whose name nearly reaches the file system's limit is saved, since temporary names are shorter."""
        target = path.parent / name

        async def story() -> None:
            ctx = await done(face.context.create(target))
            for call in WRITES.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(target.read_bytes())
        assert {name, name + ".lock"} == names(path.parent)

    @pytest.mark.parametrize("call", CALLS)
    def test_a_bad_document_of_such_a_name(self, face: Any, path: Path, call: str) -> None:
        """A bad document whose name leaves no room for a suffix is moved aside or refused, but never lost."""
        target = path.parent / ("n" * 245 + ".json")
        target.write_bytes(b"{ broken")

        async def story() -> None:
            with suppress(OSError):
                await CALLS[call](face.context(target))

        face.run(story())
        contents = [found.read_bytes() for found in path.parent.iterdir()]

        assert 1 == contents.count(b"{ broken")
        assert not [name for name in names(path.parent) if name.endswith(".tmp")]

    @pytest.mark.parametrize("call", WRITES)
    def test_a_name_without_room_for_the_lock(self, face: Any, path: Path, call: str) -> None:
        """If the lock file's name would be too long, writing is refused with an OSError and nothing is touched."""
        target = path.parent / ("n" * 250 + ".json")
        target.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(target))
            assert {"a": 1} == ctx.get_all_data()
            with pytest.raises(OSError, match="n{200}") as caught:
                await CALLS[call](ctx)
            assert errno.ENAMETOOLONG == caught.value.errno

        face.run(story())

        assert b'{"a": 1}' == target.read_bytes()
        assert {target.name} == names(path.parent)

    @pytest.mark.parametrize("call", CALLS)
    def test_a_name_that_is_too_long_itself(self, face: Any, path: Path, call: str) -> None:
        """A name that no file can have is an OSError for readers too, not an empty file."""

        async def story() -> None:
            with pytest.raises(OSError, match="n{200}") as caught:
                await CALLS[call](face.context(path.parent / ("n" * 300)))
            assert errno.ENAMETOOLONG == caught.value.errno

        face.run(story())

        assert set() == names(path.parent)


@pytest.mark.parametrize("kind", STRANGE_NAMES)
class TestStrangeNames:
    def test_they_name_a_file_like_any_other(self, face: Any, path: Path, kind: str) -> None:
        """Any name that the file system accepts is read and written, and no other file is touched."""
        target = path.parent / STRANGE_NAMES[kind]
        neighbour = path.parent / "ab.json"
        neighbour.write_bytes(b"other")

        async def story() -> None:
            ctx = await done(face.context.create(target))
            for call in WRITES.values():
                await call(ctx)
            assert 2 == await done(ctx.incr("fresh"))
            assert {"fresh": 2} == (await done(face.context.create(target))).get_all_data()

        face.run(story())

        assert {"fresh": 2} == json.loads(target.read_bytes())
        assert b"other" == neighbour.read_bytes()
        assert {target.name, target.name + ".lock", "ab.json"} == names(path.parent)

    @pytest.mark.usefixtures("nobody_repairs_it")
    def test_messages_are_escaped(self, face: Any, path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        """No error or warning sends the control characters of a file name to the terminal."""
        caplog.set_level(logging.DEBUG, "persistent_context")
        target = path.parent / STRANGE_NAMES[kind]
        target.write_bytes(b"{")
        errors: list[BaseException] = []

        async def story() -> None:
            ctx = face.context(target, on_conflict="raise")
            with FileLock(f"{target}.lock"), pytest.raises(LockTimeoutError) as timeout:
                await incr(face.context(target, lock_timeout=0))
            await done(ctx.load())
            ctx.set("bad", {1})
            with pytest.raises(UnserializableValueError) as unserializable:
                await done(ctx.save())
            ctx.set("bad", 1)
            await done((await done(face.context.create(target))).incr("bad", 5))
            with pytest.raises(ConflictError) as conflict:
                await done(ctx.save())
            target.unlink()
            target.mkdir()
            with pytest.raises(NotARegularFileError) as no_file:
                await done(ctx.load())
            errors.extend(caught.value for caught in (timeout, unserializable, conflict, no_file))

        face.run(story())
        target.rmdir()
        logged = [record.getMessage() for record in caplog.records if record.name.startswith("persistent_context")]

        assert logged
        for message in [*map(str, errors), *map(repr, errors), *logged]:
            assert is_safe_to_print(message), ascii(message)
            message.encode()


class TestStrangeKeys:
    @pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "\x9b31m", "\u202e", "\r", '"]["b'])
    def test_messages_are_escaped(self, face: Any, path: Path, key: str) -> None:
        """No error sends the control characters of a key to the terminal."""
        errors: list[BaseException] = []

        async def story() -> None:
            ctx = face.context(path, on_conflict="raise")
            ctx.set(key, {key: {1}})
            with pytest.raises(UnserializableValueError) as unserializable:
                await done(ctx.save())
            ctx.set(key, "text")
            await done((await done(face.context.create(path))).add(key, 5))
            with pytest.raises(ConflictError) as conflict:
                await done(ctx.save())
            await done(ctx.load())
            await done(ctx.mutate(key, lambda _: "text"))
            with pytest.raises(TypeError) as no_number:
                await done(ctx.incr(key))
            errors.extend(caught.value for caught in (unserializable, conflict, no_number))

        face.run(story())

        for message in [*map(str, errors), *map(repr, errors)]:
            assert is_safe_to_print(message), ascii(message)


class TestWhatNamesAPath:
    @pytest.mark.parametrize("kind", [str, Path, OwnPath, lambda path: OwnPath(str(path))])
    def test_str_and_path_likes(self, face: Any, path: Path, kind: Callable[[Any], Any]) -> None:
        """A `str`, or an object whose `__fspath__` returns one, names the file, and `filepath` returns its path."""

        async def story() -> str:
            ctx = face.context(kind(str(path)))
            await save(ctx)
            return os.fspath(ctx.filepath)

        filepath = face.run(story())

        assert str(path) == filepath
        assert {"fresh": 1} == json.loads(path.read_bytes())

    @pytest.mark.parametrize(
        "wrong",
        [b"state.json", OwnPath(b"state.json"), None, 3, ["state.json"], object()],
        ids=lambda wrong: type(wrong).__name__,
    )
    def test_nothing_else(self, face: Any, wrong: Any) -> None:
        """Bytes, and objects that do not name a path, raise TypeError at once."""
        with pytest.raises(TypeError):
            face.context(wrong)

    def test_a_nul_in_a_path(self, face: Any, path: Path) -> None:
        """A path that no file can have is an error, not an empty file."""

        async def story() -> None:
            with pytest.raises((ValueError, OSError)):
                await done(face.context.create(f"{path}\0x"))

        face.run(story())

        assert set() == names(path.parent)

    @pytest.mark.parametrize("relative", ["state.json", "./sub/../state.json", "../data/state.json"])
    def test_a_relative_path_stays_where_it_was(
        self, face: Any, path: Path, tmp_path: Path, relative: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative path refers to the working directory at the time when the context was made."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (path.parent / "sub").mkdir()
        monkeypatch.chdir(path.parent)

        async def story() -> None:
            ctx = face.context(relative)
            monkeypatch.chdir(elsewhere)
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert set() == names(elsewhere)


class TestLinks:
    @pytest.mark.parametrize("call", CALLS)
    def test_a_loop_of_links(self, face: Any, path: Path, call: str) -> None:
        """A loop of links is an OSError, for readers too, and the links stay unchanged."""
        other = path.parent / "other.json"
        path.symlink_to(other)
        other.symlink_to(path)

        async def story() -> None:
            with pytest.raises(OSError, match=r"\.json"):
                await CALLS[call](face.context(path))

        face.run(story())

        assert path.is_symlink()
        assert other.is_symlink()
        assert not [name for name in names(path.parent) if name.endswith(".tmp")]

    @pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
    @pytest.mark.parametrize("call", WRITES)
    def test_a_link_to_nothing(self, face: Any, path: Path, tmp_path: Path, call: str, *, relative: bool) -> None:
        """A link to a file that does not exist is a missing file; the write makes it where the link points."""
        (tmp_path / "real").mkdir()
        real = tmp_path / "real" / "data.json"
        path.symlink_to("../real/data.json" if relative else real)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {} == ctx.get_all_data()
            await CALLS[call](ctx)

        face.run(story())

        assert path.is_symlink()
        assert not real.is_symlink()
        assert {"fresh": 1} == json.loads(real.read_bytes())
        assert {path.name} == names(path.parent)
        assert {real.name, real.name + ".lock"} == names(real.parent)

    def test_a_chain_of_links(self, face: Any, path: Path, tmp_path: Path) -> None:
        """All links of a chain stay, the file at its end is replaced, and all its names share one lock."""
        (tmp_path / "real").mkdir()
        real = tmp_path / "real" / "data.json"
        real.write_bytes(b'{"n": 1}')
        (path.parent / "second.json").symlink_to(real)
        path.symlink_to("second.json")

        async def story() -> None:
            assert 2 == await done(face.context(path).incr("n"))
            assert 3 == await done(face.context(path.parent / "second.json").incr("n"))
            assert 4 == await done(face.context(real).incr("n"))

        face.run(story())

        assert path.is_symlink()
        assert (path.parent / "second.json").is_symlink()
        assert {"n": 4} == json.loads(real.read_bytes())
        assert {path.name, "second.json"} == names(path.parent)
        assert {real.name, real.name + ".lock"} == names(real.parent)

    def test_a_linked_directory(self, face: Any, path: Path, tmp_path: Path, hold: Any) -> None:
        """A file reached through a linked directory has the lock of its real path, and is the same file."""
        linked = tmp_path / "linked"
        linked.symlink_to(path.parent)

        async def story(held: Any) -> None:
            with pytest.raises(LockTimeoutError):
                await incr(face.context(linked / path.name, lock_timeout=0))
            assert not path.exists()
            held.release()
            first, second = await done(face.context.create(linked / path.name)), await done(face.context.create(path))
            first.set("a", 1)
            second.set("b", 2)
            await done(first.save())
            await done(second.save())

        face.run(story(hold(path)))

        assert {"a": 1, "b": 2} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("call", CALLS)
    def test_a_link_to_a_device(self, face: Any, path: Path, call: str) -> None:
        """A device is refused also if it is reached through a link."""
        path.symlink_to("/dev/null")

        async def story() -> None:
            with pytest.raises(NotARegularFileError):
                await CALLS[call](face.context(path))

        face.run(story())

        assert path.is_char_device()
