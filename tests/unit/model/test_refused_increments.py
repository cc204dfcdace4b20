"""Increments of or by something that is not a number, or beyond what JSON can hold, are refused."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import json
import math
import os
import pathlib
from typing import Any

import pytest

from persistent_context import UnserializableValueError
from stories import done, either_face

face = either_face

ORIGINAL = b'{\n"jobs": [0],\n"n": 1,\n"t": "text"\n}\n'


def clean(path: pathlib.Path) -> bool:
    """Whether there is nothing beside the file but its lock file."""
    return set(os.listdir(path.parent)) <= {path.name, path.name + ".lock"}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "state.json"
    path.write_bytes(ORIGINAL)
    return path


class TestIncrRefuses:
    @pytest.mark.parametrize("delta", [math.nan, math.inf, -math.inf, 10**5000], ids=["NaN", "inf", "-inf", "10^5000"])
    def test_a_delta_that_json_cannot_hold(self, face: Any, path: pathlib.Path, delta: float) -> None:
        """A delta that JSON cannot hold raises ValueError, and the file is unchanged."""

        async def story() -> None:
            ctx = await done(face.context.create(path))
            with pytest.raises(UnserializableValueError) as caught:
                await done(ctx.incr("n", delta))
            assert isinstance(caught.value, ValueError)
            assert '["n"]' in str(caught.value)
            assert 1 == ctx.get("n")
            assert set() == ctx.unsaved_keys()

        face.run(story())

        assert ORIGINAL == path.read_bytes()
        assert clean(path)

    @pytest.mark.parametrize(
        "delta",
        ["1", None, [1], b"1", decimal.Decimal(1), fractions.Fraction(1), 1j, dt.timedelta(1), object()],
        ids=lambda delta: type(delta).__name__,
    )
    def test_a_delta_that_is_not_a_number(self, face: Any, path: pathlib.Path, delta: Any) -> None:
        """A delta of another type raises TypeError, whether the key exists or not, and the file is unchanged."""

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for key in ("n", "t", "new"):
                with pytest.raises(TypeError):
                    await done(ctx.incr(key, delta))

        face.run(story())

        assert ORIGINAL == path.read_bytes()
        assert clean(path)

    @pytest.mark.parametrize("key", ["t", "jobs"])
    def test_a_value_that_is_not_a_number(self, face: Any, path: pathlib.Path, key: str) -> None:
        """Incrementing a non-number raises a TypeError that names the key; file and memory are unchanged."""

        async def story() -> None:
            ctx = await done(face.context.create(path))
            with pytest.raises(TypeError, match=key):
                await done(ctx.incr(key))
            assert json.loads(ORIGINAL) == ctx.get_all_data()

        face.run(story())

        assert ORIGINAL == path.read_bytes()

    def test_a_sum_that_json_cannot_hold(self, face: Any, path: pathlib.Path) -> None:
        """A sum beyond what JSON can hold is refused, although both of its parts are valid."""
        largest = 10**4300 - 1
        document = json.dumps({"float": 1.7e308, "int": largest}).encode()
        path.write_bytes(document)

        async def story() -> None:
            ctx = await done(face.context.create(path))
            for key, delta in (("float", 1.7e308), ("int", 1)):
                with pytest.raises(UnserializableValueError) as caught:
                    await done(ctx.incr(key, delta))
                assert isinstance(caught.value, ValueError)
            with pytest.raises((UnserializableValueError, OverflowError)):
                await done(ctx.incr("int", 0.5))
            assert largest - 1 == await done(ctx.incr("int", -1))

        face.run(story())

        assert {"float": 1.7e308, "int": largest - 1} == json.loads(path.read_bytes())
