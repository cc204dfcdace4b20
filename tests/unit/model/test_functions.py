"""The functions given to mutate() and on_conflict: a forgotten return, and results that would have to be awaited."""

import asyncio
import functools
import os

import pytest


async def double(value):
    """A coroutine function."""
    return value * 2


class Doubling:
    """Its instances are called like coroutine functions."""

    async def __call__(self, value):
        return value * 2

    async def method(self, value):
        return value * 2


ASYNC = {
    "function": double,
    "partial": functools.partial(double),
    "partial of a partial": functools.partial(functools.partial(double)),
    "object": Doubling(),
    "partial of an object": functools.partial(Doubling()),
    "method": Doubling().method,
}


def append(items):
    items.append(4)


def append_a_set(items):
    items.append({4})


def set_inside(value):
    value["deep"]["x"] = 2


class Later:
    """An awaitable that is not a coroutine."""

    def __await__(self):
        yield


@pytest.fixture
def ctx(face, path):
    """A context over a file with some values."""
    path.write_text('{"jobs": [1,2,3], "deep": {"deep": {"x": 1.0}}, "none": null, "n": 1}', encoding="utf-8")
    return face.open(path)


class TestAForgottenReturn:
    @pytest.mark.parametrize(("key", "fn"), [("jobs", append), ("jobs", append_a_set), ("deep", set_inside)])
    def test_is_refused(self, face, ctx, path, key, fn):
        """When a function changes its argument and returns None, the error says to return the new value."""
        before = path.read_bytes()
        with pytest.raises(TypeError, match=rf"'{key}' in place and returned None: return the new value"):
            face.do(ctx.mutate, key, fn)

        assert before == path.read_bytes()

    def test_of_the_default_is_refused_too(self, face, ctx, path):
        """A forgotten return is refused for a missing key too."""
        before = path.read_bytes()
        with pytest.raises(TypeError, match="return the new value"):
            face.do(ctx.mutate, "new", append, default=[])

        assert before == path.read_bytes()

    def test_fails_this_call_alone(self, face, ctx):
        """After the refusal, the context works as before."""
        with pytest.raises(TypeError, match="return the new value"):
            face.do(ctx.mutate, "jobs", append)

        assert [1, 2, 3, 4] == face.do(ctx.mutate, "jobs", lambda items: [*items, 4])

    def test_a_missing_key_without_a_default_is_explained(self, face, ctx):
        """The function's own error has a note, as it was given None."""
        with pytest.raises(TypeError) as caught:
            face.do(ctx.mutate, "new", lambda value: value + 1)

        assert ["'new' is missing, so fn was given None: pass a default"] == caught.value.__notes__

    @pytest.mark.parametrize("key", ["jobs", "none"])
    def test_another_error_of_the_function_is_not(self, face, ctx, key):
        """It is raised as it is."""
        with pytest.raises(ZeroDivisionError) as caught:
            face.do(ctx.mutate, key, lambda _: 1 / 0)

        assert not hasattr(caught.value, "__notes__")

    @pytest.mark.parametrize("key", ["jobs", "deep", "none", "n", "new"])
    def test_none_on_purpose_is_a_value(self, face, ctx, path, key):
        """A function that leaves its argument unchanged may return None."""
        assert None is face.do(ctx.mutate, key, lambda _: None)
        assert None is face.open(path)[key]

    def test_a_function_may_change_and_return_its_argument(self, face, ctx):
        """The argument is a copy, which the function may change and return."""

        def fn(items):
            items.append(4)
            return items

        assert [1, 2, 3, 4] == face.do(ctx.mutate, "jobs", fn)


