"""A key that is not a string, or cannot be encoded as UTF-8, is refused at once."""

from __future__ import annotations

import enum
import json
import os
import pathlib
from typing import Any

import pytest

from persistent_context import MISSING, UnserializableValueError
from stories import done, either_face, transaction

face = either_face


class Colour(enum.Enum):
    RED = "red"


ORIGINAL = b'{\n"jobs": [0],\n"n": 1,\n"t": "text"\n}\n'


def clean(path: pathlib.Path) -> bool:
    """Whether there is nothing beside the file but its lock file."""
    return set(os.listdir(path.parent)) <= {path.name, path.name + ".lock"}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "state.json"
    path.write_bytes(ORIGINAL)
    return path


BAD_KEYS: dict[str, Any] = {
    "int": 1,
    "bool": True,
    "None": None,
    "float": 1.5,
    "bytes": b"k",
    "tuple": ("k",),
    "enum": Colour.RED,
    "MISSING": MISSING,
}


SURROGATE_KEYS = {"high surrogate": "\ud800", "low surrogate": "a\udcffb"}


def text(value: Any) -> str:
    """Return the JSON text, which distinguishes 1 from 1.0 and True, and one order of keys from another."""
    return json.dumps(value, allow_nan=False)


@pytest.mark.parametrize("name", [*BAD_KEYS, *SURROGATE_KEYS])
class TestKeysAreCheckedAtOnce:
    def test_in_memory(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A key that JSON cannot hold is refused when it is set, and memory is unchanged."""
        key = {**BAD_KEYS, **SURROGATE_KEYS}[name]
        base = TypeError if name in BAD_KEYS else ValueError

        async def story() -> None:
            ctx = await done(face.context.create(path))
            before = ctx.get_all_data()

            def assign() -> None:
                ctx[key] = 1

            for attempt in (
                lambda: ctx.set(key, 1),
                assign,
                lambda: ctx.setdefault(key, 1),
                lambda: ctx.update({key: 1}),
                lambda: ctx.update([(key, 1)]),
            ):
                with pytest.raises(UnserializableValueError) as caught:
                    attempt()
                assert isinstance(caught.value, base)
                str(caught.value).encode()
            assert before == ctx.get_all_data()
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert ORIGINAL == path.read_bytes()

    def test_in_atomic_operations(self, face: Any, path: pathlib.Path, name: str) -> None:
        """Atomic operations refuse such a key too, and the file is unchanged."""
        key = {**BAD_KEYS, **SURROGATE_KEYS}[name]
        base = TypeError if name in BAD_KEYS else ValueError

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for name_of_call, arguments in (
                ("incr", ()),
                ("add", (1,)),
                ("compare_and_set", (MISSING, 1)),
                ("mutate", (lambda _: 1,)),
            ):
                with pytest.raises(UnserializableValueError) as caught:
                    await done(getattr(ctx, name_of_call)(key, *arguments))
                assert isinstance(caught.value, base)

        face.run(story())

        assert ORIGINAL == path.read_bytes()
        assert clean(path)

    def test_in_a_transaction(self, face: Any, path: pathlib.Path, name: str) -> None:
        """A transaction refuses such a key when it is set; after catching the error, the rest can be committed."""
        key = {**BAD_KEYS, **SURROGATE_KEYS}[name]

        async def story() -> None:
            ctx = await done(face.context.create(path))
            async with transaction(ctx) as tx:
                tx["n"] = 2
                with pytest.raises(UnserializableValueError):
                    tx[key] = 1

        face.run(story())

        assert {"jobs": [0], "n": 2, "t": "text"} == json.loads(path.read_bytes())
