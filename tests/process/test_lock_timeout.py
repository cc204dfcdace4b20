"""How long a call waits for the lock: invalid times are refused, and all others are kept."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from persistent_context import LockTimeoutError
from stories import CALLS, WRITES, done, either_face, incr, transaction

face = either_face


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


class TestLockTimeout:
    @pytest.mark.parametrize("wrong", [-1, -0.001, -math.inf, math.nan])
    def test_values_that_are_no_time(self, face: Any, path: Path, wrong: float) -> None:
        """A negative time, or NaN, raises ValueError at once."""
        with pytest.raises(ValueError, match="timeout"):
            face.context(path, lock_timeout=wrong)

    @pytest.mark.parametrize("wrong", ["30", b"30", True, False, None, [30], 1j], ids=repr)
    def test_types_that_are_no_time(self, face: Any, path: Path, wrong: Any) -> None:
        """A value that is not a number raises TypeError at once; so does a bool, nearly always a mistake."""
        with pytest.raises(TypeError, match="timeout"):
            face.context(path, lock_timeout=wrong)

    @pytest.mark.parametrize("good", [0, 0.0, 1, 0.5, 1e9, math.inf, 10**30])
    def test_a_free_lock_is_taken_whatever_the_time(self, face: Any, path: Path, good: float) -> None:
        """Any time, from zero to infinity, gets a lock that is free."""

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=good))
            for call in CALLS.values():
                await call(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("call", WRITES)
    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_a_held_lock_ends_in_an_error_that_tells_all(
        self, face: Any, path: Path, call: str, timeout: float, hold: Any
    ) -> None:
        """A timeout raises a LockTimeoutError that names the file and how long it waited; nothing is changed."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=timeout))
            with pytest.raises(LockTimeoutError) as caught:
                await CALLS[call](ctx)
            assert isinstance(caught.value, TimeoutError)
            assert str(path) == os.fspath(caught.value.filepath)
            assert caught.value.waited >= timeout
            assert path.name in str(caught.value)
            assert ({"fresh"} if call == "save" else set()) == ctx.unsaved_keys()

        with hold(path):
            face.run(story())

        assert b'{"a": 1}' == path.read_bytes()

    def test_reading_waits_for_nobody(self, face: Any, path: Path, hold: Any) -> None:
        """Reading needs no lock, so it does not wait for a holder."""
        path.write_bytes(b'{"a": 1}')

        async def story() -> dict[str, Any]:
            return (await done(face.context.create(path, lock_timeout=0))).get_all_data()

        with hold(path):
            loaded = face.run(story())

        assert {"a": 1} == loaded

    @pytest.mark.parametrize("wrong", [-1, math.nan])
    def test_a_transaction_s_own_time_is_checked_too(self, face: Any, path: Path, wrong: float) -> None:
        """The timeout of `transaction` follows the same rules."""

        async def story() -> None:
            with pytest.raises(ValueError, match="timeout"):
                async with transaction(face.context(path), timeout=wrong):
                    pytest.fail("the transaction began")
            for no_number in ("1", True):
                with pytest.raises(TypeError, match="timeout"):
                    async with transaction(face.context(path), timeout=no_number):
                        pytest.fail("the transaction began")

        face.run(story())

        assert not path.exists()

    def test_a_transaction_s_own_time_goes_first(self, face: Any, path: Path, hold: Any) -> None:
        """The timeout of `transaction` takes precedence over the context's."""

        async def story() -> None:
            with pytest.raises(LockTimeoutError):
                async with transaction(face.context(path, lock_timeout=math.inf), timeout=0):
                    pytest.fail("the transaction began")

        with hold(path):
            face.run(story())

    def test_trying_only_is_enough_when_nobody_else_is_there(self, face: Any, path: Path) -> None:
        """Successive calls with timeout 0 in one process never find the lock still held by the previous one."""

        async def story() -> None:
            ctx = await done(face.context.create(path, lock_timeout=0))
            for number in range(1, 51):
                assert number == await done(ctx.incr("n"))
                async with transaction(ctx) as tx:
                    tx["more"] = number

        face.run(story())

        assert {"n": 50, "more": 50} == json.loads(path.read_bytes())

    @pytest.mark.parametrize("content", [b"{}", b"{ broken"], ids=["good", "bad"])
    def test_trying_again_after_the_holder_let_go(self, face: Any, path: Path, hold: Any, content: bytes) -> None:
        """A call that timed out neither holds up the next try, nor touches the file any more."""
        path.write_bytes(content)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=0)
            with hold(path):
                for _ in range(3):
                    with pytest.raises(LockTimeoutError):
                        await incr(ctx)
            with FileLock(f"{path}.lock", timeout=10):
                assert content == path.read_bytes()
                assert {path.name, path.name + ".lock"} == names(path.parent)
            assert await done(ctx.lock_holder()) is None
            await incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())

    def test_for_ever_ends_when_the_lock_is_free(self, face: Any, path: Path, hold: Any) -> None:
        """A call that waits without a limit gets the lock when its holder releases it."""
        held = hold(path)

        async def story() -> None:
            ctx = face.context(path, lock_timeout=math.inf)
            held.child.say()
            await incr(ctx)

        face.run(story())

        assert {"fresh": 1} == json.loads(path.read_bytes())