class TestAResolver:
    @pytest.fixture
    def in_conflict(self, face, path):
        """A function: returns a context with this resolver, whose change of "d" conflicts with what is in the file."""

        def make(resolver):
            path.write_text('{"d": {"both": 1}}', encoding="utf-8")
            ctx = face.open(path, on_conflict=resolver)
            ctx["d"]["both"] = 2
            path.write_text('{"d": {"both": 3, "acknowledged": true}}', encoding="utf-8")
            return ctx

        return make

    @pytest.mark.parametrize("call", ["save", "incr", "transaction"])
    @pytest.mark.parametrize("which", [0, 1, 2], ids=["base", "mine", "theirs"])
    def test_a_forgotten_return_is_refused(self, face, path, in_conflict, call, which):
        """A resolver that merges in place and returns None would delete what both sides have written."""

        def resolve(key, *values):
            values[which].update(values[(which + 1) % 3], merged=True)

        ctx = in_conflict(resolve)
        with pytest.raises(TypeError, match="on_conflict changed a value of 'd' in place and returned None: return"):
            if call == "save":
                face.do(ctx.save)
            elif call == "incr":
                face.do(ctx.append, "d", 1)
            else:
                face.inside(ctx.transaction, lambda tx: tx["d"])

        assert '{"d": {"both": 3, "acknowledged": true}}' == path.read_text(encoding="utf-8")
        assert {"d"} == ctx.unsaved_keys()

    def test_none_on_purpose_is_a_value(self, face, path, in_conflict):
        """A resolver that changes nothing may return None."""
        face.do(in_conflict(lambda *_: None).save)

        assert None is face.open(path)["d"]

    def test_deleted_on_one_side(self, face, path):
        """An absent value cannot be changed in place."""
        path.write_text('{"d": 1}', encoding="utf-8")
        ctx = face.open(path, on_conflict=lambda *_: None)
        ctx["d"] = 2
        path.write_text("{}", encoding="utf-8")
        face.do(ctx.save)

        assert None is face.open(path)["d"]

    def test_a_coroutine_that_it_returns_is_refused_and_closed(self, face, path, in_conflict):
        """Only its result could be written, and nothing can be awaited under the lock."""
        made = []

        def resolve(*_):
            made.append(double(1))
            return made[0]

        with pytest.raises(TypeError, match="on_conflict must return the new value of 'd', not an awaitable"):
            face.do(in_conflict(resolve).save)

        assert made[0].cr_frame is None

    @pytest.mark.parametrize("resolver", ASYNC.values(), ids=ASYNC)
    def test_a_coroutine_function_is_refused_at_once(self, face, path, resolver):
        """The constructor refuses it."""
        with pytest.raises(TypeError, match="on_conflict must be a plain function, not an async one"):
            face.cls(path, on_conflict=resolver)


class TestAsynchronousFunctions:
    @pytest.mark.parametrize("fn", ASYNC.values(), ids=ASYNC)
    def test_a_coroutine_function_is_refused_at_the_call(self, face, tmp_path, fn):
        """A coroutine function is refused before anything is queued, locked or written, and is never called."""
        ctx = face.cls(tmp_path / "state.json")
        with pytest.raises(TypeError, match=r"fn must be a plain function, not an async one: it runs under the lock"):
            face.do(ctx.mutate, "n", fn)

        assert [] == os.listdir(tmp_path)

    def test_a_coroutine_that_it_returns_is_refused_and_closed(self, face, ctx, path):
        """A returned coroutine is closed: Python's warning that it was never awaited would fail this test."""
        before, made = path.read_bytes(), []

        def fn(value):
            made.append(double(value))
            return made[0]

        with pytest.raises(TypeError, match="not an awaitable"):
            face.do(ctx.mutate, "n", fn)

        assert (before, True) == (path.read_bytes(), made[0].cr_frame is None)

    def test_another_awaitable_is_refused(self, face, ctx, path):
        """Any other awaitable is refused too."""
        before = path.read_bytes()
        with pytest.raises(TypeError, match="not an awaitable"):
            face.do(ctx.mutate, "n", lambda _: Later())

        assert before == path.read_bytes()

    def test_calls_of_the_same_cycle_go_on(self, path):
        """Refusing one call does not affect the others in its cycle."""
        from persistent_context import PersistentContext

        async def main():
            ctx = PersistentContext(path)
            calls = (ctx.incr("n"), ctx.mutate("n", lambda _: double(1)), ctx.incr("n"))
            return await asyncio.gather(*calls, return_exceptions=True)

        first, refused, last = asyncio.run(main())

        assert (1, TypeError, 2) == (first, type(refused), last)
