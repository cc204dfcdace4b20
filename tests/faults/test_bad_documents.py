"""The file may contain anything: a bad document is moved aside whole, and never loaded in part."""

from __future__ import annotations

import itertools
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from documents import DOCUMENTS, OPERATIONS, SOME_DOCUMENTS, SPELLINGS, asides, leftovers, warned
from stories import done, either_face, save, transaction

pytestmark = pytest.mark.usefixtures("nobody_repairs_it")

face = either_face

OTHER_DOCUMENTS = [name for name in DOCUMENTS if name not in SOME_DOCUMENTS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


# ---------------------------------------- loading


class TestLoadingABadDocument:
    @pytest.mark.parametrize("name", [*DOCUMENTS, *SPELLINGS])
    def test_it_is_moved_aside_byte_for_byte(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A bad document is moved aside with all its bytes, memory is empty, and a warning is logged."""
        document = {**DOCUMENTS, **SPELLINGS}[name]
        path.write_bytes(document)

        async def story() -> dict[str, Any]:
            ctx = await done(face.context.create(path))
            assert set() == ctx.unsaved_keys()
            return ctx.get_all_data()

        loaded = face.run(story())

        assert {} == loaded
        assert [document] == [aside.read_bytes() for aside in asides(path)]
        assert not path.exists()
        assert [] == leftovers(path)
        assert any(path.name in message for message in warned(caplog))

    @pytest.mark.parametrize("name", SOME_DOCUMENTS)
    def test_the_next_save_works_and_what_was_moved_aside_stays(self, face: Any, path: Path, name: str) -> None:
        """After a bad document the next save works, and the bad document is still kept."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> None:
            ctx = await done(face.context.create(path))
            await save(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert [] == leftovers(path)


class TestTheNameOfWhatIsMovedAside:
    def test_it_tells_when(self, face: Any, path: Path) -> None:
        """The name is the file's, then `.corrupt-`, a time in UTC and a random part."""
        path.write_bytes(b"{")

        async def story() -> None:
            await done(face.context(path).load())

        face.run(story())
        [aside] = asides(path)

        assert re.fullmatch(r"state\.json\.corrupt-[0-9TZ:.\-]*\d[0-9TZ:.\-]*-\w+", aside.name), aside.name

    def test_the_second_does_not_overwrite_the_first(self, face: Any, path: Path) -> None:
        """Two bad documents in a row are both kept."""

        async def story() -> None:
            for document in (b"{ first", b"{ second", b"{ first"):
                path.write_bytes(document)
                await done(face.context(path).load())

        face.run(story())

        assert [b"{ first", b"{ first", b"{ second"] == sorted(aside.read_bytes() for aside in asides(path))

    @pytest.mark.parametrize("bits", [0o600, 0o640])
    def test_nobody_else_can_read_it(self, face: Any, path: Path, bits: int) -> None:
        """A private document stays private when it is moved aside."""
        path.write_bytes(b'{"token": ')
        path.chmod(bits)

        async def story() -> None:
            await done(face.context(path).load())

        face.run(story())
        [aside] = asides(path)

        assert bits == stat.S_IMODE(aside.stat().st_mode)

    def test_a_symlink_stays_and_its_target_is_moved_aside(self, face: Any, path: Path, tmp_path: Path) -> None:
        """A link to a bad document stays a link; every byte of the document is kept."""
        real = tmp_path / "real" / "data.json"
        real.parent.mkdir()
        real.write_bytes(b"{ broken")
        path.symlink_to(real)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            assert {} == ctx.get_all_data()
            await save(ctx)

        face.run(story())
        kept = [found.read_bytes() for found in tmp_path.rglob("*.corrupt-*")]

        assert path.is_symlink()
        assert [b"{ broken"] == kept
        assert {"fresh": 1} == json.loads(real.read_bytes())


# ---------------------------------------- writing


class TestWritingOverABadDocument:
    @pytest.mark.parametrize(
        ("operation", "name"),
        [
            *((operation, name) for operation in OPERATIONS for name in SOME_DOCUMENTS),
            *zip(itertools.cycle(["save", "incr", "transaction"]), OTHER_DOCUMENTS),  # all read in the same way
        ],
    )
    def test_it_is_moved_aside_and_the_operation_starts_from_nothing(
        self, face: Any, path: Path, name: str, operation: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first write on a bad document moves it aside whole, logs a warning, and starts from an empty one."""
        path.write_bytes(DOCUMENTS[name])

        async def story() -> None:
            await OPERATIONS[operation](face.context(path, durable=False))

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert [] == leftovers(path)
        assert any(path.name in message for message in warned(caplog))

    @pytest.mark.parametrize("name", SOME_DOCUMENTS)
    def test_an_operation_that_is_refused_loses_nothing(self, face: Any, path: Path, name: str) -> None:
        """A refused or failed operation on a bad document leaves every byte of it, in its place or aside."""
        path.write_bytes(DOCUMENTS[name])

        def fail(_: object) -> object:
            msg = "no"
            raise LookupError(msg)

        async def story() -> None:
            ctx = face.context(path)
            assert await done(ctx.compare_and_set("a", 1, 2)) is False
            with pytest.raises(TypeError):
                await done(ctx.incr("a", default="none"))
            with pytest.raises(LookupError):
                await done(ctx.mutate("a", fail))
            with pytest.raises(KeyError):
                async with transaction(ctx) as tx:
                    tx["b"] = 1
                    tx["a"] += 1

        face.run(story())
        kept = [found.read_bytes() for found in (path, *asides(path)) if found.exists()]

        assert 1 == kept.count(DOCUMENTS[name])
        assert [] == leftovers(path)


@pytest.mark.parametrize("name", SOME_DOCUMENTS)
class TestADocumentThatWentBadUnderUs:
    def test_save_writes_all_of_memory(
        self, face: Any, path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file that went bad since the load is no evidence of deletions by others: all of memory is written."""
        path.write_bytes(b'{\n"a": 1,\n"b": [2]\n}\n')

        async def story() -> None:
            ctx = await done(face.context.create(path, on_conflict="raise"))
            path.write_bytes(DOCUMENTS[name])
            ctx.set("a", 3)
            await save(ctx)
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert {"a": 3, "b": [2], "fresh": 1} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
        assert warned(caplog)

    def test_save_without_a_change_writes_all_of_memory(self, face: Any, path: Path, name: str) -> None:
        """Even a save without unsaved changes brings back a whole file."""
        path.write_bytes(b'{\n"a": 1,\n"b": [2]\n}\n')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            path.write_bytes(DOCUMENTS[name])
            await done(ctx.save())
            assert {"a": 1, "b": [2]} == ctx.get_all_data()

        face.run(story())

        assert {"a": 1, "b": [2]} == json.loads(path.read_bytes())
        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]

    def test_load_drops_memory_and_keeps_the_document(self, face: Any, path: Path, name: str) -> None:
        """Loading again drops memory, which is then empty like the file, and no byte is lost."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(path))
            ctx.set("b", 2)
            path.write_bytes(DOCUMENTS[name])
            await done(ctx.load())
            assert {} == ctx.get_all_data()
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert [DOCUMENTS[name]] == [aside.read_bytes() for aside in asides(path)]
